"""The user's own mass spectra: MGF files."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from ar_jax.core.domains import peptides as rules
from ar_jax.core.domains import spectra
from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Arrays, Dataset, split_by_seed
from ar_jax.data.science.peptides import forms


def mgf(
  *,
  path: str = "",
  longest: int = 30,
  peaks: int = 300,
  low: float = 50.5,
  high: float = 4500.0,
  near: float = 2.0,
  least: float = 0.0,
  test_fraction: float = 0.1,
  skip_bad: bool = False,
) -> Dataset:
  """Your own mass spectra: an MGF file, or a folder of them.

  From: MGF files (BEGIN IONS ... END IONS) with PEPMASS, CHARGE and, of spectra
  whose peptide is known, SEQ (`SEQ=PEPC+57.021K`).
  Command: --config.data.name=mgf --config.data.path=my.mgf
  Fields: peaks, mz, precursor, with SEQ in all of them also peptide.

  Peaks beyond `low` and `high` are left out, those of the precursor at each of
  its charges, and then all but the strongest; intensities are square roots of
  norm 1. Spectra without a peptide cannot train a model, but be read by one.

  Args:
    path: the file or folder.
    longest: symbols of a peptide, at most; `peptide` is i32[longest].
    peaks: of a spectrum, at most; `peaks` is f32[peaks, 2].
    low: the least m/z that counts.
    high: and the largest.
    near: Da within which a peak is the precursor's.
    least: share of the strongest peak up to which one is noise.
    test_fraction: the part held out. Of spectra without peptides all are.
    skip_bad: leave out spectra that cannot be read or whose peptide is longer,
      in place of an error.

  Raises:
    UserError: no such file, no spectra, or some that cannot be read.
  """
  if not 4 <= peaks <= 10_000 or not 2 <= longest <= 200:
    raise UserError(
      f"data.peaks={peaks} must be from 4 to 10000, data.longest={longest} "
      "from 2 to 200"
    )
  if not 0 <= test_fraction < 1:
    raise UserError(f"data.test_fraction={test_fraction}: must be 0 to below 1")
  files = _files(path)
  clean = dict(low=low, high=high, near=near, least=least, most=peaks)
  rows, bad = [], []
  for file in files:
    more, wrong = read(file, clean, longest)
    rows, bad = rows + more, bad + wrong
  if bad and not skip_bad:
    raise UserError(
      f"{path}: of {len(rows) + len(bad)} spectra {len(bad)} cannot be read: "
      f"{notes.listed(bad)}; mend them, or leave them out with "
      "data.skip_bad=True"
    )
  if not rows:
    raise UserError(f"{path}: no spectrum in it (BEGIN IONS ... END IONS)")
  known = sum("peptide" in r for r in rows)
  if known < len(rows):
    for row in rows:
      row.pop("peptide", None)
  said = f"mgf: {len(rows)} spectra of {len(files)} files"
  if known == len(rows):
    said += ", with their peptides"
  else:
    said += (
      f", {len(rows) - known} of them without a peptide: they train nothing"
    )
  if bad:
    said += f"; skipped {len(bad)}: {notes.listed(bad)}"
  notes.once(said)
  fields = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
  n = len(rows)
  train, test = split_by_seed(n, min(max(1, round(test_fraction * n)), n))
  if known < n or not len(train):
    train = test = np.arange(n)
  part = lambda at: Arrays({k: v[at] for k, v in fields.items()}, where=path)
  of = forms()
  return Dataset(
    "mgf",
    part(train),
    part(test),
    digest=digests.fingerprint([f.read_bytes() for f in files]),
    forms={k: v for k, v in of.items() if k in fields},
  )


def read(
  file: pathlib.Path, clean: dict, longest: int | None = None
) -> tuple[list[dict[str, np.ndarray]], list[str]]:
  """(the fields of each spectrum of a file, what is wrong with the others).

  Args:
    file: MGF.
    clean: arguments of `spectra.cleaned`.
    longest: symbols of a peptide; None reads no peptides.
  """
  rows, bad = [], []
  for number, block in enumerate(_blocks(file)):
    try:
      rows.append(_example(block, clean, longest))
    except (UserError, ValueError) as e:
      bad.append(f"{file.name} spectrum {number} ({e})")
  return rows, bad


def _files(path: str) -> list[pathlib.Path]:
  root = pathlib.Path(path).expanduser()
  if path and root.is_file():
    return [root]
  found = sorted(root.glob("*.mgf")) if path and root.is_dir() else []
  if not found:
    raise UserError(
      f"data.path={path!r}: no such file, and no folder with .mgf files in it"
    )
  return found


def _blocks(file: pathlib.Path) -> list[list[str] | None]:
  """The lines of each spectrum; None for one that has no end."""
  try:
    text = file.read_text("utf-8-sig")
  except (OSError, UnicodeDecodeError) as e:
    raise UserError(f"{file}: cannot be read as MGF ({e})") from e
  parts = re.split(r"^BEGIN IONS\s*$", text, flags=re.MULTILINE)[1:]
  ends = [
    re.split(r"^END IONS\s*$", part, maxsplit=1, flags=re.MULTILINE)
    for part in parts
  ]
  return [x[0].strip().splitlines() if x[1:] else None for x in ends]


def _example(
  lines: list[str] | None, clean: dict, longest: int | None
) -> dict[str, np.ndarray]:
  """The fields of a spectrum.

  Raises:
    UserError: something is missing or wrong.
    ValueError: something is no number.
  """
  if lines is None:
    raise UserError("no END IONS, so it may be cut short")
  said, peaks = {}, []
  for line in lines:
    name, equals, value = line.partition("=")
    if equals:
      said[name.strip().upper()] = value.strip()
    elif line.strip():
      peaks.append([float(x) for x in line.split()[:2]])
  for name in ("PEPMASS", "CHARGE"):
    if not said.get(name):
      raise UserError(f"no {name}")
  precursor = float(said["PEPMASS"].split()[0])
  # Several charges, or negative ones, are for other programs to decide.
  charge = re.fullmatch(r"\+?(\d+)\+?", said["CHARGE"])
  if charge is None or not 1 <= int(charge[1]) <= 10:
    raise UserError(f"CHARGE={said['CHARGE']}: must be one, 1+ to 10+")
  charge = int(charge[1])
  if not peaks or any(len(p) != 2 for p in peaks):
    raise UserError("no peaks of m/z and intensity")
  mz, strength = np.asarray(peaks).T
  if not np.isfinite([*mz, *strength, precursor]).all() or precursor <= 1.01:
    raise UserError("a number that is not finite or not positive")
  found = spectra.cleaned(mz, strength, precursor, charge, **clean)
  if not len(found):
    raise UserError(
      f"no peak is left between {clean['low']:g} and {clean['high']:g} m/z but "
      "those of the precursor"
    )
  example = spectra.example(found, precursor, charge, clean["most"])
  if said.get("SEQ") and longest is not None:
    ids = rules.parse(re.sub(r"[\[\]()]", "", said["SEQ"]))
    if len(ids) > longest:
      raise UserError(
        f"a peptide of {len(ids)} symbols, data.longest={longest}"
      )
    example["peptide"] = np.zeros(longest, np.int32)
    example["peptide"][: len(ids)] = ids
  return example
