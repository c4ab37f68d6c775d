"""How text and the frames of a video lie on one line of ids (Lumos-1, arXiv
2507.08801).

  text, start of a video, duration, rate,
  then for each frame: start of an image, height, width,
    rows of codes, each perhaps with the end of a line behind it,
    end of an image

A text is as long as it is: what is behind it up to P ids is padding, which is
hidden and takes no place on the line.

Shapes: P ids of a text, T frames of h x w codes, C content of a frame, with the
ends of lines, S = C + 4 ids of a frame.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.plans import clips
from ar_jax.core.plans.plan import Plan

SPECIAL = (
  "image_start",
  "image_end",
  "line_end",
  "video_start",
  "mask",
  "duration",
  "rate",
  "height",
  "width",
)


@dataclasses.dataclass(frozen=True)
class FrameLayout:
  """Hashable.

  Attributes:
    text: P.
    volume: (T, h, w).
    special: the ids of SPECIAL, in this order.
    first: the id of the first code.
    lines: whether lines have an end.
    strides: what a step in time, down and to the right counts on the line.
  """

  text: int
  volume: tuple[int, int, int]
  special: tuple[int, ...]
  first: int
  lines: bool = True
  strides: tuple[int, int, int] = (4, 8, 8)

  def id(self, name: str) -> int:
    """The id of a name of SPECIAL."""
    return self.special[SPECIAL.index(name)]

  @property
  def frames(self) -> int:
    """T."""
    return self.volume[0]

  @property
  def content(self) -> int:
    """C."""
    _, rows, cols = self.volume
    return rows * (cols + self.lines)

  @property
  def segment(self) -> int:
    """S."""
    return self.content + 4

  @property
  def head(self) -> int:
    """Ids before the first frame: P + 3."""
    return self.text + 3

  @property
  def rows(self) -> int:
    """Ids in all."""
    return self.head + self.frames * self.segment

  @functools.cached_property
  def codes(self) -> np.ndarray:
    """i64[h w]: where in the content of a frame its codes are."""
    at = np.arange(self.content).reshape(self.volume[1], -1)
    return at[:, : self.volume[2]].reshape(-1)

  @property
  def plan(self) -> Plan:
    """Who sees whom."""
    return clips.frames(self.head, (self.segment,) * self.frames)

  @functools.cached_property
  def front(self) -> np.ndarray:
    """i64[3]: the ids behind a text."""
    return np.array([self.id(k) for k in ("video_start", "duration", "rate")])

  @functools.cached_property
  def template(self) -> np.ndarray:
    """i64[S]: the ids of a frame whose codes are masks."""
    inside = np.full(self.content, self.id("line_end"))
    inside[self.codes] = self.id("mask")
    before = [self.id(k) for k in ("image_start", "height", "width")]
    return np.concatenate([before, inside, [self.id("image_end")]])

  @functools.cached_property
  def places(self) -> tuple[np.ndarray, np.ndarray]:
    """Where all ids lie in time, rows and columns, i64[rows, 3], behind a text
    of no ids; and which of them a text moves on, bool[rows].

    Text and what is special lie on the line, alike in all three; content at the
    place of the first content of the video, and from there by its strides.
    """
    at = np.arange(self.rows)
    behind = at >= self.text
    line = np.where(behind, at - self.text, at)
    places = np.tile(line[:, None], (1, 3))
    begin = 3 + 3  # of the first content
    _, height, width = self.volume
    row, col = np.indices((height, width + self.lines)).reshape(2, -1)
    for frame in range(self.frames):
      start = self.head + frame * self.segment + 3
      inside = np.stack([np.full(self.content, frame), row, col], axis=1)
      places[start : start + self.content] = begin + inside * np.array(
        self.strides
      )
    return places, behind

  def history(self, share: float) -> np.ndarray:
    """bool[C]: the content that is masked again in a frame that is done: this
    share of it, evenly spaced from the first on.

    Raises:
      UserError: it is no share.
    """
    if not 0 <= share <= 1:
      raise UserError(f"history={share}: a share, 0 to 1")
    count = round(share * self.content)
    found = np.zeros(self.content, bool)
    if count:
      at = np.round(np.arange(count) * self.content / count).astype(int)
      found[np.minimum(at, self.content - 1)] = True
    return found


def own_special(words: int) -> tuple[int, ...]:
  """The ids of SPECIAL behind those of texts, in models of one's own."""
  return tuple(words + i for i in range(len(SPECIAL)))


def named_special(given: Mapping[str, int]) -> tuple[int, ...]:
  """The ids of SPECIAL by their names.

  Raises:
    UserError: one is missing, or there are others.
  """
  if set(given) != set(SPECIAL):
    raise UserError(f"special={dict(given)}: it names {', '.join(SPECIAL)}")
  return tuple(int(given[k]) for k in SPECIAL)
