"""A sheet of panels, for what has no pixels of its own."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = 11
LETTER = 6.8  # width of a letter in pixels, at most about
GREY = (150, 150, 150)
COLOURS = (
  (31, 119, 180),
  (214, 39, 40),
  (44, 160, 44),
  (148, 103, 189),
  (255, 127, 14),
  (23, 190, 207),
  (140, 86, 75),
  (227, 119, 194),
)
_GAP = 6


class Sheet:
  """White panels of one size, row by row.

  Args:
    n: how many; no more than `columns` rows are made.
    columns: of panels.
    width, height: of a panel, in pixels.
    gap: between panels, and around them.

  Attributes:
    count: panels that there are.
    pen: draws on it.
  """

  def __init__(
    self, n: int, columns: int, width: int, height: int, gap: int = _GAP
  ):
    self.width, self.height, self._gap = width, height, gap
    self._columns = max(1, min(columns, n))
    self.count = min(n, self._columns * max(columns, 1))
    rows = max(1, -(-self.count // self._columns))
    size = (
      self._columns * (width + gap) + gap,
      rows * (height + gap) + gap,
    )
    self._image = Image.new("RGB", size, "white")
    self.pen = ImageDraw.Draw(self._image)
    self._font = ImageFont.load_default(FONT)

  def corner(self, i: int) -> tuple[int, int]:
    """(x, y) of the upper left pixel of a panel."""
    row, column = divmod(i, self._columns)
    return (
      self._gap + column * (self.width + self._gap),
      self._gap + row * (self.height + self._gap),
    )

  def frame(self, i: int) -> None:
    """Draws the border of a panel."""
    x, y = self.corner(i)
    box = (x, y, x + self.width - 1, y + self.height - 1)
    self.pen.rectangle(box, outline=(220, 220, 220))

  def paste(self, at: tuple[int, int], pixels: np.ndarray) -> None:
    """Lays u8[H, W, 3] on it."""
    self._image.paste(Image.fromarray(pixels), at)

  def write(
    self, at: tuple[int, int], words: str, colour=GREY, anchor: str = "la"
  ) -> None:
    """Writes a line of small letters."""
    self.pen.text(at, words, fill=colour, font=self._font, anchor=anchor)

  def line(self, points: np.ndarray, colour, width: int = 1) -> None:
    """A poly-line through f[n, 2], in pixels; breaks where it is not finite."""
    whole = np.isfinite(points).all(1)
    for run in np.split(points, np.flatnonzero(~whole)):
      run = run[np.isfinite(run).all(1)]
      if len(run) > 1:
        self.pen.line([tuple(p) for p in run.tolist()], colour, width)

  def array(self) -> np.ndarray:
    """u8[H, W, 3]."""
    return np.asarray(self._image)


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
  """u8[H, W, c], each pixel `scale` times as wide and high."""
  return pixels.repeat(scale, 0).repeat(scale, 1)


def scaled(
  values: np.ndarray, low: float, high: float, begin: float, end: float
) -> np.ndarray:
  """Values of low..high laid on begin..end; constant ones in the middle."""
  span = high - low
  share = (values - low) / span if span > 0 else np.full(values.shape, 0.5)
  return begin + share * (end - begin)
