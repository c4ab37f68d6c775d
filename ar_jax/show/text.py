"""Texts: written out, and rendered."""

from __future__ import annotations

import pathlib
import textwrap

import numpy as np

from ar_jax.core.forms import Text
from ar_jax.show.files import whole
from ar_jax.show.sheet import FONT, GREY, Sheet

_WIDTH, _LETTERS = 620, 92  # pixels and letters of a line
_LINES = 6  # of a text that are rendered
_TEXTS = 24


def picture(
  form: Text, x: np.ndarray, beside: dict, *, columns: int, truth=None
) -> np.ndarray:
  """The first texts below each other, with their numbers; the beginnings of
  long ones."""
  del beside, truth
  texts = [wrapped(form.read(row)) for row in x[: min(_TEXTS, columns**2)]]
  high = FONT + 4
  count = sum(map(len, texts)) + len(texts)
  sheet = Sheet(1, 1, _WIDTH, max(1, count) * high)
  left, y = sheet.corner(0)
  for i, lines in enumerate(texts):
    sheet.write((left, y), str(i), GREY)
    for line in lines:
      sheet.write((left + 28, y), line, "black")
      y += high
    y += high // 2
  return sheet.array()


def wrapped(text: str, letters: int = _LETTERS) -> list[str]:
  """Its first lines, cut to so many letters; what cannot be seen is a box."""
  lines = []
  for line in text.split("\n"):
    line = "".join(c if c.isprintable() else "\u25a1" for c in line)
    lines += textwrap.wrap(line, letters) or [""]
  if len(lines) > _LINES:
    lines = [*lines[: _LINES - 1], "..."]
  return lines or [""]


def write(
  folder: pathlib.Path,
  stem: str,
  form: Text,
  x: np.ndarray,
  beside: dict,
  columns: int,
  most: int,
) -> list[pathlib.Path]:
  """`stem.txt`: a line for each text; where some have several lines, a line
  with its number before each text."""
  del beside, columns, most
  texts = [form.read(row) for row in x]
  if any(len(t.splitlines()) > 1 for t in texts):
    texts = [f"===== {i} =====\n{t}" for i, t in enumerate(texts)]
  path = folder / f"{stem}.txt"
  with whole(path) as temporary:
    temporary.write_text("".join(f"{t}\n" for t in texts), encoding="utf-8")
  return [path]


def said(form: Text, x: np.ndarray) -> tuple[str, str]:
  return "texts", f"{x.shape[1]} symbols"
