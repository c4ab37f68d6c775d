"""The rule `edges`: where an image changes, as a condition to draw it from.

H, W sides, C channels.
"""

from __future__ import annotations

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Image
from ar_jax.data.dataset import Example
from ar_jax.data.wrap.derived import Rule, field_of

_GREY = np.asarray([0.299, 0.587, 0.114])  # of red, green and blue


def edges(
  *,
  kind: str = "sobel",
  field: str = "image",
  sigma: float = 1.0,
  low: float = 0.04,
  high: float = 0.1,
  threshold: float | None = None,
) -> Rule:
  """Adds `edges`, u8[H, W, 1]: black but where the image changes.

  Args:
    kind: "sobel", the size of the gradient, 255 the largest that there can be;
      or "canny", thin lines of 255.
    field: of whose pixels.
    sigma: width of the Gaussian in pixels that comes before "canny".
    low: gradients of at least so much go on with a line of "canny", as a share
      of the largest that there can be.
    high: those of at least so much begin one.
    threshold: of "sobel", the size from which on a pixel is 255, and else 0;
      None for the sizes themselves.

  Raises:
    UserError: there is no such kind, the thresholds are not in order, or the
      field is no image.
  """
  check_choice("data.derive.edges.kind", kind, ("sobel", "canny"))
  if threshold is not None and (kind != "sobel" or not 0 < threshold <= 1):
    raise UserError(
      f"data.derive.edges.threshold={threshold}: is of kind='sobel', above 0 "
      "and at most 1"
    )
  if not 0 <= low <= high <= 1 or sigma < 0:
    raise UserError(
      f"data.derive.edges: low={low}, high={high}, sigma={sigma}; must be "
      "0 <= low <= high <= 1 and sigma >= 0"
    )

  def make(example: Example, rng: np.random.Generator) -> Example:
    del rng
    image = field_of(example, field, "edges")
    if image.ndim != 3 or image.dtype != np.uint8:
      raise UserError(
        f"data.derive.edges.field={field!r}: {image.dtype} of shape "
        f"{image.shape}, not the pixels of an image"
      )
    grey = luminance(image)
    if threshold is not None:
      found = np.uint8(255) * (sobel(grey)[0] >= threshold)
    elif kind == "sobel":
      found = np.floor(255 * sobel(grey)[0] + 0.5).astype(np.uint8)
    else:
      found = np.uint8(255) * canny(grey, sigma, low, high)
    return {"edges": found[..., None]}

  return Rule(make, {"edges": Image()})


def luminance(image: np.ndarray) -> np.ndarray:
  """f64[H, W] in [0, 1] of u8[H, W, C]."""
  if image.shape[-1] == 1:
    return image[..., 0] / 255
  return image @ _GREY / 255


def sobel(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(size of the gradient, downward part, rightward part) of f64[H, W]; a
  step from 0 to 1 has a part of 1, and the size is divided by the root of 2,
  so that all lie in [0, 1]. Borders are repeated."""
  x = np.pad(grey, 1, "edge")
  wide = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
  tall = (x[:-2] + 2 * x[1:-1] + x[2:]) / 4
  down, right = wide[2:] - wide[:-2], tall[:, 2:] - tall[:, :-2]
  return np.hypot(down, right) / np.sqrt(2), down, right


def canny(
  grey: np.ndarray, sigma: float, low: float, high: float
) -> np.ndarray:
  """bool[H, W]: Canny's edges (1986). Smoothed, the gradient is kept where it
  is largest across the edge (towards the nearest of 8 neighbours), and of
  what is at least `low` those pieces that somewhere reach `high`."""
  from scipy import ndimage  # slow to import

  smooth = ndimage.gaussian_filter(grey, sigma, mode="nearest")
  size, down, right = sobel(smooth)
  octant = np.round(np.arctan2(down, right) / (np.pi / 4)).astype(int) % 4
  around = np.pad(size, 1)
  height, width = size.shape
  largest = np.zeros(size.shape, bool)
  for k, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
    ahead = around[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
    behind = around[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
    # Of two that are alike the first: an edge is one pixel wide.
    peak = (size > ahead) & (size >= behind)
    largest |= peak & (octant == k)
  weak = largest & (size >= max(low, 1e-6))
  pieces, count = ndimage.label(weak, np.ones((3, 3)))
  strong = np.unique(pieces[weak & (size >= high)])
  return np.isin(pieces, strong[strong > 0]) if count else weak
