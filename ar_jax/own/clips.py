"""Clips of a person's own that samples go on with: what `config.sample.clip`
names, a GIF file, a folder of frames, or a folder of several of these.

k frames, H W sides, c channels.
"""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data import notes
from ar_jax.data.folders import walk
from ar_jax.data.images import scan
from ar_jax.data.video import folder
from ar_jax.own import files as own_files

Config = ml_collections.ConfigDict
FIELD = "video"  # what such a system makes


def given(config: Config) -> str:
  """The file or folder of clips that samples go on with; "" for none."""
  return config.get("sample", {}).get("clip", "")


def files(path: str) -> list[tuple[walk.Entry, ...]]:
  """The files of every clip, in order: one GIF each, or frames.

  Raises:
    UserError: there are none.
  """
  root = pathlib.Path(path).expanduser()
  if not root.exists():
    raise UserError(
      f"sample.clip={path!r}: no such file or folder; name a GIF, a folder of "
      "frames, or a folder of some"
    )
  alone = not root.is_dir()
  tree = scan.pictures(root.parent if alone else root)
  if alone:
    found = [e for e in tree.files if e.parts == (root.name,)]
    if not found or found[0].kind != ".gif":
      raise UserError(
        f"sample.clip={path!r}: no GIF; name one, or a folder of frames"
      )
    return [tuple(found)]
  flat = [e for e in tree.files if len(e.parts) == 1 and e.kind != ".gif"]
  if flat:
    left = len(tree.files) - len(flat)
    if left:
      notes.once(
        f"sample.clip: {len(flat)} pictures are the frames of one clip; {left} "
        "GIFs and pictures of folders beside them are left out"
      )
    return [tuple(sorted(flat, key=lambda e: folder.natural(e.parts[-1])))]
  groups, loose = folder.groups(tree)
  if not groups:
    raise UserError(f"sample.clip={path!r}: no clip in this folder")
  if loose:
    notes.once(f"sample.clip: {loose} pictures are of no clip and left out")
  return [own for _, own in sorted(groups.items())]


def check(system: System, config: Config) -> None:
  """Looks for the clips.

  Raises:
    UserError: there are none, or the system goes on with none.
  """
  clip_lengths(system, given(config))
  files(given(config))


def names(system: System, config: Config) -> list[str]:
  """What the clips are called: by their GIF or their folder."""
  del system
  root = pathlib.Path(given(config)).expanduser()
  clips = files(given(config))
  parts = [
    x[0].parts if x[0].kind == ".gif" else x[0].parts[:-1] for x in clips
  ]
  return ["/".join(own) or root.name for own in parts]


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data: a clip stands for the video of an
  example."""
  del system, config
  return {FIELD}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The clips that n samples go on with: sample i has that of number i mod
  their number.

  Args:
    system: goes on with clips.
    data: of the run: the sides and channels of its videos.
    n: how many.
    config: `sample.clip`; and `sample.clip_frames`, how many frames of its end
      are taken, 0 for as many as there are, as far as the model can.

  Returns:
    `clip` u8[n, k, H, W, c]; as `video` too, where the system needs one.

  Raises:
    UserError: the system goes on with no clip; there is none; one cannot be
      read, or is too short.
  """
  del labels  # they are asked for beside
  path, wanted = given(config), config.sample.get("clip_frames", 0)
  lengths = clip_lengths(system, path)
  found = files(path)
  counts = [folder.count(own) for own in found]
  fits = [k for k in lengths if k <= min(counts)]
  if not fits:
    raise UserError(
      f"sample.clip={path!r}: a clip of {min(counts)} frames; this model reads "
      f"{listed(lengths)}"
    )
  if wanted and wanted not in fits:
    raise UserError(
      f"sample.clip_frames={wanted}: of these clips this model reads "
      f"{listed(fits)} frames"
    )
  k = wanted or max(fits)
  known = getattr(data, "fields", None)
  shape = known[FIELD][0] if known else data.test[0][FIELD].shape
  made = [
    folder.frames(own, range(count - k, count), shape[1], shape[3])
    for own, count in zip(found, counts, strict=True)
  ]
  notes.once(
    f"sample.clip: {len(made)} clips, of which samples go on with the last {k} "
    "frames"
  )
  sizes = []
  for own in found:
    with Image.open(own[0].path) as first:
      sizes.append(first.size)
  own_files.say_fitted("clip", "clip", sizes, shape[1], shape[2])
  clip = np.stack(made)[np.arange(n) % len(made)]
  # It stands for the video of an example.
  return {k: clip for k in ("clip", *system.needs) if k in ("clip", FIELD)}


def clip_lengths(system: System, path: str) -> tuple[int, ...]:
  """How many frames of a clip the system may read.

  Raises:
    UserError: it goes on with none.
  """
  lengths = getattr(system, "clip_lengths", tuple)()
  if not lengths:
    raise UserError(f"sample.clip={path!r}: this system goes on with no clip")
  return lengths


def listed(lengths: tuple[int, ...] | list[int]) -> str:
  """Numbers in words."""
  *rest, last = map(str, lengths)
  return f"{', '.join(rest)} or {last}" if rest else last
