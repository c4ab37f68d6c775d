"""The layers of the 2015 Inception as a table, with their names in both worlds.

A tuple stands for branches side by side whose outputs are joined along the
channels, a list for steps in sequence, a string for a pool, and `Conv` for a
convolution with its norm.
"""

from __future__ import annotations

from typing import NamedTuple


class Conv(NamedTuple):
  name: str
  features: int
  kernel: tuple[int, int] = (1, 1)
  strides: int = 1
  padding: str = "SAME"


def _halve(name: str, features: int) -> Conv:
  """3x3 with stride 2 and without padding, as every reduction here."""
  return Conv(name, features, (3, 3), 2, "VALID")


def _block_a(pool: int):
  return (
    Conv("branch1x1", 64),
    [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))],
    [
      Conv("branch3x3dbl_1", 64),
      Conv("branch3x3dbl_2", 96, (3, 3)),
      Conv("branch3x3dbl_3", 96, (3, 3)),
    ],
    ["average", Conv("branch_pool", pool)],
  )


def _block_b():
  return (
    _halve("branch3x3", 384),
    [
      Conv("branch3x3dbl_1", 64),
      Conv("branch3x3dbl_2", 96, (3, 3)),
      _halve("branch3x3dbl_3", 96),
    ],
    "halve",
  )


def _block_c(width: int):
  row, column = (1, 7), (7, 1)
  return (
    Conv("branch1x1", 192),
    [
      Conv("branch7x7_1", width),
      Conv("branch7x7_2", width, row),
      Conv("branch7x7_3", 192, column),
    ],
    [
      Conv("branch7x7dbl_1", width),
      Conv("branch7x7dbl_2", width, column),
      Conv("branch7x7dbl_3", width, row),
      Conv("branch7x7dbl_4", width, column),
      Conv("branch7x7dbl_5", 192, row),
    ],
    ["average", Conv("branch_pool", 192)],
  )


def _block_d():
  return (
    [Conv("branch3x3_1", 192), _halve("branch3x3_2", 320)],
    [
      Conv("branch7x7x3_1", 192),
      Conv("branch7x7x3_2", 192, (1, 7)),
      Conv("branch7x7x3_3", 192, (7, 1)),
      _halve("branch7x7x3_4", 192),
    ],
    "halve",
  )


def _block_e(pool: str):
  split = lambda name: (
    Conv(f"{name}a", 384, (1, 3)),
    Conv(f"{name}b", 384, (3, 1)),
  )
  return (
    Conv("branch1x1", 320),
    [Conv("branch3x3_1", 384), split("branch3x3_2")],
    [
      Conv("branch3x3dbl_1", 448),
      Conv("branch3x3dbl_2", 384, (3, 3)),
      split("branch3x3dbl_3"),
    ],
    [pool, Conv("branch_pool", 192)],
  )


STEM = [
  _halve("Conv2d_1a_3x3", 32),
  Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
  Conv("Conv2d_2b_3x3", 64, (3, 3)),
  "halve",
  Conv("Conv2d_3b_1x1", 80),
  Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
  "halve",
]

BLOCKS = {
  "Mixed_5b": _block_a(32),
  "Mixed_5c": _block_a(64),
  "Mixed_5d": _block_a(64),
  "Mixed_6a": _block_b(),
  "Mixed_6b": _block_c(128),
  "Mixed_6c": _block_c(160),
  "Mixed_6d": _block_c(160),
  "Mixed_6e": _block_c(192),
  "Mixed_7a": _block_d(),
  "Mixed_7b": _block_e("average"),
  "Mixed_7c": _block_e("maximum"),
}


def scopes() -> dict[str, str]:
  """Convolution by its PyTorch name -> its scope in TensorFlow's graph.

  TensorFlow numbers what it meets: lone convolutions of a block are `conv`,
  sequences `tower`, `tower_1`, ..., and a fork within one `mixed`.
  """
  number = lambda name, i: f"{name}_{i}" if i else name
  found = {}

  def convs(nodes, torch: str, scope: str):
    lone = [n for n in nodes if isinstance(n, Conv)]
    for i, conv in enumerate(lone):
      found[f"{torch}{conv.name}"] = f"{scope}{number('conv', i)}"

  def block(branches, torch: str, scope: str):
    convs(branches, torch, scope)
    towers = [b for b in branches if isinstance(b, list)]
    for i, tower in enumerate(towers):
      inner = f"{scope}{number('tower', i)}/"
      convs(tower, torch, inner)
      for part in tower:
        if type(part) is tuple:
          convs(part, torch, f"{inner}mixed/")

  convs(STEM, "", "")
  for i, (name, branches) in enumerate(BLOCKS.items()):
    block(branches, f"{name}.", f"{number('mixed', i)}/")
  return found
