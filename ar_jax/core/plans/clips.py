"""Orders of the units of a video, and who sees whom.

Shapes: T frames of h x w units, L = T h w, N units of a block, P positions of
a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.plans.plan import Plan, Rule, causal, plan


def framed(q: dict, k: dict) -> np.ndarray:
  """A slot sees those before it, and its own frame whole (Lumos-1, arXiv
  2507.08801)."""
  return (q["index"] >= k["index"]) | (q["segment"] == k["segment"])


def cells(
  volume: Sequence[int],
  shape: Sequence[int],
  *,
  single: bool = False,
  rule: Rule = causal,
) -> Plan:
  """A cell of t x h x w units a step, the cells in raster order and the units
  of each row by row; `frame`, `row` and `col` say where a unit lies.

  Args:
    volume: (T, h, w) of the video.
    shape: (t, h, w) of a cell; as published (1, 1, w), a row of a frame.
    single: whether the units of the first cell appear one a step, as none is
      before it (NBP, arXiv 2502.07737).
    rule: of visibility.

  Raises:
    UserError: the video does not divide into such cells.
  """
  volume, shape = tuple(volume), tuple(shape)
  fits = len(shape) == 3 and all(
    0 < s <= v and v % s == 0 for s, v in zip(shape, volume, strict=True)
  )
  if not fits:
    raise UserError(
      f"block={shape}: videos of {volume} units along time, rows and columns "
      "do not divide into such blocks"
    )
  places = np.stack([axis.reshape(-1) for axis in np.indices(volume)])
  size = np.reshape(shape, (3, 1))
  cell, inside = places // size, places % size
  # The last key sorts first.
  order = np.lexsort((*inside[::-1], *cell[::-1]))
  frame, row, col = places[:, order]
  n, each = len(order), int(np.prod(shape))
  sizes = [1] * each if single else [each]
  sizes += [each] * (n // each - 1)
  return plan(sizes, rule, frame=frame, row=row, col=col)


def hybrid(prefix: int, length: int, size: int) -> Plan:
  """What is read to draw blocks behind a first one of single units: a prefix,
  which sees itself whole, `size` single slots, then blocks of `size`.

  Args:
    prefix: P.
    length: slots behind it, a multiple of `size`.
    size: N.
  """
  before = (prefix,) * (prefix > 0)
  return plan(before + (1,) * size + (size,) * (length // size - 1))


def frames(prefix: int, segments: Sequence[int]) -> Plan:
  """A causal prefix, then frames, each of which sees itself whole.

  Args:
    prefix: P.
    segments: slots of every frame.
  """
  segment = np.repeat(np.arange(len(segments)), segments)
  segment = np.concatenate([np.arange(-prefix, 0), segment])
  sizes = (1,) * prefix + tuple(segments)
  return plan(sizes, framed, segment=segment)
