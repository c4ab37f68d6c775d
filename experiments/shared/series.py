"""Training on series that lie in memory, as one program: the update of mode
train, `ar_jax.step.train_step`, in a loop over epochs on the device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import optax

from ar_jax import step
from ar_jax.core import prng
from ar_jax.core.system import System, Vars
from ar_jax.systems import mesa_optimization as mesa

OPTIONS = step.Options()


def rows(source, count: int | None = None) -> dict[str, np.ndarray]:
  """The first examples of a source, all by default, as one batch."""
  n = len(source) if count is None else min(count, len(source))
  found = [source[i] for i in range(n)]
  return {k: np.stack([row[k] for row in found]) for k in found[0]}


def adam(rate: float, steps: int) -> optax.GradientTransformation:
  """Adam, its rate on a cosine to 0."""
  return optax.adam(optax.cosine_decay_schedule(rate, steps))


def updates(batch: dict[str, Any], size: int, epochs: int) -> int:
  """How many there are; examples that fill no batch wait for another epoch."""
  return len(batch["series"]) // size * epochs


def fit(
  system: System,
  tx: optax.GradientTransformation,
  batch: dict[str, np.ndarray],
  *,
  size: int,
  epochs: int,
  seed: int,
  given: Vars | None = None,
) -> Vars:
  """The variables after so many passes over the examples.

  Args:
    system: to be trained.
    tx: the optimiser, the same object for the same program.
    batch: all examples, `history` and `series`.
    size: examples of an update; where it is all of them, their order stays.
    epochs: passes, each in an order of its own.
    seed: of the first weights and of the orders.
    given: collections that are taken as they are.
  """
  batch = {k: batch[k] for k in ("history", "series")}
  first = {k: v[:1] for k, v in batch.items()}
  state = step.init_state(system, tx, OPTIONS, prng.key(seed), first, given)
  key = jax.random.key(seed)
  state = _epochs(system, tx, state, batch, key, size, epochs)
  return jax.block_until_ready(state.variables)


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _epochs(system, tx, state, batch, key, size, epochs):
  n = len(batch["series"])
  per_epoch = n // size

  def update(state, at):
    part = {k: v[at] for k, v in batch.items()}
    state, _ = step.train_step(system, tx, OPTIONS, state, part, key)
    return state, None

  def epoch(state, key):
    order = jax.random.permutation(key, n) if size < n else np.arange(n)
    at = order[: per_epoch * size].reshape(per_epoch, size)
    return jax.lax.scan(update, state, at)

  return jax.lax.scan(epoch, state, jax.random.split(key, epochs))[0]


def vectors(batch) -> np.ndarray:
  """c64[B, T, d] of pairs of real and imaginary parts."""
  whole = np.concatenate([batch["history"], batch["series"]], 1)
  pairs = whole.reshape(*whole.shape[:2], -1, 2)
  return (pairs[..., 0] + 1j * pairs[..., 1]).astype(np.complex64)


def best_descent(batch) -> tuple[float, float, float]:
  """(c of the least loss of one step of descent on these sequences, that loss,
  the loss of the zero predictor)."""
  x = vectors(batch)
  p = np.asarray(mesa.descend(x, 1.0))[:, 1:-1].astype(np.complex128)
  y = x[:, 2:]
  c = np.vdot(p, y).real / np.vdot(p, p).real
  loss = lambda c: float(np.square(np.abs(c * p - y)).sum() / (2 * len(x)))
  return float(c), loss(c), loss(0)
