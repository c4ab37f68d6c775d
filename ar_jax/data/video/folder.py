"""The user's own clips: folders of frames, and GIF files."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pictures

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Video
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.folders import layout as layouts
from ar_jax.data.folders import parts, walk
from ar_jax.data.images import reader, scan, transforms

_GIF = ".gif"
_FEW = 16_000_000  # bytes of GIF files that are decoded whole to check them


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip that can be read.

  Attributes:
    frames: its files in order, or the one GIF file.
    count: how many frames there are.
    side: the shorter one, in pixels.
  """

  frames: tuple[walk.Entry, ...]
  count: int
  side: int


def folder(
  *,
  size: int,
  channels: int = 3,
  path: str = "",
  frames: int = 8,
  stride: int = 1,
  rate: float = 8.0,
  classes: int | None = None,
  test_fraction: float = 0.1,
  stills: bool = False,
  skip_bad: bool = False,
) -> Dataset:
  """Your own clips: folders of frames and GIF files, a sub-folder per class.

  From: any folder; `path/CLASS/CLIP/*.png` and `path/CLASS/CLIP.gif`, with
  `path/train/` and `path/test/` above, if you like, and without CLASS for
  clips of one class.
  Command: --config.data.name=video_folder --config.data.path=DIR
  Fields: video, label; with `stills` image, label.

  The frames of a clip are the pictures in its folder, in the order of their
  names, numbers by their value: `frame2.png` comes before `frame10.png`. They
  are of one size. Films (`.mp4`) are not read; `ffmpeg -i film.mp4 -r 8
  CLIP/%04d.png` makes frames of one. One line says what was found and what was
  left out.

  Args:
    size: side in pixels; of each frame the central square is taken.
    channels: 1 or 3.
    path: the folder.
    frames: so many make an example. Of a longer clip training takes some that
      follow each other, anywhere, and the test the middle ones; shorter clips
      are left out.
    stride: 2 takes every other frame.
    rate: frames a second of the examples, for showing them.
    classes: 1 takes all clips as one class; another number is checked against
      the sub-folders.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    stills: single frames in place of clips, for a tokenizer of frames.
    skip_bad: leave out clips with frames that cannot be read, in place of an
      error.

  Raises:
    UserError: no such folder, no clips, clips that are all too short, frames
      of several sizes or that cannot be read, or classes that do not fit.
  """
  transforms.check_size(size, channels)
  for name, value in (("frames", frames), ("stride", stride), ("rate", rate)):
    if value <= 0:
      raise UserError(f"data.{name}={value}: must be more than 0")
  root = parts.root(path, test_fraction, "one sub-folder of clips per class")
  tree = scan.pictures(root)
  clips, tree, said = _clips(root, tree, skip_bad)
  needed = 1 + (frames - 1) * stride
  long = {place: c for place, c in clips.items() if c.count >= needed}
  if clips and not long:
    most = max(c.count for c in clips.values())
    raise UserError(
      f"{root}: the longest of {len(clips)} clips has {most} frames, fewer "
      f"than the {needed} that data.frames={frames} with data.stride={stride} "
      "takes; ask for fewer, or give longer clips"
    )
  if len(long) < len(clips):
    short = ["/".join(p) for p in clips if p not in long]
    said.append(
      f"{len(short)} with fewer than {needed} frames left out: "
      f"{notes.listed([notes.printable(s) for s in short], 3)}"
    )
  found = parts.divided(root, tree, long, classes, test_fraction)
  small = sum(c.side < size for c in long.values())
  if small:
    said.append(f"{small} smaller than {size} pixels are enlarged")
  parts.tell("video_folder", root, tree, found, said)

  def part(chosen: list[layouts.Labelled]) -> Windows:
    picked = [(long[e.parts], k) for e, k in chosen]
    if stills:
      return Stills(picked, 1, 1, size, channels)
    return Windows(picked, frames, stride, size, channels)

  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, chosen in (("train", found.train), ("test", found.test))
    for clip, _ in chosen
    for e in long[clip.parts].frames
  )
  return Dataset(
    "video_folder",
    part(found.train),
    part(found.test),
    len(found.names),
    found.names,
    digest,
    forms={"image": Image()} if stills else {"video": Video(rate)},
  )


def _clips(
  root: pathlib.Path, tree: walk.Tree, skip: bool
) -> tuple[dict[tuple[str, ...], Clip], walk.Tree, list[str]]:
  """(path of a clip that can be read -> the clip, the tree with all clips for
  its files, what to tell of others)."""
  grouped, loose = groups(tree)
  said = [f"{loose} pictures beside clips left out"] if loose else []
  every = [e for own in grouped.values() for e in own if e.kind != _GIF]
  good, sizes, bad = scan.check(root, every, skip=skip)
  size = {e.parts: s for e, s in zip(good, sizes, strict=True)}
  gifs = [own[0] for own in grouped.values() if own[0].kind == _GIF]
  whole = sum(e.size for e in gifs) <= _FEW
  clips, refused = {}, []
  for place, own in grouped.items():
    why = ""
    if own[0].kind == _GIF:
      why, count, side = _look(own[0], whole)
    elif all(e.parts in size for e in own):
      kinds = {size[e.parts] for e in own}
      why = f"frames of {len(kinds)} sizes" if len(kinds) > 1 else ""
      count, side = len(own), min(map(min, kinds))
    else:
      continue  # `bad` names the frame
    if why:
      refused.append(f"{notes.printable('/'.join(place))} ({why})")
    else:
      clips[place] = Clip(own, count, side)
  if refused and not skip:
    raise UserError(
      f"{root}: {len(refused)} clips cannot be read: {notes.listed(refused)}; "
      "mend or remove them, or leave them out with data.skip_bad=True"
    )
  if refused:
    said.append(f"{len(refused)} cannot be read: {notes.listed(refused)}")
  made = dataclasses.replace(
    tree,
    files=[_entry(place, own) for place, own in sorted(grouped.items())],
    folders=tree.folders - set(grouped),
    what="clip",
    endings=("folders of .png", ".jpg", _GIF),
  )
  return clips, made, bad + said


def groups(
  tree: walk.Tree,
) -> tuple[dict[tuple[str, ...], tuple[walk.Entry, ...]], int]:
  """(path of a clip -> its files in order, how many pictures are of none):
  a folder in which there are other clips is none itself."""
  found: dict[tuple[str, ...], list[walk.Entry]] = {}
  for e in tree.files:
    found.setdefault(e.parts if e.kind == _GIF else e.parts[:-1], []).append(e)
  above = {place[:i] for place in found for i in range(len(place))} | {()}
  loose = sum(len(found.pop(place)) for place in list(found) if place in above)
  key = lambda e: natural(e.parts[-1])
  return {k: tuple(sorted(v, key=key)) for k, v in found.items()}, loose


def _entry(place: tuple[str, ...], own: tuple[walk.Entry, ...]) -> walk.Entry:
  """A clip as a file of the tree."""
  size, changed = sum(e.size for e in own), max(e.changed for e in own)
  return walk.Entry(place, own[0].path, size, changed, own[0].who)


def natural(name: str) -> list:
  """A key that sorts numbers in names by their value."""
  pieces = re.split(r"(\d+)", name)
  # Text and numbers take turns, so that no two of a kind are unlike.
  return [(int(p), p) if i % 2 else p for i, p in enumerate(pieces)]


def _look(entry: walk.Entry, whole: bool) -> tuple[str, int, int]:
  """(why a GIF file cannot be read, its frames, its shorter side)."""
  if not entry.size:
    return "an empty file", 0, 0
  try:
    with Pictures.open(entry.path) as image:
      count = image.n_frames
      for n in range(count) if whole else (0,):
        image.seek(n)
        image.load()
      return "", count, min(image.size)
  except Exception as e:  # Pillow raises what it likes
    why = " ".join((str(e) or repr(e)).split())
    return why.replace(entry.path, "").strip(" :'\"") or "damaged", 0, 0


class Windows:
  """Frames that follow each other: of `[i]` the middle ones, of `draw` any."""

  def __init__(
    self,
    clips: Sequence[tuple[Clip, int]],
    frames: int,
    stride: int,
    size: int,
    channels: int,
  ):
    self._clips, self._size, self._channels = clips, size, channels
    self._frames, self._stride = frames, stride

  def __len__(self) -> int:
    return len(self._clips)

  def label(self, i: int) -> int:
    return self._clips[i][1]

  def labels(self) -> np.ndarray:
    return np.asarray([k for _, k in self._clips], np.int32)

  def _room(self, i: int) -> int:
    return self._clips[i][0].count - 1 - (self._frames - 1) * self._stride

  def __getitem__(self, i: int) -> Example:
    return self._at(i, self._room(i) // 2)

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return self._at(i, int(rng.integers(self._room(i) + 1)))

  def _at(self, i: int, start: int) -> Example:
    clip, label = self._clips[i]
    numbers = [start + self._stride * t for t in range(self._frames)]
    video = frames(clip.frames, numbers, self._size, self._channels)
    return {"video": video, "label": np.int32(label)}


class Stills(Windows):
  """Windows of one frame, as images."""

  def _at(self, i: int, start: int) -> Example:
    found = super()._at(i, start)
    return {"image": found["video"][0], "label": found["label"]}


def count(files: Sequence[walk.Entry]) -> int:
  """How many frames a clip has, which is one GIF file or its frames.

  Raises:
    UserError: it cannot be read.
  """
  if files[0].kind != _GIF:
    return len(files)
  why, found, _ = _look(files[0], whole=False)
  if why:
    raise UserError(f"{notes.printable(files[0].path)}: {why}")
  return found


def frames(
  files: Sequence[walk.Entry], numbers: Sequence[int], size: int, channels: int
) -> np.ndarray:
  """u8[k, size, size, channels]: frames of a clip by their numbers, of each
  the central square.

  Raises:
    UserError: one cannot be read.
  """
  if files[0].kind == _GIF:
    pictures = _gif(files[0].path, numbers, channels)
  else:
    pictures = [reader.open_image(files[n].path, channels) for n in numbers]
  return np.stack([transforms.center_crop(p, size) for p in pictures])


def _gif(
  path: str, numbers: Sequence[int], channels: int
) -> list[Pictures.Image]:
  """Frames of a GIF file, by their numbers."""
  try:
    with Pictures.open(path) as image:
      made = []
      for n in numbers:
        image.seek(n)
        made.append(reader.convert(image.convert("RGBA"), channels))
      return made
  except Exception as e:
    raise UserError(
      f"{notes.printable(path)}: cannot be read as a clip ({e}); remove it or "
      "replace it"
    ) from e
