"""The arithmetic of products of matrices and of convolutions, by their sizes.

FLOPs are those of products: 2 for each multiplication whose factors are both
data, so that what is multiplied with padding, or with the holes of a dilated
input, is no work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np


def dot(
  lhs: Sequence[int],
  rhs: Sequence[int],
  contracted: tuple[Sequence[int], Sequence[int]],
  batched: tuple[Sequence[int], Sequence[int]],
) -> float:
  """FLOPs of a general product of two arrays.

  Args:
    lhs: its shape.
    rhs: its shape.
    contracted: the axes of each that are summed over.
    batched: the axes of each that are not multiplied with each other.
  """
  own = [n for i, n in enumerate(rhs) if i not in (*contracted[1], *batched[1])]
  return 2.0 * math.prod(lhs) * math.prod(own)


@functools.lru_cache(maxsize=4096)
def pairs(
  inputs: int,
  kernel: int,
  outputs: int,
  stride: int = 1,
  before: int = 0,
  dilate_input: int = 1,
  dilate_kernel: int = 1,
) -> int:
  """Along one axis of a convolution: how often an element of the kernel meets
  one of the input.

  Args:
    inputs: length of the input.
    kernel: length of the kernel.
    outputs: length of the output.
    stride: of the window.
    before: padding before the input.
    dilate_input: distance of neighbours in the input.
    dilate_kernel: the same in the kernel.
  """
  at = np.arange(outputs)[:, None] * stride - before
  at = at + np.arange(kernel)[None] * dilate_kernel
  inside = (at >= 0) & (at <= (inputs - 1) * dilate_input)
  return int(np.sum(inside & (at % dilate_input == 0)))


def convolution(
  batch: int, features: int, summed: int, spatial: Sequence[int]
) -> float:
  """FLOPs of a convolution.

  Args:
    batch: examples of the output.
    features: of the output.
    summed: features of the input that each of them sees.
    spatial: `pairs` of each axis.
  """
  return 2.0 * batch * features * summed * math.prod(spatial)
