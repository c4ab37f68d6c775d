"""NAR: next-neighbour prediction (arXiv 2503.10696).

Presets: default (digits), fashion, video (digits that move), smoke and
smoke_video, and the published class-conditional models at 256 px: b, m, l, xl,
xxl; paper is l. They expect the published tokenizer of LlamaGen, converted, at
runs/vq_ds16_c2i, and ImageNet in TFDS.
"""

import functools

from configs import common, vq
from configs.families import token
from configs.families.tokenizer import patch_codes

# Name of the size, depth, width, heads.
PUBLISHED = {
  "b": (12, 768, 12),
  "m": (18, 1024, 16),
  "l": (24, 1024, 16),
  "xl": (36, 1280, 20),
  "xxl": (48, 1536, 24),
}


def published(name):
  """By LlamaGen's recipe, but for the schedule."""
  c = token.published(*PUBLISHED[name], system="nar")
  # Times 0.2 at 1/2, 2/3 and 5/6 of the run, as published.
  c.optim.update(schedule="steps", end=0.0)
  return c


def video():
  """Digits that bounce, four frames of 16 pixels, 18 steps: a tokenizer of
  single frames, then the system."""
  clips = dict(size=16, channels=1, frames=4, motion="bounce")
  tokenizer = vq.get_config("digits")
  tokenizer.data = common.data("clips", **clips, stills=True)
  sizes = dict(depth=4, width=128, heads=4, num_classes=10, multiple_of=32)
  c = token.over(tokenizer, "nar", **sizes, frames=4)
  c.data = common.data("clips", **clips)
  c.batch = 16  # of 256 units each
  c.optim.update(lr=1e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=400, save_every=200, ema=0.98)
  c = common.from_nothing(tokenizer, c)
  c.generator.cache.views = 4  # motions of each digit
  return c


def smoke_video():
  """Seconds on two cores: clips of fake images, random codes of patches."""
  tokenizer = patch_codes()
  sizes = dict(depth=2, width=32, heads=2, num_classes=10, multiple_of=32)
  c = token.over(tokenizer, "nar", **sizes, frames=2)
  c.data = common.data("clips", size=8, frames=2, source="fake", length=64)
  return common.seconds(c, tokenizer)


get_config = common.presets(
  __file__,
  default=functools.partial(token.digits, "nar"),
  fashion=functools.partial(token.fashion, "nar"),
  video=video,
  smoke=functools.partial(token.smoke, "nar"),
  smoke_video=smoke_video,
  **common.published(published, PUBLISHED, "l"),
)
