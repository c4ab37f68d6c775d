"""What a transformer reads of the units that are known: a vector for each.

A reader belongs to the kind of its units, as a head does. In a net it is
called `units`, so that a table of codes is the parameter `units/embedding`.

Shapes: B batch, T units, V codes, C channels of a unit, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.heads.unfolded import Residual, check_window

Array = jax.Array


class Reader(nn.Module):
  """What every reader is: units [B, T, ...] -> [B, T, D]. Abstract; it has
  `vocab`, V, or None where units are no codes."""

  def blank(self, batch: int, count: int) -> Array:
    """Units of the right shape and type that say nothing, [batch, count,
    ...]."""
    return jnp.zeros((batch, count), jnp.int32)


class Embed(Reader):
  """A table with a row for each code.

  Attributes:
    vocab: V.
    width: D.
    stddev: initial standard deviation.
  """

  vocab: int
  width: int
  stddev: float = 0.02

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.embedding = self.param("embedding", init, (self.vocab, self.width))

  def __call__(self, units: Array) -> Array:
    """[B, T, D] of i32[B, T]."""
    return jnp.take(self.embedding, units, axis=0)


class Latents(Reader):
  """A linear map of units that are vectors.

  Attributes:
    channels: C.
    width: D.
    stddev: initial standard deviation.
  """

  channels: int
  width: int
  stddev: float = 0.02
  vocab = None

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.linear = nn.Dense(self.width, kernel_init=init)

  def blank(self, batch: int, count: int) -> Array:
    return jnp.zeros((batch, count, self.channels))

  def __call__(self, units: Array) -> Array:
    """f32[B, T, D] of f32[B, T, C]."""
    return self.linear(units)


class Projected(Embed):
  """A table of short rows, of codes as the decoder of a tokenizer has them,
  through linear, exact GELU, linear (Janus, arXiv 2410.13848).

  Attributes:
    vocab, width, stddev: as there.
    channels: C, the numbers of a row.
    dtype: of the products.
  """

  channels: int = 8
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    # A row is as large as a code of a tokenizer, not as a row of D numbers.
    rows = nn.initializers.normal(self.channels**-0.5)
    shape = self.vocab, self.channels
    self.embedding = self.param("embedding", rows, shape)
    dense = lambda: nn.Dense(self.width, kernel_init=init, dtype=self.dtype)
    self.fc1, self.fc2 = dense(), dense()

  def __call__(self, units: Array) -> Array:
    """[B, T, D] of i32[B, T]."""
    x = self.fc1(super().__call__(units))
    return self.fc2(nn.gelu(x, approximate=False))


class CodeVectors(Reader):
  """The codes of a tokenizer through linear, exact GELU, linear, so that a net
  also takes vectors which are no codes (Distilled Decoding 2, arXiv
  2510.21003). The codes are no parameters: they are the collection
  `codebook`, which the system takes from its tokenizer.

  Attributes:
    vocab: V; None where units are vectors.
    channels: C.
    width: D.
    stddev: initial standard deviation of the second map; the first keeps the
      size of a code.
  """

  vocab: int | None
  channels: int
  width: int
  stddev: float = 0.02

  def setup(self):
    if self.vocab is not None:
      shape = self.vocab, self.channels
      self.codes = self.variable("codebook", "codes", jnp.zeros, shape)
    dense = lambda stddev: nn.Dense(
      self.width, kernel_init=nn.initializers.normal(stddev)
    )
    self.fc1, self.fc2 = dense(self.channels**-0.5), dense(self.stddev)

  @property
  def embedding(self) -> Array:
    """f32[V, D], what is read of every code."""
    return self._read(self.codes.value)

  def blank(self, batch: int, count: int) -> Array:
    if self.vocab is not None:
      return super().blank(batch, count)
    return jnp.zeros((batch, count, self.channels))

  def __call__(self, units: Array) -> Array:
    """[B, T, D] of i32[B, T], or of vectors f32[B, T, C]."""
    if self.vocab is not None:
      units = jnp.take(self.codes.value, units, axis=0)
    return self._read(units)

  def _read(self, x: Array) -> Array:
    return self.fc2(nn.gelu(self.fc1(x), approximate=False))


class Folded(Embed):
  """The k codes of a window as one vector (Token-Shuffle, arXiv 2504.17789):
  each through the same table and the same linear map to D / k numbers, side by
  side, and then through residual MLPs.

  Attributes:
    vocab, width, stddev: as there.
    codes: k.
    blocks: residual MLPs.
    squeeze: numbers through which a row of the table goes first; None for D,
      without a map of its own.
    dtype: of the products.
  """

  codes: int = 1
  blocks: int = 2
  squeeze: int | None = None
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    check_window(self.codes, self.width)
    super().setup()
    dense = lambda n: nn.Dense(n, use_bias=False, dtype=self.dtype)
    self.part = dense(self.width // self.codes)
    if self.squeeze is not None:
      self.down, self.up = dense(self.squeeze), dense(self.width)
    self.mlps = [Residual(self.width, self.dtype) for _ in range(self.blocks)]

  def blank(self, batch: int, count: int) -> Array:
    return jnp.zeros((batch, count, self.codes), jnp.int32)

  def __call__(self, units: Array) -> Array:
    """[B, T, D] of i32[B, T, k]."""
    x = super().__call__(units)
    if self.squeeze is not None:
      x = self.up(self.down(x))
    x = self.part(x)
    x = x.reshape(*units.shape[:2], self.width)
    for mlp in self.mlps:
      x = mlp(x)
    return x
