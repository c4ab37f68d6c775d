"""ASVR: questions about images, and codes of what is seen (arXiv 2506.09040).

Presets: default (two digits at 8 pixels, behind a classifier of half of the
images), smoke, and paper: Vicuna-7B behind SigLIP at 378 pixels, converted, at
runs/vicuna_7b and runs/siglip_so400m, one image of an example, with `question`
and `text` as ids in the data; the preset align is its first stage.
`--config.asvr.model.codes_of` chooses semantic, appearance or none.
"""

from ar_jax.data.wrap.questions import ANSWER, SYMBOLS, WORDS
from ar_jax.systems.asvr import SIZES
from configs import classifier, common
from configs.families import token

# so400m of SigLIP without its last block, whose output is not read; the norm
# behind the layers stays, which the released code leaves out.
SIGLIP = dict(
  name="vit", size=378, patch=14, side=27, depth=26, width=1152, heads=16,
  hidden=4304, class_token=False, mean=0.5, std=0.5, act="gelu_tanh",
)  # fmt: skip


def over(data, vocab, length, words, **model):
  """A run that answers questions of these words."""
  text = dict(name="given", form="tokens", vocab=vocab, length=length)
  c = common.base("asvr", tokenizer=text, words=words, **model)
  c.data.update(data)
  c.model.size = c.data.get_ref("size")
  c.model.in_channels = c.data.get_ref("channels")
  c.optim.update(token.OPTIM)
  c.sample.options.update(temperature=0.0)
  c.evals.likelihood = {}
  return c


def asked(data, classes, **model):
  """Of two numbers each."""
  c = over(data, len(SYMBOLS), ANSWER, WORDS, **model)
  c.data.update(peers=1, same_class=False)
  c.data.derive = {"questions": {"classes": classes}}
  c.evals.transcripts = {}
  return c


def small():
  """scikit-learn's digits at 8 pixels, which a classifier has seen before."""
  digits = dict(name="digits", size=8, channels=1)
  seer = classifier.get_config("digits")
  seer.data.update(size=8, share=0.5)
  c = asked(
    digits, 10, encoder=dict(name="classifier", num_classes=10), depth=2,
    width=96, heads=4, multiple_of=32, dropout=0.0,
    codes=dict(depth=4, vocab=32), head=dict(width=64, layers=2, heads=4),
  )  # fmt: skip
  c.weights.encoder = "teacher"
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=2000, save_every=1000, ema=0.99)
  return common.stages(
    teacher=seer, asvr=c, evaluation=common.stage("asvr", "eval")
  )


def published(stage="all"):
  """LLaVA-1.5's recipe: an epoch of 558,000 captions, in which the decoder
  rests, then one of 665,000 instructions."""
  c = over(
    dict(name="folder", size=378, channels=3), 32_000, 256, 256,
    encoder=SIGLIP, images=1, stage=stage, remat=common.remat(True),
    dtype="bfloat16", dropout=0.0, **SIZES["7b"],
  )  # fmt: skip
  c.weights.encoder = "runs/siglip_so400m"
  c.weights.params = "runs/vicuna_7b"
  first = stage == "align"
  c.batch = 256 if first else 128
  c.train.update(steps=(558_000 if first else 665_000) // c.batch)
  rate = 1e-3 if first else 2e-5
  c.optim.update(lr=rate, schedule="cosine", warmup=0.03, weight_decay=0.0)
  return c


def smoke():
  """Seconds on two cores: fake data, an encoder that knows nothing."""
  fake = dict(name="fake", size=4, channels=1)
  c = asked(
    fake, 3, encoder=dict(name="classifier", num_classes=3), depth=1, width=16,
    heads=2, multiple_of=16, dropout=0.0, codes=dict(depth=3, vocab=4),
    head=dict(width=8, layers=1, heads=2),
  )  # fmt: skip
  c.data.num_classes, c.data.length = 3, 64
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__,
  default=small,
  smoke=smoke,
  paper=published,
  align=lambda: published("align"),
)
