"""Peptides of proteins, with mass spectra made by rule."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from ar_jax.core.domains import peptides as rules
from ar_jax.core.domains import spectra
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Peaks, Text
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example

_LETTERS = "ACDEFGHIKLMNPQRSTVWY"
# How often each comes in proteins, in per mille (UniProt, about).
_SHARES = (83, 14, 55, 67, 39, 71, 23, 59, 58, 97, 24, 41, 47, 39, 55, 66, 53,
           69, 11, 29)  # fmt: skip
_CUT = re.compile(r"(?<=[KR])(?!P)")
DEBIAN = "/usr/share/doc/mmseqs2/example-data/DB.fasta.gz"


def peptides(
  *,
  path: str = "",
  organism: str = "",
  proteins: int = 400,
  shortest: int = 7,
  longest: int = 15,
  count: int = 30_000,
  peaks: int = 64,
  charge: int = 2,
  missing: int = 3,
  noise: int = 20,
  jitter: float = 10.0,
  test_fraction: float = 0.1,
  seed: int = 0,
) -> Dataset:
  """Peptides of proteins, as trypsin cuts them, with spectra made by rule.

  From: a FASTA file of proteins, plain or .gz; without one, proteins by rule.
  20,000 of UniProt are in the Debian package mmseqs2-examples (DB.fasta).
  Command: --config.data.name=peptides --config.data.path=DB.fasta
  Fields: peaks, mz, precursor, peptide.

  A protein is cut behind each K and R that has no P behind it; I is read as L,
  and C is the modified one. A spectrum has b and y ions of charge 1, of which
  some are missing, one run of cleavages with both, peaks of noise, and errors
  of m/z. `mz` is the m/z of `peaks` as whole numbers and the rest, `precursor`
  its mass (whole, rest), charge and m/z. Peptides of the test part are of other
  proteins than those of training, and none is in both.

  Args:
    path: the file.
    organism: holds out the proteins of this organism, as `OS=` names it;
      without one, a part of all proteins is held out.
    proteins: how many there are by rule.
    shortest: residues of a peptide, at least.
    longest: and at most; `peptide` is i32[longest].
    count: peptides for training, at most.
    peaks: of a spectrum, at most; `peaks` is f32[peaks, 2].
    charge: of the precursor.
    missing: cleavages in a row that leave no ion, at most; one less at least,
      and 0 for none.
    noise: peaks of noise, at most; half of them at least.
    jitter: deviation of m/z, in millionths.
    test_fraction: the part of proteins held out without an organism.
    seed: of the proteins by rule and of the spectra.

  Raises:
    UserError: no such file or organism, no peptides, or an option is out of
      range.
  """
  bounds = dict(
    proteins=(proteins, 2, 10**7), shortest=(shortest, 2, longest),
    longest=(longest, 2, 200), count=(count, 1, 10**8),
    peaks=(peaks, 4, 10_000), charge=(charge, 1, 10),
    missing=(missing, 0, longest), noise=(noise, 0, 1000),
    jitter=(jitter, 0.0, 1e4), test_fraction=(test_fraction, 0.0, 0.9),
  )  # fmt: skip
  for name, (value, low, high) in bounds.items():
    if not low <= value <= high:
      raise UserError(f"data.{name}={value}: must be from {low} to {high}")
  if path:
    sequences, said = _fasta(path)
  else:
    if organism:
      raise UserError(
        f"data.organism={organism!r}: proteins by rule are of none; set "
        "data.path to a FASTA file"
      )
    sequences, said = _made(proteins, seed), "rule 1"
  held = _held(sequences, organism, test_fraction, path)
  parts = [set(), set()]
  for (_, protein), out in zip(sequences, held, strict=True):
    parts[int(out)].update(digest(protein, shortest, longest))
  test = sorted(parts[1])
  train = sorted(parts[0] - parts[1])
  rng = np.random.default_rng(seed)
  chosen = [train[i] for i in rng.permutation(len(train))[:count]]
  test = [test[i] for i in rng.permutation(len(test))]
  if not chosen or not test:
    raise UserError(
      f"data: {len(chosen)} peptides of {shortest} to {longest} residues for "
      f"training and {len(test)} for test; take more proteins"
    )
  if path:
    notes.once(
      f"peptides: {len(sequences)} proteins; {len(chosen)} peptides for "
      f"training (of {len(train)}), {len(test)} for test"
      + (f", of {organism}" if organism else "")
    )
  rule = dict(
    longest=longest, most=peaks, charge=charge, missing=missing, noise=noise,
    jitter=jitter, seed=seed,
  )  # fmt: skip
  return Dataset(
    "peptides",
    Spectra(chosen, part=0, **rule),
    Spectra(test, part=1, **rule),
    digest=said,
    forms=forms(),
  )


def forms() -> dict:
  """The forms of the fields of a spectrum and its peptide."""
  return {"peptide": Text(("", *rules.SYMBOLS)), "peaks": Peaks()}


def digest(protein: str, shortest: int, longest: int) -> list[str]:
  """The peptides of a protein, as trypsin cuts it, of so many residues."""
  parts = _CUT.split(protein.replace("I", "L"))
  known = set(_LETTERS)
  return [p for p in parts if shortest <= len(p) <= longest and set(p) <= known]


class Spectra:
  """Examples computed when asked for; example i is a function of i alone."""

  def __init__(
    self,
    sequences: list[str],
    *,
    part: int,
    longest: int,
    most: int,
    charge: int,
    missing: int,
    noise: int,
    jitter: float,
    seed: int,
  ):
    self.sequences = sequences
    self._longest, self._most, self._charge = longest, most, charge
    self._missing, self._noise, self._jitter = missing, noise, jitter
    self._seed = seed, part

  def __len__(self) -> int:
    return len(self.sequences)

  def __getitem__(self, i: int) -> Example:
    ids = rules.parse(self.sequences[i])
    rng = np.random.default_rng((*self._seed, i))
    mass = rules.neutral(ids)
    precursor = rules.mz(mass, self._charge)
    b, y = rules.ions(ids)
    n = len(b)
    there = np.ones(n, bool)
    if self._missing and n > self._missing:
      run = int(rng.integers(max(self._missing - 1, 1), self._missing + 1))
      start = int(rng.integers(0, n - run + 1))
      there[start : start + run] = False
    # Cleavage i leaves b of i residues and y of the others.
    own = there & (rng.random(n) < 0.55), there & (rng.random(n) < 0.75)
    at = [b[own[0]], y[::-1][own[1]]]
    strength = [
      rng.uniform(0.3, 0.7, len(at[0])),
      rng.uniform(0.5, 1, len(at[1])),
    ]
    few = int(rng.integers(self._noise // 2, self._noise + 1))
    at.append(rng.uniform(60.0, mass, few))
    strength.append(rng.uniform(0.05, 0.4, few))
    at, strength = np.concatenate(at), np.concatenate(strength)
    at = at * (1 + 1e-6 * self._jitter * rng.standard_normal(len(at)))
    found = spectra.cleaned(
      at, strength, precursor, self._charge, most=self._most
    )
    peptide = np.zeros(self._longest, np.int32)
    peptide[: len(ids)] = ids
    return {
      **spectra.example(found, precursor, self._charge, self._most),
      "peptide": peptide,
    }


def _made(count: int, seed: int) -> list[tuple[str, str]]:
  """(no organism, sequence) of proteins by rule."""
  rng = np.random.default_rng((seed, 1))
  share = np.asarray(_SHARES) / sum(_SHARES)
  drawn = rng.choice(list(_LETTERS), size=(count, 300), p=share)
  return [("", "".join(row)) for row in drawn]


def _fasta(path: str) -> tuple[list[tuple[str, str]], str]:
  """((organism, sequence) of each protein, a digest of the file)."""
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    hint = f"; {DEBIAN} is there" if pathlib.Path(DEBIAN).exists() else ""
    raise UserError(
      f"data.path={path!r}: no such file; name a FASTA file of proteins{hint}"
    )
  raw = file.read_bytes()
  try:
    if raw[:2] == b"\x1f\x8b":
      import gzip

      raw = gzip.decompress(raw)
    text = raw.decode("ascii")
  except (OSError, EOFError, UnicodeDecodeError) as e:
    raise UserError(f"{path}: cannot be read as FASTA ({e})") from e
  found = []
  for block in text.split(">")[1:]:
    head, _, rest = block.partition("\n")
    name = re.search(r"OS=(.+?)(?: [A-Z]{2}=|$)", head.strip())
    sequence = "".join(rest.split()).upper().rstrip("*")
    found.append((name[1] if name else "", sequence))
  if not found:
    raise UserError(f"{path}: no protein; a FASTA file has lines with >")
  return found, digests.fingerprint(raw)


def _held(sequences, organism: str, share: float, path: str) -> list[bool]:
  """Which proteins are held out."""
  if not organism:
    rng = np.random.default_rng(0)
    count = max(1, round(share * len(sequences)))
    out = set(rng.permutation(len(sequences))[:count].tolist())
    return [i in out for i in range(len(sequences))]
  held = [organism.lower() in name.lower() for name, _ in sequences]
  if not any(held):
    known = [name for name, _ in sequences if name]
    common = sorted(set(known), key=known.count, reverse=True)[:3]
    raise UserError(
      f"data.organism={organism!r}: no protein of {path} is of it; there are "
      f"{', '.join(common) or 'none with OS='}, ..."
    )
  return held
