"""Texts beside what they were read of: pictures, sounds, spectra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image as Pillow

from ar_jax.core import forms
from ar_jax.core.domains import peptides
from ar_jax.show import audio, peaks, text
from ar_jax.show.sheet import COLOURS, FONT, GREY, LETTER, Sheet, enlarged

_ROWS = 12
_WIDTH, _HEIGHT = 320, 64  # of a picture or a sound, in pixels, at most
_SPECTRUM = (560, 120)
_LETTERS = 52  # of a line
_GAP, _LINE = 10, FONT + 4
_WRONG = COLOURS[1]

Forms = Mapping[str, forms.Form]


def sources(names: Iterable[str], of: Forms) -> list[str]:
  """Those of these fields of which a text can be read: a spectrum, a sound, or
  pictures of one kind."""
  for kind in (forms.Peaks, forms.Audio, forms.Image):
    found = [k for k in names if isinstance(of.get(k), kind)]
    if found:
      return found if kind is forms.Image else found[:1]
  return []


def picture(
  form: forms.Text,
  x: np.ndarray,
  beside: Mapping[str, np.ndarray],
  of: Forms,
  truth: np.ndarray | None = None,
) -> np.ndarray:
  """A row for each text: what it was read of, and the text, red where it is
  not the true one, which is then written below it. Other texts that belong to
  it, as a question, stand above it.

  Of a peptide the peaks of its spectrum that are its b or y ions have their
  names.

  Args:
    form, x: i32[N, L], of the texts.
    beside: the conditions, of which one or more are `sources`; `NAME_length`
      i32[N] is how much of a sound there is.
    of: forms of the conditions.
    truth: i32[n, L].
  """
  names = sources(beside, of)
  asked = [k for k in beside if isinstance(of.get(k), forms.Text)]
  rows = []
  for i in range(min(len(x), _ROWS)):
    read = form.read(x[i])
    lines = [(f"{k}: {of[k].read(beside[k][i])}", GREY) for k in asked]
    true = form.read(truth[i]) if truth is not None and i < len(truth) else read
    lines.append((read, "black" if read == true else _WRONG))
    if read != true:
      lines.append((f"true: {true}", GREY))
    rows.append(
      [(w, c) for words, c in lines for w in text.wrapped(words, _LETTERS)]
    )
  panels = [_panel(form, x, beside, of, names, i) for i in range(len(rows))]
  high, wide, _ = np.max([panel.shape for panel in panels], 0)
  heights = [max(high, len(lines) * _LINE) + _GAP for lines in rows]
  longest = max(len(words) for lines in rows for words, _ in lines)
  right = wide + 2 * _GAP
  sheet = Sheet(1, 1, right + int(longest * LETTER), sum(heights))
  left, y = sheet.corner(0)
  for i, (lines, panel) in enumerate(zip(rows, panels, strict=True)):
    sheet.paste((left, y), panel)
    for k, (words, colour) in enumerate(lines):
      sheet.write((left + right, y + k * _LINE), words, colour)
    y += heights[i]
  return sheet.array()


def _panel(
  form: forms.Text,
  texts: np.ndarray,
  beside: Mapping[str, np.ndarray],
  of: Forms,
  names: list[str],
  i: int,
) -> np.ndarray:
  """u8[h, w, 3]: what text i was read of."""
  parts = []
  for name in names:
    x = np.asarray(beside[name][i])
    if isinstance(of[name], forms.Peaks):
      return peaks.panel(x, *_SPECTRUM, ions=_ions(form, texts[i]))
    if isinstance(of[name], forms.Audio):
      length = f"{name}_length"
      if length in beside:
        x = x[: max(int(beside[length][i]), 1)]
      return audio.spectrogram(x, _WIDTH, _HEIGHT)
    parts.append(_fitted(of[name].stored(x)))
  high = max(part.shape[0] for part in parts)
  room = lambda part: ((0, high - part.shape[0]), (0, _GAP // 2), (0, 0))
  return np.concatenate(
    [np.pad(part, room(part), constant_values=255) for part in parts], 1
  )


def _fitted(x: np.ndarray) -> np.ndarray:
  """u8[h, w, 3]: a picture in its place, of whole pixels where it is small."""
  x = np.broadcast_to(x, (*x.shape[:2], 3))
  large = min(_WIDTH / x.shape[1], _HEIGHT / x.shape[0])
  if large >= 1:
    return enlarged(x, int(large))
  size = [max(1, round(n * large)) for n in (x.shape[1], x.shape[0])]
  return np.asarray(Pillow.fromarray(x).resize(size, Pillow.Resampling.BOX))


def _ions(form: forms.Text, ids: np.ndarray) -> list[peaks.Ion]:
  """Those of a peptide; of another text none."""
  if form.symbols[1:] != peptides.SYMBOLS:
    return []
  ids = np.asarray(ids).tolist()
  ids = ids[: ids.index(0)] if 0 in ids else ids
  if len(ids) < 2:
    return []
  return [
    peaks.Ion(f"{letter}{n}", mz, COLOURS[colour])
    for letter, colour, own in zip(
      "by", (0, 1), peptides.ions(ids), strict=True
    )
    for n, mz in enumerate(own.tolist(), 1)
  ]
