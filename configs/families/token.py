"""LlamaGen and its kin: codes of one map, drawn in the order of a plan."""

from configs import common, vq
from configs.families.tokenizer import digits_fitted, patch_codes

OPTIM = dict(
  schedule="constant", warmup=0, b1=0.9, b2=0.95, weight_decay=0.05, clip=1.0
)


def over(tokenizer, system="llamagen", **model):
  """A run of the system on the units of the tokenizer of another config."""
  c = common.over(tokenizer, system, **model)
  c.optim.update(OPTIM)
  c.sample.options.update(
    guidance=1.75, schedule="constant", temperature=1.0, top_k=0, top_p=1.0
  )
  return c


def digits(system="llamagen", **model):
  """scikit-learn's digits at 16 pixels: the tokenizer, then the system."""
  tokenizer = vq.get_config("digits")
  sizes = dict(depth=4, width=128, heads=4, num_classes=10, multiple_of=32)
  c = over(tokenizer, system, **sizes | model)
  c.batch = 16  # of 1,500 images: more updates of few draw better digits
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=1200, save_every=600, ema=0.98)
  return common.on_digits(tokenizer, c)


def minutes(system="llamagen", size=16, vocab=64, **model):
  """Digits as codes of their patches, which k-means finds, so that the system
  is all that is trained: what notebooks train."""
  tokenizer = digits_fitted(size, vocab=vocab, patch=2)
  sizes = dict(depth=4, width=128, heads=4, num_classes=10, multiple_of=32)
  c = over(tokenizer, system, **sizes | model)
  c.batch = 32
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=300, save_every=150, ema=0.98)
  return common.trained_alone(common.from_nothing(tokenizer, c))


def fashion(system="llamagen", **model):
  """Fashion-MNIST at 32 pixels: the tokenizer, then the system."""
  tokenizer = vq.get_config("fashion")
  sizes = dict(depth=6, width=160, heads=5, num_classes=10, multiple_of=32)
  c = over(tokenizer, system, **sizes | model)
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=700, save_every=350, ema=0.99)
  return common.on_fashion(tokenizer, c)


def emoji(system="llamagen", **model):
  """Pictograms at 32 pixels, of a group of them: the tokenizer, then the
  system. With the keyword `text`, an encoder, by their names."""
  tokenizer = vq.get_config("emoji")
  if "text" in model:
    tokenizer.data.text = model["text"]["length"]
  else:
    model["num_classes"] = 10
  sizes = dict(depth=6, width=160, heads=5, multiple_of=32)
  c = over(tokenizer, system, **sizes | model)
  c.batch = 32  # of 3,346 images
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=3000, save_every=500, ema=0.99)
  return common.from_nothing(tokenizer, c)


def published(
  depth, width, heads, size=256, guidance=2.0, *, system="llamagen", **model
):
  """A model on ImageNet, by LlamaGen's recipe of 300 epochs."""
  tokenizer = vq.get_config("paper")
  tokenizer.model.size = size
  sizes = dict(
    depth=depth,
    width=width,
    heads=heads,
    num_classes=1000,
    remat=common.remat(depth >= 36 or width >= 3200),
    dtype="bfloat16",
  )
  c = over(tokenizer, system, **sizes | model)
  c.weights.tokenizer = "runs/vq_ds16_c2i"
  c.data.update(name="imagenet2012", size=size)
  # Ten views of each image are coded once and one is drawn each time; the
  # official ones are five fixed crops, each also flipped.
  c.augment = ("flip",)
  c.cache.views = 10
  c.batch = 256
  steps = 300 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.optim.lr = 1e-4
  # The FID protocol: no filters; at 384 px, images are brought to 256.
  c.sample.options.update(guidance=guidance)
  if size != 256:
    c.sample.options.size = 256
  return common.fid(c)


def smoke(system="llamagen", real=False, **model):
  """Seconds on two cores: fake data, a tokenizer that knows nothing, of
  patches or the real one."""
  tokenizer = vq.get_config("smoke") if real else patch_codes()
  sizes = dict(depth=2, width=32, heads=2, num_classes=3, multiple_of=32)
  c = over(tokenizer, system, **sizes | model)
  return common.seconds(c, tokenizer)


def language(data, vocab, length, system="llamagen", **model):
  """A language model: one symbol of a text after the other, without a
  condition. `sample.prompt` is how every sample begins."""
  text = dict(name="given", form="tokens", vocab=vocab, length=length)
  known = dict(tokenizer=text, num_classes=0, prefix_rope="line")
  c = common.run(system, **known, multiple_of=32, **model)
  c.data = data
  c.optim.update(OPTIM)
  common.prompted(c)
  c.sample.options.update(until_stop=True, temperature=1.0, top_k=0, top_p=1.0)
  c.evals.likelihood = {}
  return c


def text():
  """The characters of the King James Bible, in windows of 128. For a text of
  your own: --config.data.name=text --config.data.path=FILE."""
  kjv = common.data("chars", corpus="kjv", path="", length=128)
  c = language(kjv, 65, 128, depth=4, width=128, heads=4)
  c.batch = 32
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=1000, save_every=500, ema=0.99)
  c.sample.update(count=16, batch=16)
  return c


def smoke_text():
  """Seconds on two cores: a Markov chain, whose texts end now and then."""
  chain = common.data("markov_text", length=12, symbols=4, end=0.1, count=64)
  c = language(chain, 5, 12, depth=1, width=32, heads=2)
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=6, batch=4)
  return c
