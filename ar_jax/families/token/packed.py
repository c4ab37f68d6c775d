"""Units that are packed from bits: generators over a tokenizer of bits, whose
units are several small codes of a cell (ELM, arXiv 2410.16257).

Shapes: B batch, L cells, K bits of a cell, t codes of b = K / t bits.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from ar_jax.core import forms, system
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.nn.quantize.bits import code_bits, pack, unpack


def bits_of(tokenizer: nn.Module) -> int:
  """K: of a tokenizer of bits, or of one whose V codes are all numbers of as
  many bits.

  Raises:
    UserError: V is no power of two.
  """
  if hasattr(tokenizer, "bits"):
    return tokenizer.bits
  vocab = tokenizer.vocab
  if vocab is None or vocab < 2 or vocab & (vocab - 1):
    raise UserError(
      f"tokenizer with vocab={vocab}: units must be bits, or codes whose "
      "number is a power of two"
    )
  return vocab.bit_length() - 1


class Packed(Generator):
  """What both arms share: units i32[B, L, t], packed from the bits of the
  tokenizer, the first bit being the largest.

  A subclass also has the field
    codes: t.
  """

  codes: int

  @property
  def code_bits(self) -> int:
    """b."""
    return code_bits(bits_of(self.tokenizer), self.codes)

  @property
  def redraws(self) -> bool:
    return bool(getattr(self.tokenizer, "drawn", False))

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """Bits that are drawn depend on `index` and `view`, where a batch has it:
    several views of an example are several draws."""
    view = batch.get("view")
    rest = {k: v for k, v in batch.items() if k != "view"}
    keys = system.example_keys(jax.random.key(0), rest)
    if view is not None:
      keys = jax.vmap(jax.random.fold_in)(keys, view)
    return self.coded(variables, rest, keys)

  def coded(self, variables: Vars, batch: Batch, keys: Array) -> dict:
    """The batch with units in place of what the tokenizer reads, if that is
    there; bits drawn with Key[B]."""
    rest = dict(batch)
    field = self.tokenizer.field
    if field not in rest:
      return rest
    x = forms.raw(rest.pop(field))
    return {**rest, "units": self.tokenize(variables, x, keys)}

  def tokenize(
    self, variables: Vars, x: Array, keys: Array | None = None
  ) -> Array:
    """Units i32[B, L, t] of what the tokenizer reads."""
    codec = self.codec(variables)
    if hasattr(codec, "bits"):
      return pack(codec.encode(x, keys), self.codes)
    bits = unpack(codec.encode(x)[..., None], bits_of(codec))
    return pack(bits, self.codes)

  def decode(self, variables: Vars, units: Array) -> Array:
    """What the tokenizer makes of units i32[B, L, t]."""
    return super().decode(variables, self.unpacked(units))

  def decode_part(
    self, variables: Vars, units: Array, done: Array | int
  ) -> Array:
    """As `decode`, of the first `done` cells only."""
    return super().decode_part(variables, self.unpacked(units), done)

  def unpacked(self, units: Array) -> Array:
    """The tokenizer's units of ours i32[..., t]: bits, or codes."""
    bits = unpack(units, self.code_bits)
    return bits if hasattr(self.tokenizer, "bits") else pack(bits, 1)[..., 0]
