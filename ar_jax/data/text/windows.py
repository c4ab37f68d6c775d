"""Stretches of texts, of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ar_jax.data.dataset import Example


class Windows:
  """A source of stretches of texts, of one length.

  Where a text is longer than an example, window w of it begins at its place
  w * stride; what is left at the end is no window. `draw`, which training
  reads, moves a window by less than the stride, so that it sees every place.
  A text that is shorter is one example, filled up with `stop`.

  `more`, where it is set, adds fields by the number of the text and the place
  where the window begins.

  Args:
    texts: of ids, none of them empty.
    length: N.
    stride: from the beginning of one window to that of the next.
    stop: what fills an example up.
    step: windows begin at multiples of it.
    whole: one window of each text, its beginning.
  """

  def __init__(
    self,
    texts: Sequence[np.ndarray],
    length: int,
    stride: int,
    *,
    stop: int = 0,
    step: int = 1,
    whole: bool = False,
  ):
    self.length, self.stride, self.step, self.stop = length, stride, step, stop
    sizes = np.array([len(text) for text in texts], np.int64)
    self.offset = np.concatenate([[0], np.cumsum(sizes)])
    self.ids = np.concatenate([np.zeros(0, np.int32), *texts])
    spare = np.maximum(sizes - length, 0)
    each = np.ones_like(sizes) if whole else spare // stride + 1
    self.document = np.repeat(np.arange(len(sizes)), each)
    first = np.cumsum(each) - each
    self.begin = (np.arange(each.sum()) - np.repeat(first, each)) * stride
    self._spare = np.zeros_like(spare) if whole else spare
    self.more: Callable[[int, int], Example] | None = None

  def __len__(self) -> int:
    return len(self.begin)

  def __getitem__(self, i: int) -> Example:
    i = range(len(self))[i]
    return self.window(i, int(self.begin[i]))

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    moved = self.begin[i] + rng.integers(max(self.stride // self.step, 1)) * (
      self.step
    )
    last = self._spare[self.document[i]] // self.step * self.step
    return self.window(i, int(min(moved, last)))

  def window(self, i: int, begin: int) -> Example:
    """The example that begins at this place of the text of example i."""
    text = self.document[i]
    start = self.offset[text] + begin
    end = min(start + self.length, self.offset[text + 1])
    found = np.full(self.length, self.stop, np.int32)
    found[: end - start] = self.ids[start:end]
    more = {} if self.more is None else self.more(int(text), begin)
    return {"text": found, **more}
