"""LPIPS (1801.03924, version 0.1) on VGG-16, from files that the user names.

The trunk's weights are torchvision's `vgg16`, the 1x1 weights those of the
`lpips` package (`weights/v0.1/vgg.pth`). Neither is shipped here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.system import UserError

Array = jax.Array

# Convolutions of each stage by their index in torchvision's `features`; a
# stage ends at a tap (relu1_2, 2_2, 3_3, 4_3, 5_3), a pooling begins the next.
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@functools.cache
def read(trunk: str, heads: str) -> dict[str, Any]:
  """The weights of `distance`: "trunk" conv by conv, and "heads" f32[C].

  Args:
    trunk: path of torchvision's vgg16 state dict.
    heads: path of the lpips package's vgg.pth.

  Raises:
    UserError: a file is not what it should be.
  """
  # Here, not above: whoever trains without LPIPS needs no file reader.
  from ar_jax.files import torch_file

  vgg, lin = torch_file.read(trunk), torch_file.read(heads)
  try:
    return {
      "trunk": {
        str(i): {
          "kernel": np.transpose(vgg[f"features.{i}.weight"], (2, 3, 1, 0)),
          "bias": np.asarray(vgg[f"features.{i}.bias"]),
        }
        for stage in _STAGES
        for i in stage
      },
      "heads": {
        str(i): np.asarray(lin[f"lin{i}.model.1.weight"]).reshape(-1)
        for i in range(len(_STAGES))
      },
    }
  except KeyError as e:
    raise UserError(
      f"lpips: no {e.args[0]} in {trunk} or {heads}; they must be "
      "torchvision's vgg16 and lpips' weights/v0.1/vgg.pth"
    ) from e


def distance(weights: dict[str, Any], x: Array, y: Array) -> Array:
  """LPIPS between images f32[B, H, W, c] in [-1, 1], f32[B].

  Args:
    weights: as `read` returns them.
    x: images; grey ones (c = 1) are taken as grey colours.
    y: images.
  """
  total = jnp.zeros(len(x), jnp.float32)
  trunk = weights["trunk"]
  both = zip(taps(trunk, x), taps(trunk, y), strict=True)
  for i, (a, b) in enumerate(both):
    difference = jnp.square(_unit(a) - _unit(b))
    head = weights["heads"][str(i)]
    total += jnp.einsum("bhwc,c->bhw", difference, head).mean((1, 2))
  return total


def _unit(x: Array) -> Array:
  # A dead pixel (all zero after ReLU) has norm 0, where the root has no
  # derivative; the floor is far below what float32 tells from 0 + 1e-10.
  norm = jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))
  return x / (norm + 1e-10)


def taps(trunk: dict[str, Any], x: Array) -> Iterator[Array]:
  """The five features f32[B, h, w, C] of images in [-1, 1]."""
  x = (x.astype(jnp.float32) - _SHIFT[None, None, None]) / _SCALE[
    None, None, None
  ]
  for stage in _STAGES:
    if stage is not _STAGES[0]:
      x = jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
      )
    for i in stage:
      layer = trunk[str(i)]
      x = jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )
      x = jax.nn.relu(x + layer["bias"][None, None, None])
    yield x


@dataclasses.dataclass(frozen=True)
class LPIPS:
  """The perceptual term of a tokenizer's loss.

  Attributes:
    trunk: path of the VGG-16 weights.
    heads: path of the 1x1 weights.
    weight: of the term.
  """

  trunk: str
  heads: str
  weight: float = 1.0

  def init(self) -> dict[str, Any]:
    """The frozen collection."""
    return jax.tree.map(jnp.asarray, read(self.trunk, self.heads))

  def __call__(self, weights: dict[str, Any], x: Array, y: Array) -> Array:
    return distance(jax.lax.stop_gradient(weights), x, y)
