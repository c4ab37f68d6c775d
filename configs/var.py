"""VAR: next-scale prediction (arXiv 2404.02905).

Presets: default (digits), minutes, fashion, folder (your own images), smoke,
and the published models d16, d20, d24, d30 (256 px) and d36 (512 px); paper is
d16. These expect the published tokenizer, converted, at runs/vae_ch160v4096z32,
and ImageNet in TFDS.
"""

import functools

from configs import common
from configs.families import scale


def folder():
  """One's own colour images at 32 pixels, a sub-folder per class.

  To be given: tokenizer.data.path and generator.model.num_classes.
  """
  c = scale.fashion()
  c.tokenizer.data.update(name="folder", channels=3)
  c.tokenizer.model.in_channels = 3
  c.generator.model.tokenizer.in_channels = 3
  return c


get_config = common.presets(
  __file__,
  default=scale.digits,
  minutes=scale.minutes,
  fashion=scale.fashion,
  folder=folder,
  smoke=scale.smoke,
  smoke_real=functools.partial(scale.smoke, real=True),
  **common.published(scale.published, scale.PUBLISHED, "d16"),
)
