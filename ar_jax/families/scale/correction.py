"""Bitwise self-correction (Infinity, arXiv 2412.04431, section 3.3): which bits
of the inputs training gets wrong."""

from __future__ import annotations

import dataclasses

import jax

from ar_jax.core.system import Array, UserError
from ar_jax.nn.quantize.scaled_bits import strengths
from ar_jax.tokenizers.bitwise import BitMaps


@dataclasses.dataclass(frozen=True)
class Correction:
  """The law of wrong bits in training; see `scaled_bits.strengths`.

  Attributes:
    most: the largest share of them; 0 is none.
    maps: of how many maps, the first; None for all.
    by_example: whether each example has shares of its own; else the batch has.
  """

  most: float = 0.3
  maps: int | None = 13
  by_example: bool = False

  def __post_init__(self):
    if not 0 <= self.most <= 1:
      raise UserError(f"correction.most={self.most}: must be in [0, 1]")

  def flips(self, tokenizer: BitMaps, key: Array, keys: Array) -> list[Array]:
    """See `ScaledBits.flips`; by the key of the batch and Key[B]."""
    maps = tokenizer.maps
    draw = lambda key: strengths(key, len(maps.shapes), self.most)
    if self.by_example:
      own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
      strength = jax.vmap(draw)(own)
    else:
      strength = draw(key)
    return maps.flips(keys, strength, self.maps)
