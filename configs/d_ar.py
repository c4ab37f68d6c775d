"""D-AR: diffusion by next-token prediction (arXiv 2505.23660).

Presets: default (digits of 8 pixels: the tokenizer, LlamaGen over it), smoke;
the published ones on ImageNet: paper, the tokenizer, beside DINOv2, converted,
at runs/dinov2_b14; and l and xl, LlamaGen over it at runs/d_ar. LPIPS joins
when its two files are named: model.lpips_trunk, model.lpips_heads. What a
sample shows after each group: --config.sample.options.previews=True.
"""

import functools

from ar_jax.systems.llamagen import SIZES as LLAMAGEN
from configs import common
from configs.families import token, tokenizer
from configs.gigatok import DINO


def net(**model):
  """Of small grey images: 16 units in 4 groups, 4 x 4 patches of pixels."""
  sizes = dict(
    vocab=64, channels=4, length=16, groups=4, rows=16, width=64, heads=4,
    depths=(2, 2, 3), size=8, in_channels=1, patch=2, pixel_patch=2,
    # Without entropy all images have the same codes; see `configs/gigatok.py`.
    quantizer=dict(spread=0.3, entropy=0.1, rotation=True),
  )  # fmt: skip
  c = common.base("d_ar", **sizes | model)
  c.data.size = c.model.size
  c.optim.update(lr=2e-3, weight_decay=0.0)
  c.train.update(steps=2000, ema=0.995, save_every=500)
  c.evals.update(reconstruction={}, previews={})
  return c


def over(codes, **model):
  """LlamaGen over the codes of a run, rotated as a line, guidance rising."""
  c = token.over(codes, prefix_rope="line", **model)
  c.sample.options.update(guidance=8.0, schedule="ramp", start=1.2)
  return c


def digits():
  """scikit-learn's digits as they are; minutes on two cores."""
  c = net()
  g = over(c, depth=4, width=96, heads=4, multiple_of=32, num_classes=10)
  g.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  g.train.update(steps=1000, ema=0.99)
  g.sample.options.update(guidance=2.0, start=1.0)
  g.evals.previews = {}
  return common.on_digits(c, g)


def published():
  """The tokenizer. How long it was trained the release does not say; the steps
  are ours."""
  c = tokenizer.imagenet("d_ar", batch=512, teacher=DINO)
  c.model.update(remat=True, dtype="bfloat16")
  del c.optim.groups  # there is no discriminator
  c.weights.teacher = "runs/dinov2_b14"
  c.data.crop = "random"
  c.augment = ("flip",)
  c.optim.update(lr=2e-4, schedule="constant", warmup=500, weight_decay=0.0)
  c.train.update(steps=250_000, ema=0.999)
  c.evals.previews = {"n": 5000}
  return c


def generator(name):
  """The published transformer over it, 360,000 updates."""
  c = over(
    published(), num_classes=1000, dtype="bfloat16",
    remat=common.remat(name == "xl"), **LLAMAGEN[name],
  )  # fmt: skip
  c.weights = {"tokenizer": "runs/d_ar"}
  c.augment = ("flip",)
  c.cache.views = 10
  c.batch = 256
  c.optim.update(lr=1e-4, schedule="late_linear", end=0.1)
  c.train.update(steps=360_000, log_every=100, save_every=5000)
  return common.fid(c)


def smoke():
  """Seconds on two cores."""
  sizes = dict(
    vocab=16, length=4, groups=2, rows=5, width=16, heads=2, depths=(1, 1, 2),
    patch=4, teacher={"name": "classifier", "num_classes": 3},
    align=dict(layer=1, hidden=16),
    quantizer=dict(spread=0.3),  # an example is its own alone
  )  # fmt: skip
  return tokenizer.in_seconds(net(**sizes))


get_config = common.presets(
  __file__,
  default=digits,
  smoke=smoke,
  paper=published,
  l=functools.partial(generator, "l"),
  xl=functools.partial(generator, "xl"),
)
