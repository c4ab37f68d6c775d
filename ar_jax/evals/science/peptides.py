"""Peptides that were read in spectra, against the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.domains import peptides as rules
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples


def build(
  data: Dataset,
  *,
  n: int = 0,
  batch: int = 64,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of peptides.

  Args:
    data: spectra and peptides are of its test split.
    n: how many test examples, in a random order; 0 means all.
    batch: spectra read at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `aa_precision`, `aa_recall` and
    `peptide_recall`, see `domains.peptides.scores`; `fits`, the share of
    peptides within 50 ppm of the precursor; and `protocol`.

  Raises:
    UserError: the data have no peptides.
  """
  if "peptide" not in data.test[0]:
    raise UserError(
      f"peptides: the examples of {data.name!r} have no peptide, so nothing is "
      "right or wrong; take it out of evals"
    )

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, "peptide", "peptides")
    samples.check_pairs(system, "peptides")
    count = n or len(data.test)
    cond = conditions.conditions(system, data, count)
    drawn = samples.whole(
      system, variables, cond, key, batch=batch, forms=data.forms,
      options=options, draw=draw,
    )  # fmt: skip
    made = drawn["peptide"]
    true = conditions.truth(system, data, count, fields=("peptide",))["peptide"]
    cut = lambda rows: [r[: int(np.cumprod(r > 0).sum())] for r in rows]
    found: dict[str, Any] = dict(rules.scores(cut(true), cut(made)))
    mass = rules.masses()[made].sum(1) + rules.WATER
    charge, mz = cond["precursor"][:, 2], cond["precursor"][:, 3]
    off = np.abs(mass / charge + rules.PROTON - mz) / mz * 1e6
    found["fits"] = float(np.mean(off < 50))
    found["protocol"] = {"spectra": count, "sampling": dict(options or {})}
    return found

  return evaluate
