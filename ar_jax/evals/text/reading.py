"""What is written in an image: readers of text, by name.

  glyphs     the letters that `data.images.glyphs` draws, each cell by the
             nearest of them: exact, quick, and there always
  rapidocr   PyPI `rapidocr-onnxruntime`, whose wheel holds its networks
  tesseract  PyPI `pytesseract` and a system's tesseract

An error rate is one of a tokenizer *and* of a reader: name the reader.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.data.images import glyphs

# u8[N, H, W, c] -> N texts.
Reader = Callable[[np.ndarray], list[str]]

_LARGE = 1024  # pixels, to which an image is enlarged for a network
_LEAST = 4.0  # levels of grey between ink and paper


def reader(name: str, *, scale: int = 2) -> Reader:
  """The reader of this name.

  Args:
    name: see the module's docstring.
    scale: pixels of a dot, for `glyphs`.

  Raises:
    UserError: there is no such reader, or it is not installed.
  """
  known = {"glyphs": None, "rapidocr": _rapidocr, "tesseract": _tesseract}
  if name not in known:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"reader={name!r}: {meant}there are {', '.join(known)}")
  if name == "glyphs":
    return functools.partial(of_glyphs, scale=scale)
  read = known[name]()
  return lambda images: [_plain(read(_large(x))) for x in images]


def of_glyphs(images: np.ndarray, scale: int) -> list[str]:
  """Texts of square images u8[N, H, H, c] of letters of 5 x 7 dots.

  Paper is what lies in the gaps between letters, ink what is farthest from it;
  between them a cell is the letter, or the blank, with the least squared error.
  """
  n, size = images.shape[:2]
  if images.shape[2] != size:
    raise UserError(
      f"reader='glyphs': reads squares, not {size}x{images.shape[2]}"
    )
  lines, letters = glyphs.cells(size, scale)
  top, left = glyphs.corner(size, scale)
  tall, wide = lines * glyphs.LINE, letters * glyphs.ADVANCE
  grey = images.astype(np.float64).mean(-1)
  grey = grey[:, top : top + tall * scale, left : left + wide * scale]
  dots = grey.reshape(n, tall, scale, wide, scale).mean((2, 4))
  cells = dots.reshape(n, lines, glyphs.LINE, letters, glyphs.ADVANCE)
  cells = cells.transpose(0, 1, 3, 2, 4)
  gaps = cells[..., glyphs.HEIGHT :, :].reshape(n, -1)
  paper = np.median(gaps, 1).reshape(n, 1, 1, 1, 1)
  marks = cells[..., : glyphs.HEIGHT, : glyphs.WIDTH] - paper
  flat = marks.reshape(n, -1)
  ends = np.quantile(flat, [0.02, 0.98], axis=1)
  ink = np.where(-ends[0] > ends[1], ends[0], ends[1])
  faint = np.abs(ink) < _LEAST
  ink = np.where(faint, 1.0, ink).reshape(n, 1, 1, 1, 1)
  shapes = np.concatenate([np.zeros((1, 7, 5)), glyphs.table()])
  error = np.square((marks / ink)[..., None, :, :] - shapes).sum((-2, -1))
  nearest = error.argmin(-1)
  nearest[faint] = 0
  symbols = np.array([" ", *glyphs.SYMBOLS])
  rows = symbols[nearest]
  return [_plain(" ".join("".join(line) for line in page)) for page in rows]


def _plain(text: str) -> str:
  """One space between words, none around."""
  return " ".join(text.split())


def _large(image: np.ndarray) -> Image.Image:
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  times = _LARGE / max(picture.size)
  side = tuple(max(1, round(times * x)) for x in picture.size)
  return picture.convert("RGB").resize(side, Image.Resampling.BICUBIC)


def _rapidocr() -> Callable[[Image.Image], str]:
  found = _module("rapidocr_onnxruntime", "rapidocr-onnxruntime")
  engine = found.RapidOCR()

  def read(picture: Image.Image) -> str:
    lines, _ = engine(np.asarray(picture))
    return " ".join(text for _, text, _ in lines or ())

  return read


def _tesseract() -> Callable[[Image.Image], str]:
  found = _module("pytesseract", "pytesseract")
  try:
    found.get_tesseract_version()
  except found.TesseractNotFoundError as e:
    raise UserError(
      "reader='tesseract': no program tesseract; apt-get install tesseract-ocr"
    ) from e
  return found.image_to_string


def _module(name: str, package: str):
  try:
    return importlib.import_module(name)
  except ImportError as e:
    raise UserError(
      f"reader: {package} is not installed; pip install {package}, or take "
      "reader='glyphs'"
    ) from e
