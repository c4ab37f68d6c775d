"""Continuous integrate-and-fire (arXiv 1905.11235): how many symbols are heard,
and what is heard of each.

Every frame has a weight; the frames of a symbol are those among which the sum
of weights rises by one. In place of the loop over frames stands what it comes
to, w[n, t] = max(0, min(c[t], n + 1) - max(c[t - 1], n)) with the running sum
c, which equals it where no weight exceeds 1 and has as many symbols as the sum
says where some do.

Shapes: B batch, T frames, D width, P symbols at most.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers.linear import Linear

Array = jax.Array

TAIL = 0.45  # of a frame behind the last one, when symbols are counted
_ENOUGH = 1e-4  # by which a sum of float32 may miss a whole number


def shares(sums: Array, count: int) -> Array:
  """f32[B, P, T]: how much of each frame belongs to each of `count` symbols.

  Args:
    sums: f32[B, T], the running sums of the weights.
    count: P.
  """
  before = jnp.pad(sums[:, :-1], ((0, 0), (1, 0)))[:, None]
  n = jnp.arange(count, dtype=jnp.float32)[None, :, None]
  part = jnp.minimum(sums[:, None], n + 1) - jnp.maximum(before, n)
  return jnp.maximum(part, 0.0)


def fire(hidden: Array, sums: Array, count: int) -> Array:
  """f32[B, P, D]: the vectors of the first `count` symbols; 0 behind the last,
  and what is left over of the sum in the place behind it."""
  weights = shares(sums, count)
  return jnp.einsum("bpt,btd->bpd", weights, hidden.astype(jnp.float32))


def scaled(alphas: Array, target: Array, there: Array) -> Array:
  """Running sums f32[B, T] of weights that are brought to a known number of
  symbols, which they reach exactly (training).

  Args:
    alphas: f32[B, T], 0 where no frame is.
    target: i32[B].
    there: bool[B, T]; frames that are none are at the end.
  """
  target = target.astype(jnp.float32)[:, None]
  sums = jnp.cumsum(alphas, 1)
  sums = sums * target / jnp.maximum(sums[:, -1:], 1e-6)
  later = jnp.pad(there[:, 1:], ((0, 0), (0, 1)))
  return jnp.where(later, jnp.minimum(sums, target), target)


def tailed(
  hidden: Array, alphas: Array, there: Array, tail: float = TAIL
) -> tuple[Array, Array, Array]:
  """What reading takes: (hidden [B, T + 1, D], running sums f32[B, T + 1], how
  many symbols there are i32[B]), with a weight `tail` on the frame behind the
  last one of each example."""
  hidden = jnp.pad(hidden, ((0, 0), (0, 1), (0, 0)))
  alphas = jnp.pad(alphas, ((0, 0), (0, 1)))
  behind = jnp.arange(alphas.shape[1])[None] == there.sum(1)[:, None]
  sums = jnp.cumsum(alphas + tail * behind, 1)
  count = jnp.floor(sums[:, -1] + _ENOUGH).astype(jnp.int32)
  return hidden, sums, count


class Predictor(nn.Module):
  """The weights of frames.

  Attributes:
    width: D.
    depthwise: whether the convolution over three frames is of every channel by
      itself, with the frame added to it (the first version), or whole (the
      second).
    smooth, noise: weights are max(0, smooth * sigmoid - noise).
    dropout: of what the convolution makes.
    released: whether frames behind the end of an example are read as the
      encoder left them, as the released code does in a batch; else as zeros.
  """

  width: int
  depthwise: bool = False
  smooth: float = 1.0
  noise: float = 0.0
  dropout: float = 0.0
  released: bool = False

  @nn.compact
  def __call__(
    self, hidden: Array, there: Array, keys: Array | None = None
  ) -> Array:
    """f32[B, T] in [0, 1], 0 where no frame is.

    Args:
      hidden: [B, T, D].
      there: bool[B, T].
      keys: Key[B] for dropout, or None.
    """
    x = hidden.astype(jnp.float32)
    if not self.released:
      x = x * there[..., None]
    inner = 1 if self.depthwise else self.width
    init = nn.initializers.lecun_normal()
    kernel = self.param("kernel", init, (3, inner, self.width))
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    t = x.shape[1]
    near = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    taps = [near[:, i : i + t] for i in range(3)]
    if self.depthwise:
      made = sum(y * kernel[i][None] for i, y in enumerate(taps)) + x
    else:
      made = sum(y @ kernel[i] for i, y in enumerate(taps))
    made = made + bias[None, None]
    if keys is not None and self.dropout:
      kept = jax.vmap(
        lambda k: jax.random.bernoulli(k, 1 - self.dropout, made.shape[1:])
      )(keys)
      made = jnp.where(kept, made / (1 - self.dropout), 0)
    logit = Linear(1, name="out")(nn.relu(made))[..., 0]
    weight = nn.relu(self.smooth * nn.sigmoid(logit) - self.noise)
    return weight * there
