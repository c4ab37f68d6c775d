"""The small networks inside flow heads: noise and a hidden state in, out comes
what is to be predicted of the noise.

Each is called `net(x, at, h, mask=, pos=)`. All of it is float32: a sampler
calls these networks many times, and its errors add up.

Shapes: B batch, T units, C channels of a unit, D width of the hidden states,
W width of the network, N layers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.cross_attention import CrossAttention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import LayerNorm, RMSNorm, layer_norm, rms_norm
from ar_jax.nn.layers.placement import by_example
from ar_jax.nn.layers.times import TimeEmbed
from ar_jax.nn.stacks.blocks import Block, modulate, parts

Array = jax.Array


def _dense(n: int, name: str, *, zero: bool = False):
  init = nn.initializers.zeros if zero else nn.initializers.xavier_uniform()
  return nn.Dense(n, kernel_init=init, name=name)


class _Residual(nn.Module):
  """h += gate MLP(norm(h) (1 + scale) + shift), modulated by y."""

  width: int

  @nn.compact
  def __call__(self, h: Array, y: Array) -> Array:
    mod = _dense(3 * self.width, "ada", zero=True)(y)
    shift, scale, gate = jnp.split(mod, 3, -1)
    u = modulate(LayerNorm(name="norm")(h), scale, shift)
    u = nn.silu(_dense(self.width, "fc1")(u))
    return h + gate * _dense(self.width, "fc2")(u)


class TokenMLP(nn.Module):
  """MAR's residual MLP (arXiv 2406.11838, section 3.2 and appendix): every
  unit by itself. Its output begins at zero.

  Attributes:
    channels: C.
    width: W.
    depth: N.
    out: numbers per unit that come out: C of a velocity, 2 C with a variance.
    outer: whether it reads a second time, that of the state around the unit
      (Transition Matching, arXiv 2506.23589).
  """

  channels: int
  width: int
  depth: int
  out: int
  outer: bool = False

  # Whether units of a step see each other.
  grouped = False

  @nn.compact
  def __call__(
    self,
    x: Array,
    at: Array,
    h: Array,
    *,
    mask: Plan | None = None,
    pos: Array | None = None,
    outer: Array | None = None,
  ) -> Array:
    """f32[B, T, out].

    Args:
      x: f32[B, T, C], noisy units.
      at: f32[B, T], the time or level as `TimeEmbed` takes it.
      h: [B, T, D].
      mask: not used, like pos: each unit is alone.
      pos: not used.
      outer: f32[B, T], the second time, as `TimeEmbed` takes it.
    """
    del mask, pos
    y = TimeEmbed(self.width, name="time")(at)
    if self.outer:
      y = y + TimeEmbed(self.width, name="outer_time")(outer)
    y = y + _dense(self.width, "cond")(h.astype(jnp.float32))
    y = by_example(nn.silu(y))
    x = _dense(self.width, "latent")(x)
    block = _Residual(self.width, name="blocks")
    x = _stacked(block, self.depth, x, lambda block, x: block(x, y))
    shift, scale = jnp.split(_dense(2 * self.width, "ada", zero=True)(y), 2, -1)
    x = modulate(layer_norm(x), scale, shift)
    return _dense(self.out, "out", zero=True)(x)


def _stacked(block: nn.Module, depth: int, x: Array, layer) -> Array:
  """N layers, one after the other; parameters get a leading axis."""
  stack = nn.scan(
    lambda block, x, _: (by_example(layer(block, x)), None),
    variable_axes={"params": 0},
    split_rngs={"params": True},
    length=depth,
  )
  return stack(block, by_example(x), None)[0]


class _ModulatedBlock(nn.Module):
  """A block whose six modulations are made at every position."""

  width: int
  heads: int

  @nn.compact
  def __call__(self, x, time, cond, h, mask, pos):
    del time, h
    mod = _dense(6 * self.width, "ada")(nn.silu(cond))
    mod = mod.reshape(*x.shape[:2], 6, self.width)
    block = Block(
      _attention(self.heads, "mixer"), _swiglu(self.width, "mlp"), rms=True
    )
    return block(x, mod, mask, pos=pos)[0]


class _CrossAttentionBlock(nn.Module):
  """Attention modulated by time, then from x to h, then the MLP modulated at
  every position; see `GroupTransformer`."""

  width: int
  heads: int

  @nn.compact
  def __call__(self, x, time, cond, h, mask, pos):
    three = lambda name, y: parts(
      _dense(3 * self.width, name)(nn.silu(y)).reshape(
        *y.shape[:2], 3, self.width
      ),
      x.shape[1],
    )
    gate, scale, shift = three("ada_attention", time)
    u = modulate(rms_norm(x), scale, shift)
    mixer = _attention(self.heads, "mixer")
    x = x + gate * mixer(u, mask, pos=pos)[0]
    x = x + self._cross(x, h, mask, pos)
    gate, scale, shift = three("ada_mlp", cond)
    u = modulate(rms_norm(x), scale, shift)
    return x + gate * _swiglu(self.width, "mlp")(u)

  def _cross(self, x, h, mask, pos):
    x, h = RMSNorm(1e-6, name="norm_x")(x), RMSNorm(1e-6, name="norm_h")(h)
    cross = CrossAttention(
      self.width,
      self.heads,
      stddev=None,
      out_stddev=None,
      names=("cross_q", "cross_kv", "cross_out"),
    )
    nn.share_scope(self, cross)  # its matrices are named as our own
    return cross(x, cross.remember(h, pos=pos), mask, pos=pos)


def _attention(heads: int, name: str) -> Attention:
  return Attention(heads, stddev=None, out_stddev=None, name=name)


def _swiglu(width: int, name: str) -> SwiGLU:
  return SwiGLU(int(8 * width / 3), None, None, gelu=True, name=name)


class GroupTransformer(nn.Module):
  """FlowAR's transformer (arXiv 2412.15205, section 3.3): the units of one
  step see each other, and each is modulated by its own hidden state.

  In the larger form hidden states also come in by cross-attention, and
  attention is modulated by time alone. Its output begins at zero.

  Attributes:
    channels: C.
    width: W.
    depth: N.
    heads: of attention; W / 64 if None.
    cross: whether it is the larger form.
  """

  channels: int
  width: int
  depth: int
  heads: int | None = None
  cross: bool = False

  grouped = True

  @nn.compact
  def __call__(
    self,
    x: Array,
    at: Array,
    h: Array,
    *,
    mask: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """f32[B, T, C].

    Args:
      x: f32[B, T, C], noisy units of one step, or of all steps of a plan.
      at: f32[B, T], the time as `TimeEmbed` takes it.
      h: [B, T, D].
      mask: who sees whom: None, all; with units of several steps a Plan by
        the rule `within`.
      pos: where the units are, f32[T, K / 2, 2]; see `positions.rotate`.
    """
    h = by_example(h.astype(jnp.float32))
    heads = self.heads or self.width // 64
    time = TimeEmbed(self.width, name="time")(at)
    cond = by_example(time + _dense(self.width, "cond")(h))
    x = _dense(self.width, "latent")(x)
    kind = _CrossAttentionBlock if self.cross else _ModulatedBlock
    block = kind(self.width, heads, name="blocks")
    layer = lambda block, x: block(x, time, cond, h, mask, pos)
    x = _stacked(block, self.depth, x, layer)
    shift, scale = jnp.split(
      _dense(2 * self.width, "ada")(nn.silu(cond)), 2, -1
    )
    x = modulate(rms_norm(x), scale, shift)
    return _dense(self.channels, "out", zero=True)(x)
