"""M-VAR: attention within a scale, a state-space layer from scale to scale.

M-VAR: Decoupled Scale-wise Autoregressive Modeling for High-Quality Image
Generation (arXiv 2411.10433). New in it, against VAR:
  - a block has three branches: attention that sees its own scale only, a
    Mamba-2 layer over all slots so far, an MLP;
  - so a sampler carries no keys and values, but states of a fixed size. (The
    published one keeps the inputs of all Mamba layers and scans them anew.)

Shapes: B batch, L units, T slots of one scale, D width, N layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.plans import makers, plan
from ar_jax.core.system import Array, System, UserError
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mamba2 import Mamba2, States
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import AdaLN, layer_norm
from ar_jax.nn.stacks.blocks import modulate, parts

# The published models: arguments of `build`.
SIZES = {
  "d12": dict(depth=12, gate_init=1e-3, qk_norm=False),
  "d16": dict(depth=16, gate_init=1e-3, qk_norm=False),
  "d20": dict(depth=20, gate_init=1e-3, qk_norm=False),
  "d24": dict(depth=24, gate_init=1e-4),
  "d30": dict(depth=30, gate_init=1e-5),
  "d32": dict(depth=32, gate_init=1e-5),
}


class Decoupled(nn.Module):
  """As `blocks.Block`, of three branches one behind the other.

  Attributes:
    mixer: sees what the mask says; it has no cache.
    memory: sees all positions up to each, and keeps what a cache holds.
    mlp: acts on each position.
    eps: of the norms, which have no parameters.
  """

  mixer: Attention
  memory: Mamba2
  mlp: Mlp
  eps: float = 1e-6

  def __call__(
    self,
    x: Array,
    mod: Array,
    mask: Array | plan.Plan | None,
    *,
    pos: Array | None = None,
    cache: States | None = None,
    layer: Array | int = 0,
    keys: Array | None = None,
  ) -> tuple[Array, States | None]:
    """One layer; arguments as those of `Block`, and

    Args:
      mod: [B, 9, D]: gates, scales, shifts, of the three branches each.
    """
    del keys  # no dropout
    mod = parts(mod, x.shape[1])

    def add(x, i, branch):
      gate, scale, shift = mod[i::3]
      h = modulate(layer_norm(x, self.eps), scale, shift).astype(x.dtype)
      h, cache = branch(h)
      return x + (gate * h).astype(x.dtype), cache

    x, _ = add(x, 0, lambda h: self.mixer(h, mask, pos=pos))
    x, cache = add(x, 1, lambda h: self.memory(h, cache=cache, layer=layer))
    x, _ = add(x, 2, lambda h: (self.mlp(h), None))
    return x, cache

  def empty(
    self, depth: int, batch: int, length: int, width: int, dtype: Any
  ) -> States:
    """The cache of a stack before its first position; no length matters."""
    del length, dtype
    return self.memory.empty(depth, batch, width)


@system.passes_on("var")
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  num_classes: int,
  gate_init: float = 1e-3,
  features: int = 64,
  states: int = 64,
  chunk: int = 64,
  **sizes,
) -> System:
  """Builds M-VAR, a VAR with other blocks; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "multiscale_vq", **arguments}`.
    depth: layers.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    gate_init: initial factor on the gates of the attention and of the Mamba
      layer; those of the MLP begin at 0.5, as published.
    features: of a head of the Mamba layers.
    states: numbers of the state for each feature.
    chunk: positions that are scanned at once; nothing but speed and memory.
    **sizes: other arguments of VAR's `build`.

  Raises:
    UserError: sizes do not fit together.
  """
  first = system.build(
    "var", tokenizer=tokenizer, depth=depth, num_classes=num_classes, **sizes
  )
  net, stack = first.net, first.net.backbone
  if not isinstance(stack.ada, AdaLN):
    raise UserError("shared_ada: M-VAR has modulations for each layer")
  if 2 * net.width % features:
    raise UserError(
      f"features={features}: must divide {2 * net.width}, twice the width"
    )
  stddev = math.sqrt(1 / (3 * net.width))
  own = (gate_init, gate_init, *(0.5,) * 7)
  block = Decoupled(
    stack.block.mixer,
    Mamba2(
      features=features,
      states=states,
      stddev=stddev,
      chunk=chunk,
      dtype=stack.dtype,
    ),
    stack.block.mlp,
  )
  ada = stack.ada.clone(stddevs=tuple(stddev * part for part in own))
  net = net.clone(
    plan=makers.scales(first.tokenizer.scales, plan.within),
    backbone=stack.clone(block=block, ada=ada),
  )
  return dataclasses.replace(first, net=net)
