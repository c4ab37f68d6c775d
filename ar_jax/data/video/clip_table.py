"""Clips of people who talk, as SpeakerVid-5M annotates them (arXiv 2507.09862):
one record for each clip, and what a table of them must say.

A table is JSON Lines, a JSON list, or CSV with the names of inner fields behind
a dot, `sync.conf`. Lists in a CSV cell are JSON, too.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ar_jax.core.errors import UserError
from ar_jax.data import notes

ROLES = ("talk", "listen")
TIERS = ("pre", "sft")


@dataclasses.dataclass(frozen=True)
class Speech:
  """How well the words were recognised.

  Attributes:
    conf: mean log-probability of the words.
    no_speech: probability that nobody speaks.
    compression: of the transcript; words that repeat compress well.
  """

  conf: float
  no_speech: float
  compression: float


@dataclasses.dataclass(frozen=True)
class Sync:
  """Whether lips follow the sound.

  Attributes:
    offset: frames between them.
    conf: confidence that they belong together.
    dist: distance of their features.
  """

  offset: float = 0.0
  conf: float = 0.0
  dist: float = 0.0


@dataclasses.dataclass(frozen=True)
class Quality:
  """How well one sees.

  Attributes:
    dover: score of the whole picture, 0 to 1.
    clarity: bits per second for each pixel.
    luma: mean brightness, 0 to 255.
    face_blur, hand_blur: sharpness of face and hands, 0 to 1, large is sharp;
      None where none is seen.
  """

  dover: float
  clarity: float
  luma: float
  face_blur: float | None = None
  hand_blur: float | None = None


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip: one person, from t0 to t1 of a video.

  Attributes:
    clip_id: of this clip alone.
    video_id: of the video.
    t0, t1: seconds.
    speaker_id: who is seen.
    role: "talk" or "listen"; "" where it is not said.
    bbox: left, top, right, bottom, in pixels; () where it is not said.
    transcript: of what is heard.
    asr, sync, quality: see there.
    motion: how much moves, 1 to 5.
    partner_clip_id: the clip that this one answers; "" where it is not said.
    turn_index: its number in a conversation; None where it is not said.
    prev_clip_ids: clips before it in the conversation.
    caption: name -> what is seen: camera, entities, facing, ...
    topic: of the video.
    tier: "pre" or "sft"; "" where it is to be told by its scores.
  """

  clip_id: str
  video_id: str
  t0: float
  t1: float
  speaker_id: str
  asr: Speech
  quality: Quality
  motion: float
  role: str = ""
  bbox: tuple[float, ...] = ()
  transcript: str = ""
  sync: Sync = Sync()
  partner_clip_id: str = ""
  turn_index: int | None = None
  prev_clip_ids: tuple[str, ...] = ()
  caption: Mapping[str, Any] = dataclasses.field(
    default_factory=dict, hash=False, compare=False
  )
  topic: str = ""
  tier: str = ""

  @property
  def seconds(self) -> float:
    return self.t1 - self.t0


_PARTS = {"asr": Speech, "sync": Sync, "quality": Quality}
_WORDS = {"clip_id", "video_id", "speaker_id", "transcript", "topic"}
_WORDS |= {"role", "partner_clip_id", "tier"}
_IGNORED = {"keypoints"}  # of the published record; nothing here reads them


def read(path: str | pathlib.Path) -> list[Clip]:
  """The clips of a table, in its order.

  Raises:
    UserError: it cannot be read, or a record is not as above: the message has
      the file, the line, the field and what it should hold.
  """
  file = pathlib.Path(path).expanduser()
  where = notes.printable(str(file))
  clips, seen = [], {}
  for line, record in _records(file, where):
    clip = parse(record, f"{where}: line {line}")
    if clip.clip_id in seen:
      raise UserError(
        f"{where}: line {line}: clip_id {clip.clip_id!r} is that of line "
        f"{seen[clip.clip_id]}, too; give each clip its own"
      )
    seen[clip.clip_id] = line
    clips.append(clip)
  if not clips:
    raise UserError(f"{where}: holds no clip")
  for clip in clips:
    for name in (clip.partner_clip_id, *clip.prev_clip_ids):
      if name and name not in seen:
        raise UserError(
          f"{where}: line {seen[clip.clip_id]}: clip {clip.clip_id!r} names "
          f"{name!r}, which is not in the table"
        )
  return clips


def parse(record: Mapping[str, Any], where: str) -> Clip:
  """One record as a clip; `where` begins the messages.

  Raises:
    UserError: a field is unknown, lacking, or not as it should be.
  """
  given = {k: v for k, v in record.items() if k not in _IGNORED}
  _known(given, Clip, where)
  for name, kind in _PARTS.items():
    if given.get(name) is not None:
      part = given[name]
      if not isinstance(part, Mapping):
        raise UserError(f"{where}: {name}: {part!r}, must hold its scores")
      _known(part, kind, f"{where}: {name}")
      numbers = {
        k: _number(v, f"{where}: {name}.{k}")
        for k, v in part.items()
        if v is not None
      }
      given[name] = kind(**numbers)
  for name in _WORDS & given.keys():
    if given[name] is None:
      del given[name]
    elif not isinstance(given[name], str):
      given[name] = str(given[name])
  for name in ("t0", "t1", "motion"):
    given[name] = _number(given[name], f"{where}: {name}")
  for name in ("bbox", "prev_clip_ids"):
    if not isinstance(given.get(name, []), list | tuple | None):
      raise UserError(f"{where}: {name}: {given[name]!r}, must be a list")
    given[name] = tuple(given.get(name) or ())
  given["prev_clip_ids"] = tuple(map(str, given["prev_clip_ids"]))
  given["bbox"] = tuple(_number(x, f"{where}: bbox") for x in given["bbox"])
  if given.get("turn_index") is not None:
    given["turn_index"] = int(
      _number(given["turn_index"], f"{where}: turn_index")
    )
  clip = Clip(**given)
  _check(clip, where)
  return clip


def _check(clip: Clip, where: str) -> None:
  rules = (
    (bool(clip.clip_id), "clip_id", clip.clip_id, "must not be empty"),
    (bool(clip.speaker_id), "speaker_id", clip.speaker_id, "must not be empty"),
    (0 <= clip.t0 < clip.t1, "t1", clip.t1, f"must lie behind t0={clip.t0:g}"),
    (clip.role in ("", *ROLES), "role", clip.role, "must be talk or listen"),
    (clip.tier in ("", *TIERS), "tier", clip.tier, "must be pre or sft"),
    (1 <= clip.motion <= 5, "motion", clip.motion, "must lie between 1 and 5"),
    (
      0 <= clip.asr.no_speech <= 1,
      "asr.no_speech",
      clip.asr.no_speech,
      "is a probability",
    ),
    (
      0 <= clip.quality.luma <= 255,
      "quality.luma",
      clip.quality.luma,
      "must lie between 0 and 255",
    ),
    (
      not clip.bbox
      or (
        len(clip.bbox) == 4
        and clip.bbox[0] < clip.bbox[2]
        and clip.bbox[1] < clip.bbox[3]
      ),
      "bbox",
      clip.bbox,
      "must be left, top, right, bottom",
    ),
    (
      clip.partner_clip_id != clip.clip_id,
      "partner_clip_id",
      clip.partner_clip_id,
      "is the clip itself",
    ),
  )
  for holds, name, value, says in rules:
    if not holds:
      raise UserError(f"{where}: {name}: {value!r} {says}")


def _known(given: Mapping[str, Any], kind: type, where: str) -> None:
  """Raises UserError unless these are the fields of a record."""
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for name in given:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, 1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise UserError(
        f"{where}: no field {name!r}; {hint}there are {', '.join(fields)}"
      )
  needed = [
    name
    for name, field in fields.items()
    if field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  ]
  lacking = [name for name in needed if given.get(name) is None]
  if lacking:
    raise UserError(f"{where}: lacks {', '.join(lacking)}")


def _number(value: Any, where: str) -> float:
  try:
    if isinstance(value, bool):
      raise TypeError
    number = float(value)
  except (TypeError, ValueError) as e:
    raise UserError(f"{where}: {value!r} is no number") from e
  if not math.isfinite(number):
    raise UserError(f"{where}: {value!r} is not finite")
  return number


def _records(
  file: pathlib.Path, where: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  """(line, record) of a table of any of the three kinds."""
  try:
    text = file.read_text(encoding="utf-8-sig")
  except OSError as e:
    raise UserError(f"{where}: cannot be read: {e.strerror}") from e
  except UnicodeDecodeError as e:
    raise UserError(f"{where}: not a text in UTF-8") from e
  if file.suffix.lower() == ".csv":
    try:
      yield from _of_csv(text, where)
    except csv.Error as e:
      raise UserError(f"{where}: not a CSV file: {e}") from e
    return
  if text.lstrip().startswith("["):
    rows = [(0, text)]
  else:
    rows = [(i, x) for i, x in enumerate(text.splitlines(), 1) if x.strip()]
  for line, row in rows:
    at = f"{where}: line {line}" if line else where
    try:
      found = json.loads(row)
    except ValueError as e:
      raise UserError(f"{at}: not JSON: {e}") from e
    several = enumerate(found, 1) if not line else [(line, found)]
    for number, record in several:
      if not isinstance(record, dict):
        raise UserError(f"{where}: line {number}: a clip is an object {{...}}")
      yield number, record


def _of_csv(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
  # A quote that is never closed would swallow the clips behind it.
  reader = csv.reader(io.StringIO(text, newline=""), strict=True)
  head = next(reader, None)
  if not head:
    raise UserError(f"{where}: an empty file")
  for cells in reader:
    if not cells:
      continue
    if len(cells) != len(head):
      raise UserError(
        f"{where}: line {reader.line_num} has {len(cells)} cells, the first "
        f"has {len(head)}"
      )
    record: dict[str, Any] = {}
    for name, cell in zip(head, cells, strict=True):
      if not cell.strip():
        continue
      value: Any = cell
      if name.strip() in ("bbox", "prev_clip_ids", "caption"):
        try:
          value = json.loads(cell)
        except ValueError as e:
          raise UserError(
            f"{where}: line {reader.line_num}: {name}: not JSON: {e}"
          ) from e
      outer, _, inner = name.strip().partition(".")
      if inner:
        record.setdefault(outer, {})[inner] = value
      else:
        record[outer] = value
    yield reader.line_num, record
