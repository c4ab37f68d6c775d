"""What a run tells: JSON lines, TensorBoard, a progress bar."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import struct
import sys
import tempfile
import wave
from collections.abc import Mapping

import numpy as np
import tqdm

from ar_jax import wandb_board
from ar_jax.core import json_text, processes
from ar_jax.core.system import UserError

_LINES = 200  # of a text that boards show


def expanded(path: str | pathlib.Path) -> pathlib.Path:
  """The whole path: `~` is the home of the user."""
  return pathlib.Path(path).expanduser().resolve()


def make_folder(path: str | pathlib.Path) -> pathlib.Path:
  """The folder, made if need be.

  Raises:
    UserError: it cannot be made or written.
  """
  path = expanded(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as e:
    raise UserError(
      f"{path}: cannot be written ({e.strerror}); choose another --workdir"
    ) from e
  return path


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON so that a reader sees the old file or the whole new one; the
  first process of a run does."""
  if not processes.leads():
    return
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json_text.dumps(value, indent=2) + "\n")
  temporary.replace(path)


class TensorBoard:
  """TensorBoard's event files of a run.

  Args:
    workdir: of the run.
    purge_step: what other files of the run hold of this step and of later
      ones is hidden.

  Raises:
    ImportError: tensorboardX is not installed.
  """

  def __init__(self, workdir: pathlib.Path, purge_step: int):
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(str(workdir), purge_step=purge_step)
    self.add_scalar = self._writer.add_scalar
    self.add_image = self._writer.add_image
    self.close = self._writer.close

  def add_file(self, name: str, path: pathlib.Path, step: int) -> None:
    """A .wav, .gif or .txt as it is; tensorboardX would encode sounds and
    moving pictures by packages of which there is no need."""
    from tensorboardX.proto.summary_pb2 import Summary

    if path.suffix == ".txt":
      # It reads Markdown, where four blanks keep a line as it is.
      lines = path.read_text(encoding="utf-8").splitlines()[:_LINES]
      text = "\n".join(f"    {line}" for line in lines)
      self._writer.add_text(name, text, step)
      return
    content = path.read_bytes()
    if path.suffix == ".wav":
      with wave.open(str(path), "rb") as sound:
        audio = Summary.Audio(
          sample_rate=sound.getframerate(),
          num_channels=sound.getnchannels(),
          length_frames=sound.getnframes(),
          encoded_audio_string=content,
          content_type="audio/wav",
        )
      value = Summary.Value(tag=name, audio=audio)
    else:
      width, height = struct.unpack("<HH", content[6:10])
      image = Summary.Image(
        height=height,
        width=width,
        colorspace=3,
        encoded_image_string=content,
      )
      value = Summary.Value(tag=name, image=image)
    self._writer.file_writer.add_summary(Summary(value=[value]), step)


class Writer:
  """Metrics of a run, one JSON line per logged step, by its first process.

  Lines and pictures beyond `start` are dropped first: they were written by a
  run that was killed after its last checkpoint, are of a branch that is left
  behind, and are about to be made anew.

  Args:
    workdir: gets `metrics.jsonl` and TensorBoard's event files.
    start: the step that this run starts from.
    total: the last step, for the progress bar.
  """

  def __init__(self, workdir: pathlib.Path, *, start: int, total: int):
    self._board = self._file = None
    if processes.leads():
      self._open(workdir, start)
    self._bar = tqdm.tqdm(
      initial=start,
      total=total,
      unit="step",
      dynamic_ncols=True,
      file=sys.stderr,
      mininterval=1.0 if sys.stderr.isatty() else 20.0,
      desc=workdir.name,
      disable=not processes.leads(),
    )

  def _open(self, workdir: pathlib.Path, start: int) -> None:
    path = workdir / "metrics.jsonl"
    if path.exists():
      kept = [json.dumps(row) + "\n" for row in _rows(path, until=start)]
      temporary = path.with_suffix(".tmp")
      temporary.write_text("".join(kept))
      temporary.replace(path)
    for file in (workdir / "samples").glob("*"):
      number = file.name.split(".")[0]
      if number.isdigit() and int(number) > start:
        file.unlink()
    self._file = path.open("a", buffering=1)
    with contextlib.suppress(ImportError):
      # It hides what is at that step, too, which is kept here.
      self._board = TensorBoard(workdir, purge_step=start + 1)
    self._board = wandb_board.beside(self._board, workdir)

  def advance(self) -> None:
    self._bar.update(1)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    if not self._file:
      return
    values = {k: _number(v) for k, v in values.items()}
    self._file.write(json_text.dumps({"step": step, **values}) + "\n")
    if self._board:
      for name, value in values.items():
        if isinstance(value, int | float):
          self._board.add_scalar(name, value, step)
    shown = {
      k: f"{values[k]:.4g}" for k in ("loss", "examples/s") if k in values
    }
    self._bar.set_postfix(shown, refresh=False)

  def image(self, name: str, image: np.ndarray, step: int) -> None:
    """`image`: u8[H, W, C]."""
    if self._board:
      self._board.add_image(name, image, step, dataformats="HWC")

  def file(self, name: str, path: pathlib.Path, step: int) -> None:
    """What is in a file: a sound, a moving picture or a text; others, as
    tables, are left where they are."""
    if self._board and path.suffix in (".wav", ".gif", ".txt"):
      self._board.add_file(name, path, step)

  def close(self) -> None:
    errors = []
    for part in (self._bar, self._file, self._board):
      try:
        if part is not None:
          part.close()
      except OSError as e:  # a full disk; the others are closed all the same
        errors.append(e)
    if errors:
      raise errors[0]


def last(workdir: pathlib.Path) -> dict:
  """The newest line of the metrics of a run, for all its processes; {} if
  there is none."""
  rows = _rows(workdir / "metrics.jsonl") if processes.leads() else []
  return processes.broadcast(rows[-1] if rows else {})


def at(workdir: pathlib.Path, step: int) -> dict:
  """All that the metrics of a run say of a step, for all its processes."""
  row: dict = {}
  if processes.leads():  # the others may see a line that is half written
    for earlier in _rows(workdir / "metrics.jsonl"):
      if earlier["step"] == step:
        row |= earlier
  return processes.broadcast(row)


def _rows(path: pathlib.Path, until: float = math.inf) -> list[dict]:
  """The lines that are whole, of steps up to `until`."""
  rows = []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      row = json.loads(line)
      if row["step"] <= until:
        rows.append(row)
    except (ValueError, KeyError, TypeError):
      continue  # a half-written last line
  return rows


def _number(value):
  if isinstance(value, str | dict | list | int):
    return value
  value = float(value)
  return value if math.isfinite(value) else str(value)
