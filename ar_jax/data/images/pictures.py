"""Sources over encoded pictures: the user's folder, or a prepared TFDS set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ar_jax.core.errors import check_choice
from ar_jax.data.dataset import Example
from ar_jax.data.images import transforms

_CROPS = ("center", "cover", "random", "pad")


class Pictures:
  """Decodes on access; a random crop is a view, so only `draw` takes it.

  Args:
    read: i -> the decoded picture.
    label: i -> its label, without decoding it.
    length: how many there are.
    size: side of the images made of them.
    crop: "center" (ADM's central square), "cover" (the central square of a
      picture brought to the size by Lanczos), "random" (ADM's random crop in
      `draw`, the central square in `[i]`) or "pad" (black margins; a picture
      that is larger is made smaller first).

  Raises:
    UserError: there is no such crop.
  """

  def __init__(
    self,
    read: Callable[[int], Image.Image],
    label: Callable[[int], int],
    length: int,
    *,
    size: int,
    crop: str,
  ):
    check_choice("data.crop", crop, _CROPS)
    self._read, self._label, self._length = read, label, length
    self._size, self._crop = size, crop

  def __len__(self) -> int:
    return self._length

  def label(self, i: int) -> int:
    return int(self._label(i))

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    picture = self._read(i)
    if self._crop == "pad":
      inside = transforms.fit_inside(picture, self._size)
      array = transforms.to_array(inside)
      image = transforms.pad(array, self._size, array.shape[-1])
    elif self._crop == "cover":
      image = transforms.cover(picture, self._size)
    else:
      image = transforms.center_crop(picture, self._size)
    return {"image": image, "label": np.int32(self._label(i))}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    if self._crop != "random":
      return self[i]
    image = transforms.random_crop(self._read(i), self._size, rng)
    return {"image": image, "label": np.int32(self._label(i))}
