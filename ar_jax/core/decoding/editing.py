"""Editing an image with a generator that draws map by map, without training.

The maps of a given image are known at every scale. After a map is drawn, its
units that are to be kept are overwritten by the given ones, and the next map
is drawn as ever: in-painting, out-painting, another class in a box (VAR, arXiv
2404.02905, section 5; FlexVAR, arXiv 2502.20313; HMAR, arXiv 2506.04421).
Nothing more is drawn or computed than without it, and no draw depends on what
is kept.

A *keep* mask is 1 where a pixel is kept. Shapes: B batch, H W image sides, c
channels, K maps of sides h_k w_k, L = sum h_k w_k units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.signals.resize import resize

Array = jax.Array

# Maps of at most so many cells are kept whole unless told otherwise.
_GLOBAL = 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
  """What a sampler overwrites.

  Attributes:
    units: i32[B, L], or bits i32[B, L, K], those of the given image.
    keep: bool[B, L], which of them replace what is drawn.
  """

  units: Array
  keep: Array

  def __call__(self, span: slice, units: Array) -> Array:
    """Units i32[B, T, ...] of the slots `span`, the kept ones put back."""
    keep = self.keep[:, span]
    keep = keep.reshape(*keep.shape, *(1,) * (units.ndim - 2))
    return jnp.where(keep, self.units[:, span], units)

  def codes(self, span: slice, codes: Array, codebook: Array) -> Array:
    """The same of their codes, or mixtures of these, f32[B, T, C]."""
    given = codebook[self.units[:, span]]
    return jnp.where(self.keep[:, span, None], given, codes)


def kept(
  keep: Array | None,
  shapes: Sequence[tuple[int, int]],
  *,
  batch: int,
  first: int | None = None,
  coarse: str = "bilinear",
) -> Array:
  """Which units of every map are kept, bool[B, L].

  A cell of the finest map is kept if more than half of it is; a coarser map
  asks the finest one.

  Args:
    keep: [B, H, W], 1 where a pixel is kept; None keeps no part of a map.
    shapes: (h_k, w_k), the finest last.
    batch: B.
    first: so many maps are kept whole, from the coarsest; None means those of
      at most three cells, so that the image's overall colour stays.
    coarse: how a coarser map asks: "bilinear" looks at the cells next to its
      centre, as the published demonstration does, so thin parts may vanish;
      "area" at all of a cell.

  Raises:
    UserError: an option is out of range.
  """
  check_choice("coarse", coarse, ("bilinear", "area"))
  if first is not None and not 0 <= first <= len(shapes):
    raise UserError(
      f"force_first_scales={first}: must be in 0..{len(shapes)}, the maps"
    )
  finest = shapes[-1]
  if keep is None:
    cells = jnp.zeros((batch, *finest, 1))
  else:
    pixels = jnp.asarray(keep, jnp.float32)[..., None]
    cells = (resize(pixels, finest, "area") > 0.5).astype(jnp.float32)
  maps = []
  for k, (h, w) in enumerate(shapes):
    own = resize(cells, (h, w), coarse) > 0.5
    if h * w <= _GLOBAL if first is None else k < first:
      own = jnp.ones_like(own)
    maps.append(own.reshape(batch, h * w))
  return jnp.concatenate(maps, axis=1)


def paste(image: Array, given: Array, keep: Array) -> Array:
  """Image f32[B, H, W, c] in [0, 1] with the kept pixels of the given one,
  u8[B, H, W, c], put back as they are."""
  original = jnp.asarray(given, jnp.float32) / 255
  return jnp.where(jnp.asarray(keep)[..., None] > 0, original, image)


def box_mask(
  height: int, width: int, box: Sequence[float], keep: str = "outside"
) -> np.ndarray:
  """bool[H, W], which pixels are kept, of a box.

  Args:
    height, width: H and W.
    box: (top, left, bottom, right), shares of the sides in [0, 1].
    keep: "outside" draws the box anew (in-painting), "inside" all around it
      (out-painting).

  Raises:
    UserError: the box is empty or not in the image.
  """
  if keep not in ("outside", "inside"):
    raise UserError(f"keep={keep!r}: choose 'outside' or 'inside' of the box")
  y0, x0, y1, x1 = box if len(box) == 4 else (0, 0, 0, 0)
  if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
    raise UserError(
      f"box={tuple(box)}: must be (top, left, bottom, right) in [0, 1], with "
      "top < bottom and left < right"
    )
  inside = np.zeros((height, width), bool)
  rows = slice(round(y0 * height), round(y1 * height))
  inside[rows, round(x0 * width) : round(x1 * width)] = True
  return inside if keep == "inside" else ~inside


def expand(
  image: np.ndarray, size: tuple[int, int], at: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """An image on a larger canvas, to be continued beyond its frame.

  Args:
    image: u8[H, W, c].
    size: (height, width) of the canvas.
    at: row and column of the image's upper left corner.

  Returns:
    The canvas, the image's border continued over the rest so that coarse maps
    see nothing foreign; and bool[height, width], where the image is: kept.

  Raises:
    UserError: the image does not fit there.
  """
  (h, w), (height, width), (top, left) = image.shape[:2], size, at
  after = height - h - top, width - w - left
  if min(top, left, *after) < 0:
    raise UserError(
      f"expand: an image of {h}x{w} at {at} does not fit in {height}x{width}"
    )
  margins = ((top, after[0]), (left, after[1]))
  keep = np.zeros((height, width), bool)
  keep[top : top + h, left : left + w] = True
  return np.pad(image, (*margins, (0, 0)), "edge"), keep
