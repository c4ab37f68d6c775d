"""Sources over encoded pictures: the user's folder, or a prepared TFDS set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ar_jax.core.system import UserError
from ar_jax.data.dataset import Example
from ar_jax.data.images import transforms

_CROPS = ("center", "random", "pad")


class Pictures:
  """Decodes on access; a random crop is a view, so only `draw` takes it.

  Args:
    read: i -> (the decoded picture, its label).
    length: how many there are.
    size: side of the images made of them.
    crop: "center" (ADM's central square), "random" (ADM's random crop in
      `draw`, the central square in `[i]`) or "pad" (black margins).

  Raises:
    UserError: there is no such crop.
  """

  def __init__(
    self,
    read: Callable[[int], tuple[Image.Image, int]],
    length: int,
    *,
    size: int,
    crop: str,
  ):
    if crop not in _CROPS:
      raise UserError(f"data.crop={crop!r}: must be one of {', '.join(_CROPS)}")
    self._read, self._length = read, length
    self._size, self._crop = size, crop

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> Example:
    picture, label = self._read(i)
    if self._crop == "pad":
      array = transforms.to_array(picture)
      image = transforms.pad(array, self._size, array.shape[-1])
    else:
      image = transforms.center_crop(picture, self._size)
    return {"image": image, "label": np.int32(label)}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    if self._crop != "random":
      return self[i]
    picture, label = self._read(i)
    image = transforms.random_crop(picture, self._size, rng)
    return {"image": image, "label": np.int32(label)}
