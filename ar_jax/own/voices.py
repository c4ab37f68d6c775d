"""A voice of a person's own, with which a system speaks: the recording that
`config.sample.voice` names.
"""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data import notes
from ar_jax.data.audio import wav
from ar_jax.own import prompts

Config = ml_collections.ConfigDict


def given(config: Config) -> str:
  """The recording; "" for none."""
  return config.get("sample", {}).get("voice", "")


def check(system: System, config: Config) -> None:
  """Raises a UserError where the system takes no voice; `asked` looks at the
  recording, which needs the rate and the symbols of the data."""
  if "voice" not in system.takes:
    raise UserError(
      f"sample.voice={given(config)!r}: this system takes no voice"
    )


def names(system: System, config: Config) -> list[str]:
  """None: samples are made with a voice, not of it."""
  del system, config
  return []


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data: nothing, who speaks is told beside."""
  del system, config
  return set()


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n samples in this voice: `voice` f32[n, N], brought to
  the rate of the data, `voice_length` i32[n] and `voice_text` i32[n, W], what
  it says.

  Args:
    system: takes a `voice`.
    data: gives the rate of sounds and the symbols of texts.
    n: how many.
    config: its `sample.voice` is a WAV file, and `sample.voice_text` what it
      says, or that stands in a `.txt` beside it.

  Raises:
    UserError: the system takes no voice; the file cannot be read, or is too
      long; there is no text, or it has other symbols.
  """
  del labels  # a voice is no class
  check(system, config)
  path = given(config)
  file = pathlib.Path(path).expanduser()
  shown = notes.printable(str(file))
  try:
    head = wav.head(str(file))
    sound = wav.read(str(file), head, 0, head.count)
  except wav.Unreadable as e:
    raise UserError(f"sample.voice: {shown}: {e}") from e
  rate = data.forms["audio"].rate
  sound = wav.resampled(sound, head.rate, rate).astype(np.float32)
  stride = system.tokenizer.stride
  most = (len(system.plan) - 1) * stride
  if not stride <= len(sound) <= most:
    raise UserError(
      f"sample.voice: {shown}: {len(sound) / rate:.2f} s; this model takes "
      f"{stride / rate:.2f} to {most / rate:.2f} s, and what it is to say "
      "comes on top"
    )
  text = config.sample.get("voice_text", "")
  beside = file.with_suffix(".txt")
  if not text and beside.is_file():
    try:
      text = beside.read_text("utf-8-sig").strip()
    except UnicodeDecodeError as e:
      raise UserError(
        f"sample.voice: {notes.printable(str(beside))}: not a text in UTF-8"
      ) from e
  if not text:
    raise UserError(
      f"sample.voice: what does {shown} say? Set sample.voice_text, or write "
      f"it into {notes.printable(beside.name)} beside it"
    )
  try:
    ids = data.forms["text"].ids(text)
  except UserError as e:
    raise UserError(f"sample.voice_text: {e}") from e
  said = [config.sample.get("prompt", "")]
  if prompts.given(config):
    said = prompts.lines(config)
  room = system.net.prefix.symbols
  if len(ids) + max(len(data.forms["text"].ids(x)) for x in said) > room:
    raise UserError(
      f"sample.voice_text: {len(ids)} symbols, and what is to be said: this "
      f"model reads {room} in all"
    )
  every = lambda x: np.repeat(np.asarray(x)[None], n, 0)
  return {
    "voice": every(sound),
    "voice_length": np.full(n, len(sound), np.int32),
    "voice_text": every(ids),
  }
