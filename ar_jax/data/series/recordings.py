"""A user's own recordings of conversations of two: tables, a row a frame."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from ar_jax.core.domains import conversation
from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.series import dyads, table

FIELDS = ("audio_u", "audio_a", "motion_u", "motion_a")
VOICES = ("voice_u", "voice_a")
Recording = dict[str, np.ndarray]


def recordings(
  *,
  path: str,
  frames: int = 200,
  rate: float = 25.0,
  stride: int = 0,
  test: float = 0.2,
  threshold: float = 0.0,
  short: float = 1.0,
  delimiter: str = "",
) -> Dataset:
  """The user's own conversations: CSV tables with a row for each frame.

  From: a folder of tables, or one.
  Command: --config.data.name=recordings --config.data.path=DIR
    --config.model.motion=N
  Fields: audio_u, audio_a f32[T, A], voice_u, voice_a i32[T], motion_u
    f32[T, Mu], motion_a f32[T, Ma], state i32[T].

  Columns are named by their field and what tells them apart: `audio_u_1`,
  `audio_u_2`, ..., `motion_a_nod`, with `u` the user and `a` the agent, the one
  who is to be moved. `voice_u` and `voice_a` are 1 where they speak; without
  them, `threshold` says above which mean size of sound that is. `state`, 0 to
  6, may stand there, too (docs: `conversation.STATES`); else it is told by
  rule. An example is a stretch of so many frames. Of several tables the last
  by name are the test, of one its last part in time.

  Args:
    path: a folder whose .csv files are recordings, or one such file.
    frames: T of an example.
    rate: rows per second.
    stride: frames from one training example to the next; 0 is half of T. Those
      of the test follow upon each other.
    test: share of the tables, or of the frames of a single one.
    threshold: of voice; 0 wants columns.
    short: seconds; what is shorter is feedback, see `conversation.states`.
    delimiter: as of `csv`.

  Raises:
    UserError: there is no table, a column is lacking or differs between
      tables, a cell is no number, a voice is neither 0 nor 1, or a table is
      too short.
  """
  if frames < 1 or stride < 0 or rate <= 0 or not 0 < test < 1:
    raise UserError(
      f"recordings: frames={frames} must be at least 1, stride={stride} at "
      f"least 0, rate={rate} above 0, test={test} between 0 and 1"
    )
  if not path:
    raise UserError(
      "data.path: say where the tables are, --config.data.path=DIR"
    )
  root = pathlib.Path(path).expanduser()
  files = [root] if root.is_file() else sorted(root.glob("*.csv"))
  if not files:
    raise UserError(
      f"{notes.printable(str(root))}: no .csv file; each recording is one"
    )
  rows, names = [], None
  for file in files:
    where = notes.printable(str(file))
    values, columns = table.read(file, delimiter=delimiter)
    own = _columns(where, columns)
    kinds = {k: [columns[i] for i in v] for k, v in own.items()}
    if names is not None and kinds != names:
      name = next(k for k in {**kinds, **names} if kinds.get(k) != names.get(k))
      raise UserError(
        f"{where}: columns of {name} differ from those of "
        f"{notes.printable(files[0].name)}; all recordings have the same"
      )
    names = kinds
    rows.append(_recording(where, values, own, rate, threshold, short))
  step = stride or max(frames // 2, 1)
  train, later = _parts(rows, files, frames, step, test)
  if not train or not later:
    raise UserError(
      f"{notes.printable(str(root))}: {len(train)} stretches of {frames} "
      f"frames to train and {len(later)} to test; record more, or make "
      "data.frames smaller"
    )
  notes.once(
    f"{notes.printable(str(root))}: {len(files)} recordings, "
    f"{sum(len(r['state']) for r in rows)} frames; {len(train)} stretches "
    f"train and {len(later)} test"
  )
  bare = lambda k: [re.sub(f"^{k}[_. ]?", "", n) or n for n in names[k]]
  return Dataset(
    "recordings",
    _Stretches(rows, train, frames),
    _Stretches(rows, later, frames),
    forms=dyads.forms(rate, bare("motion_u"), bare("motion_a")),
    digest=digests.of_files(root if root.is_dir() else root.parent, files),
  )


class _Stretches:
  """A source of parts of recordings, (which, first frame) each."""

  def __init__(self, rows: Sequence[Recording], starts, frames: int):
    self._rows, self._starts, self._frames = rows, starts, frames

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, i: int) -> Example:
    which, at = self._starts[i]
    part = slice(at, at + self._frames)
    return {k: v[part] for k, v in self._rows[which].items()}


def _parts(rows, files, frames: int, step: int, test: float):
  """Starts (which, frame) of the training and of the test stretches."""
  length = [len(row["state"]) for row in rows]
  train, later = [], []
  if len(files) == 1:
    first = int((1 - test) * length[0])
    train = [(0, s) for s in range(0, first - frames + 1, step)]
    later = [(0, s) for s in range(first, length[0] - frames + 1, frames)]
    return train, later
  cut = len(files) - max(1, round(test * len(files)))
  for i, n in enumerate(length):
    by = step if i < cut else frames
    part = train if i < cut else later
    part += [(i, s) for s in range(0, n - frames + 1, by)]
  return train, later


def _columns(where: str, names: Sequence[str]) -> dict[str, list[int]]:
  """Field -> its columns."""
  found = {}
  for field in FIELDS:
    own = re.compile(f"{field}([_. ].+)?$")
    found[field] = [i for i, n in enumerate(names) if own.match(n)]
    if not found[field]:
      raise UserError(
        f"{where}: no column {field} or {field}_...; there are "
        f"{notes.listed(names)}"
      )
  if len(found["audio_u"]) != len(found["audio_a"]):
    raise UserError(
      f"{where}: {len(found['audio_u'])} columns of audio_u and "
      f"{len(found['audio_a'])} of audio_a; give both the same"
    )
  for field in (*VOICES, "state"):
    found[field] = [i for i, n in enumerate(names) if n == field]
  return found


def _recording(
  where: str,
  values: np.ndarray,
  columns: dict[str, list[int]],
  rate: float,
  threshold: float,
  short: float,
) -> Recording:
  """The fields of one table."""
  made = {k: values[:, columns[k]].astype(np.float32) for k in FIELDS}
  for name in VOICES:
    if columns[name]:
      made[name] = _whole(where, name, values[:, columns[name][0]], 1)
    elif threshold > 0:
      size = np.abs(made[name.replace("voice", "audio")]).mean(1)
      made[name] = (size > threshold).astype(np.int32)
    else:
      raise UserError(
        f"{where}: no column {name}; add it, 1 where they speak, or set "
        "data.threshold to the mean size of sound above which they do"
      )
  heard = conversation.late(made["voice_u"])
  if columns["state"]:
    state = _whole(where, "state", values[:, columns["state"][0]], 6)
    fits = conversation.ALLOWED[made["voice_a"], heard, state]
    if not fits.all():
      row = int(np.argmin(fits))
      raise UserError(
        f"{where}: row {row + 2}, state {state[row]} "
        f"({conversation.STATES[state[row]]}) does not go with voice_a="
        f"{made['voice_a'][row]} and voice_u={heard[row]} of the row before"
      )
  else:
    state = conversation.states(made["voice_a"], heard, rate, short)
  return {**made, "state": state}


def _whole(where: str, name: str, x: np.ndarray, most: int) -> np.ndarray:
  """i32[T] of a column of whole numbers from 0 to `most`."""
  bad = (x != np.round(x)) | (x < 0) | (x > most)
  if bad.any():
    row = int(np.argmax(bad))
    raise UserError(
      f"{where}: row {row + 2}, column {name!r}: {x[row]:g}, must be a whole "
      f"number from 0 to {most}"
    )
  return x.astype(np.int32)
