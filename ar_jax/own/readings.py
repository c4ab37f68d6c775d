"""Pictures, recordings and spectra of a person's own, to be read: what
`config.sample.read` names.
"""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax.core.domains import peptides
from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data import notes
from ar_jax.data.audio import wav
from ar_jax.data.images import reader, scan, transforms
from ar_jax.data.science import mgf
from ar_jax.own import files as own_files

Config = ml_collections.ConfigDict
SOUNDS = (".wav", ".wave")
# What a system reads -> what a file of it is called.
_CALLED = {
  "image": "picture",
  "audio": "recording",
  "peaks": "file of spectra",
}


def given(config: Config) -> str:
  """The file or folder that is to be read; "" for none."""
  return config.sample.get("read", "")


def field(system: System) -> str | None:
  """What such a system reads, "image", "audio" or "peaks"; None for other
  systems, which have no `reading`."""
  named = getattr(system, "reading", None)
  return named and named[0]


def facts(system: System) -> dict[str, Any]:
  """What a converted model, which knows no data, knows of them: what it reads,
  and the ids of its dictionary in place of symbols. As `data.json` holds it."""
  kind, sizes = system.reading
  tokens = system.tokenizer
  if kind == "image":
    own = {"image": (list(sizes), "uint8")}
    form = {"form": "image"}
  elif kind == "peaks":
    own = {k: ([sizes[0], 2], "float32") for k in ("peaks", "mz")}
    own["precursor"] = ([4], "float32")
    form = {"form": "peaks"}
  else:
    own = {"audio": ([sizes[0]], "float32"), "audio_length": ([], "int32")}
    form = {"form": "audio", "rate": sizes[1]}
  text_field = tokens.field
  own[text_field] = ([tokens.length], "int32")
  ids = [str(i) for i in range(tokens.vocab)]
  text = {"form": "text", "symbols": ids, "joint": " ", "stop": tokens.stop}
  if kind == "peaks":
    text |= {"symbols": ["", *peptides.SYMBOLS], "joint": ""}
  return {
    "name": "the data that it was trained on",
    "num_classes": 0,
    "class_names": [],
    "fields": {k: {"shape": x, "dtype": t} for k, (x, t) in own.items()},
    "forms": {kind: form, text_field: text},
  }


def files(system: System, path: str) -> list[pathlib.Path]:
  """What is to be read, or all such files of a folder; see `files.named`.

  Raises:
    UserError: the system reads nothing of that kind, or there is none.
  """
  kind = field(system)
  if kind is None:
    raise UserError(f"sample.read={path!r}: this system reads no files")
  ends = {"image": scan.suffixes(), "audio": SOUNDS, "peaks": (".mgf",)}[kind]
  return own_files.named("read", path, _CALLED[kind], ends)


def check(system: System, config: Config) -> None:
  """Reads the files that a config names; raises a UserError if one cannot be
  read."""
  for file in files(system, given(config)):
    examples(system, file)


def names(system: System, config: Config) -> list[str]:
  """What is read is called by its file, or of spectra by it and a number."""
  own = files(system, given(config))
  called = own_files.called(given(config), own)
  if field(system) != "peaks":
    return called
  return [
    f"{name} {i}"
    for name, file in zip(called, own, strict=True)
    for i in range(len(examples(system, file)))
  ]


def examples(system: System, file: pathlib.Path) -> list[dict[str, np.ndarray]]:
  """What the system reads of a file: of spectra all that are in it.

  Raises:
    UserError: it, or one in it, cannot be read.
  """
  kind, sizes = system.reading
  if kind != "peaks":
    return [example(system, file)]
  names = "most", "low", "high", "near"
  rows, bad = mgf.read(file, dict(zip(names, sizes, strict=True)))
  if bad or not rows:
    raise UserError(
      f"{notes.printable(str(file))}: "
      + (f"{notes.listed(bad)}; mend or remove it" if bad else "no spectrum")
    )
  return rows


def example(system: System, file: pathlib.Path) -> dict[str, np.ndarray]:
  """What the system reads of a file.

  Raises:
    UserError: it cannot be read.
  """
  kind, sizes = system.reading
  if kind == "image":
    height, width, channels = sizes
    picture = reader.open_image(file, channels)
    return {"image": transforms.stretched(picture, height, width)}
  length, rate = sizes
  try:
    head = wav.head(str(file))
    sound = wav.read(str(file), head, 0, head.count)
  except wav.Unreadable as e:
    raise UserError(
      f"{notes.printable(str(file))}: cannot be read as a recording ({e}); "
      "remove it or replace it"
    ) from e
  sound = wav.resampled(sound, head.rate, rate)
  if len(sound) > length:
    raise UserError(
      f"{notes.printable(str(file))}: {len(sound) / rate:.2f} s, this model "
      f"hears {length / rate:.2f} s; cut it into parts"
    )
  audio = np.zeros(length, np.float32)
  audio[: len(sound)] = sound
  return {"audio": audio, "audio_length": np.int32(len(sound))}


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data."""
  kind = field(system)
  if not given(config) or kind is None:
    return set()
  if kind == "peaks":
    return {"peaks", "mz", "precursor"}
  return {kind, f"{kind}_length"}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n samples: sample i is of file, or spectrum, i mod their
  number.

  Raises:
    UserError: as `check`.
  """
  del data, labels  # the system says what it reads
  found = files(system, given(config))
  rows = [row for file in found for row in examples(system, file)]
  at = np.arange(n) % len(rows)
  return {k: np.stack([row[k] for row in rows])[at] for k in rows[0]}
