"""`load`: a data set by its name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ar_jax.core.errors import UserError
from ar_jax.data import digests, pipeline
from ar_jax.data.dataset import Dataset
from ar_jax.data.images import reader
from ar_jax.data.wrap import derived, features, parts
from ar_jax.data.wrap import peers as beside
from ar_jax.data.wrap import turns as repeated

# Where each set is loaded: module of this package, function. What the function
# takes is what the set takes, and its docstring is its part of docs/data.md.
LOADERS = {
  "digits": ("images.embedded", "digits"),
  "fashion_mnist": ("images.embedded", "fashion_mnist"),
  "fake": ("images.embedded", "fake"),
  "photos": ("images.photos", "photos"),
  "emoji": ("images.emoji", "emoji"),
  "patterns": ("images.made", "patterns"),
  "rendered_text": ("images.made", "rendered_text"),
  "scene_text": ("images.scene_text", "scene_text"),
  "word_images": ("images.word_images", "word_images"),
  "folder": ("images.folder", "folder"),
  "clips": ("video.clips", "clips"),
  "video_folder": ("video.folder", "folder"),
  "dialogues": ("video.dialogues", "dialogues"),
  "dialogue_clips": ("video.dialogue_clips", "dialogue_clips"),
  "chirps": ("audio.chirps", "chirps"),
  "speech": ("audio.speech", "speech"),
  "audio_folder": ("audio.folder", "folder"),
  "cached": ("wrap.cache", "cached"),
  "ar_process": ("series.processes", "ar_process"),
  "unitary_process": ("series.processes", "unitary_process"),
  "sunspots": ("series.measured", "sunspots"),
  "co2": ("series.measured", "co2"),
  "ring": ("series.ring", "ring"),
  "csv": ("series.table", "csv"),
  "dyads": ("series.dyads", "dyads"),
  "recordings": ("series.recordings", "recordings"),
  "text": ("text.own", "text"),
  "chars": ("text.corpora", "chars"),
  "words": ("text.corpora", "words"),
  "pages": ("text.corpora", "pages"),
  "spelled": ("text.spelled", "spelled"),
  "prompt_pairs": ("text.prompt_pairs", "prompt_pairs"),
  "markov_text": ("text.made", "markov_text"),
  "peptides": ("science.peptides", "peptides"),
  "mgf": ("science.mgf", "mgf"),
  "creatures": ("science.creatures", "creatures"),
  "rigged": ("science.rigged", "rigged"),
}
_REQUIRED = inspect.Parameter.empty
# What `load` takes for every set.
_SHARED = (
  "share",
  "text_features",
  "image_features",
  "derive",
  "peers",
  "same_class",
  "turns",
  "order",
)


def load(
  name: str,
  *,
  share: float = 1.0,
  text_features: str = "",
  image_features: str = "",
  derive: Mapping[str, Mapping] | None = None,
  peers: int = 0,
  same_class: bool = True,
  turns: int = 0,
  order: str = "shuffled",
  **options,
) -> Dataset:
  """Loads a data set as random-access sources of examples.

  Args:
    name: a key of `LOADERS`, or the name of a prepared TFDS image set, as
      `cifar10` or `tfds:cifar10`.
    share: how much of the training split is there, the first examples of it:
      for a teacher that must not have seen all.
    text_features: a folder of features, or of ids, of the texts; see
      `features.py`.
    image_features: a folder of features of the images.
    derive: rule -> its options; adds fields that are made of the others, see
      `derived.py`.
    peers: so many other examples stand beside each; see `peers.py`.
    same_class: whether these are of its class.
    turns: how often each training example comes, one time after the other; 0
      is once, without saying so; see `turns.py`.
    order: in which training reads the examples: "shuffled", or "given" for
      that of the source.
    **options: of that set; see its function, and docs/data.md. None is as good
      as not given, and so is an empty `path` for a set that takes none.

  Returns:
    The data set. Its `digest` says what is read: the files by their names
    below `path`, their sizes and times, and all of the options. It does not
    say where they lie.

  Raises:
    UserError: there is no such set, it is not installed or not prepared, an
      option is unknown or lacking, or one is impossible.
  """
  pipeline.check_order(order)
  given = {k: v for k, v in options.items() if v is not None}
  if name not in LOADERS:
    given["name"] = _tfds_name(name, given.get("path", ""))
  loader = _loader(name)
  _check_options(name, loader, given)
  dataset = loader(**given)
  for option, folder in (
    ("text_features", text_features),
    ("image_features", image_features),
  ):
    if folder:
      dataset = features.add(dataset, folder, option)
  given.pop("path", None)
  if dataset.digest:
    made_of = (reader.VERSION, name, given, dataset.digest)
    digest = digests.fingerprint(*made_of)
    dataset = dataclasses.replace(dataset, digest=digest)
  if share != 1.0:
    dataset = parts.first(dataset, share)
  late = {k: v for k, v in (derive or {}).items() if k in derived.BESIDE}
  early = {k: v for k, v in (derive or {}).items() if k not in late}
  if early:
    dataset = derived.add(dataset, early)
  if peers:
    dataset = beside.add(dataset, peers, same_class=same_class)
  if late:
    dataset = derived.add(dataset, late)
  if turns:
    dataset = repeated.add(dataset, turns)
  return dataclasses.replace(dataset, order=order)


def _check_options(
  name: str, loader: Callable[..., Dataset], given: dict[str, Any]
) -> None:
  """Raises UserError if a set does not know an option or lacks one; removes
  an empty path that it does not know."""
  known = inspect.signature(loader).parameters
  if "path" not in known and not given.get("path", True):
    del given["path"]
  for option in given:
    if option not in known:
      close = difflib.get_close_matches(option, [*known, *_SHARED], n=1)
      meant = f"did you mean {close[0]}? " if close else ""
      raise UserError(
        f"data.{option}: no option of {name!r}, {meant}which knows "
        f"{', '.join(known)}"
      )
  for option, parameter in known.items():
    if parameter.default is _REQUIRED and option not in given:
      raise UserError(f"data.{option}: {name!r} needs it; say it")


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
