"""Rebuilds the weights behind the golden outputs in `tests/golden`.

Each `NAME.json` lists the shapes of an official state and each `NAME.npz`
what the official model computed from it. The weights themselves follow from
a rule, so none are stored.
"""

from __future__ import annotations

import json
import pathlib
import zlib
from typing import Any

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "golden"


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Standard normal noise that depends on the name alone, float32."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  return rng.standard_normal(shape).astype(np.float32)


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """The official parameter `key`: scales near 1, the rest by its fan-in."""
  x = tensor(key, shape)
  # Mamba-2's own parameters, which would be 1-D.
  leaf = key.rpartition(".")[2]
  if leaf in ("A_log", "dt_bias") or key.endswith("mamba.D"):
    return x - 1 if leaf == "dt_bias" else x
  if len(shape) == 1:
    return 1 + 0.1 * x if key.endswith("weight") else 0.1 * x
  fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[-1]
  return (x / np.sqrt(fan_in)).astype(np.float32)


def integers(name: str, high: int, shape: tuple[int, ...]) -> np.ndarray:
  """Integers below `high` that depend on the name alone."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  return rng.integers(0, high, shape)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Numbers in [0, 1) that depend on the name alone."""
  return np.random.default_rng(zlib.crc32(name.encode())).random(shape)


def image(numbers: list[int], side: int) -> np.ndarray:
  """f32[B, side, side, 3] in [-1, 1], a row for each number."""
  rows = [tensor(f"image{i}", (1, 3, side, side)) for i in numbers]
  return np.moveaxis(np.concatenate(rows).clip(-1, 1), 1, -1)


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The description and the outputs of one golden model."""
  text = (FOLDER / f"{name}.json").read_text()
  with np.load(FOLDER / f"{name}.npz") as outputs:
    return json.loads(text), dict(outputs)


def weights(
  description: dict[str, Any], of: str = "state_dict"
) -> dict[str, np.ndarray]:
  """An official state that `load(name)[0]` describes: `of` the model itself, or
  "vae_state_dict", its tokenizer."""
  return of_shapes(description[of])


def of_shapes(shapes: dict[str, Any]) -> dict[str, np.ndarray]:
  """The official state of these keys and shapes."""
  return {key: weight(key, tuple(shape)) for key, shape in shapes.items()}
