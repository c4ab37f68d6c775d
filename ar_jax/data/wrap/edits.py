"""The rule `edits`: an image, an instruction in words, and what it makes of it.

Every instruction has one exact result, so what a model makes can be compared
with it, pixel by pixel; and what lies outside of the part that an instruction
names must not change at all.

H, W sides, c channels, P words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Text
from ar_jax.data.dataset import Example
from ar_jax.data.wrap.derived import Rule, field_of

Change = Callable[[np.ndarray], np.ndarray]

HALVES = ("top", "bottom", "left", "right")


def part(name: str, height: int, width: int) -> np.ndarray:
  """bool[H, W]: half of an image; the top and the left are the smaller where
  there is no middle."""
  rows, columns = np.arange(height)[:, None], np.arange(width)[None]
  inside = {
    "top": rows < height // 2,
    "bottom": rows >= height // 2,
    "left": columns < width // 2,
    "right": columns >= width // 2,
  }[name]
  return np.broadcast_to(inside, (height, width))


def _around(x: np.ndarray, choose: Callable) -> np.ndarray:
  """Of each pixel and its 8 neighbours, borders repeated, the chosen value."""
  wide = np.pad(x, ((1, 1), (1, 1), (0, 0)), "edge")
  height, width = x.shape[:2]
  every = [
    wide[i : i + height, j : j + width] for i in range(3) for j in range(3)
  ]
  return choose(every, axis=0)


def _moved(x: np.ndarray, down: int, right: int) -> np.ndarray:
  """By an eighth of the sides; what comes in is black."""
  height, width = x.shape[:2]
  dy, dx = down * (height // 8), right * (width // 8)
  found = np.zeros_like(x)
  into = found[
    max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)
  ]
  into[...] = x[
    max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
  ]
  return found


def _within(name: str, change: Change) -> Change:
  """The change of this half alone."""

  def made(x: np.ndarray) -> np.ndarray:
    inside = part(name, *x.shape[:2])[..., None]
    return np.where(inside, change(x), x)

  return made


GLOBAL: Mapping[str, Change] = {
  "invert": lambda x: 255 - x,
  "flip left right": lambda x: x[:, ::-1],
  "flip upside down": lambda x: x[::-1],
  "thicken": lambda x: _around(x, np.max),
  "thin": lambda x: _around(x, np.min),
  "shift up": lambda x: _moved(x, -1, 0),
  "shift down": lambda x: _moved(x, 1, 0),
  "shift left": lambda x: _moved(x, 0, -1),
  "shift right": lambda x: _moved(x, 0, 1),
}
# Those of one half, which leave the other as it is.
LOCAL: Mapping[str, Change] = {
  **{f"erase {h} half": _within(h, np.zeros_like) for h in HALVES},
  **{f"invert {h} half": _within(h, lambda x: 255 - x) for h in HALVES},
}
CHANGES = {**GLOBAL, **LOCAL}
# The 13 of the bench of VAREdit.
PLAIN = (*GLOBAL, *(f"erase {h} half" for h in HALVES))


def vocabulary() -> Text:
  """The words of all instructions, the same whichever are chosen."""
  words = sorted({word for text in CHANGES for word in text.split()})
  return Text(("", *words), joint=" ")


def untouched(text: str, height: int, width: int) -> np.ndarray:
  """u8[H, W]: 1 where an instruction must leave the image as it is."""
  if text not in LOCAL:
    return np.zeros((height, width), np.uint8)
  return (~part(text.split()[1], height, width)).astype(np.uint8)


def edits(
  *,
  field: str = "image",
  instructions: Sequence[str] = tuple(CHANGES),
  length: int = 4,
) -> Rule:
  """Makes of an image its edited version, and adds `source` u8[H, W, c], the
  image as it was; `text` i32[length], the words of the instruction; `same`
  u8[H, W], 1 where nothing may change. The instruction is drawn anew each time.

  Flips of augmentation move source and result alike, so "left" would no longer
  be left: leave them out.

  Args:
    field: of whose pixels.
    instructions: of `CHANGES`.
    length: P, filled up with 0.

  Raises:
    UserError: there is no such instruction, a text is longer than `length`, or
      the field is no image.
  """
  where, form = "data.derive.edits", vocabulary()
  chosen = tuple(instructions)
  unknown = [text for text in chosen if text not in CHANGES]
  if unknown or not chosen:
    raise UserError(
      f"{where}.instructions={chosen}: choose of {', '.join(CHANGES)}"
    )
  longest = max(len(text.split()) for text in chosen)
  if length < longest:
    raise UserError(
      f"{where}.length={length}: the longest instruction has {longest} words"
    )
  ids = {text: form.ids(text, length) for text in chosen}

  def make(example: Example, rng: np.random.Generator) -> Example:
    image = field_of(example, field, "edits")
    if image.dtype != np.uint8 or image.ndim != 3:
      raise UserError(
        f"{where}.field={field!r}: {image.dtype} of shape {image.shape} are "
        "not the pixels of an image"
      )
    text = chosen[rng.integers(len(chosen))]
    return {
      "source": image,
      field: np.ascontiguousarray(CHANGES[text](image)),
      "text": ids[text],
      "same": untouched(text, *image.shape[:2]),
    }

  return Rule(make, {"source": Image(), "text": form})
