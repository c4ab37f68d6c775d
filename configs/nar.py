"""NAR: next-neighbour prediction (arXiv 2503.10696).

Presets: default (digits), fashion, smoke, and the published class-conditional
models at 256 px: b, m, l, xl, xxl; paper is l. They expect the published
tokenizer of LlamaGen, converted, at runs/vq_ds16_c2i, and ImageNet in TFDS.
"""

import functools

from configs import common
from configs.families import token

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


get_config = common.presets(
  __file__,
  default=functools.partial(token.digits, "nar"),
  fashion=functools.partial(token.fashion, "nar"),
  smoke=functools.partial(token.smoke, "nar"),
  **common.published(published, PUBLISHED, "l"),
)
