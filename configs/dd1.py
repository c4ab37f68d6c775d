"""DD1: all units in one or two passes, distilled (arXiv 2412.17153).

Presets: default (digits) and fashion over LlamaGen, var and flexvar (digits)
over VAR and FlexVAR, four stages: tokenizer, teacher, student, then what is
drawn is looked at; minutes (digits of 16 codes); smoke; and the published
students at 256 px: var_d16, var_d20, var_d24, llamagen_b and llamagen_l; paper
is var_d16. These expect their teacher and its tokenizer, converted, at
runs/<their name> and where configs/var.py and configs/llamagen.py expect them,
and ImageNet in TFDS for its classes. Batch, rate and average are said to be the
paper's; the number of updates is ours.
"""

from ar_jax.systems.dd1 import SIZES
from configs import common, flexvar, llamagen, var
from configs.families import token
from configs.families.around import behind, distilled


def student(like, **model):
  """A run that trains the student of the run `like`, which draws the pairs as
  it draws its samples."""
  c = distilled(like, "dd1", **model)
  c.sample.options.passes = 1
  return c


def staged(like, *, step, **model):
  """The stages of another config with a student behind its generator, whose
  second pass begins at `step`."""
  c = student(like.generator, starts=(0, step), split=step, **model)
  c.weights.target = "generator"
  c.cache.views = 8  # pairs of each image's class
  c.optim.update(lr=1e-3, schedule="cosine", warmup=0.05)
  c.batch = 64
  c.train.update(steps=1000, save_every=500, ema=0.99)
  return behind(like, "student", c)


def minutes():
  """Digits at 8 pixels, 16 codes, in the sizes of the experiment: what the
  notebook trains."""
  like = token.minutes(size=8, vocab=32, depth=3, width=96)
  like.generator.batch = 64
  like.generator.train.steps = 250
  like.generator.optim.lr = 3e-3
  c = staged(like, step=6)
  c.student.cache.views = 2
  c.student.optim.lr = 3e-3
  c.student.train.update(steps=400, save_every=200, ema=0.98)
  return common.trained_alone(c)


def published(name):
  kind, size = name.rsplit("_", 1)
  like = (var if kind == "var" else llamagen).get_config(size)
  like.sample.options.update(
    dict(guidance=3.0, top_k=900, top_p=0.95)
    if kind == "var"
    else dict(guidance=2.0)
  )
  c = student(like, **SIZES[name])
  c.weights.target = f"runs/{name}"
  c.cache.views, c.batch = 1, 512
  c.optim.update(lr=1e-4, schedule="constant", warmup=0)
  c.train.update(steps=200_000, ema=0.9999, log_every=100, save_every=5000)
  return common.fid(c)


def smoke():
  """Seconds on two cores: fake data, a teacher that knows nothing."""
  return student(llamagen.get_config("smoke"), starts=(0, 6), split=6)


get_config = common.presets(
  __file__,
  default=lambda: staged(llamagen.get_config("default"), step=16),
  minutes=minutes,
  fashion=lambda: staged(llamagen.get_config("fashion"), step=16),
  var=lambda: staged(var.get_config("default"), step=2),
  flexvar=lambda: staged(flexvar.get_config("default"), step=2),
  smoke=smoke,
  **common.published(published, SIZES, "var_d16"),
)
