"""The training system of every tokenizer family."""

from __future__ import annotations

from typing import NamedTuple

import jax

Array = jax.Array


class Reconstruction(NamedTuple):
  """What a tokenizer's `__call__` returns for training.

  Attributes:
    image: f32[B, H, W, c], not clipped.
    feature: what the tokenizer's `to_image` turns into `image`.
    units: i32[B, L].
    losses: name -> f32[B], the bottleneck's terms, weighted to be summed.
  """

  image: Array
  feature: Array
  units: Array
  losses: dict[str, Array]
