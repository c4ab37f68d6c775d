"""`load`: a data set by its name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Dataset
from ar_jax.data.images import reader
from ar_jax.data.wrap import features

# Where each set is loaded: module of this package, function. The function
# takes size, channels and path, and the options of that set.
LOADERS = {
  "digits": ("images.embedded", "digits"),
  "fashion_mnist": ("images.embedded", "fashion_mnist"),
  "fake": ("images.embedded", "fake"),
  "photos": ("images.photos", "photos"),
  "emoji": ("images.emoji", "emoji"),
  "folder": ("images.folder", "folder"),
  "cached": ("wrap.cache", "cached"),
  "text": ("text.own", "text"),
  "chars": ("text.corpora", "chars"),
  "words": ("text.corpora", "words"),
  "pages": ("text.corpora", "pages"),
  "markov_text": ("text.made", "markov_text"),
}

_LARGEST = 8192  # beyond it one RGB image takes more than 200 MB


def load(
  name: str,
  *,
  size: int,
  channels: int = 3,
  path: str = "",
  text_features: str = "",
  **options,
) -> Dataset:
  """Loads a data set as random-access sources of size x size images.

  Args:
    name: `digits`, `fashion_mnist`, `photos`, `emoji`, `folder`, `cached`,
      `fake`, or the name of a prepared TFDS image set, as `cifar10` or
      `tfds:cifar10`.
    size: side of the images in pixels.
    channels: 1 for grey, 3 for colour; the images are converted.
    path: the user's data: the images of `folder`, the caches of `cached`, the
      TFDS data_dir, the `node_modules` of `emoji`.
    text_features: a folder of features of the texts; see `features.py`.
    **options: of that set; see its function. None is as good as not given.

  Returns:
    The data set. Its `digest` says what is read: the files by their names
    below `path`, their sizes and times, and all of the options. It does not
    say where they lie.

  Raises:
    UserError: there is no such set, it is not installed or not prepared, an
      option is unknown, or size or channels are impossible.
  """
  if not 1 <= size <= _LARGEST:
    raise UserError(
      f"data.size={size}: must lie between 1 and {_LARGEST} pixels"
    )
  if channels not in (1, 3):
    raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (colour)")
  given = {k: v for k, v in options.items() if v is not None}
  arguments = {"size": size, "channels": channels, "path": path, **given}
  if name not in LOADERS:
    arguments["name"] = _tfds_name(name, path)
  loader = _loader(name)
  known = inspect.signature(loader).parameters
  for option in given:
    if option not in known:
      close = difflib.get_close_matches(option, known, n=1)
      meant = f"did you mean {close[0]}? " if close else ""
      raise UserError(
        f"data.{option}: no option of {name!r}, {meant}which knows "
        f"{', '.join(known)}"
      )
  dataset = loader(**arguments)
  if text_features:
    dataset = features.add(dataset, text_features)
  if not dataset.digest:
    return dataset
  del arguments["path"]
  made_of = (reader.VERSION, name, arguments, dataset.digest)
  digest = digests.fingerprint(*made_of)
  return dataclasses.replace(dataset, digest=digest)


def options(name: str) -> dict[str, Any]:
  """The options that `load` takes for this set, with their defaults; those
  that must be given are there as `inspect.Parameter.empty`."""
  known = inspect.signature(_loader(name)).parameters.values()
  return {p.name: p.default for p in known if p.name not in ("name", "hint")}


def described() -> dict[str, str]:
  """What each set is: the docstrings of their functions, for docs/data.md."""
  names = (*LOADERS, "tfds:NAME")
  return {name: inspect.getdoc(_loader(name)) or "" for name in names}


def _loader(name: str) -> Callable[..., Dataset]:
  module, function = LOADERS.get(name, ("images.prepared", "prepared"))
  return getattr(importlib.import_module(f"ar_jax.data.{module}"), function)


def _tfds_name(name: str, path: str) -> str:
  """The name TFDS knows, without the prefix `tfds:`."""
  from ar_jax.data.images import prepared

  if name.startswith("tfds:"):
    return name.removeprefix("tfds:")
  known = [*LOADERS, *prepared.names(path)]
  if name.split("/")[0].split(":")[0] in known:
    return name
  close = difflib.get_close_matches(name, known, n=3)
  meant = f"did you mean {' or '.join(close)}?" if close else ""
  raise UserError(
    f"data.name={name!r}: unknown; {meant or 'see ar_jax/data/sources.py'}"
  )
