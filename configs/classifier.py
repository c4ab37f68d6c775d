"""A small classifier, trained here: the judge of samples, and a teacher.

Presets: default (digits), fashion, smoke.
"""

from configs import common


def digits():
  """scikit-learn's digits at 16 pixels; seconds on two cores."""
  c = common.base("classifier", num_classes=10)
  c.batch = 128
  c.optim.update(lr=2e-3, warmup=0, b2=0.999, weight_decay=0.0, clip=0.0)
  c.train.update(steps=400, save_every=0)
  c.evals.likelihood = {}
  return c


def fashion():
  """Fashion-MNIST padded to 32 pixels; a minute on two cores."""
  c = digits()
  c.data.update(name="fashion_mnist", size=32)
  c.train.steps = 1500
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.model.num_classes = 3
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__, default=digits, digits=digits, fashion=fashion, smoke=smoke
)
