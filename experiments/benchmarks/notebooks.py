"""How long the notebooks take, at the size that a person runs them at.

  python -m experiments.benchmarks.notebooks [NAME ...] [--short]

Each is executed from top to bottom through a Jupyter kernel, as on Colab, in a
folder of its own and with nothing compiled before. Rows are kept in
`results/notebooks.jsonl`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import time

import nbclient
import nbformat

from experiments.shared import arms, record

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
KEEP = record.RESULTS / "notebooks.jsonl"
LIMIT = 300  # seconds
SHORT = "tokenizers"


def executed(
  path: pathlib.Path, folder: pathlib.Path
) -> dict[str, str | float]:
  """Runs a notebook in a folder; its seconds and what they were spent on.

  Raises:
    nbclient.exceptions.CellExecutionError: a cell failed.
  """
  for name in ("ar_jax", "configs"):
    os.symlink(ROOT / name, folder / name)
  os.environ |= {
    "PYTHONPATH": str(ROOT),
    "AR_JAX_CACHE": str(folder / "cache"),
    "IPYTHONDIR": str(folder),
  }
  notebook = nbformat.read(path, as_version=4)
  begun = time.perf_counter()
  nbclient.NotebookClient(
    notebook, timeout=None, resources={"metadata": {"path": str(folder)}}
  ).execute()
  outputs = [x for cell in notebook.cells for x in cell.get("outputs", ())]
  return {
    "notebook": path.stem,
    "seconds": round(time.perf_counter() - begun, 1),
    "pictures": sum("image/png" in x.get("data", {}) for x in outputs),
    "cores": len(os.sched_getaffinity(0)),
    "commit": record.commit(),
  }


def kept() -> dict[str, dict]:
  """Name -> its row, of those executed so far."""
  lines = KEEP.read_text().splitlines() if KEEP.exists() else []
  return {row["notebook"]: row for row in map(json.loads, lines)}


def run(names: list[str]) -> None:
  """Executes those that are missing, or these again, and records all."""
  done = kept()
  for path in NOTEBOOKS:
    if path.stem not in names and (names or path.stem in done):
      continue
    with tempfile.TemporaryDirectory() as folder:
      row = executed(path, pathlib.Path(folder))
    print(row, flush=True)
    if record.trial():
      return
    done[path.stem] = row
    text = "".join(json.dumps(done[k]) + "\n" for k in sorted(done))
    KEEP.write_text(text)
  late = [k for k, row in done.items() if row["seconds"] > LIMIT]
  held = {
    f"all {len(NOTEBOOKS)} executed": len(done) == len(NOTEBOOKS),
    "under five minutes": not late,
  }
  record.write(
    "notebooks",
    claim="Every notebook trains, samples, shows and explains in under five "
    "minutes on a CPU.",
    paper="none",
    baseline="five minutes",
    ours=f"{len(done)} executed, in {min(r['seconds'] for r in done.values())} "
    f"to {max(r['seconds'] for r in done.values())} s, those of the data and "
    "of compiling among them",
    holds=arms.said(held, f"longer: {', '.join(late)}" if late else ""),
    seeds=[0],
    seconds=sum(row["seconds"] for row in done.values()),
    tables={"Notebooks": [done[k] for k in sorted(done)]},
  )


if __name__ == "__main__":
  if record.trial():
    os.environ["AR_JAX_PRESET"] = "smoke"
    run([SHORT])
  else:
    run(sys.argv[1:])
