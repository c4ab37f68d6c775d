"""What the results say: their verdicts, and what measures them again."""

from __future__ import annotations

import json
import pathlib
import re

from experiments.shared.record import RESULTS

ROOT = pathlib.Path(__file__).parents[2]
# Of programs and machines, not of a paper.
MEASURED = (
  "aot_",
  "attention_share",
  "bench_",
  "convolutions",
  "device",
  "heap",
  "notebooks",
  "plan",
  "resume_fuzz",
  "run_ahead",
  "stop_time",
  "tpu_shapes",
  "verify_rows",
)
# Runs of a config, recorded by `experiments.shared.runs`.
CONFIGS = {
  "fashion": "configs/var.py:fashion",
  "quickstart": "configs/quickstart.py",
}
UNDECIDED = "not decided: "
ORDER = ("fails", "undecided", "in part", "holds")


def read() -> dict[str, dict]:
  """name -> what `record.write` wrote."""
  paths = sorted(RESULTS.glob("*.json"))
  return {path.stem: json.loads(path.read_text()) for path in paths}


def verdict(record: dict) -> str:
  """One of ORDER: a claim of which nothing is left fails, and one that holds
  but for some of its parts, or short of its figure, holds in part. It is not
  decided where what was trained is too poor to say."""
  holds = record["holds"]
  if isinstance(holds, bool):
    return "holds" if holds else "fails"
  if holds.startswith(UNDECIDED):
    return "undecided"
  return "fails" if re.match(r"not |0\.\d+x", holds) else "in part"


def measured(name: str) -> bool:
  """Whether a result is of programs and machines."""
  return name.startswith(MEASURED)


def folder(name: str) -> str:
  """Where the page of a result lies."""
  return "measurements" if measured(name) else "results"


def command(name: str) -> str:
  """What measures a result again."""
  if name in CONFIGS:
    return f"python -m ar_jax.main --config={CONFIGS[name]}"
  here = ROOT / "experiments"
  bare = name.removeprefix("bench_")
  words = bare.split("_")
  places = ("benchmarks/",) if measured(name) else ("", "comparisons/")
  for cut in range(len(words), 0, -1):
    module = "_".join(words[:cut])
    for place in places:
      if (here / f"{place}{module}.py").exists():
        rest = "".join(f" {word}" for word in ["_".join(words[cut:])] if word)
        if place == "benchmarks/":
          rest = ""
        return f"python -m experiments.{place.replace('/', '.')}{module}{rest}"
  raise LookupError(f"no experiment writes {name}.json")


def reason(record: dict) -> str:
  """What a record says of its verdict; nothing where that says all."""
  holds = record["holds"]
  if isinstance(holds, bool):
    return ""
  start = "does not hold: "
  if holds.startswith(start):
    return f"{holds.removeprefix(start)} does not hold"
  return holds.removeprefix(UNDECIDED).removeprefix(f"{verdict(record)}: ")
