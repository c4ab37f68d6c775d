"""Pictures and recordings of a person's own, to be read: what
`config.sample.read` names.
"""

from __future__ import annotations

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Form, Text
from ar_jax.core.system import System
from ar_jax.data import notes
from ar_jax.data.audio import wav
from ar_jax.data.folders import walk
from ar_jax.data.images import reader, scan, transforms
from ar_jax.show.files import whole

Config = ml_collections.ConfigDict
SOUNDS = (".wav", ".wave")
_SAID = 20  # files of which the texts are printed


def given(config: Config) -> str:
  """The file or folder that is to be read; "" for none."""
  return config.sample.get("read", "")


def field(system: System) -> str | None:
  """What such a system reads, "image" or "audio"; None for other systems,
  which have no `reading`."""
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
  else:
    own = {"audio": ([sizes[0]], "float32"), "audio_length": ([], "int32")}
    form = {"form": "audio", "rate": sizes[1]}
  own["text"] = ([tokens.length], "int32")
  ids = [str(i) for i in range(tokens.vocab)]
  text = {"form": "text", "symbols": ids, "joint": " ", "stop": tokens.stop}
  return {
    "name": "the data that it was trained on",
    "num_classes": 0,
    "class_names": [],
    "fields": {k: {"shape": x, "dtype": t} for k, (x, t) in own.items()},
    "forms": {kind: form, "text": text},
  }


def files(system: System, path: str) -> list[pathlib.Path]:
  """A picture or recording, or those of a folder by their names, sub-folders
  too; what else lies there is said.

  Raises:
    UserError: the system reads nothing of that kind, or there is none.
  """
  kind = field(system)
  if kind is None:
    raise UserError(f"sample.read={path!r}: this system reads no files")
  images = kind == "image"
  what, ends = ("picture", scan.suffixes()) if images else ("recording", SOUNDS)
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    if not root.exists():
      raise UserError(
        f"sample.read={path!r}: no such file or folder; name a {what} or a "
        f"folder of {what}s"
      )
    return [root]
  tree = walk.walk(root, ends, what)
  if not tree.files:
    raise UserError(f"sample.read={path!r}: no {what} in this folder")
  others = notes.listed(e.name for e in tree.others)
  notes.once(
    f"sample.read: {len(tree.files)} {what}s in {notes.printable(str(root))}"
    + (f"; no {what}s: {others}" if others else "")
  )
  return [pathlib.Path(e.path) for e in tree.files]


def check(system: System, config: Config) -> None:
  """Reads the files that a config names; raises a UserError if one cannot be
  read."""
  for file in files(system, given(config)):
    example(system, file)


def count(system: System, config: Config) -> int:
  """How many samples a run makes: one of each file that is to be read."""
  if not given(config):
    return config.sample.count
  return len(files(system, given(config)))


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
  return {kind, f"{kind}_length"}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n samples: sample i is of file i mod their number.

  Raises:
    UserError: as `check`.
  """
  del data, labels  # the system says what it reads
  rows = [example(system, file) for file in files(system, given(config))]
  at = np.arange(n) % len(rows)
  return {k: np.stack([row[k] for row in rows])[at] for k in rows[0]}


def write(
  system: System,
  config: Config,
  made: dict[str, np.ndarray],
  forms: dict[str, Form],
  out: pathlib.Path,
) -> pathlib.Path | None:
  """`samples.tsv`, a file and its text a line, of which the first are printed;
  None where nothing was given to be read."""
  form = forms.get("text")
  if not given(config) or not isinstance(form, Text):
    return None
  root = pathlib.Path(given(config)).expanduser()
  found = files(system, given(config))
  names = [
    str(file.relative_to(root)) if root.is_dir() else file.name
    for file in found
  ]
  lines = [
    f"{notes.printable(name)}\t{form.read(ids)}"
    for name, ids in zip(names, made["text"], strict=False)
  ]
  path = out / "samples.tsv"
  with whole(path) as temporary:
    temporary.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
  for line in lines[:_SAID]:
    print(line, flush=True)
  return path
