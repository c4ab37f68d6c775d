"""The verification kernel against the reference over ten thousand rows.

  python -m experiments.verify_rows [ROWS]

On a TPU the kernel itself; elsewhere interpreted. All modes and rules, for
vocabularies of 5, 1000, 16384 and 16387 tokens; a row is one row of logits.
"""

from __future__ import annotations

import functools
import sys
import time

import jax
import numpy as np

from experiments import record
from pallas_kernels.spec_verify import examples, reference, rules, tpu

FILTERS = rules.Law(0.9, top_k=50, top_p=0.95)
KINDS = {
  "exact": {"drawn": True},
  "exact, filtered, guided": {"law": FILTERS, "guided": True},
  "point masses": {"drawn": False},
  "point": {"mode": "point", "law": FILTERS},
  "gumbel": {"mode": "gumbel"},
  "tree": {"mode": "point", "tree": True},
  "lantern": {"rule": rules.Neighbours(20, 0.2)},
  "gsd": {"rule": rules.Cluster(14)},
  "groups": {"rule": rules.Groups("group"), "drawn": False},
}
DRAFTS = 8
# A table of neighbours of 16384 tokens weighs a gigabyte: not here.
TABLES_UP_TO = 1000


def compare(vocab: int, options: dict, rows: int) -> tuple[int, int]:
  """(rows compared, verdicts that differ)."""
  # About 64 MiB of logits at a time.
  batch = max(1, min(rows // (DRAFTS + 1) + 1, 2**24 // (9 * vocab)))
  settings = examples.make(batch, DRAFTS, vocab, **options)[0]
  interpret = jax.default_backend() != "tpu"
  kernel = functools.partial(tpu.verify, interpret=interpret)
  forms = [
    jax.jit(functools.partial(examples.run, form, settings))
    for form in (reference.verify, kernel)
  ]
  done = differ = seed = 0
  while done < rows:
    arrays = examples.make(batch, DRAFTS, vocab, seed=seed, **options)[1]
    want, got = (form(arrays) for form in forms)
    same = [np.asarray(a == b) for a, b in zip(want[:3], got[:3], strict=True)]
    differ += int((~np.all(same, 0)).sum())
    done, seed = done + batch * (DRAFTS + 1), seed + 1
  return done, differ


def run(rows: int = 10_000) -> None:
  begun, table = time.perf_counter(), []
  for vocab in (5, 1000, 16384, 16387):
    for name, options in KINDS.items():
      if "rule" in options and name != "groups" and vocab > TABLES_UP_TO:
        continue
      start = time.perf_counter()
      done, differ = compare(vocab, options, rows)
      table.append(
        {
          "V": vocab,
          "kind": name,
          "rows": done,
          "verdicts that differ": differ,
          "seconds": round(time.perf_counter() - start, 1),
        }
      )
      print(table[-1], flush=True)
  wrong = sum(row["verdicts that differ"] for row in table)
  record.write(
    "verify_rows",
    claim="The verification kernel gives the integers of the reference.",
    paper="none",
    baseline="the dense reference in XLA",
    ours=f"{wrong} verdicts differ in {sum(r['rows'] for r in table)} rows",
    holds=wrong == 0,
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={"Kernel against reference": table},
  )


if __name__ == "__main__":
  run(*map(int, sys.argv[1:]))
