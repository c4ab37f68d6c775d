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
  if len(shape) == 1:
    return 1 + 0.1 * x if key.endswith("weight") else 0.1 * x
  fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[-1]
  return (x / np.sqrt(fan_in)).astype(np.float32)


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The description and the outputs of one golden model."""
  text = (FOLDER / f"{name}.json").read_text()
  with np.load(FOLDER / f"{name}.npz") as outputs:
    return json.loads(text), dict(outputs)


def weights(description: dict[str, Any]) -> dict[str, np.ndarray]:
  """The official state that `load(name)[0]` describes."""
  shapes = description["state_dict"]
  return {key: weight(key, tuple(shape)) for key, shape in shapes.items()}
