"""Where a slot is: learned tables over a plan, and rotations of a grid.

Shapes: B batch, T positions, L slots, H heads, K features per head.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.plans.plan import Plan
from ar_jax.core.signals.resize import matrix

Array = jax.Array


class SlotEmbed(nn.Module):
  """One learned vector per slot, plus one per step (VAR's level embedding).

  Attributes:
    plan: gives the slots and the step of each.
    width: D.
    stddev: initial standard deviation.
  """

  plan: Plan
  width: int
  stddev: float = 0.02

  @nn.compact
  def __call__(self, span: slice | Array = slice(None)) -> Array:
    """f32[slots of span, D]; of a slice, or of slots i32[T]."""
    init = nn.initializers.normal(self.stddev)
    slot = self.param("slot", init, (len(self.plan), self.width))
    step = self.param("step", init, (self.plan.steps, self.width))
    of = jnp.asarray(self.plan["step"])[span]
    return slot[span] + jnp.take(step, of, axis=0)


class GridEmbed(nn.Module):
  """One learned table of G x G vectors, resized to maps of any size (FlexVAR,
  arXiv 2502.20313), so that its parameters belong to no list of scales.

  It begins with the sine of the row and the cosine of the column, in turns, of
  frequencies 10000^(-2 j / D).

  Attributes:
    side: G.
    width: D.
  """

  side: int
  width: int

  @nn.compact
  def __call__(self, rows: Array, cols: Array) -> Array:
    """f32[T, D] of slots that average the table with the weights f32[T, G] of
    its rows and of its columns; see `grid_weights`."""
    shape = (self.side, self.side, self.width)
    table = self.param("table", _sines, shape)
    cells = rows[:, :, None] * cols[:, None, :]
    return jnp.einsum(
      "tyx,yxd->td", cells, table, precision=jax.lax.Precision.HIGHEST
    )


def _sines(key: Array, shape: tuple[int, int, int]) -> Array:
  del key  # nothing random
  height, width, features = shape
  j = np.arange(features) // 2
  frequency = 1e4 ** (-2 * j / features)
  angle = lambda n: np.arange(n)[:, None] * frequency
  rows, cols = np.sin(angle(height)), np.cos(angle(width))
  even = np.arange(features) % 2 == 0
  table = np.where(even, rows[:, None], cols[None])
  return jnp.asarray(table, jnp.float32)


def grid_weights(plan: Plan, side: int) -> tuple[np.ndarray, np.ndarray]:
  """How much each slot takes of each row and of each column of a table of
  `side` x `side`, f32[L, side] both: the table resized by areas to each map."""
  rows, cols = [], []
  for step in range(plan.steps):
    at = plan.span(step)
    row, col = plan["row"][at], plan["col"][at]
    rows.append(matrix(side, int(row.max()) + 1, "area")[row])
    cols.append(matrix(side, int(col.max()) + 1, "area")[col])
  return np.concatenate(rows), np.concatenate(cols)


def sine_grid(h: int, w: int, width: int) -> np.ndarray:
  """The fixed table of places of MAE, DiT and SiT, f32[h w, D], row by row:
  sines, then cosines of the column, and then those of the row, of frequencies
  10000^(-4 j / D).

  Raises:
    UserError: D is not a multiple of 4.
  """
  if width % 4:
    raise UserError(f"width={width}: a table of places needs a multiple of 4")
  frequency = 1e4 ** (-4 * np.arange(width // 4) / width)
  rows, cols = np.indices((h, w)).reshape(2, -1, 1)
  turn = lambda at: [np.sin(at * frequency), np.cos(at * frequency)]
  return np.concatenate(turn(cols) + turn(rows), axis=1).astype(np.float32)


PREFIX_ROPES = ("zero", "identity")


def rope(
  plan: Plan,
  features: int,
  *,
  prefix: int,
  prefix_rope: str,
  slots: Sequence[int] = (),
  base: float = 1e4,
) -> np.ndarray:
  """Rotations (RoPE) of a prefix and the slots behind it: two-dimensional
  where the plan has rows and columns, see `rope_grid`, else those of a line.

  On a line slot i turns by i, all pairs with the frequencies base^(-2 j / K),
  j = 0 .. K/2 - 1 (arXiv 2104.09864).

  Args:
    plan: of the slots.
    features: K; a multiple of 4, on a line of 2.
    prefix: positions before the slots.
    prefix_rope: as in `rope_grid`; on a line also "line": the prefix is the
      line before slot 0, its last position at -1.
    slots: for each position of the prefix the slot at whose place it lies, -1
      for none; () for none at all.
    base: of the frequencies of a line.

  Returns:
    f32[prefix + L, K / 2, 2], cosines and sines, for `rotate`.

  Raises:
    UserError: no such `prefix_rope`, K is no such multiple, or there is no
      such slot.
  """
  if "row" in plan.names:
    if prefix_rope == "line":
      raise UserError("prefix_rope='line': these units lie on a grid")
    table = rope_grid(plan, features, prefix=prefix, prefix_rope=prefix_rope)
  else:
    table = _rope_line(len(plan), features, prefix, prefix_rope, base)
  if slots and max(slots) >= len(plan):
    raise UserError(
      f"a prefix at the place of unit {max(slots)}: there are {len(plan)}"
    )
  own = np.asarray(slots, int)
  before = table[:prefix]
  before[: len(own)][own >= 0] = table[prefix:][own[own >= 0]]
  return table


def _rope_line(
  length: int, features: int, prefix: int, prefix_rope: str, base: float
) -> np.ndarray:
  if prefix_rope not in (*PREFIX_ROPES, "line"):
    raise UserError(
      f"prefix_rope={prefix_rope!r}: choose one of "
      f"{', '.join(PREFIX_ROPES)}, line"
    )
  if features % 2:
    raise UserError(f"heads of {features} features: RoPE needs an even number")
  at = np.arange(-prefix, length)
  if prefix_rope != "line":
    at = np.maximum(at, 0)
  angle = at[:, None] * base ** (-2 * np.arange(features // 2) / features)
  table = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
  if prefix_rope == "zero":
    table[:prefix] = 0
  return table


def line_turns(at: Array, features: int, base: float = 1e4) -> Array:
  """Rotations of places on a line, told at run time: `rope` without a table.

  Args:
    at: [...], where the positions are.
    features: K, even.
    base: of the frequencies.

  Returns:
    f32[..., K / 2, 2], cosines and sines, for `rotate`.
  """
  frequency = base ** (-2 * np.arange(features // 2) / features)
  angle = jnp.multiply.outer(
    jnp.asarray(at, jnp.float32), frequency.astype(np.float32)
  )
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def rope_grid(
  plan: Plan, features: int, *, prefix: int, prefix_rope: str
) -> np.ndarray:
  """Two-dimensional rotations (RoPE) of a prefix and the slots behind it.

  The first half of the pairs turns by the row, the second by the column, with
  frequencies 10000^(-4 j / K), j = 0 .. K/4 - 1. A slot turns by its own place,
  wherever the prefix moves it in the sequence.

  Args:
    plan: has `row` and `col`.
    features: K, a multiple of 4.
    prefix: positions before the slots.
    prefix_rope: "zero" gives the prefix cos = sin = 0, as in the published
      LlamaGen: its queries and keys vanish, so every score from or to it is 0
      and only its values matter. "identity" leaves it unturned.

  Returns:
    f32[prefix + L, K / 2, 2], cosines and sines, for `rotate`.

  Raises:
    UserError: no such `prefix_rope`, or K is not a multiple of 4.
  """
  check_choice("prefix_rope", prefix_rope, PREFIX_ROPES)
  before = np.zeros((prefix, features // 2, 2), np.float32)
  if prefix_rope == "identity":
    before[..., 0] = 1
  return np.concatenate([before, rotations(plan["row"], plan["col"], features)])


def rotations(
  row: np.ndarray, col: np.ndarray, features: int, base: float = 1e4
) -> np.ndarray:
  """The rotations f32[L, K / 2, 2] of places (row[L], col[L]); see
  `rope_grid`."""
  if features % 4:
    raise UserError(f"heads of {features} features: RoPE needs a multiple of 4")
  half = features // 2
  frequency = base ** (-2 * np.arange(half // 2) / half)
  angle = np.concatenate(
    [axis[:, None] * frequency for axis in (row, col)], axis=1
  )
  return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


def rope_scales(
  sides: Sequence[int], features: int, *, extent: float = 16.0
) -> np.ndarray:
  """Rotations f32[L, K / 2, 2] of square maps that cover the same ground.

  Cell i of a map of side p lies at extent * i / p, so that coarse cells have
  the places of the fine ones at their upper left corner (FlowAR, arXiv
  2412.15205).

  Args:
    sides: of the maps, one behind the other.
    features: K.
    extent: of the ground, in cells of the published finest map.
  """
  places = [np.indices((p, p)).reshape(2, -1) * (extent / p) for p in sides]
  return rotations(*np.concatenate(places, axis=1), features)


def rope_on_grid(
  shapes: Sequence[tuple[int, int]], ground: tuple[int, int], features: int
) -> np.ndarray:
  """Rotations f32[L, K / 2, 2] of maps that cover the same ground, at whole
  places of one fixed grid (Infinity, arXiv 2412.04431).

  Cell (i, j) of a map of h x w lies at (i H / h, j W / w), rounded half to
  even, whatever the finest map is.

  Args:
    shapes: (h, w) of the maps, one behind the other.
    ground: (H, W).
    features: K.
  """
  return rotations(*grid_places(shapes, ground), features)


def grid_places(
  shapes: Sequence[tuple[int, int]], ground: tuple[int, int]
) -> np.ndarray:
  """Rows and columns f64[2, L] of `rope_on_grid`."""
  places = []
  for shape in shapes:
    cells = np.indices(shape).reshape(2, -1)
    share = cells * np.reshape(ground, (2, 1)) / np.reshape(shape, (2, 1))
    places.append(np.round(share))
  return np.concatenate(places, axis=1)


def rotate(x: Array, pos: Array) -> Array:
  """Turns the pairs (x_0, x_1), (x_2, x_3), ... of every head, in float32.

  Args:
    x: [B, T, H, K].
    pos: cosines and sines, f32[T, K / 2, 2] or f32[B, T, K / 2, 2].
  """
  pos = jnp.asarray(pos)[..., None, :, :]  # the same for all heads
  pos = pos if pos.ndim == 5 else pos[None]
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  cos, sin = pos[..., 0], pos[..., 1]
  a, b = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.reshape(x.shape).astype(x.dtype)
