"""How a `NextNeighbour` draws: a front a step.

Shapes: B batch, L units, W units of the widest front of a run, A axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs, pick, refine, steps
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Vars
from ar_jax.families.token.fronts import NextNeighbour, parents
from ar_jax.families.token.prefix import Cond

Array = jax.Array
# Of `refine.stretches`: fronts share a program until one is so much wider.
_WASTE = 1.0


def generate(
  net: NextNeighbour,
  variables: Vars,
  cond: Cond,
  keys: Array,
  scales: tuple[float, ...] | None = None,
  *,
  bias: Array | None = None,
  **law: float,
) -> Array:
  """Draws the units of one example per key, i32[B, L], a front a step.

  Args:
    net: the transformer.
    variables: its own.
    cond: what its prefix takes.
    keys: Key[B].
    scales: of guidance, one for each front; None is off.
    bias: f32[B, V]; see `pick.biased`.
    **law: see `pick.law`.
  """
  # Bound anew wherever it is called: a loop is a trace of its own.
  grid, bound = net.plan, lambda: net.bind(variables)
  slots, weights = parents(grid)
  sizes = np.array(grid.sizes)
  starts = np.cumsum(sizes) - sizes
  guided = scales is not None
  rows = len(keys) * (1 + guided)
  hidden = pairs.without(len(keys)) if guided else None
  cond = pairs.double(dict(cond), guided)

  def draw(hs, lanes, shares, scale, keys):
    if guided:
      # The heads are linear: guiding their input guides the mixed logits.
      hs = [pick.guide(*pairs.split(h), scale) for h in hs]
    logits = bound().mixed(hs, lanes, shares)
    logits = pick.biased(logits, bias, law.get("temperature", 1.0))
    return pick.draw(pick.law(logits, **law), keys)

  variables = net.ready(variables, rows * int(sizes.max()))
  hs, caches = bound().begin(cond, rows, hidden)
  valid = bound().prefix.valid(cond)
  # The first front has no parent: all its lanes read the prefix.
  first = grid.span(0)
  units = draw(
    hs,
    np.zeros_like(slots[:, first]),
    weights[:, first],
    scales[0] if guided else 1.0,
    steps.fold(keys, 0),
  )

  every = [units]
  # A step reads a front and draws the next; few widths are few programs.
  widths = np.maximum(sizes[:-1], sizes[1:])
  for run in refine.stretches(widths, _WASTE):
    begin, count, width = run.start + 1, len(run.sizes), run.width
    lanes, shares = map(jnp.asarray, _lanes(grid, begin, count, width))

    def step(carry, s, keys, begin=begin, lanes=lanes, shares=shares):
      units, caches = carry
      start, size = jnp.asarray(starts)[s - 1], jnp.asarray(sizes)[s - 1]
      doubled = pairs.double(units, guided)
      hs, caches = bound().step(doubled, start, size, caches, valid)
      scale = jnp.asarray(scales)[s] if guided else 1.0
      units = draw(hs, lanes[s - begin], shares[s - begin], scale, keys)
      return (units, caches), units

    spare = max(0, width - units.shape[1])
    carry = jnp.pad(units, ((0, 0), (0, spare)))[:, :width], caches
    (units, caches), drawn = steps.scan_steps(
      step, carry, count, keys, start=begin
    )
    every += [drawn[:, i, : sizes[begin + i]] for i in range(count)]
  return jnp.concatenate(every, axis=1)


def _lanes(
  grid: Plan, begin: int, count: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Parents by lane: i32 and f32[count, A, width], for fronts from `begin`.

  A parent is a lane of the front before; lanes without a unit weigh nothing.
  """
  slots, weights = parents(grid)
  lanes = np.zeros((count, len(slots), width), np.int32)
  shares = np.zeros(lanes.shape, np.float32)
  for i in range(count):
    own, before = grid.span(begin + i), grid.span(begin + i - 1)
    size = own.stop - own.start
    lanes[i, :, :size] = np.maximum(slots[:, own] - before.start, 0)
    shares[i, :, :size] = weights[:, own]
  return lanes, shares
