"""Lists of maps by the aspect ratio of an image and by how many pixels it has
(Infinity, arXiv 2412.04431).

A ratio is height over width. Each has one list, of (height, width) in tokens of
16 pixels, and a budget of pixels takes a beginning of it: so the coarse maps of
a small and of a large image are the same.
"""

from __future__ import annotations

from ar_jax.core.errors import UserError, check_choice

Shape = tuple[int, int]

# Ratio -> heights and widths of its 13 maps.
_TALL = {
  1.0: (
    (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
    (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
  ),
  1.25: (
    (1, 2, 3, 5, 10, 15, 20, 25, 30, 35, 45, 55, 70),
    (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 36, 44, 56),
  ),
  1.333: (
    (1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 48, 60, 72),
    (1, 2, 3, 6, 9, 12, 15, 18, 21, 27, 36, 45, 54),
  ),
  1.5: (
    (1, 2, 3, 6, 9, 15, 21, 27, 33, 39, 48, 63, 78),
    (1, 2, 2, 4, 6, 10, 14, 18, 22, 26, 32, 42, 52),
  ),
  1.75: (
    (1, 2, 3, 7, 11, 14, 21, 28, 35, 42, 56, 70, 84),
    (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48),
  ),
  2.0: (
    (1, 2, 4, 6, 10, 16, 22, 30, 38, 46, 60, 74, 90),
    (1, 2, 2, 3, 5, 8, 11, 15, 19, 23, 30, 37, 45),
  ),
  2.5: (
    (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 65, 80, 100),
    (1, 2, 2, 4, 6, 8, 10, 12, 16, 20, 26, 32, 40),
  ),
  3.0: (
    (1, 2, 6, 9, 15, 21, 27, 36, 45, 54, 72, 90, 111),
    (1, 2, 2, 3, 5, 7, 9, 12, 15, 18, 24, 30, 37),
  ),
}
# The wide ratio of each tall one, as published; their order decides ties.
_WIDE = {
  1.25: 0.8, 1.333: 0.75, 1.5: 0.666, 1.75: 0.571, 2.0: 0.5, 2.5: 0.4,
  3.0: 0.333,
}  # fmt: skip
_LISTS: dict[float, tuple[Shape, ...]] = {}
for _ratio, (_long, _short) in _TALL.items():
  _LISTS[_ratio] = tuple(zip(_long, _short, strict=True))
  if _ratio in _WIDE:
    _LISTS[_WIDE[_ratio]] = tuple(zip(_short, _long, strict=True))

RATIOS = tuple(_LISTS)
# Megapixels -> how many maps.
BUDGETS = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}


def nearest(height: float, width: float) -> float:
  """The ratio of RATIOS that is nearest to that of an image."""
  own = height / width
  return min(RATIOS, key=lambda ratio: abs(ratio - own))


def maps(ratio: float, budget: str = "1M") -> tuple[Shape, ...]:
  """The maps (height, width) of a ratio of RATIOS, for a budget of BUDGETS.

  Raises:
    UserError: there is no such ratio or budget.
  """
  if ratio not in _LISTS:
    raise UserError(
      f"ratio={ratio}: choose one of {', '.join(map(str, sorted(RATIOS)))}, "
      "height over width"
    )
  check_choice("budget", budget, BUDGETS)
  return _LISTS[ratio][: BUDGETS[budget]]


def ground(ratio: float) -> Shape:
  """The finest map of a ratio, in whose cells places are counted whatever the
  budget; see `positions.rope_on_grid`."""
  return maps(ratio)[-1]
