"""Records a finished run of a staged config as a result.

python -m experiments.shared.runs NAME WORKDIR COMMIT
python -m experiments.shared.runs fashion runs/fashion 1a2b3c4
"""

from __future__ import annotations

import json
import pathlib
import shutil
import sys

from experiments.shared import record

SHOWN = ("judge_accuracy", "judge_test_accuracy", "frechet", "frechet_floor",
         "precision", "precision_floor", "recall", "recall_floor",
         "loss")  # fmt: skip


def run(name: str, workdir: str, commit: str) -> None:
  folder = pathlib.Path(workdir)
  report = json.loads((folder / "report.json").read_text())
  shutil.copyfile(folder / "samples.png", record.RESULTS / f"{name}.png")
  ratio = report["frechet"] / report["frechet_floor"]
  record.write(
    name,
    claim="From nothing to class-conditional samples in one command.",
    paper="none at this size",
    baseline="real test images: the floor beside each number",
    ours=f"judge accuracy {report['judge_accuracy']:.3f} (test images "
    f"{report['judge_test_accuracy']:.3f}), Frechet distance {ratio:.2f} "
    "times its floor",
    holds=f"Frechet distance {ratio:.2f} times its floor",
    seeds=[0],
    seconds=report["seconds"],
    tables={
      "Measured": [{k: report[k] for k in SHOWN}],
      "Seconds": [
        {k: stage["seconds"] for k, stage in report["stages"].items()}
      ],
    },
    picture=f"{name}.png",
    protocol=report["protocol"],
    commit=commit,
  )


if __name__ == "__main__":
  run(*sys.argv[1:])
