"""Mesa-optimization: a layer that descends in context (arXiv 2405.16845).

Presets: default (one number, small), the published runs of 10,000 sequences of
100 times: gauss05, gauss1, gauss2, sparse05, sparse1, sparse2, full; paper is
gauss05; sunspots and co2, delayed by four values; smoke.
"""

from configs import common
from configs.families import series

# law of the first vector, its scale, learning rate.
PUBLISHED = {
  "gauss05": ("gauss", 0.5, 1e-3),
  "gauss1": ("gauss", 1.0, 1e-4),
  "gauss2": ("gauss", 2.0, 2e-6),
  "sparse05": ("sparse", 0.5, 3e-2),
  "sparse1": ("sparse", 1.0, 1e-3),
  "sparse2": ("sparse", 2.0, 1e-4),
  "full": ("full", 1.0, 5e-4),
}


def turns(law, scale, lr, *, count, times, steps, dim=5):
  """Full-batch descent on so many sequences; half of each is history."""
  c = series.run("mesa_optimization", "unitary_process", history=times // 2,
                 length=times - times // 2, dim=dim, a=0.1, b=0.1)  # fmt: skip
  c.data.update(law=law, scale=scale, count=count, tests=max(count // 10, 4))
  c.data.dim = c.model.get_ref("dim")
  return series.descent(c, lr, steps)


def published(name):
  c = turns(*PUBLISHED[name], count=10_000, times=100, steps=200)
  c.train.accumulate = 20  # scores of 500 sequences at once
  return c


def delayed(name, stride):
  """Real series, as (y_t, .., y_(t-3)); Adam, for there is no theorem."""
  c = series.run("mesa_optimization", name, history=5, length=22, dim=4,
                 stride=stride, reads="delay")  # fmt: skip
  c.data.test_stride = stride
  c.batch, c.optim.lr, c.optim.schedule = 128, 3e-3, "constant"
  c.train.update(steps=300, save_every=0)
  return c


def smoke():
  c = turns("gauss", 0.5, 0.3, count=8, times=8, steps=4, dim=2)
  return series.seconds(c)


get_config = common.presets(
  __file__,
  default=lambda: turns("sparse", 1.0, 3e-3, count=300, times=30, steps=300),
  sunspots=lambda: delayed("sunspots", 1),
  co2=lambda: delayed("co2", 4),
  smoke=smoke,
  **common.published(published, PUBLISHED, "gauss05"),
)
