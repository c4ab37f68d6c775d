"""Renders every result into docs/results.md.

python -m experiments.report
"""

from __future__ import annotations

import json
import pathlib
import shutil

from experiments.shared.record import RESULTS

DOCS = pathlib.Path(__file__).parents[1] / "docs"

HEAD = """# Results

Written by `python -m experiments.report` from `experiments/results/*.json`;
`fashion` and `quickstart` are runs of configs, recorded by
`experiments.shared.runs`; the others are `python -m experiments.<name>`,
without the platform or the data that end some names.
"""


def _cell(value) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: list[dict]) -> str:
  """A Markdown table of rows with equal keys."""
  keys = list(rows[0])
  lines = [keys, ["---"] * len(keys)]
  lines += [[_cell(row.get(k, "")) for k in keys] for row in rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(name: str, record: dict) -> str:
  holds = record["holds"]
  verdict = {True: "holds", False: "does not hold"}.get(holds, holds)
  facts = [
    {"": "paper", " ": record["paper"]},
    {"": "baseline here", " ": record["baseline"]},
    {"": "measured here", " ": record["ours"]},
    {"": "verdict", " ": verdict},
    {"": "seeds", " ": ", ".join(map(str, record["seeds"]))},
    {
      "": "run",
      " ": f"{record['seconds']} s on {record['device']}, "
      f"jax {record['jax']}, commit {record['commit']}",
    },
  ]
  parts = [f"## {name}", record["claim"], table(facts)]
  for title, rows in record["tables"].items():
    parts += [f"**{title}**", table(rows)]
  if record["picture"]:
    parts.append(f"![{name}](images/{record['picture']})")
  return "\n\n".join(parts)


def main() -> None:
  parts = [HEAD]
  (DOCS / "images").mkdir(exist_ok=True)
  for path in sorted(RESULTS.glob("*.json")):
    record = json.loads(path.read_text())
    if record["picture"]:
      shutil.copyfile(
        RESULTS / record["picture"], DOCS / "images" / record["picture"]
      )
    parts.append(section(path.stem, record))
  (DOCS / "results.md").write_text("\n\n".join(parts) + "\n")
  print(f"wrote {DOCS / 'results.md'}")


if __name__ == "__main__":
  main()
