"""Quantisers without a codebook to learn: every number of a latent is rounded
by itself, to one bit or to one of a few levels.

  Bernoulli  bits that are drawn (ELM's binary autoencoder, arXiv 2410.16257)
  LFQ        signs (MAGVIT-2, arXiv 2310.05737)
  BSQ        signs of latents of unit length (arXiv 2406.07548)
  FSQ        a few levels a number (arXiv 2309.15505)

Bits are i32 in {0, 1}; packed into an integer the first is the most
significant. Everything runs in float32 whatever the compute dtype, and losses
are per example; those of a whole batch are the same for all its examples.

Shapes: B batch, K bits or levels of a latent, C channels, t codes of b bits.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.nn.quantize.vq import commitment, straight_through, unit

Array = jax.Array

BOUNDS = ("atanh", "tan")


def pack(bits: Array, t: int) -> Array:
  """Codes i32[..., t] of bits [..., K]: t codes of K / t bits each.

  Raises:
    UserError: t does not divide K, or a code had more than 30 bits.
  """
  each = code_bits(bits.shape[-1], t)
  weight = 2 ** jnp.arange(each - 1, -1, -1)
  parts = bits.reshape(*bits.shape[:-1], t, each).astype(jnp.int32)
  return jnp.einsum("...tb,b->...t", parts, weight)


def unpack(codes: Array, each: int) -> Array:
  """Bits i32[..., t b] of codes i32[..., t] of b = `each` bits."""
  places = _last(np.arange(each - 1, -1, -1), codes.ndim + 1)
  bits = (codes[..., None] >> places) & 1
  return bits.reshape(*codes.shape[:-1], -1)


def _last(x: np.ndarray, ndim: int) -> np.ndarray:
  """x [n] as the last of so many axes."""
  return np.reshape(x, (1,) * (ndim - 1) + (-1,))


def code_bits(bits: int, t: int) -> int:
  """b, the bits of each of t codes.

  Raises:
    UserError: as in `pack`.
  """
  if t < 1 or bits % t:
    raise UserError(f"{bits} bits do not fall into {t} codes of equal size")
  if bits // t > 30:
    raise UserError(
      f"a code of {bits // t} bits is no 32-bit integer; use more codes"
    )
  return bits // t


def bit_entropy(logits: Array) -> Array:
  """-p log p - (1 - p) log(1 - p), f32[...], in nats, of bits whose odds of a 1
  have these logarithms. That of probabilities has no finite gradient where one
  is so sure that float32 rounds it to 0 or 1."""
  return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)


def mean_entropy(p: Array, group: int) -> Array:
  """The entropy of the mean law of all latents, f32[], in nats.

  The law of a latent is a product over its bits; their mean is none. It is
  taken exactly over groups of bits and added up over the groups, which is an
  upper bound, and exact for one group of all.

  Args:
    p: of a 1, f32[..., K].
    group: bits of a group; it takes 2^group numbers for each latent.

  Raises:
    UserError: the groups do not divide the bits.
  """
  if p.shape[-1] % group:
    raise UserError(f"groups of {group} do not divide {p.shape[-1]} bits")
  parts = p.reshape(-1, p.shape[-1] // group, group)
  law = jnp.ones((*parts.shape[:-1], 1))
  for i in range(group):
    each = jnp.stack([1 - parts[..., i], parts[..., i]], -1)
    law = (law[..., None] * each[..., None, :]).reshape(*law.shape[:-1], -1)
  even = law.mean(0)
  return -jnp.sum(even * jnp.log(even + 1e-5))


def _by_example(x: Array) -> Array:
  """f32[B]: the mean over all axes of x [B, ...] but the first."""
  return x.mean(axis=tuple(range(1, x.ndim)))


def _signs(x: Array) -> Array:
  """-1 and 1 of x; 0 is -1."""
  return jnp.where(x > 0, 1.0, -1.0)


class Bernoulli(nn.Module):
  """Bits that are drawn, each with a probability that the encoder says, and a
  table whose rows the ones add up.

  Attributes:
    bits: K.
    channels: C, of the encoder's latent and of the table.
  """

  bits: int
  channels: int

  def setup(self):
    self.proj = nn.Dense(self.bits, dtype=jnp.float32)
    shape = (self.bits, self.channels)
    self.table = self.param("table", nn.initializers.normal(1.0), shape)

  def probability(self, z: Array) -> Array:
    """Of a 1, f32[..., K], by latents [..., C]."""
    return jax.nn.sigmoid(self.proj(z.astype(jnp.float32)))

  def bits_of(self, p: Array, keys: Array | None = None) -> Array:
    """Bits i32[B, ..., K] of probabilities f32[B, ..., K]: drawn with keys
    Key[B], or without keys the likelier ones."""
    if keys is None:
      return (p > 0.5).astype(jnp.int32)
    shape = p.shape[1:]
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    return (uniform < p).astype(jnp.int32)

  def embed(self, bits: Array) -> Array:
    """f32[..., C] of bits [..., K]: the sum of the rows of the ones."""
    return bits.astype(jnp.float32) @ self.table

  def __call__(
    self, z: Array, keys: Array | None = None
  ) -> tuple[Array, dict[str, Array], Array]:
    """Quantises latents z [B, ..., C] for training; keys as in `bits_of`.

    Returns:
      The embedding f32[B, ..., C], through which the gradient goes to the
      probabilities; "uncertainty" f32[B], the mean of p (1 - p); the bits.
    """
    p = self.probability(z)
    bits = self.bits_of(p, keys)
    through = straight_through(p, bits.astype(jnp.float32))
    loss = {"uncertainty": _by_example(p * (1 - p))}
    return self.embed(through), loss, bits


@dataclasses.dataclass(frozen=True)
class LFQ:
  """The signs of a latent.

  Attributes:
    temperature: of the entropy loss.
    group: see `mean_entropy`; None for all bits at once, which is exact.
  """

  temperature: float = 0.01
  group: int | None = None

  def encode(self, z: Array) -> Array:
    """Bits i32[..., K] of latents [..., K]; 0 is the bit 0."""
    return (z > 0).astype(jnp.int32)

  def embed(self, bits: Array) -> Array:
    """-1 and 1, f32[..., K]."""
    return 2.0 * bits.astype(jnp.float32) - 1.0

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """Quantises latents z [B, ..., K] for training.

    Returns:
      Signs with the gradient of z; losses "commit_loss" and "entropy", f32[B]:
      E H(p) - H(E p), p = softmax(2 z c / temperature) over all codes c, which
      is a product over the bits; the bits.
    """
    z = z.astype(jnp.float32)
    signs = _signs(z)
    logits = 4 * z / self.temperature
    own = _by_example(bit_entropy(logits).sum(-1))
    even = mean_entropy(jax.nn.sigmoid(logits), self.group or z.shape[-1])
    losses = {
      "commit_loss": commitment(z, signs, 1.0),
      "entropy": own - even,
    }
    return straight_through(z, signs), losses, self.encode(z)


@dataclasses.dataclass(frozen=True)
class BSQ:
  """The signs of a latent of unit length, of that length again.

  Attributes:
    tau: inverse temperature of the soft bits.
    own: weight of the entropy of each latent.
    even: weight of that of all, which is to be large.
    zeta: weight of both.
    group: see `mean_entropy`.
  """

  tau: float = 1.0
  own: float = 1.0
  even: float = 1.0
  zeta: float = 1.0
  group: int = 1

  def encode(self, z: Array) -> Array:
    """Bits i32[..., K] of latents [..., K]; 0 is the bit 0."""
    return (z > 0).astype(jnp.int32)

  def embed(self, bits: Array) -> Array:
    """-1 / sqrt(K) and 1 / sqrt(K), f32[..., K]."""
    return (2.0 * bits.astype(jnp.float32) - 1.0) / math.sqrt(bits.shape[-1])

  def logits(self, u: Array) -> Array:
    """Of a 1, f32[..., K]: softmax(-tau |u - c|^2) over all codes c, which is a
    product over the bits of u = z / |z|."""
    return 4 * self.tau * u / math.sqrt(u.shape[-1])

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """Quantises latents z [B, ..., K] for training.

    Returns:
      Codes of unit length with the gradient of u; the loss "entropy", f32[B],
      zeta (own E H(p) - even H(E p)) / tau; the bits.
    """
    u = unit(z.astype(jnp.float32))
    code = _signs(u) / math.sqrt(z.shape[-1])
    logits = self.logits(u)
    own = _by_example(bit_entropy(logits).sum(-1))
    even = mean_entropy(jax.nn.sigmoid(logits), self.group)
    loss = self.zeta * (self.own * own - self.even * even) / self.tau
    return straight_through(u, code), {"entropy": loss}, self.encode(u)


@dataclasses.dataclass(frozen=True)
class FSQ:
  """A few levels a number, by a bounded function and rounding; no loss.

  Attributes:
    levels: L_i of every number of a latent.
    bound: which published form of tanh(z + shift) half - offset; both have the
      offset 1/2 for even L_i and 0 for odd:
      "atanh": half = (L - 1) (1 + 1e-3) / 2, shift = atanh(offset / half);
      "tan": half = (L - 1) (1 - 1e-3) / 2, shift = tan(offset / half), as
      video tokenizers have it.
  """

  levels: tuple[int, ...]
  bound: str = "atanh"

  def __post_init__(self):
    check_choice("bound", self.bound, BOUNDS)
    if not self.levels or min(self.levels) < 2:
      raise UserError(f"levels={self.levels}: each must be at least 2")
    if math.prod(self.levels) >= 2**31:
      raise UserError(f"levels={self.levels}: more codes than 32 bits number")

  @property
  def vocab(self) -> int:
    """Codes there are."""
    return math.prod(self.levels)

  @property
  def _half(self) -> np.ndarray:
    """What divides a digit: L // 2."""
    return np.asarray(self.levels) // 2

  @property
  def _base(self) -> np.ndarray:
    """Of the digits: the first changes fastest."""
    return np.cumprod([1, *self.levels[:-1]])

  def bounded(self, z: Array) -> Array:
    """What is rounded, f32[..., K], of latents [..., K]."""
    levels, z = np.asarray(self.levels), z.astype(jnp.float32)
    atanh = self.bound == "atanh"
    half = (levels - 1) * (1 + 1e-3 if atanh else 1 - 1e-3) / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    shift = (np.arctanh if atanh else np.tan)(offset / half)
    f32 = lambda x: _last(x, z.ndim).astype(np.float32)
    return jnp.tanh(z + f32(shift)) * f32(half) - f32(offset)

  def encode(self, z: Array) -> Array:
    """Indices i32[...] of latents [..., K]."""
    digits = jnp.round(self.bounded(z)).astype(jnp.int32)
    digits = digits + _last(self._half, z.ndim)
    return jnp.sum(digits * _last(self._base, z.ndim), -1)

  def embed(self, indices: Array) -> Array:
    """Codes f32[..., K] in [-1, 1] of indices i32[...]."""
    own = lambda x: _last(np.asarray(x), indices.ndim + 1)
    digits = indices[..., None] // own(self._base) % own(self.levels)
    return (digits - own(self._half)) / own(self._half).astype(np.float32)

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """Codes f32[B, ..., K] with the gradient of `bounded`, no losses, and
    indices, of latents z [B, ..., K]."""
    bounded = self.bounded(z)
    half = _last(self._half, z.ndim).astype(np.float32)
    code = straight_through(bounded, jnp.round(bounded)) / half
    return code, {}, self.encode(z)
