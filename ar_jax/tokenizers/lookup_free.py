"""Tokenizers without a table of codes: every number of a latent is rounded by
itself, and the code is all of them.

  fsq  a few levels a number (arXiv 2309.15505)
  lfq  signs, as MAGVIT-2 has them (arXiv 2310.05737)
  bsq  signs of a latent of unit length (arXiv 2406.07548)

The convolutional nets are those of `vq`, so that only the quantiser differs.

Shapes: B batch, H W image sides, c image channels, h = H / stride latent side,
C numbers of a latent, L = h^2 units, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError, passes_on
from ar_jax.nn.quantize import bits
from ar_jax.nn.quantize.vq import nearest_allowed, unit
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  autoencoder,
)
from ar_jax.tokenizers.code_maps import CodeMap
from ar_jax.tokenizers.convolutional import Convolutional
from ar_jax.tokenizers.vq import MULT

Array = jax.Array

KINDS = ("fsq", "lfq", "bsq")


@dataclasses.dataclass(frozen=True)
class Rounded:
  """A quantiser of `nn.quantize.bits` that answers as a `VectorQuantizer`: its
  units are numbers of codes.

  Attributes:
    quantizer: `FSQ`, `LFQ` or `BSQ`.
    channels: C.
    weights: of its losses; 1 where none is named.
  """

  quantizer: bits.FSQ | bits.LFQ | bits.BSQ
  channels: int
  weights: tuple[tuple[str, float], ...] = ()

  @property
  def _levels(self) -> bool:
    return isinstance(self.quantizer, bits.FSQ)

  @property
  def vocab(self) -> int:
    """V."""
    return self.quantizer.vocab if self._levels else 2**self.channels

  def codebook(self) -> Array:
    """f32[V, C]."""
    return self.embed(jnp.arange(self.vocab))

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...]."""
    if self._levels:
      return self.quantizer.embed(units)
    return self.quantizer.embed(bits.unpack(units[..., None], self.channels))

  def encode(
    self,
    z: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> Array:
    """Units i32[...] of latents [..., C]; of codes that are allowed, those
    nearest to what is rounded, see `nn.quantize.vq.nearest_allowed`."""
    if allowed is not None:
      return nearest_allowed(self._before(z), self.codebook(), allowed, slack)
    return self._numbers(self.quantizer.encode(z))

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """As `VectorQuantizer`: codes with the gradient of z, losses, units."""
    code, losses, found = self.quantizer(z)
    weights = dict(self.weights)
    losses = {k: weights.get(k, 1.0) * v for k, v in losses.items()}
    return code, losses, self._numbers(found)

  def _numbers(self, found: Array) -> Array:
    return found if self._levels else bits.pack(found, 1)[..., 0]

  def _before(self, z: Array) -> Array:
    """What is rounded, on the scale of the codes."""
    if self._levels:
      half = np.asarray(self.quantizer.levels) // 2
      bounded = self.quantizer.bounded(z)
      return bounded / half.reshape((1,) * (z.ndim - 1) + (-1,))
    z = z.astype(jnp.float32)
    return unit(z) if isinstance(self.quantizer, bits.BSQ) else z


class LookupFree(Convolutional, CodeMap):
  """The autoencoder.

  Attributes:
    quantizer: of its latents.
    z: channels of the convolutional nets at the latent.
    ch: width of the first level of the convolutional nets.
    mult: width of each level in multiples of ch; stride 2^(levels - 1).
    blocks: residual blocks a level in the encoder, one more in the decoder.
    size: H, for generators; the tokenizer itself takes any multiple of the
      stride.
    in_channels: c.
    dtype: of the convolutions; the quantiser is float32 always.
  """

  quantizer: Rounded
  z: int = 256
  ch: int = 128
  mult: tuple[int, ...] = MULT[16]
  blocks: int = 2
  size: int = 256
  in_channels: int = 3
  dtype: jnp.dtype = jnp.float32

  @property
  def vocab(self) -> int:
    """V."""
    return self.quantizer.vocab

  @property
  def channels(self) -> int:
    """C."""
    return self.quantizer.channels

  def setup(self):
    self.convolutions(encoded=self.z, latent=self.channels, decoded=self.z)

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...], without a table."""
    return self.quantizer.embed(units)


@passes_on(autoencoder)
def build(
  *,
  kind: str = "fsq",
  levels: Sequence[int] = (8, 5, 5, 5),
  bound: str = "atanh",
  bits_of_code: int = 10,
  commit: float = 0.25,
  entropy: float = 0.1,
  z: int = 256,
  ch: int = 128,
  mult: Sequence[int] = MULT[16],
  blocks: int = 2,
  size: int = 256,
  in_channels: int = 3,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Args:
    kind: of KINDS.
    levels: of "fsq", of each number.
    bound: of "fsq", see `bits.FSQ`.
    bits_of_code: of "lfq" and "bsq", numbers of a latent; 30 at most, and for
      "lfq", whose entropy is over all codes, 18.
    commit: weight of the loss of "lfq" that moves latents to their signs.
    entropy: weight of the entropies of "lfq" and "bsq".
    z, ch, mult, blocks, size, in_channels, dtype: see `LookupFree`.

  Raises:
    UserError: no such kind, too many bits, or the size is no multiple of the
      stride.
  """
  check_choice("kind", kind, KINDS)
  most = 18 if kind == "lfq" else 30
  if kind != "fsq" and not 1 <= bits_of_code <= most:
    raise UserError(f"bits_of_code={bits_of_code}: 1 to {most} for {kind!r}")
  weights = (("commit_loss", commit), ("entropy", entropy))
  made = {
    "fsq": lambda: Rounded(bits.FSQ(tuple(levels), bound), len(levels)),
    "lfq": lambda: Rounded(bits.LFQ(), bits_of_code, weights),
    "bsq": lambda: Rounded(bits.BSQ(), bits_of_code, weights),
  }
  tokenizer = LookupFree(
    quantizer=made[kind](),
    z=z,
    ch=ch,
    mult=tuple(mult),
    blocks=blocks,
    size=size,
    in_channels=in_channels,
    dtype=jnp.dtype(dtype),
  )
  return autoencoder(tokenizer.checked(), **training)
