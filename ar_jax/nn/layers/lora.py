"""Low-rank changes of linear maps (LoRA, arXiv 2106.09685), of some positions
alone: the collection `lora`, which every `Linear` reads.

  y = W x + s B A x   at positions whose gate is open,   y = W x   at all others

A gate selects and does not multiply, so that a closed one leaves y to the bit
(arXiv 2507.11851). A tree of changes has the paths of the `params` of a net,
with {"a", "b"} in the place of {"kernel"}; it is trained as any other.

Shapes: N layers of a stack, n and m features in and out, r the rank, B batch,
T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from ar_jax.core import trees
from ar_jax.core.errors import UserError

Array = jax.Array
LORA = "lora"


def init(
  key: Array,
  params: Mapping[str, Any],
  rank: int,
  *,
  only: Sequence[str] = ("*",),
  stddev: float = 0.02,
) -> dict[str, Any]:
  """Changes that are none: a is normal, b is 0.

  Args:
    key: Key[].
    params: of a net, or shapes; matrices are the leaves `kernel`, [n, m] or
      [N, n, m].
    rank: r.
    only: patterns of the matrices that are changed, see `core.trees`.
    stddev: of a.

  Returns:
    For each of these matrices {"a": [..., n, r], "b": [..., r, m]}.

  Raises:
    UserError: the rank is no rank, or a pattern names no matrix.
  """
  if rank < 1:
    raise UserError(f"rank={rank}: must be at least 1")
  flat = traverse_util.flatten_dict(dict(params), sep="/")
  kernels = {k: v for k, v in flat.items() if k.endswith("/kernel")}
  chosen = set()
  for pattern in only:
    found = trees.named(kernels, pattern)
    if not found:
      raise UserError(f"lora: {trees.missing(kernels, pattern)}")
    chosen |= found
  made = {}
  for name, own in zip(
    sorted(chosen), jax.random.split(key, len(chosen)), strict=True
  ):
    *layers, n, m = kernels[name].shape
    stem = name.removesuffix("/kernel")
    made[f"{stem}/a"] = stddev * jax.random.normal(own, (*layers, n, rank))
    made[f"{stem}/b"] = jnp.zeros((*layers, rank, m))
  return traverse_util.unflatten_dict(made, sep="/")


def gated(tree: Mapping[str, Any], gate: Array, scale: float) -> dict[str, Any]:
  """The collection `lora` of changes, for a call at whose positions the gate
  bool[B | 1, T] is open or not; `scale` is s.

  Every matrix gets the gate, layers of a stack the same one.
  """
  flat, made = traverse_util.flatten_dict(dict(tree)), {}
  for path, x in flat.items():
    if path[-1] == "b":
      layers = x.shape[:-2]
      made[*path[:-1], "gate"] = jnp.broadcast_to(gate, (*layers, *gate.shape))
      x = scale * x
    made[path] = x
  return traverse_util.unflatten_dict(made)


def added(linear: nn.Module, x: Array) -> Callable[[Array], Array]:
  """What is to be done with the product y [B, T, m] of a layer with x
  [B, T, n], by what the collection holds for it; nothing if that is
  nothing."""
  if not linear.has_variable(LORA, "a"):
    return lambda y: y
  a, b, gate = (linear.get_variable(LORA, k) for k in ("a", "b", "gate"))
  change = (x @ a.astype(x.dtype)) @ b.astype(x.dtype)
  return lambda y: jnp.where(gate[..., None], y + change, y)
