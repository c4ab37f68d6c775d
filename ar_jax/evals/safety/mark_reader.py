"""Reads images or texts as units and looks for green lists in them: of arrays,
or of the files of a folder, one by one.

N examples, L units of each.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.forms import Text
from ar_jax.core.system import System, UserError, Vars
from ar_jax.data import notes
from ar_jax.data.folders import walk
from ar_jax.data.images import reader, scan, transforms
from ar_jax.data.text import reading, vocabulary
from ar_jax.evals.safety import attacks as attacked
from ar_jax.evals.safety import green_counts
from ar_jax.evals.safety.green_counts import Detector, Found

_BATCH = 100  # examples that are read as units at once
TEXTS = (".txt", ".md")


@functools.partial(jax.jit, static_argnums=(0, 2))
def _units(system, variables, field, x):
  return system.encode(variables, {field: x})["units"]


@dataclasses.dataclass(frozen=True)
class Reader:
  """Images, or texts, as units, and the lists to look for.

  Attributes:
    system: an LBW.
    variables: its own.
    detector: of its pool.
    offsets: so many places, each way, at which the grid of the tokenizer may
      begin, for images of which something was cut off.
    field: what is read, of those that the system makes.
  """

  system: System
  variables: Vars
  detector: Detector
  offsets: int = 1
  field: str = "image"

  def units(self, images: np.ndarray) -> np.ndarray:
    """i32[N, L] of u8[N, H, W, c], or of the ids of texts i32[N, L]."""
    found = []
    for start in range(0, len(images), _BATCH):
      some = images[start : start + _BATCH]
      rows = np.minimum(np.arange(min(_BATCH, len(images))), len(some) - 1)
      own = _units(self.system, self.variables, self.field, some[rows])
      found.append(processes.fetch(own)[: len(some)])
    return np.concatenate(found)

  def look(self, images: np.ndarray) -> tuple[Found, np.ndarray]:
    """(`Found` at the offset that says most, the p f64[N] of the whole search)
    of u8[N, H, W, c], or of ids i32[N, L]."""
    if self.offsets == 1:
      best = self.detector(self.units(images))
      return best, best.pooled()
    best = None
    for down in range(self.offsets):
      for right in range(self.offsets):
        own = self.detector(self.units(attacked.moved(images, down, right)))
        if best is None:
          best = own
          continue
        new = (own.highest > best.highest)[:, None]
        best = Found(
          *(
            np.where(new, a, b)
            for a, b in zip(_of(own), _of(best), strict=True)
          )
        )
    return best, best.pooled(self.offsets**2)


def _of(found: Found) -> tuple[np.ndarray, ...]:
  return found.green, found.z, found.p


def reader_of(
  system: System,
  variables: Vars,
  *,
  null: str = "permutation",
  draws: int = 4000,
  first_map: int = 0,
  offsets: int = 1,
  field: str = "image",
) -> Reader:
  """What looks for the mark of an LBW system; arguments as in `build`."""
  groups = None
  if system.pool.cluster > 1:
    groups = system.drawn_from.codec(variables).codebook()
  detector = Detector(
    system.pool,
    np.asarray(system.pool.groups(groups)),
    system.counted(first_map) if first_map else None,
    null,
    draws,
    stop=system.stop,
  )
  return Reader(system, variables, detector, offsets, field)


def check_alpha(own: Reader, alpha: float) -> None:
  """Raises UserError if no image could be found at this alpha."""
  detector = own.detector
  tries = detector.pool.count * own.offsets**2
  least = -np.expm1(tries * np.log1p(-1 / (detector.draws + 1)))
  if detector.null == "permutation" and least > alpha:
    raise UserError(
      f"evals.watermark: alpha={alpha}: {detector.draws} random lists and "
      f"{tries} tries say no p below {least:.2g}; set "
      f"evals.watermark.draws={int(np.ceil(2 * tries / alpha))}"
    )


def protocol(own: Reader, alpha: float) -> dict[str, Any]:
  detector, pool = own.detector, own.detector.pool
  return {
    "null": detector.null,
    "alpha": alpha,
    "lists": pool.count,
    "share": float(detector.lists.mean()),
    "places of the grid": own.offsets**2,
    "z at alpha, were it normal": green_counts.threshold(
      alpha, pool.count * own.offsets**2
    ),
  }


def of_folder(own: Reader, folder: pathlib.Path, alpha: float) -> dict:
  """The verdict on every picture of a folder, a line each."""
  entries = scan.pictures(folder).files
  if not entries:
    raise UserError(f"evals.watermark: {folder}: no picture there")
  codes = own.system.drawn_from.tokenizer
  most = own.detector.most(len(own.system.plan))
  files: dict[str, dict[str, Any]] = {}
  for start in range(0, len(entries), _BATCH):
    images, names = [], []
    for entry in entries[start : start + _BATCH]:
      name = notes.printable(os.path.join(*entry.parts))
      try:
        image, remark = opened(entry.path, codes.size, codes.in_channels)
      except UserError as e:
        why = str(e).removeprefix(f"{notes.printable(entry.path)}: ")
        files[name] = {"verdict": f"not looked at: {why}"}
        continue
      files[name] = {"remark": remark} if remark else {}
      images.append(image)
      names.append(name)
    if not images:
      continue
    found, p = own.look(np.stack(images))
    for i, name in enumerate(names):
      files[name] = said(found, p, i, alpha) | files[name]
  return report(files, own, alpha) | {"z_most": most}


def of_texts(
  own: Reader, folder: pathlib.Path, alpha: float, form: Text
) -> dict:
  """The verdict on every text of a folder, a line each. A text may be of any
  length, as a list is the same at all places; each is read whole.

  Args:
    own: of texts whose units are the ids of their symbols.
    folder: has them, as .txt or .md, sub-folders too.
    alpha: as in `watermark.build`.
    form: has the symbols.

  Raises:
    UserError: there is no text.
  """
  entries = walk.walk(folder, TEXTS, "text").files
  if not entries:
    raise UserError(f"evals.watermark: {folder}: no text there (.txt, .md)")
  files: dict[str, dict[str, Any]] = {}
  for entry in entries:
    name = notes.printable(os.path.join(*entry.parts))
    try:
      ids, others = known(form, reading.read(pathlib.Path(entry.path)))
    except UserError as e:
      why = str(e).removeprefix(f"{notes.printable(entry.path)}: ")
      files[name] = {"verdict": f"not looked at: {why}"}
      continue
    if not len(ids):
      files[name] = {"verdict": "not looked at: no symbol of this vocabulary"}
      continue
    found = own.detector(ids[None])
    row = said(found, found.pooled(), 0, alpha)
    row |= {"units": len(ids), "z_most": own.detector.most(len(ids))}
    if others:
      row["remark"] = f"{others} symbols are not in the vocabulary"
    files[name] = row
  return report(files, own, alpha)


def known(form: Text, text: str) -> tuple[np.ndarray, int]:
  """(i32[n], the ids of the symbols of a text that are in the vocabulary, how
  many are not)."""
  ids = vocabulary.encoder(form)(text)
  if not form.symbols:
    return ids, 0
  parts = vocabulary.words(text) if form.joint else text
  there = set(form.symbols) - {form.symbols[form.stop]}
  keep = np.array([part in there for part in parts], bool)
  return ids[keep], int((~keep).sum())


def said(found: Found, p: np.ndarray, i: int, alpha: float) -> dict[str, Any]:
  """What a report has of example i."""
  marked = bool(p[i] <= alpha)
  return {
    "z": round(float(found.highest[i]), 3),
    "p": float(p[i]),
    "list": int(found.best[i]) if marked else None,
    "verdict": "marked" if marked else "no mark found",
  }


def report(files: dict[str, dict], own: Reader, alpha: float) -> dict:
  """The report of a folder, whose lines a person has read then."""
  if processes.leads():
    for name, row in files.items():
      print(line(name, row))
  looked = [row for row in files.values() if "p" in row]
  return {
    "files": files,
    "marked": sum(row["verdict"] == "marked" for row in looked),
    "looked_at": len(looked),
    "protocol": protocol(own, alpha),
  }


def opened(path: str, size: int, channels: int) -> tuple[np.ndarray, str]:
  """(u8[size, size, channels] of a file, what had to be done to it).

  Raises:
    UserError: it cannot be read.
  """
  image = reader.open_image(path, channels)
  if image.size == (size, size):
    return transforms.to_array(image), ""
  width, height = image.size
  remark = f"of {height}x{width}, cut and resized to {size}x{size}"
  return transforms.center_crop(image, size), remark


def line(name: str, row: Mapping[str, Any]) -> str:
  """What a person reads of a file."""
  if "p" not in row:
    return f"{name}: {row['verdict']}"
  which = "" if row["list"] is None else f" (list {row['list']})"
  remark = f"; {row['remark']}" if "remark" in row else ""
  return (
    f"{name}: {row['verdict']}{which}, z {row['z']:.2f}, p {row['p']:.2g}"
    f"{remark}"
  )
