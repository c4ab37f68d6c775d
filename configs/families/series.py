"""AR-Net and mesa-optimization: forecasts of a series from its history."""

from configs import common


def run(system, name, *, history, length, stride=1, **model):
  """The run of a system on the series `name`.

  The lengths of the data and of the model are one key, whichever is set.
  Options that all sets of series take are keys of this one, so that
  --config.data.name=csv --config.data.path=my.csv is all that a user's own
  series need.
  """
  c = common.run(system, length=length, **model)
  c.data = common.data(
    name,
    path="",
    history=history,
    length=c.model.get_ref("length"),
  )
  if stride != 1:
    c.data.stride = stride
  c.optim.update(b2=0.999, warmup=0.0, weight_decay=0.0, clip=0.0)
  c.sample.update(count=16, batch=16, columns=4)
  c.evals.likelihood = {}
  c.evals.series = {}
  return c


def descent(c, lr, steps):
  """Plain gradient descent of the run c, all of its sequences at once."""
  c.optim.update(kind="sgd", schedule="constant", lr=lr)
  c.batch = c.data.count
  c.train.update(steps=steps, log_every=10, save_every=0)
  return c


def seconds(c, steps=4):
  """The run c in a moment."""
  c.batch = c.eval_batch = 4
  c.train.update(steps=steps, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  return c
