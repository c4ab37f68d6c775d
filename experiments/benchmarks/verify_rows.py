"""The verification kernels against the reference over ten thousand rows.

  python -m experiments.benchmarks.verify_rows [--rows=N] [--keep=FILE]
    [--short]

(The record: 10,000 rows a kind for 5 and 1000 tokens, then, with the same file
to keep, --rows=1700 for the others, whose kinds are 14,238 rows together.)

On a TPU or a GPU its kernel itself; elsewhere both, interpreted. All modes and
rules, for vocabularies of 5, 1000, 16384 and 16387 tokens; a row is one row of
logits.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time

import jax
import numpy as np

from experiments.shared import record
from pallas_kernels.spec_verify import examples, gpu, reference, rules, tpu

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
VOCABS = (5, 1000, 16384, 16387)
DRAFTS = 8
# A table of neighbours of 16384 tokens weighs a gigabyte: not here.
TABLES_UP_TO = 1000


def kernels() -> dict[str, functools.partial]:
  """name -> the kernel, as it can be run here."""
  found = {"tpu": tpu.verify, "gpu": gpu.verify}
  if (here := jax.default_backend()) in found:
    return {here: found[here]}
  return {k: functools.partial(f, interpret=True) for k, f in found.items()}


def compare(vocab: int, options: dict, rows: int) -> dict[str, int]:
  """How many rows were compared, and how many verdicts of each differ."""
  # About 64 MiB of logits at a time.
  batch = max(1, min(rows // (DRAFTS + 1) + 1, 2**24 // (9 * vocab)))
  if "law" in options:
    few = min(options["law"].top_k, vocab // 2 + 1)
    law = dataclasses.replace(options["law"], top_k=few)
    options = options | {"law": law}
  settings = examples.make(batch, DRAFTS, vocab, **options)[0]
  jitted = lambda form: jax.jit(functools.partial(examples.run, form, settings))
  dense = jitted(reference.verify)
  forms = {name: jitted(form) for name, form in kernels().items()}
  differ, done, seed = dict.fromkeys(forms, 0), 0, 0
  while done < rows:
    arrays = examples.make(batch, DRAFTS, vocab, seed=seed, **options)[1]
    want = dense(arrays)[:3]
    for name, form in forms.items():
      got = form(arrays)[:3]
      same = [np.asarray(a == b) for a, b in zip(want, got, strict=True)]
      differ[name] += int((~np.all(same, 0)).sum())
    done, seed = done + batch * (DRAFTS + 1), seed + 1
  wrong = {f"{name}: verdicts that differ": n for name, n in differ.items()}
  return {"rows": done, **wrong}


def run(rows: int = 10_000, keep: str = "") -> None:
  """Compares and records.

  Args:
    rows: of logits, for each vocabulary and kind.
    keep: a file of rows of the table, one JSON a line: what is in it is not
      done again, and what is done is added to it, so that a run that was
      stopped goes on.
  """
  path = pathlib.Path(keep or os.devnull)
  lines = path.read_text().splitlines() if path.exists() else []
  table = [json.loads(line) for line in lines]
  known = {(row["V"], row["kind"]) for row in table}
  commit = record.commit()
  with path.open("a") as file:
    for vocab in VOCABS[:1] if record.trial() else VOCABS:
      for kind, options in KINDS.items():
        if "rule" in options and kind != "groups" and vocab > TABLES_UP_TO:
          continue
        if (vocab, kind) in known:
          continue
        start = time.perf_counter()
        row = {"V": vocab, "kind": kind, **compare(vocab, options, rows)}
        seconds = round(time.perf_counter() - start, 1)
        table.append({**row, "seconds": seconds, "commit": commit})
        print(table[-1], flush=True)
        print(json.dumps(table[-1]), file=file, flush=True)
  wrong = sum(v for row in table for k, v in row.items() if "differ" in k)
  record.write(
    "verify_rows",
    claim="The verification kernels give the integers of the reference.",
    paper="none",
    baseline="the dense reference in XLA",
    ours=f"{wrong} verdicts differ in {sum(r['rows'] for r in table)} rows",
    holds=wrong == 0,
    seeds=[0],
    seconds=sum(row["seconds"] for row in table),
    tables={f"Kernels against reference ({'/'.join(kernels())})": table},
    how="interpreted" if jax.default_backend() == "cpu" else "on the device",
  )


if __name__ == "__main__":
  flags = dict(x.removeprefix("--").partition("=")[::2] for x in sys.argv[1:])
  rows = 10 if record.trial() else int(flags.get("rows", 10_000))
  run(rows, flags.get("keep", ""))
