"""RigAnything (arXiv 2502.09615): a skeleton and its skin for any shape.

Presets: default (creatures made by rule), paper (the published layers; the
sizes of the position head are our own, as those are not published), smoke.
Your own shapes: --config.data.name=rigged --config.data.path=DIR to train,
--mode=sample --config.sample.shape=my.obj to rig one.
"""

from configs import common


def run(points, joints, **model):
  """Creatures; points and joints of the data and of the model are one key."""
  c = common.run("riganything", points=points, joints=joints, **model)
  c.data = common.data(
    "creatures",
    path="",
    points=c.model.get_ref("points"),
    joints=c.model.get_ref("joints"),
  )
  c.batch, c.train.steps, c.train.ema = 32, 4000, 0.995
  c.optim.update(lr=3e-4, weight_decay=0.05)
  c.sample.update(count=16, batch=16, columns=4, shape="")
  c.sample.options.update(steps=50)
  c.evals.likelihood = {}
  c.evals.skeletons = {"n": 200}
  return c


def default():
  sizes = dict(width=128, depth=4, heads=4, head_width=128, head_depth=3)
  return run(256, 16, **sizes)


def paper():
  """Published: 1024 points, 64 joints, 12 layers of 1024, the optimiser."""
  c = run(1024, 64, width=1024, depth=12, heads=16, head_width=1024,
          head_depth=3, remat="weights", dtype="bfloat16")  # fmt: skip
  c.optim.update(lr=1e-4, b2=0.95, weight_decay=0.05, warmup=500 / 100_000)
  c.batch, c.train.steps = 256, 100_000  # ours
  c.sample.options.steps = 300
  return c


def smoke():
  """Of so little noise that a net that knows nothing draws within the box."""
  c = run(16, 12, width=16, depth=2, heads=2, head_width=16, head_depth=1,
          repeats=2, stop_steps=2, most_noise=0.001)  # fmt: skip
  c.data.count = 32
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  c.sample.options.steps = 4
  c.evals.skeletons.n = 4
  return c


get_config = common.presets(__file__, default=default, paper=paper, smoke=smoke)
