"""Vector quantisation: the pieces, and one codebook on a map.

Everything here runs in float32 whatever the compute dtype, because rounding
flips codes. Losses are per example. Shapes: B batch, L units, H latent side,
C latent channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax import ops

Array = jax.Array


def unit(z: Array, eps: float = 1e-12) -> Array:
  """z / |z| along the last axis, for codebooks on the sphere (l2-VQ); z / eps
  where it is shorter than that."""
  # The root of the larger one: that of 0 has no derivative.
  squares = jnp.sum(jnp.square(z), -1, keepdims=True)
  return z / jnp.sqrt(jnp.maximum(squares, eps**2))


# Where a code that is not allowed is put: nothing is nearer to it than to
# another, and its square is still a float.
_FAR = 1e15


def nearest_allowed(
  z: Array,
  codebook: Array,
  allowed: Array | None = None,
  slack: float | None = None,
) -> Array:
  """Index i32[B, ...] of the nearest code that may be taken.

  Args:
    z: f32[B, ..., C].
    codebook: f32[V, C].
    allowed: bool[V] or bool[B, V]; None allows all.
    slack: the nearest allowed code stands only where its squared distance is
      at most 1 + slack times that of the nearest of all, which is taken
      elsewhere; None always takes an allowed one.
  """
  if allowed is None:
    return ops.nearest_code(z, codebook)
  far = jnp.where(allowed[..., None], codebook, _FAR)
  own = ops.nearest_code if allowed.ndim == 1 else jax.vmap(ops.nearest_code)
  chosen = own(z, far)
  if slack is None:
    return chosen
  free = ops.nearest_code(z, codebook)
  apart = lambda ids: jnp.square(z - codebook[ids]).sum(-1)
  return jnp.where(apart(chosen) <= (1 + slack) * apart(free), chosen, free)


def straight_through(z: Array, e: Array) -> Array:
  """The value of e with the gradient of z."""
  return z + jax.lax.stop_gradient(e - z)


def rotated(z: Array, e: Array) -> Array:
  """The value of e, with the gradient of z turned and stretched as z is to
  become e (rotation trick, arXiv 2410.06424)."""
  held = jax.lax.stop_gradient
  norm = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
  u, v = held(unit(z, 1e-6)), held(unit(e, 1e-6))
  w = held(unit(u + v, 1e-6))
  along = lambda x, by: jnp.sum(x * by, -1, keepdims=True)
  turned = z - 2 * w * along(z, w) + 2 * v * along(z, u)
  return held(norm(e) / jnp.maximum(norm(z), 1e-6)) * turned


def codebook_loss(z: Array, e: Array, share: Array | None = None) -> Array:
  """Moves codes e[B, ...] towards sg(z): mean square per example, f32[B], or
  weighted by shares f32[B, ...] of the latents, which sum to 1."""
  return _mean_square(jax.lax.stop_gradient(z) - e, share)


def commitment(
  z: Array, e: Array, beta: float = 0.25, share: Array | None = None
) -> Array:
  """Moves the encoder's z[B, ...] towards sg(e); beta * mean square, f32[B],
  with shares as those of `codebook_loss`."""
  return beta * _mean_square(z - jax.lax.stop_gradient(e), share)


def _mean_square(x: Array, share: Array | None = None) -> Array:
  square, axes = jnp.square(x.astype(jnp.float32)), tuple(range(1, x.ndim))
  if share is None:
    return square.mean(axis=axes)
  return jnp.sum(square.mean(-1) * share, axes[:-1])


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
    rotation: whether gradients are turned on their way to z, see `rotated`;
      else they go straight through.
  """

  vocab: int
  channels: int
  sphere: bool = True
  beta: float = 0.25
  entropy: float = 0.0
  spread: float | None = None
  rotation: bool = False

  def setup(self):
    init = codebook_init(self.spread)
    shape = (self.vocab, self.channels)
    self.codes = self.param(
      "codebook", lambda key, shape: self._scaled(init(key, shape)), shape
    )

  def codebook(self) -> Array:
    """f32[V, C], of unit length on the sphere."""
    return self._scaled(self.codes)

  def encode(
    self,
    z: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> Array:
    """Ids i32[...] of latents [..., C]; of codes that are allowed, see
    `nearest_allowed`."""
    z = self._scaled(z.astype(jnp.float32))
    return nearest_allowed(z, self.codebook(), allowed, slack)

  def __call__(
    self, z: Array, share: Array | None = None
  ) -> tuple[Array, dict[str, Array], Array]:
    """Quantises for training.

    Args:
      z: [B, ..., C].
      share: f32[B, ...], of each latent in the two losses; they sum to 1 for
        each example. None for equal ones.

    Returns:
      The codes with the gradient of z [B, ..., C]; losses "codebook_loss" and
      "commit_loss" and perhaps "entropy", f32[B]; ids i32[B, ...].
    """
    z, codebook = self._scaled(z.astype(jnp.float32)), self.codebook()
    ids = ops.nearest_code(z, codebook)
    e = codebook[ids]
    losses = {
      "codebook_loss": codebook_loss(z, e, share),
      "commit_loss": commitment(z, e, self.beta, share),
    }
    if self.entropy:
      value = self.entropy * entropy_loss(z, codebook)
      losses["entropy"] = jnp.full(len(z), value)
    through = rotated if self.rotation else straight_through
    return through(z, e), losses, ids

  def _scaled(self, x: Array) -> Array:
    return unit(x) if self.sphere else x
