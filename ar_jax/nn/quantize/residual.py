"""VAR's residual quantiser over many scales.

Shapes: B batch, L units, H latent side, C latent channels, V vocabulary, p_k
side of scale k.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.signals import bands
from ar_jax.core.signals.resize import resize
from ar_jax.nn.quantize.vq import (
  codebook_init,
  codebook_loss,
  commitment,
  nearest_allowed,
  straight_through,
)

Array = jax.Array


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
    phis: number of convs phi, shared by neighbouring scales; 0: every phi is
      the identity.
    mix: phi(h) = (1 - mix) h + mix conv(h).
    beta: weight of the term that moves the encoder.
    spread: see `codebook_init`.
    bands: scale k codes what is left of the frequencies up to its band, by
      this rule of `core.signals.bands`, in place of the whole latent (NFIG,
      arXiv 2503.07076); None codes all frequencies at every scale.
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
    if not self.phis:
      return
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
    if not self.phis:
      return fhat + h
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

  def encode(
    self,
    f: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> tuple[Array, list[Array]]:
    """Units i32[B, L] of latents f[B, H, H, C], and the sums f_1 ... f_K; of
    codes that are allowed, see `nearest_allowed`: what a map cannot say, those
    after it may."""
    f = f.astype(jnp.float32)
    target = jax.lax.stop_gradient(f)
    fhat, units, sums = jnp.zeros_like(f), [], []
    for k in range(len(self.scales)):
      rest = jax.lax.stop_gradient(self.goal(target, k) - fhat)
      ids = nearest_allowed(self.down(rest, k), self.codes, allowed, slack)
      fhat = self.add(fhat, k, self.codes[ids])
      units.append(ids)
      sums.append(fhat)
    return jnp.concatenate(units, 1), sums

  def __call__(self, f: Array) -> tuple[Array, dict[str, Array], Array]:
    """Quantises for training.

    Returns:
      f_K with the gradient of f; losses "codebook_loss" and "commit_loss",
      f32[B], averaged over scales; units i32[B, L].
    """
    f = f.astype(jnp.float32)
    units, sums = self.encode(f)
    pairs = [(self.goal(f, k), s) for k, s in enumerate(sums)]
    losses = {
      "codebook_loss": sum(codebook_loss(g, s) for g, s in pairs) / len(sums),
      "commit_loss": sum(commitment(g, s, self.beta) for g, s in pairs)
      / len(sums),
    }
    return straight_through(f, sums[-1]), losses, units
