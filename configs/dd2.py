"""DD2: all units in one pass, distilled by scores (arXiv 2510.21003).

Presets: default (digits) and fashion over LlamaGen, var (digits) over VAR, five
stages: tokenizer, teacher, the scores of the teacher, the student, then what is
drawn is looked at; smoke; and the published recipes at 256 px: var_d16,
var_d20, var_d24 and llamagen_l; paper is var_d16. Those of VAR expect their
teacher and its tokenizer, converted, at runs/<their name> and where
configs/var.py expects them, that of LlamaGen the published model at
runs/llamagen_l and its tokenizer; and ImageNet in TFDS for its classes. The
small network is ours: 3 layers of 1024.
"""

from ar_jax.systems.dd2 import SIZES
from configs import common, llamagen, var
from configs.families import scale, token
from configs.families.around import distilled

# Updates of guide and generator; and those of a second run, which begins with
# the average of the first and the guide alone, with two updates of it for one.
UPDATES = {
  "var_d16": (48_000, (8000, 22_500)),
  "var_d20": (96_000, (8000, 54_000)),
  "var_d24": (45_000, None),
  "llamagen_l": (72_000, None),
}


def run(like, stage, of="scores", teacher="generator", **model):
  """A run of a stage beside the run `like`, of the params of the run `of`."""
  c = distilled(like, "dd2", stage=stage, **model)
  c.weights.target = teacher
  c.cache.views = int(stage == "scores")  # a generator makes its own
  c.sample.options.update(dict(steps=10) if stage == "scores" else {})
  if of:
    c.weights.params = of
  return c


def staged(like):
  """The stages of another config with those of DD2 behind its generator."""
  scores = run(like.generator, "scores", of=None)
  scores.cache.views = 8  # images of each class of the data
  scores.batch = 64
  scores.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  scores.train.update(steps=1000, save_every=500, ema=0.99)
  student = run(like.generator, "generator")
  student.batch = 64
  student.optim.update(lr=1e-3, schedule="cosine", warmup=0.05)
  student.optim.weight_decay = 0.0
  student.train.update(steps=3000, save_every=1000, ema=0.99, log_every=49)
  return common.stages(
    tokenizer=like.tokenizer,
    generator=like.generator,
    scores=scores,
    student=student,
    samples=common.stage("student", "sample"),
    evaluation=common.stage("student", "eval"),
  )


def published(name):
  kind, size = name.rsplit("_", 1)
  small, runs = dict(width=1024), {}
  own = dict(SIZES[name])
  guide, generator = own.pop("rates")
  optim = dict(schedule="constant", warmup=0, weight_decay=0.0, b1=0.9, b2=0.95)
  if kind == "var":
    like, teacher, steps = var.get_config(size), f"runs/{name}", 30_000
    like.sample.options.update(guidance=2.0, top_k=900, top_p=0.95)
    heads = run(like, "scores", None, teacher, **small)
    heads.batch = 512
    heads.optim.update(optim, lr=2e-4, frozen=("guide/net",))
    heads.train.update(steps=200_000 if size == "d24" else 300_000, ema=0.9999)
    runs["heads"] = heads
  else:
    like = token.published(*llamagen.PUBLISHED[size], reader="codes")
    like.weights.params = f"runs/{name}"
    like.train.steps, teacher, steps = 200_000, "teacher", 100_000
    like.sample.options.update(guidance=2.0, top_k=8000)
    runs["teacher"] = like
  before = "heads" if "heads" in runs else None
  scores = run(like, "scores", before, teacher, **small)
  if before is None:
    del scores.weights.params  # of the teacher
  scores.batch = 512
  scores.optim.update(optim, lr=1e-4)
  scores.train.update(steps=steps, ema=0.9999)
  student = run(like, "generator", "scores", teacher, **small, **own)
  student.batch = 1024 if name in ("var_d24", "llamagen_l") else 512
  both = dict(guide=dict(lr=guide), generator=dict(lr=generator))
  student.optim.update(optim, lr=guide, groups=both, warmup=48_000)
  first, second = UPDATES[name]
  student.train.update(steps=first, ema=0.9999)
  runs |= dict(scores=scores, student=student)
  if second:
    own = dict(guides=2, alone=second[0])
    aligned = run(like, "generator", "student", teacher, **small, **own)
    aligned.batch = 512
    aligned.optim.update(optim, lr=guide, groups=both)
    aligned.train.update(steps=sum(second), ema=0.9999)
    runs["aligned"] = aligned
  for c in runs.values():
    common.fid(c)
  return common.stages(**runs)


def smoke():
  """Seconds on two cores: fake data, a teacher that knows nothing."""
  like = token.smoke(reader="codes")
  return distilled(like, "dd2", repeats=2, depth=1)


get_config = common.presets(
  __file__,
  default=lambda: staged(token.digits(reader="codes")),
  fashion=lambda: staged(token.fashion(reader="codes")),
  var=lambda: staged(scale.digits()),
  smoke=smoke,
  **common.published(published, SIZES, "var_d16"),
)
