"""Shapes of a person's own, to be given a skeleton: what `config.sample.shape`
names.

P points of a surface, V vertices.
"""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data.science import shapes
from ar_jax.own import files as own_files

Config = ml_collections.ConfigDict
FIELD = "points"  # what such a system reads


def given(config: Config) -> str:
  """The file or folder of shapes that are to be rigged; "" for none."""
  return config.sample.get("shape", "")


def files(path: str) -> list[pathlib.Path]:
  """A shape, or those of a folder; see `files.named`."""
  kinds = f" ({', '.join(shapes.ENDINGS)})"
  return own_files.named("shape", path, "shape", shapes.ENDINGS, kinds)


def check(system: System, config: Config) -> None:
  """Reads the shapes that a config names.

  Raises:
    UserError: the system makes no rig of a shape, or a file is no shape.
  """
  if FIELD not in system.needs or "query" not in system.takes:
    raise UserError(
      f"sample.shape={given(config)!r}: this system reads no shape"
    )
  for file in files(given(config)):
    shapes.read(file)


def names(system: System, config: Config) -> list[str]:
  """What the shapes are called."""
  del system
  return own_files.called(given(config), files(given(config)))


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data."""
  del system, config
  return {FIELD}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n rigs: sample i is of shape i mod their number.

  Args:
    system: makes a rig of a shape.
    data: of the run: how many points the system reads.
    n: how many.
    config: `sample.shape` is a file or a folder, `sample.seed` chooses the
      points of a surface.

  Returns:
    `points` f32[n, P, 6], in the unit and place of the file; `query` f32[n, V,
    6], all vertices with their normals, which get the skin, those of the
    largest shape where there are several: of others the last is repeated; and
    how many they are, `vertices` i32[n].

  Raises:
    UserError: as `check`.
  """
  del labels  # a shape has none
  check(system, config)
  known = getattr(data, "fields", None)
  shape = known[FIELD][0] if known else data.test[0][FIELD].shape
  found = [shapes.read(file) for file in files(given(config))]
  points = [
    shapes.surface(
      one, shape[0], np.random.default_rng((config.sample.seed, i))
    )[0]
    for i, one in enumerate(found)
  ]
  every = [shapes.vertices(one) for one in found]
  count = np.asarray([len(x) for x in every], np.int32)
  room = lambda x: ((0, count.max() - len(x)), (0, 0))
  query = [np.pad(x, room(x), mode="edge") for x in every]
  at = np.arange(n) % len(found)
  return {
    "points": np.stack(points)[at],
    "query": np.stack(query)[at],
    "vertices": count[at],
  }
