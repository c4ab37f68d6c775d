"""SemAIM: patches of an image in a semantic order (arXiv 2312.10457).

Presets: default (digits), fashion, smoke, and the published models b (which is
paper) and l, and h of the release: ImageNet in TFDS, at random crops of the
whole height or width. Another order: `--config.model.order=stochastic`.
"""

from ar_jax.systems.semaim import SIZES
from configs import common

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def run(**model):
  c = common.base("semaim", **model)
  c.optim.update(weight_decay=0.05, warmup=30 / 800, clip=3.0)
  c.sample.options.known = 0.5
  c.evals.likelihood = {}
  return c


def digits():
  """scikit-learn's digits at 8 pixels, as they are; a minute on two cores."""
  c = run(depth=4, width=64, heads=4, patch=2, side=4, channels=1)
  c.model.blur = (0, 0.0)
  c.data.size = 8
  c.batch = 128
  c.train.update(steps=400, save_every=200)
  c.evals.probe = {"per_class": (2, 5, 10), "repeats": 10}
  return c


def fashion():
  """Fashion-MNIST at 28 pixels; minutes on two cores."""
  c = digits()
  c.model.update(patch=4, side=7, blur=(3, 0.5))
  c.data.update(name="fashion_mnist", size=28)
  c.train.update(steps=4000, save_every=1000)
  return c


def published(name):
  c = run(**SIZES[name], patch=16, side=14, channels=3, dtype="bfloat16")
  c.model.normal = IMAGENET
  c.data.update(name="imagenet2012", size=224, channels=3, crop="random")
  c.augment = ("flip",)
  c.batch = 2048
  c.optim.lr = 2e-4 * c.batch / 256
  steps = 800 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.evals.probe = {"per_class": (10, 100), "options": {"pool": "class"}}
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.model.update(depth=2, query_depth=1, width=16, heads=2, blur=(3, 0.5))
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  c.evals.probe = {"per_class": (2,), "repeats": 1}
  return c


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  smoke=smoke,
  **common.published(published, ("b", "l", "h"), "b"),
)
