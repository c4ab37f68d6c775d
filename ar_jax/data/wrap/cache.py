"""Units that a tokenizer computed once, kept in files and read back.

A cache is a folder: one `FIELD.npy` of shape [N, V, ...] per field and a
`meta.json`, N examples in V views. Units have a fixed size, so a memory map
is all that is needed: random access without decoding, shared between
processes by the page cache, and a length that says whether a file is whole.

Augmentation is honest: a view is encoded from augmented pixels, and training
picks one of the V views at random. Units themselves are never flipped.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ar_jax.core import json_text, processes
from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import (
  Dataset,
  Example,
  Source,
  check_labels,
  draw,
)
from ar_jax.data.images.transforms import Augment
from ar_jax.data.pipeline import Batch, read_ahead, stack

Encode = Callable[[Batch], Batch]

_log = logging.getLogger("ar_jax")
_FORMAT = 1
_NOT_KEPT = {"index", "mask", "view"}  # of the batch, not of the example


def write(
  path: str | os.PathLike,
  source: Source,
  encode: Encode,
  *,
  batch: int,
  views: int = 1,
  augment: Augment | None = None,
  seed: int,
  digest: str | Mapping[str, str],
  workers: int = 0,
  rows: Sequence[int] | None = None,
  replace: bool = False,
) -> None:
  """Encodes a source, and puts the result in place in one step.

  It is written to `path.partial` first, which nobody reads and the next
  attempt removes. Of the processes of a run all call this, each reads its own
  rows, and the first one writes.

  Args:
    path: the folder to be made.
    source: see `dataset.py`.
    encode: batch -> the fields to keep, with the same leading axis, for
      example `System.encode`. It always gets full batches: the last is filled
      up, with mask 0. Its `index`, `mask` and `view` (which of the V versions,
      i32[B]) are not kept. Given `rows` of a batch it answers with all of it.
    batch: B of these batches.
    views: V, how many independent random views of an example to encode. With
      one view and no augmentation the example is encoded as it is.
    augment: applied to each view before it is encoded.
    seed: view v of example i is a function of (seed, v, i).
    digest: says what the units were made of, see `digests`, or each of the
      things by its name; `read` and `stale` compare it.
    workers: threads that read ahead of the encoder; 0 and 1 both mean one.
    rows: of each batch, for this process to read; by default all.
    replace: put the result in the place of what `path` holds.

  Raises:
    UserError: `path` exists and is not to be replaced, the source is empty,
      views < 1, or the disk is too small.
  """
  import grain

  path = pathlib.Path(path)
  n = len(source)
  if path.exists() and not replace:
    raise UserError(f"{path}: exists; remove it to encode the data anew")
  if n == 0 or views < 1 or batch < 1:
    raise UserError(
      f"{path}: cannot cache {n} examples in {views} views, {batch} at a time; "
      "each must be at least 1"
    )

  steps = -(-n // batch)
  own = list(range(batch)) if rows is None else [int(r) for r in rows]

  def view(v: int, i: int) -> Example:
    if views == 1 and augment is None:
      return source[i]
    rng = np.random.default_rng((seed, v, i))
    one = draw(source, i, rng)
    return one if augment is None else augment(one, rng)

  def read_rows(job: int) -> Batch:
    v, step = divmod(job, steps)
    index = [step * batch + r for r in own]
    mask = (np.asarray(index) < n).astype(np.float32)
    examples = [view(v, min(i, n - 1)) for i in index]
    # A model that makes its data draws by (index, view).
    which = np.full(len(own), v, np.int32)
    return {**stack(examples, index), "mask": mask, "view": which}

  partial = path.with_name(path.name + ".partial")
  if processes.leads():
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
  fields: dict[str, np.ndarray] = {}
  jobs = grain.MapDataset.range(views * steps).map(read_rows)
  for job, read in enumerate(read_ahead(jobs, workers)):
    v, first = job // steps, job % steps * batch
    units = encode(read)
    if not processes.leads():
      continue
    for name in units.keys() - _NOT_KEPT:
      if not fields:
        fields = _create(partial, (n, views), _kept(units))
      value = np.asarray(units[name])
      fields[name][first : first + batch, v] = value[: n - first]
  if not processes.leads():
    return processes.meet("units")
  for field in fields.values():
    field.flush()
  meta = {
    "format": _FORMAT,
    "digest": digest if isinstance(digest, str) else dict(digest),
    "count": n,
    "views": views,
    "fields": {
      name: {"shape": field.shape[2:], "dtype": str(field.dtype)}
      for name, field in fields.items()
    },
  }
  (partial / "meta.json").write_text(json_text.dumps(meta, indent=2) + "\n")
  if replace:
    shutil.rmtree(path, ignore_errors=True)
  os.rename(partial, path)
  processes.meet("units")


def _kept(units: Batch) -> dict[str, np.ndarray]:
  return {k: np.asarray(units[k]) for k in sorted(units.keys() - _NOT_KEPT)}


def _create(
  folder: pathlib.Path, rows: tuple[int, ...], like: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Empty fields [*rows, ...]. A map on a full disk kills the process, so the
  space is asked for first, for all fields at once."""
  shapes = {name: (*rows, *value.shape[1:]) for name, value in like.items()}
  needed = sum(
    math.prod(shapes[name]) * value.dtype.itemsize
    for name, value in like.items()
  )
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f"{folder.parent}: the {', '.join(shapes)} need {needed / 1e9:.1f} GB "
      f"and the disk has {free / 1e9:.1f} GB left; free some, or cache fewer "
      "views"
    )
  return {
    name: np.lib.format.open_memmap(
      folder / f"{name}.npy", mode="w+", dtype=value.dtype, shape=shapes[name]
    )
    for name, value in like.items()
  }


class Cached:
  """A cache as a source: `[i]` is view 0, `draw` a random view."""

  def __init__(self, fields: dict[str, np.ndarray], meta: dict[str, Any]):
    self._fields, self.meta = fields, meta
    if "label" in fields:  # a view does not change the class
      self.labels = lambda: np.asarray(fields["label"][:, 0])
      self.label = lambda i: int(fields["label"][i, 0])

  def __len__(self) -> int:
    return self.meta["count"]

  @property
  def views(self) -> int:
    return self.meta["views"]

  def view(self, i: int, v: int) -> Example:
    """View `v` of example `i`."""
    return {name: np.array(f[i, v]) for name, f in self._fields.items()}

  def __getitem__(self, i: int) -> Example:
    return self.view(i, 0)

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    return self.view(i, int(rng.integers(self.views)))


def stale(path: str | os.PathLike, digest: Mapping[str, str]) -> str:
  """Why units must be encoded (anew): "" if what is there is what `digest`
  says; else what has changed, or that there are none."""
  try:
    meta = json.loads((pathlib.Path(path) / "meta.json").read_text())
  except (OSError, ValueError):
    return "there are none yet"
  there = meta.get("digest")
  if meta.get("format") != _FORMAT or not isinstance(there, dict):
    return "what is there was written by an earlier version"
  changed = [k for k in digest if there.get(k) != digest[k]]
  return f"changed since: {', '.join(changed)}" if changed else ""


def up_to_date(
  path: str | os.PathLike,
  source: Source,
  encode: Encode,
  *,
  digest: Mapping[str, str],
  **options,
) -> Cached:
  """The units at `path`, encoded (anew) if they are not made of what `digest`
  says; a line says why.

  Args:
    path: the folder.
    source: see `write`, as for `encode` and `options`.
    encode: its result.
    digest: what the units ought to be made of, each thing by its name. Each
      process may see other times of its files: the first one's are meant.
    **options: of `write`.
  """
  digest = processes.broadcast(dict(digest))
  if why := processes.broadcast(stale(path, digest)):
    _log.info("encoding %d examples into %s: %s", len(source), path, why)
    write(path, source, encode, digest=digest, replace=True, **options)
  return read(path, digest)


def read(
  path: str | os.PathLike, digest: str | Mapping[str, str] | None = None
) -> Cached:
  """Opens a cache; the units are read when asked for.

  Args:
    path: the folder that `write` made.
    digest: what the units ought to be made of; None takes them as they are.

  Raises:
    UserError: there is no cache, it is damaged, or it was made of another
      tokenizer, other data or another augmentation.
  """
  path = pathlib.Path(path)
  try:
    meta = json.loads((path / "meta.json").read_text())
  except (FileNotFoundError, NotADirectoryError) as e:
    raise UserError(
      f"{path}: no cached units there (an interrupted run leaves none); "
      "encode the data first"
    ) from e
  except ValueError as e:
    raise UserError(f"{path / 'meta.json'}: damaged; remove {path}") from e
  if meta.get("format") != _FORMAT:
    raise UserError(
      f"{path}: a cache of format {meta.get('format')}, this is {_FORMAT}; "
      "remove it and encode the data anew"
    )
  if digest is not None and meta["digest"] != (
    digest if isinstance(digest, str) else dict(digest)
  ):
    raise UserError(
      f"{path}: made of another tokenizer, data or augmentation (digest "
      f"{meta['digest']}, wanted {digest}); remove it or name another folder"
    )
  fields = {}
  for name, spec in meta["fields"].items():
    file = path / f"{name}.npy"
    wanted = (meta["count"], meta["views"], *spec["shape"])
    try:
      # bfloat16 has no name in the .npy format, which calls it void.
      # As a plain array it is indexed three times as fast as a np.memmap.
      mapped = np.load(file, mmap_mode="r").view(spec["dtype"])
      fields[name] = np.asarray(mapped)
    except (OSError, ValueError, EOFError) as e:
      raise UserError(f"{file}: cut short ({e}); remove {path}") from e
    if fields[name].shape != wanted:
      raise UserError(
        f"{file}: shape {fields[name].shape} in place of {wanted}; "
        f"remove {path}"
      )
  return Cached(fields, meta)


def cached(
  *,
  path: str,
  digest: str | None = None,
  num_classes: int = 0,
  size: int = 0,
  channels: int = 3,
) -> Dataset:
  """Units that a tokenizer has computed: path/train and path/test.

  From: `ar_jax.data.wrap.cache.write`.
  Command: --config.data.name=cached --config.data.path=DIR
  Fields: what was written, as units, label.

  Args:
    path: the folder of both.
    digest: what the units ought to be made of, the same for both; by default
      they are taken as they are.
    num_classes: by default the largest label and one; 0 where there are no
      labels.
    size: of the images that were encoded; the units themselves do not tell.
    channels: of these images.

  Raises:
    UserError: as `read`, or a label is out of range.
  """
  del size, channels
  parts = [read(pathlib.Path(path) / n, digest) for n in ("train", "test")]
  labels = {
    name: part.labels()
    for name, part in zip(("train", "test"), parts, strict=True)
    if hasattr(part, "labels")
  }
  if labels:
    num_classes = num_classes or 1 + max(int(x.max()) for x in labels.values())
  for name, label in labels.items():
    check_labels(label, num_classes, f"{path}/{name}")
  names = tuple(str(i) for i in range(num_classes))
  made_of = digests.fingerprint([p.meta for p in parts])
  return Dataset("cached", *parts, num_classes, names, made_of)
