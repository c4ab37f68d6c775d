"""ViT, an encoder of images trained as a classifier (arXiv 2010.11929).

Presets: default (digits), fashion, smoke, and paper: ViT-B/16 on ImageNet from
nothing. Published encoders (DINOv2, CLIP) are converted, not trained here.
"""

from ar_jax.encoders.vit import SIZES
from configs import common


def digits():
  """scikit-learn's digits at 16 pixels; a minute on two cores."""
  c = common.base("vit", num_classes=10, in_channels=1, patch=4, side=4)
  c.model.update(depth=3, width=64, heads=4)
  c.batch = 128
  c.optim.update(lr=2e-3, warmup=0.1, b2=0.999)
  c.train.update(steps=600, save_every=0)
  c.evals.likelihood = {}
  return c


def fashion():
  """Fashion-MNIST padded to 32 pixels; minutes on two cores."""
  c = digits()
  c.model.update(side=8, depth=4, width=96)
  c.data.update(name="fashion_mnist", size=32)
  c.train.steps = 1500
  return c


def paper():
  c = common.base("vit", num_classes=1000, **SIZES["b"])
  c.model.update(dropout=0.1, dtype="bfloat16", remat=common.remat(False))
  c.data.update(name="imagenet2012", size=224, channels=3)
  c.augment = ("flip",)
  c.batch = 4096
  c.optim.update(lr=3e-3, warmup=0.1, b2=0.999, weight_decay=0.3)
  steps = 300 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.evals.likelihood = {}
  return c


def smoke():
  """Seconds on two cores."""
  c = digits()
  c.model.update(num_classes=3, patch=2, depth=1, width=16, heads=2)
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__, default=digits, fashion=fashion, paper=paper, smoke=smoke
)
