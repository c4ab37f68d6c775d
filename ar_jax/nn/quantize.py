"""Vector quantisation: the pieces, one codebook on a map, and VAR's residual
quantiser over many scales.

Everything here runs in float32 whatever the compute dtype, because rounding
flips codes. Losses are per example. Shapes: B batch, L units, H latent side,
C latent channels, V vocabulary, p_k side of scale k.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops
from ar_jax.core import bands
from ar_jax.core.resize import resize

Array = jax.Array


def unit(z: Array, eps: float = 1e-12) -> Array:
  """z / |z| along the last axis, for codebooks on the sphere (l2-VQ)."""
  norm = jnp.linalg.norm(z, axis=-1, keepdims=True)
  return z / jnp.maximum(norm, eps)


def straight_through(z: Array, e: Array) -> Array:
  """The value of e with the gradient of z."""
  return z + jax.lax.stop_gradient(e - z)


def codebook_loss(z: Array, e: Array) -> Array:
  """Moves codes e[B, ...] towards sg(z): mean square per example, f32[B]."""
  return _mean_square(jax.lax.stop_gradient(z) - e)


def commitment(z: Array, e: Array, beta: float = 0.25) -> Array:
  """Moves the encoder's z[B, ...] towards sg(e); beta * mean square, f32[B]."""
  return beta * _mean_square(z - jax.lax.stop_gradient(e))


def _mean_square(x: Array) -> Array:
  return jnp.square(x.astype(jnp.float32)).mean(axis=tuple(range(1, x.ndim)))


def code_counts(units: Array, vocab: int) -> Array:
  """f32[V]: how often each code occurs among units i32[...]."""
  return jnp.zeros(vocab, jnp.float32).at[units.ravel()].add(1.0)


def usage(counts: Array) -> dict[str, Array]:
  """Health of a codebook from `code_counts`, f32[] each.

  Returns:
    used: share of codes that occur at all.
    perplexity: exp of the entropy of the code distribution, 1 ... V.
  """
  p = counts / jnp.maximum(counts.sum(), 1.0)
  entropy = -jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0).sum()
  return {"used": (counts > 0).mean(), "perplexity": jnp.exp(entropy)}


def codebook_init(spread: float | None) -> Callable[..., Array]:
  """Initial codes: N(0, spread), or U(-1/V, 1/V) for None, the usual one.

  Codes crowded around zero compete for the same few latents until the
  commitment loss has spread them; codes as far apart as an untrained
  encoder's latents are of use from the first step. On 8x8 digits (400 steps,
  V = 64, three scales) None ends at 100 % usage and 16.8 dB, 0.1 at 100 %
  and 17.9 dB, 0.3 at 98 % and 18.7 dB, 1.0 at 44 % and 18.0 dB.
  """
  if spread is None:
    return lambda key, shape: jax.random.uniform(
      key, shape, minval=-1 / shape[0], maxval=1 / shape[0]
    )
  return nn.initializers.normal(spread)


def entropy_loss(z: Array, codebook: Array, temperature: float = 0.01) -> Array:
  """Sure of each code, even over all: E H(p) - H(E p), f32[].

  p = softmax(-|z - e|^2 / temperature) over the codes; the means run over all
  latents of the batch (MAGVIT-2, arXiv 2310.05737, equation 5). It takes
  memory for every pair of a latent and a code.

  Args:
    z: f32[..., C].
    codebook: f32[V, C].
    temperature: of the softmax.
  """
  z = z.reshape(-1, z.shape[-1])
  dots = jnp.matmul(z, codebook.T, precision=jax.lax.Precision.HIGHEST)
  norms = jnp.square(z).sum(-1)[:, None] + jnp.square(codebook).sum(-1)[None]
  logp = jax.nn.log_softmax((2 * dots - norms) / temperature, -1)
  p = jnp.exp(logp)
  even = p.mean(0)
  total = -(even * jnp.log(even + 1e-5)).sum()
  return -(p * logp).sum(-1).mean() - total


class VectorQuantizer(nn.Module):
  """One code for each latent of a map.

  Attributes:
    vocab: V.
    channels: C.
    sphere: latents and codes are brought to unit length before anything else
      (l2-VQ, arXiv 2110.04627); the stored codes need not have it.
    beta: weight of the term that moves the encoder.
    entropy: weight of `entropy_loss`; above 0, what is said of one example
      depends on the whole batch.
    spread: see `codebook_init`.
  """

  vocab: int
  channels: int
  sphere: bool = True
  beta: float = 0.25
  entropy: float = 0.0
  spread: float | None = None

  def setup(self):
    init = codebook_init(self.spread)
    shape = (self.vocab, self.channels)
    self.codes = self.param(
      "codebook", lambda key, shape: self._scaled(init(key, shape)), shape
    )

  def codebook(self) -> Array:
    """f32[V, C], of unit length on the sphere."""
    return self._scaled(self.codes)

  def encode(self, z: Array) -> Array:
    """Ids i32[...] of latents [..., C]."""
    z = self._scaled(z.astype(jnp.float32))
    return ops.nearest_code(z, self.codebook())

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """Quantises for training.

    Returns:
      The codes with the gradient of z [B, ..., C]; losses "codebook" and
      "commit" and perhaps "entropy", f32[B]; ids i32[B, ...].
    """
    z, codebook = self._scaled(z.astype(jnp.float32)), self.codebook()
    ids = ops.nearest_code(z, codebook)
    e = codebook[ids]
    losses = {
      "codebook": codebook_loss(z, e),
      "commit": commitment(z, e, self.beta),
    }
    if self.entropy:
      value = self.entropy * entropy_loss(z, codebook)
      losses["entropy"] = jnp.full(len(z), value)
    return straight_through(z, e), losses, ids

  def _scaled(self, x: Array) -> Array:
    return unit(x) if self.sphere else x


def phi_of_scales(scales: int, phis: int) -> tuple[int, ...]:
  """Which of the shared phi convs each scale uses (VAR, section 3.2).

  The one whose tick is nearest to (k - 1) / (S - 1). Some are exact ties
  that float64 rounding decides as in the published code: S = 10 gives
  0 0 1 1 1 2 2 3 3 3.
  """
  margin = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
  ticks = np.linspace(margin, 1 - margin, phis)
  places = [k / max(1, scales - 1) for k in range(scales)]
  return tuple(int(np.argmin(np.abs(ticks - place))) for place in places)


class MultiScaleResidual(nn.Module):
  """VAR's quantiser (Algorithms 1 and 2): one codebook, K token maps.

  Starting from f_0 = 0, scale k codes the residual f - f_{k-1}, averaged
  down to p_k x p_k; its codes, brought back up to H x H and through phi_k,
  are added: f_k = f_{k-1} + phi_k(up(e)).

  Attributes:
    vocab: V.
    channels: C.
    scales: sides p_1 < ... < p_K = H. Parameters do not depend on them.
    phis: number of convs phi, shared by neighbouring scales.
    mix: phi(h) = (1 - mix) h + mix conv(h).
    beta: weight of the term that moves the encoder.
    spread: see `codebook_init`.
    bands: scale k codes what is left of the frequencies up to its band, by
      this rule of `core.bands`, in place of the whole latent (NFIG, arXiv
      2503.07076); None codes all frequencies at every scale.
  """

  vocab: int
  channels: int
  scales: tuple[int, ...]
  phis: int = 4
  mix: float = 0.5
  beta: float = 0.25
  spread: float | None = None
  bands: str | None = None

  def setup(self):
    self.codes = self.param(
      "codebook", codebook_init(self.spread), (self.vocab, self.channels)
    )
    # One array for all phi, so that parameters do not depend on `scales`,
    # which may leave some of them out.
    self.phi_kernel = self.param(
      "phi_kernel",
      nn.initializers.lecun_normal(batch_axis=0),
      (self.phis, 3, 3, self.channels, self.channels),
    )
    self.phi_bias = self.param(
      "phi_bias", nn.initializers.zeros, (self.phis, self.channels)
    )

  @property
  def length(self) -> int:
    """L, the number of units of one image."""
    return sum(p * p for p in self.scales)

  def split(self, units: Array) -> list[Array]:
    """[B, L, ...] into one [B, p_k^2, ...] for each scale."""
    return jnp.split(units, np.cumsum([p * p for p in self.scales])[:-1], 1)

  def codebook(self) -> Array:
    """f32[V, C]."""
    return self.codes

  def down(self, f: Array, k: int) -> Array:
    """What scale k sees of f[B, H, H, C]: its area mean, [B, p_k^2, C]."""
    p = self.scales[k]
    return resize(f, (p, p), "area").reshape(len(f), p * p, f.shape[-1])

  def goal(self, f: Array, k: int) -> Array:
    """What the sum f_k is to be: of f [B, H, H, C] the bands up to that of
    scale k, or all of it."""
    if self.bands is None or k + 1 == len(self.scales):
      return f
    return bands.passed(f, bands.low(self.scales, self.bands)[k])

  def add(self, fhat: Array, k: int, e: Array) -> Array:
    """f_k = f_{k-1} + phi_k(up(e)).

    Args:
      fhat: f_{k-1}, f32[B, H, H, C].
      k: the scale, static, from 0.
      e: codes or mixtures of codes, f32[B, p_k^2, C].
    """
    p = self.scales[k]
    h = resize(e.reshape(len(e), p, p, -1), fhat.shape[1:3], "bicubic")
    phi = phi_of_scales(len(self.scales), self.phis)[k]
    convolved = jax.lax.conv_general_dilated(
      h,
      self.phi_kernel[phi],
      window_strides=(1, 1),
      padding="SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=jax.lax.Precision.HIGHEST,
    )
    convolved = convolved + self.phi_bias[phi][None, None, None]
    return fhat + (1 - self.mix) * h + self.mix * convolved

  def part(self, k: int, units: Array) -> Array:
    """What scale k alone brings, as it sees it: the area mean of phi_k(up(e)),
    f32[B, p_k^2, C], of its units i32[B, p_k^2]."""
    alone = self.add(self.start(len(units)), k, self.codes[units])
    return self.down(alone, k)

  def start(self, batch: int) -> Array:
    """f_0 = 0, f32[B, H, H, C]."""
    side = self.scales[-1]
    return jnp.zeros((batch, side, side, self.channels), jnp.float32)

  def walk(self, units: Array) -> list[Array]:
    """The running sums f_1 ... f_K of units i32[B, L]."""
    fhat, sums = self.start(len(units)), []
    for k, ids in enumerate(self.split(units)):
      fhat = self.add(fhat, k, self.codes[ids])
      sums.append(fhat)
    return sums

  def embed(self, units: Array) -> Array:
    """Input of the generator: f_{k-1} as scale k sees it, f32[B, L, C].

    The slots of the first scale are zero, since f_0 is.
    """
    known = [self.start(len(units)), *self.walk(units)[:-1]]
    return jnp.concatenate([self.down(f, k) for k, f in enumerate(known)], 1)

  def encode(self, f: Array) -> tuple[Array, list[Array]]:
    """Units i32[B, L] of latents f[B, H, H, C], and the sums f_1 ... f_K."""
    f = f.astype(jnp.float32)
    target = jax.lax.stop_gradient(f)
    fhat, units, sums = jnp.zeros_like(f), [], []
    for k in range(len(self.scales)):
      rest = jax.lax.stop_gradient(self.goal(target, k) - fhat)
      ids = ops.nearest_code(self.down(rest, k), self.codes)
      fhat = self.add(fhat, k, self.codes[ids])
      units.append(ids)
      sums.append(fhat)
    return jnp.concatenate(units, 1), sums

  def __call__(self, f: Array) -> tuple[Array, dict[str, Array], Array]:
    """Quantises for training.

    Returns:
      f_K with the gradient of f; losses "codebook" and "commit", f32[B],
      averaged over scales; units i32[B, L].
    """
    f = f.astype(jnp.float32)
    units, sums = self.encode(f)
    pairs = [(self.goal(f, k), s) for k, s in enumerate(sums)]
    losses = {
      "codebook": sum(codebook_loss(g, s) for g, s in pairs) / len(sums),
      "commit": sum(commitment(g, s, self.beta) for g, s in pairs) / len(sums),
    }
    return straight_through(f, sums[-1]), losses, units
