"""Small videos for the experiments: clips as codes of the patches of their
frames, and what is measured of samples of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from ar_jax import data, evals, step
from ar_jax.core.system import Vars, build
from experiments.shared import toys
from experiments.shared.arms import Trained


class Films(NamedTuple):
  """A set of clips.

  Attributes:
    raw: as it is, `video` u8[T, H, W, c].
    units: the same as `units`, coded once.
    tokenizer: of the frames, as a config has it.
    frozen: its weights.
  """

  raw: data.Dataset
  units: data.Dataset
  tokenizer: dict[str, Any]
  frozen: Vars


def films(
  frames: int,
  *,
  vocab: int = 16,
  patch: int = 2,
  size: int = 8,
  length: int = 4096,
  system: str = "nbp",
  **clips: Any,
) -> Films:
  """Digits that move, and codes that k-means finds in patches of their frames.

  Args:
    frames: T.
    vocab: codes there are.
    patch: side of a patch.
    size: H.
    length: clips of the training split, an eighth of them for test.
    system: any that makes videos, which codes them.
    **clips: further options of `data.video.clips`.
  """
  asked = dict(size=size, channels=1, frames=frames, **clips)
  raw = data.load("clips", **asked, length=length)
  inner = dict(form="map", vocab=vocab, patch=patch, size=size, in_channels=1)
  codes = build("patch_codes", **inner)
  stills = data.load("clips", **asked, stills=True).train
  first = data.batch_at(stills, 0, batch=1, seed=0)
  fitted = codes.fitted(codes.init(jax.random.key(0), first), stills, 0)
  frozen = fitted["params"]["tokenizer"]
  tokenizer = dict(
    name="given",
    form="frames",
    frames=frames,
    tokenizer={"name": "patch_codes", **inner},
  )
  # Which order units have is the business of a system; raster is that of all.
  coder = build(system, tokenizer=tokenizer, depth=1, width=32, heads=1)
  units = toys.encoded(coder, raw, frozen)
  return Films(raw, units, tokenizer, frozen)


def drawn(own: Trained, n: int, seed: int, **cond: np.ndarray) -> np.ndarray:
  """f32[n, T, H, W, c] in [0, 1], classes in turns."""
  label = np.arange(n, dtype=np.int32) % 10
  asked = {"label": label, **cond}
  key = jax.random.key(1000 + seed)
  made = step.draw(*own[:2], asked, key, batch=n, options=own.options)
  return made["video"]


class _Given:
  """In place of a system that makes videos."""

  needs, makes = ("label",), ("video",)


def distances(
  videos: np.ndarray, raw: data.Dataset, which: slice = slice(None)
) -> dict[str, float]:
  """Frechet distance of frames, "frames", and of their differences, "moves",
  each with its floor.

  Args:
    videos: f32[N, T, H, W, c] in [0, 1], classes in turns.
    raw: what they are compared with.
    which: frames of each clip that count.
  """
  raw = dataclasses.replace(
    raw, **{k: _Part(getattr(raw, k), which) for k in ("train", "test")}
  )
  videos = videos[:, which]

  def draw(system, variables, cond, key, *, start=0, **_):
    del system, variables, key
    count = len(cond["label"])
    return {"video": videos[start : start + count]}

  found = {}
  for name, features in (("frames", "frames"), ("moves", "differences")):
    judge = evals.build(
      "frechet", raw, field="video", features=features, n=len(videos), draw=draw
    )
    measured = judge(_Given(), {}, (), jax.random.key(0))
    found[name] = float(measured["frechet"])
    found[f"{name}_floor"] = float(measured["frechet_floor"])
  return found


class _Part:
  """Some frames of the clips of a split."""

  def __init__(self, source, which: slice):
    self._source, self._which = source, which

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int):
    row = self._source[i]
    return row | {"video": row["video"][self._which]}
