"""AR-Net: sparse autoregression by gradients (arXiv 1911.12436).

Presets: default (sunspots, forecast for 10 years), co2, process (3 lags among
100), minutes (the same), paper (its code 0.1), later (its code 1.2, whose rate
a range test finds; here it is set), smoke. Your own series:
--config.data.name=csv --config.data.path=my.csv
"""

import functools

from configs import common
from configs.families import series


def run(name, order, density, *, steps, batch, lr, length=1, **model):
  """A series, of which a share `density` of `order` lags matters."""
  c = series.run("ar_net", name, history=order, length=length,
                 density=density, **model)  # fmt: skip
  c.model.order = c.data.get_ref("history")  # all that is known is read
  c.batch, c.optim.lr = batch, lr
  c.train.update(steps=steps, log_every=100, save_every=0)
  return c


def process(order, *, count, lags=(), **more):
  """An autoregressive process of three lags."""
  c = run("ar_process", order, more.pop("density", 3 / order), **more)
  c.data.update(count=count, lags=lags)
  return c


def minutes():
  """`process`, forecast for 20 times: what the notebook trains."""
  return process(100, count=10_000, lags=(1, 3, 10), factor=0.03, c1=2.0,
                 c2=2.0, steps=1000, batch=128, lr=5e-3, length=20)  # fmt: skip


def paper(count=125_000, order=20, epochs=10, batch=128):
  """As published: lr 2e-4, times 0.9 after each of 10 epochs."""
  steps = epochs * (int(0.8 * count) - order) // batch
  c = process(order, count=count, steps=steps, batch=batch, lr=2e-4,
              factor=0.02, ramp="stairs", ramp_steps=steps)  # fmt: skip
  c.optim.schedule = "tenths"
  return c


def later(count=10_000, order=20, epochs=20, batch=32):
  """The code's version 1.2; the decay of Adam's first moment stays."""
  steps = epochs * (int(0.9 * count) - order) // batch
  c = process(order, count=count, steps=steps, batch=batch, lr=1e-2, c1=2.0,
              c2=2.0, factor=0.01, ramp="square", ramp_steps=steps // 2,
              error="huber")  # fmt: skip
  c.data.test = 0.1
  c.optim.update(schedule="one_cycle", b1=0.95, b2=0.99, eps=1e-5,
                 weight_decay=0.01)  # fmt: skip
  return c


def smoke():
  c = process(6, count=64, density=0.5, steps=4, batch=4, lr=1e-2, length=5)
  return series.seconds(c)


get_config = common.presets(
  __file__,
  default=functools.partial(
    run, "sunspots", 40, 3 / 40, steps=4000, batch=32, lr=2e-3, length=10
  ),
  co2=functools.partial(
    run, "co2", 120, 6 / 120, steps=4600, batch=64, lr=2e-3, length=26
  ),
  process=functools.partial(
    process,
    100,
    count=10_000,
    lags=(1, 3, 10),
    factor=0.03,
    c1=2.0,
    c2=2.0,
    steps=2480,
    batch=128,
    lr=5e-3,
  ),  # fmt: skip
  minutes=minutes,
  paper=paper,
  later=later,
  smoke=smoke,
)
