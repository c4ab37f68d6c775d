"""From noise to data in few steps, each of which draws the next state.

Transition Matching (arXiv 2506.23589): the states X_0, ..., X_T are those of a
*process* at the times tau_0 = 0, ..., tau_T = 1,

  X_t = (1 - tau_t) e_t + tau_t x,

with data x and normal noise e: one noise for all states ("linear"), or a fresh
one for each ("independent"). Either has the same law of every single state.

Shapes: B batch, T transitions; x is [B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.flows import solvers

Array = jax.Array
# (x, s i32[], tau f32[], Key[B]) -> [B, ...]
Kernel = Callable[[Array, Array, Array, Array], Array]

PROCESSES = ("linear", "independent")
GRIDS = ("uniform", "exponential")


def times(steps: int, grid: str = "uniform") -> np.ndarray:
  """tau_0 = 0, ..., tau_T = 1, f64[T + 1].

  Args:
    steps: T.
    grid: "uniform", or "exponential": every transition but the last goes half
      of the way that is left, 0, 0.5, 0.75, 1 for T = 3.

  Raises:
    UserError: there is no transition, or no such grid.
  """
  if steps < 1 or grid not in GRIDS:
    raise UserError(
      f"{steps} transitions on the grid {grid!r}: at least one, and a grid of "
      f"{', '.join(GRIDS)}"
    )
  if grid == "uniform":
    return solvers.uniform_grid(steps)
  return np.append(1 - 0.5 ** np.arange(steps), 1.0)


def states(
  x: Array, keys: Array, taus: Sequence[float], process: str = "linear"
) -> Array:
  """The states of examples, f32[B, T + 1, ...].

  Args:
    x: f32[B, ...], data.
    keys: Key[B].
    taus: of the states, T + 1 numbers.
    process: of PROCESSES.

  Raises:
    UserError: no such process.
  """
  check_choice("process", process, PROCESSES)
  fresh = len(taus) if process == "independent" else 1
  noise = solvers.noise(keys, (fresh, *x.shape[1:]))
  tau = jnp.asarray(np.asarray(taus), jnp.float32)
  tau = tau.reshape(1, -1, *(1,) * (x.ndim - 1))
  return (1 - tau) * noise + tau * x[:, None]


def follow(
  kernel: Kernel, x: Array, taus: Sequence[float], keys: Array
) -> Array:
  """X_T from X_0, by a kernel that draws the next state; traced once.

  Args:
    kernel: (X_s, s, tau_s, keys) -> X_(s+1).
    x: f32[B, ...], X_0.
    taus: rising, from 0 to 1.
    keys: Key[B], of which every transition gets its own.
  """

  def step(x, row):
    s, tau = row
    return kernel(x, s, tau, fold(keys, s)), None

  start = np.asarray(taus, np.float32)[:-1]
  return jax.lax.scan(step, x, (np.arange(len(start)), start))[0]


def differences(
  kernel: Kernel, x: Array, taus: Sequence[float], keys: Array
) -> Array:
  """As `follow`, of a kernel that draws Y = X_T - X_0, the whole way in the
  noise that it began with: X_(s+1) = X_s + (tau_(s+1) - tau_s) Y (DTM)."""
  steps = jnp.asarray(np.diff(np.asarray(taus, np.float64)), jnp.float32)
  move = lambda x, s, tau, keys: x + steps[s] * kernel(x, s, tau, keys)
  return follow(move, x, taus, keys)
