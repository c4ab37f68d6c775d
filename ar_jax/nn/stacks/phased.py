"""Layers of ViT that know which phase of generation they work in (Hi-MAR,
arXiv 2505.20288, section 3.3): a scale behind each norm and a gate before each
sum, of every phase its own. They begin as plain layers.

Shapes: B batch, T positions, D width, N layers, P phases.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans.plan import Plan
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.linear import initial
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

Array = jax.Array


class PhaseModulation(nn.Module):
  """What every layer takes of a phase: Linear(SiLU(e_p)) a_p + b_p, where the
  linear is that of the whole stack, and a and b are each layer's own. The
  published code has no shift, and a table of phases where the paper writes
  sinusoids.

  Attributes:
    depth: N.
    width: D.
    phases: P.
  """

  depth: int
  width: int
  phases: int = 2

  @nn.compact
  def __call__(self, phase: int) -> Array:
    """f32[N, 1, 4, D] of phase 0 .. P - 1: scale and gate of attention, and of
    the MLP."""
    rows = nn.initializers.normal(1.0)
    table = nn.Embed(self.phases, self.width, embedding_init=rows, name="phase")
    lead = nn.Dense(4 * self.width, kernel_init=initial(None), name="lead")
    shape = self.depth, self.phases, 4 * self.width
    scale = self.param("scale", nn.initializers.zeros, shape)
    shift = self.param("shift", _ungated, shape)
    row = lead(nn.silu(table(jnp.full((1,), phase))))
    mod = row * scale[:, phase] + shift[:, phase]
    return mod.reshape(self.depth, 1, 4, self.width)


def _ungated(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Scales of 0 and gates of 1."""
  del key  # nothing random
  return jnp.tile(jnp.repeat(jnp.array([0, 1, 0, 1], dtype), shape[-1] // 4),
                  (*shape[:-1], 1))  # fmt: skip


class PhasedBlock(nn.Module):
  """x += gate mixer(norm(x) (1 + scale)), then the same with an MLP; the norms
  have parameters.

  Attributes:
    mixer: mixes positions; called and answering as `Attention`.
    mlp: acts on each position.
    eps: of the norms.
    dropout: share of the features of the branches that training drops.
  """

  mixer: nn.Module
  mlp: nn.Module
  eps: float = 1e-6
  dropout: float = 0.0

  def setup(self):
    self.norm1, self.norm2 = LayerNorm(self.eps), LayerNorm(self.eps)

  def __call__(
    self,
    x: Array,
    mod: Array,
    mask: Array | Plan | None,
    *,
    pos: Array | None = None,
    cache: Any = None,
    layer: Array | int = 0,
    keys: Array | None = None,
  ) -> tuple[Array, Any]:
    """One layer; arguments as those of `blocks.Block`, and

    Args:
      mod: f32[1, 4, D], as `PhaseModulation` makes it.
    """
    scale1, gate1, scale2, gate2 = (mod[:, None, i] for i in range(4))
    h = (self.norm1(x) * (1 + scale1)).astype(x.dtype)
    h, cache = self.mixer(h, mask, pos=pos, cache=cache, layer=layer)
    x = x + (gate1 * dropout(h, keys, self.dropout, 0)).astype(x.dtype)
    h = self.mlp((self.norm2(x) * (1 + scale2)).astype(x.dtype))
    x = x + (gate2 * dropout(h, keys, self.dropout, 1)).astype(x.dtype)
    return x, cache

  def empty(self, *sizes) -> Cache:
    """See `Attention.empty`."""
    return self.mixer.empty(*sizes)


def phased_vit(
  depth: int,
  width: int,
  heads: int,
  phases: int = 2,
  *,
  dropout: float = 0.1,
  eps: float = 1e-6,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> Backbone:
  """A stack of ViT's layers that several phases share; `Backbone.condition` of
  the number of a phase is what it is called with.

  Args:
    depth, width, heads, dropout, eps, remat, dtype, impl: as in `vit`.
    phases: P.

  Raises:
    UserError: sizes do not fit together.
  """
  own = dict(dropout=dropout, eps=eps, remat=remat, dtype=dtype, impl=impl)
  plain = vit(depth, width, heads, **own)
  block = PhasedBlock(plain.block.mixer, plain.block.mlp, eps, dropout)
  return plain.clone(block=block, ada=PhaseModulation(depth, width, phases))
