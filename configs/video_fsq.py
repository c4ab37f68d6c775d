"""The tokenizer of videos of NBP (arXiv 2502.07737): causal, 64,000 codes.

Presets: default (digits that move), folder (clips of your own), smoke, and
paper (17 frames of 128 pixels; LPIPS joins when its two files are named:
model.lpips_trunk, model.lpips_heads).
"""

from configs import common

NAME = "video_fsq"


def over(data, **model):
  """A run on clips, whose sizes reach the model."""
  c = common.run(NAME, **model)
  c.data = data
  for ours, theirs in (
    ("size", "size"),
    ("in_channels", "channels"),
    ("frames", "frames"),
  ):
    c.model[ours] = data.get_ref(theirs)
  c.optim.update(lr=2e-3, weight_decay=0.0)
  c.evals.reconstruction = {}
  return c


def digits():
  """Digits that move, 9 frames of 16 pixels: 3 maps of 8 x 8 codes."""
  clips = dict(size=16, channels=1, frames=9, motion="drift+bounce")
  sizes = dict(ch=16, mult=(1, 2, 2), blocks=(1, 1, 1), levels=(8, 5, 5))
  strides = ((2, 1, 1), (2, 2, 2))
  c = over(common.data("clips", **clips), **sizes, strides=strides)
  c.batch = 16
  c.train.update(steps=300, ema=0.98, save_every=150)
  return c


def folder():
  """Clips of your own: --config.data.path=DIR."""
  asked = dict(path="", size=64, channels=3, frames=17)
  c = over(common.data("video_folder", **asked), ch=32, blocks=(1, 1, 1, 2))
  c.batch, c.optim.lr = 8, 1e-3
  c.train.update(steps=10_000, ema=0.999, save_every=1000)
  return c


def paper():
  """The published sizes; how it was trained is not."""
  asked = dict(path="", size=128, channels=3, frames=17)
  c = over(common.data("video_folder", **asked), dtype="bfloat16")
  c.model.update(gan_weight=0.1, gan_start=20_000)
  c.optim.update(lr=1e-4)
  c.optim.groups = {"discriminator": {}}
  c.batch = 64
  c.train.update(steps=500_000, ema=0.999, log_every=100, save_every=5000)
  return c


def smoke():
  """Seconds on two cores."""
  clips = dict(size=4, channels=1, frames=3, source="fake", length=64)
  sizes = dict(ch=4, mult=(1, 2), blocks=(1, 1), levels=(5, 3))
  c = over(common.data("clips", **clips), **sizes, strides=((2, 2, 2),))
  c.batch = c.eval_batch = 4
  c.optim.lr = 1e-2
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__, default=digits, digits=digits, folder=folder, paper=paper,
  smoke=smoke,
)  # fmt: skip
