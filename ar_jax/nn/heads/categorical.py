"""What law the next units follow, given the hidden states before them.

Any head fits any backbone, here and in `nn.heads.flow`:

  loss(h, target, keys, *, plan, pos) -> f32[B, T]    what training minimises
  draw(h, keys, *, h_null, scale, **own) -> units     guided where h_null is
  nll(h, target, ...) -> f32[B, T]               where there is a likelihood

Heads of codes draw with a `bias` as well, see `pick.biased`. `plan` and `pos`
tell heads whose units of one step see each other which these are and where;
other heads do not look at them.

Shapes: B batch, T positions, D width, V vocabulary, K bits.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.plans.plan import Plan

Array = jax.Array


def cross_entropy(
  logits: Array, target: Array, *, smoothing: float = 0.0
) -> Array:
  """-log p(target), f32[...], of logits f32[..., V].

  With smoothing e, the target is mixed with the uniform law: (1 - e) times
  the above plus e times the mean of -log p over the vocabulary.
  """
  total = jax.nn.logsumexp(logits, -1)
  chosen = jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
  if smoothing:
    chosen = (1 - smoothing) * chosen + smoothing * jnp.mean(logits, -1)
  return total - chosen


def smoothed_divergence(
  logits: Array, target: Array, smoothing: float
) -> Array:
  """KL(label || law) >= 0, f32[...], of logits f32[..., V], where a label keeps
  1 - smoothing and all other units share the rest (FunASR, OpenOCR)."""
  v, e = logits.shape[-1], smoothing
  each = cross_entropy(logits, target, smoothing=e * v / (v - 1))
  if not e:
    return each
  return each + (1 - e) * math.log(1 - e) + e * math.log(e / (v - 1))


class Categorical(nn.Module):
  """A linear map to the logits of V units, in float32.

  Attributes:
    vocab: V.
    stddev: initial standard deviation.
    bias: whether the map has one.
  """

  vocab: int
  stddev: float = 0.02
  bias: bool = True

  def setup(self):
    self.linear = nn.Dense(
      self.vocab,
      use_bias=self.bias,
      kernel_init=nn.initializers.normal(self.stddev),
      dtype=jnp.float32,
    )

  def logits(self, h: Array) -> Array:
    """f32[B, T, V] of h [B, T, D]."""
    return self.linear(h.astype(jnp.float32))

  def nll(self, h: Array, target: Array, *, smoothing: float = 0.0) -> Array:
    """f32[B, T], the cross-entropy of target i32[B, T]."""
    return cross_entropy(self.logits(h), target, smoothing=smoothing)

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array | None = None,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
    smoothing: float = 0.0,
  ) -> Array:
    """As `nll`; nothing is random here, and every unit is alone."""
    del keys, plan, pos
    return self.nll(h, target, smoothing=smoothing)

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    bias: Array | None = None,
    **law,
  ) -> Array:
    """Log-probabilities f32[B, T, V] from which units are drawn.

    Args:
      h: [B, T, D].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance; 1.0 is off.
      bias: see `pick.biased`.
      **law: see `pick.law`.
    """
    temperature = law.get("temperature", 1.0)
    if h_null is None:
      logits = self.logits(h)
    else:
      logits = self.guided(h, h_null, scale)
    return pick.law(pick.biased(logits, bias, temperature), **law)

  def guided(self, h: Array, h_null: Array, scale: Array | float) -> Array:
    """Guided logits f32[B, T, V]; arguments as in `law`."""
    # The head is linear: guiding its input guides the logits, at half the
    # cost.
    h, h_null = h.astype(jnp.float32), h_null.astype(jnp.float32)
    return self.logits(pick.guide(h, h_null, scale))

  def draw(
    self, h: Array, keys: Array, *, pos: Array | None = None, **options
  ) -> Array:
    """Units i32[B, T], drawn with keys Key[B]; options as in `law`."""
    del pos
    return pick.draw(self.law(h, **options), keys)


class Hidden(Categorical):
  """As `Categorical`, behind a hidden layer: linear, exact GELU, linear.

  Attributes:
    vocab, stddev, bias: as there.
    width: E, of the hidden layer.
  """

  width: int = 64

  def setup(self):
    super().setup()
    init = nn.initializers.normal(0.02)
    self.fc1 = nn.Dense(self.width, kernel_init=init, dtype=jnp.float32)

  def logits(self, h: Array) -> Array:
    x = self.fc1(h.astype(jnp.float32))
    return self.linear(nn.gelu(x, approximate=False))

  def guided(self, h: Array, h_null: Array, scale: Array | float) -> Array:
    # Not linear: it is the logits that are guided.
    return pick.guide(self.logits(h), self.logits(h_null), scale)
