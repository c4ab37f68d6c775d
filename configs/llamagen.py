"""LlamaGen: next-token prediction (arXiv 2406.06525).

Presets: default (digits), minutes (what notebooks train), fashion, emoji
(pictograms in colour; `tokenizer.data.path` names their package), smoke, and
the published class-conditional models: b and l at 256 px; b384, l384, xl, xxl,
3b at 384 px; paper is l. They expect the published tokenizer, converted, at
runs/vq_ds16_c2i, and ImageNet in TFDS. From texts: `configs/llamagen_text.py`.
text is a language model, over characters, and smoke_text one in seconds.
"""

import functools

from configs import common
from configs.families import token

# depth, width, heads, image side, scale of guidance of the best FID.
PUBLISHED = {
  "b": (12, 768, 12, 256, 2.0),
  "l": (24, 1024, 16, 256, 2.0),
  "b384": (12, 768, 12, 384, 2.0),
  "l384": (24, 1024, 16, 384, 2.0),
  "xl": (36, 1280, 20, 384, 1.75),
  "xxl": (48, 1536, 24, 384, 1.75),
  "3b": (24, 3200, 32, 384, 1.65),
}


def published(name):
  """A published model."""
  return token.published(*PUBLISHED[name])


get_config = common.presets(
  __file__,
  default=token.digits,
  minutes=token.minutes,
  fashion=token.fashion,
  emoji=token.emoji,
  smoke=token.smoke,
  smoke_real=functools.partial(token.smoke, real=True),
  text=token.text,
  smoke_text=token.smoke_text,
  **common.published(published, PUBLISHED, "l"),
)
