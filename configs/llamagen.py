"""LlamaGen: next-token prediction (arXiv 2406.06525).

Presets: default (digits), fashion, smoke, and the published class-conditional
models: b and l at 256 px; b384, l384, xl, xxl, 3b at 384 px; paper is l. They
expect the published tokenizer, converted, at runs/vq_ds16_c2i, and ImageNet in
TFDS. From texts: `configs/llamagen_text.py`.
"""

from configs import common, vq
from configs.families.tokenizer import patch_codes

# depth, width, heads, image side, scale of guidance of the best FID.
PUBLISHED = {
  "b": (12, 768, 12, 256, 2.0),
  "l": (24, 1024, 16, 256, 2.0),
  "b384": (12, 768, 12, 384, 2.0),
  "l384": (24, 1024, 16, 384, 2.0),
  "xl": (36, 1280, 20, 384, 1.75),
  "xxl": (48, 1536, 24, 384, 1.75),
  "3b": (24, 3200, 32, 384, 1.65),
}


def get_config(preset: str = "default"):
  published = {
    name: lambda row=row: _published(*row) for name, row in PUBLISHED.items()
  }
  makers = {
    "default": digits,
    "fashion": fashion,
    "smoke": smoke,
    "smoke_real": smoke_real,
    "paper": published["l"],
    **published,
  }
  return common.choose("configs/llamagen.py", makers, preset)()


def generator(tokenizer, **model):
  """A run of LlamaGen on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "llamagen", **model)
  c.optim.update(
    schedule="constant", warmup=0, b1=0.9, b2=0.95, weight_decay=0.05, clip=1.0
  )
  c.sample.options.update(
    guidance=1.75, schedule="constant", temperature=1.0, top_k=0, top_p=1.0
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then LlamaGen."""
  tokenizer = vq.get_config("digits")
  c = generator(
    tokenizer, depth=4, width=128, heads=4, num_classes=10, multiple_of=32
  )
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=300, save_every=150, ema=0.98)
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(tokenizer, c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then LlamaGen."""
  tokenizer = vq.get_config("fashion")
  c = generator(
    tokenizer, depth=6, width=160, heads=5, num_classes=10, multiple_of=32
  )
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=700, save_every=350, ema=0.99)
  c.evals.judge_accuracy = {"n": 1000}
  c.evals.frechet = {"features": "judge", "n": 2000}
  return common.from_nothing(tokenizer, c)


def _published(depth, width, heads, size, guidance):
  tokenizer = vq.get_config("paper")
  tokenizer.model.size = size
  c = generator(
    tokenizer,
    depth=depth,
    width=width,
    heads=heads,
    num_classes=1000,
    remat=common.remat(depth >= 36 or width >= 3200),
    dtype="bfloat16",
  )
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


def smoke(tokenizer=None):
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  tokenizer = tokenizer or patch_codes()
  c = generator(
    tokenizer, depth=2, width=32, heads=2, num_classes=3, multiple_of=32
  )
  return common.seconds(c, tokenizer)


def smoke_real():
  """The same over the real tokenizer, untrained."""
  return smoke(vq.get_config("smoke"))
