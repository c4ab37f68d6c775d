"""The gradient of a batch, whole or in parts, and what its loss may change."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ar_jax import parallel
from ar_jax.core import trees
from ar_jax.core.system import Batch, System, UserError, Vars


def of(
  system: System,
  variables: Vars,
  batch: Batch,
  key: jax.Array,
  total: jax.Array,
  parts: int = 1,
) -> tuple[Any, tuple[dict[str, jax.Array], Vars]]:
  """The share of these examples in the means over `total` of them.

  Args:
    system, variables, key: of the update.
    batch: of the update, or the part of it that a device has; `mask` weighs
      its examples.
    total: f32[], the sum of the mask over all devices.
    parts: of the batch, one after the other; their means add up.

  Returns:
    (gradients, (metrics, updates)); there are gradients of what the system
    trains alone. A metric `skipped` counts the parts that are to make no
    update.

  Raises:
    UserError: the loss updates what may not change.
  """
  if parts > 1:
    return _accumulated(system, variables, batch, key, total, parts)
  return _gradients(system, variables, batch, key, total)


def _gradients(system, variables, batch, key, total):
  """As `of`, of one part; those of several add up, but for the updates."""
  params = variables["params"]
  still = {k: v for k, v in params.items() if k not in trained(system, params)}
  frozen = {k: v for k, v in variables.items() if k != "params"}

  def objective(moved):
    given = {"params": {**moved, **still} if still else moved, **frozen}
    loss = system.loss(given, batch, key, train=True)
    updates = jax.tree.map(jnp.asarray, loss.updates)
    _check_updates(system, frozen, updates)
    mask = batch.get("mask", jnp.ones_like(loss.value))
    mean = lambda x: jnp.sum(x * mask) / total
    means = {k: mean(v) for k, v in loss.metrics.items()}
    if loss.skip is not None:
      means["skipped"] = jnp.asarray(loss.skip).astype(jnp.float32)
    value = mean(loss.value)
    return value, ({"loss": value, **means}, updates)

  moved = {k: v for k, v in params.items() if k not in still}
  return jax.grad(objective, has_aux=True)(moved if still else params)


def trained(system: System, params: Any) -> tuple[str, ...]:
  """The groups of the params that this program updates.

  Raises:
    UserError: there is no such group.
  """
  if system.trains is None:
    return tuple(params)
  if strange := sorted(set(system.trains) - set(params)):
    raise UserError(
      f"{type(system).__name__}.trains: the params have no group "
      f"{strange[0]!r}; there are {', '.join(sorted(params))}"
    )
  return tuple(system.trains)


def _check_updates(system: System, frozen: Vars, updates: Vars) -> None:
  """Raises UserError unless these collections may be changed so."""
  name = type(system).__name__
  if strange := sorted(updates.keys() - system.moving):
    may = ", ".join(sorted(system.moving)) or "none"
    raise UserError(
      f"{name}: its loss updates {', '.join(strange)}, of the collections that "
      f"may change ({may}) it is none; add it to {name}.moving"
    )
  kept = {k: frozen[k] for k in updates if k in frozen}
  if differs := trees.mismatch(kept, updates):
    raise UserError(
      f"{name}: its loss updates a collection to another structure: {differs}"
    )


def _accumulated(system, variables, batch, key, total, n):
  """As `_gradients`, in n parts; their examples are interleaved, so that a
  sharded batch axis stays where it is."""
  split = {
    k: jnp.swapaxes(v.reshape(-1, n, *v.shape[1:]), 0, 1)
    for k, v in batch.items()
  }
  first, rest = (
    jax.tree.map(lambda v: v[0], split),
    jax.tree.map(lambda v: v[1:], split),
  )
  grads, (metrics, updates) = _gradients(system, variables, first, key, total)
  grads = parallel.keep(grads)

  def add(so_far, microbatch):
    grads, (metrics, updates) = _gradients(
      system, variables, microbatch, key, total
    )
    grads = parallel.keep(grads)
    return jax.tree.map(jnp.add, so_far, (grads, metrics)), updates

  (grads, metrics), later = jax.lax.scan(add, (grads, metrics), rest)
  updates = jax.tree.map(_mean_of_parts, updates, later)
  return grads, (metrics, updates)


def _mean_of_parts(first: jax.Array, later: jax.Array) -> jax.Array:
  """Running means are updated by every part; counts by the last one."""
  if not jnp.issubdtype(first.dtype, jnp.floating):
    return later[-1]
  return (first + later.sum(0)) / (1 + len(later))


def mean_of_devices(updates: Vars, axis: str) -> Vars:
  """Running means over all devices.

  Raises:
    UserError: some are no such means.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      raise UserError(
        f"parallel=pmap: the loss updates {name}, {leaf.dtype}, of which the "
        "devices have no mean; take parallel=jit"
      )
  return jax.lax.pmean(updates, axis)
