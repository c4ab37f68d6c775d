"""Bits of patches, map by map: a tokenizer without a network.

Presets: default (Fashion-MNIST at 32 pixels), smoke.
"""

from configs import common
from configs.families import bit_maps


def fashion():
  """8 x 8 cells of 8 bits, 85 units; its codes are fitted, then trained."""
  return bit_maps.patch_bits(bits=8, patch=4, scales=(1, 2, 4, 8))


get_config = common.presets(
  __file__, default=fashion, fashion=fashion, smoke=bit_maps.two_maps
)
