"""Tokenizers whose codes are rounded numbers: FSQ (arXiv 2309.15505), LFQ
(arXiv 2310.05737) and BSQ (arXiv 2406.07548), in the nets of `vq`.

Presets: default (FSQ, digits), lfq, bsq, fashion, smoke, and on ImageNet the
quantisers that were published, in VQ-16's nets, which are not theirs: paper
(FSQ, 1,000 codes), lfq_18, bsq_18.
"""

import functools

from configs import common
from configs.families import tokenizer


def digits(kind="fsq", **model):
  """scikit-learn's digits at 16 pixels, 8 x 8 units of 64 codes."""
  sizes = dict(mult=(1, 2), z=32, size=16, levels=(4, 4, 4), bits_of_code=6)
  return tokenizer.digits("lookup_free", kind=kind, **sizes | model)


def fashion():
  """Fashion-MNIST padded to 32 pixels, 8 x 8 units of 240 codes."""
  sizes = dict(mult=(1, 2, 4), z=64, levels=(8, 6, 5), size=32)
  return tokenizer.fashion(digits(), **sizes)


def published(kind="fsq"):
  """A published quantiser at 256 pixels."""
  sizes = dict(mult=(1, 1, 2, 2, 4), z=256, levels=(8, 5, 5, 5))
  return tokenizer.imagenet(
    "lookup_free", batch=256, kind=kind, bits_of_code=18, size=256, **sizes
  )


def smoke():
  """Seconds on two cores."""
  sizes = dict(ch=8, mult=(1, 2), z=8, levels=(4, 3), size=8)
  return tokenizer.in_seconds(digits(), **sizes)


get_config = common.presets(
  __file__,
  default=digits,
  lfq=functools.partial(digits, "lfq"),
  bsq=functools.partial(digits, "bsq"),
  fashion=fashion,
  paper=published,
  lfq_18=functools.partial(published, "lfq"),
  bsq_18=functools.partial(published, "bsq"),
  smoke=smoke,
)
