"""Writes the pages that are made from the tree: results, measurements, systems
and data.

  python -m experiments.report

From `results/*.json` come `docs/results.md`, an index with failures first, and
a page for each; compilation, planning and timing go to `docs/measurements.md`
in the same way. `experiments.shared.catalog` writes `docs/systems.md`, the
tables of `docs/systems/*.md` and of `docs/scale.md`, and `docs/data.md`.
`tests/docs_test.py` holds the committed pages to what this writes.
"""

from __future__ import annotations

import pathlib
import re
import textwrap
from collections.abc import Iterable

from PIL import Image

from experiments.shared import catalog, pictures
from experiments.shared.catalog import DOCS
from experiments.shared.markdown import table
from experiments.shared.record import RESULTS
from experiments.shared.records import (
  ORDER,
  command,
  folder,
  measured,
  read,
  reason,
  verdict,
)

DIGITS = tuple("0123456789")
# Grids that were saved without names -> those of their rows, or the column of
# the first table that has them; and those of their columns.
GRIDS = {
  "fashion": (
    ("T-shirt", "trouser", "pullover", "dress", "coat")
    + ("sandal", "shirt", "sneaker", "bag", "boot"),
    (),
  ),
  "flexvar": ("sampling", DIGITS),
  "hmar": ("system", DIGITS),
  "m_var": ("system", DIGITS),
  "nfig": ("system", DIGITS),
  "quickstart": (DIGITS, ()),
  "scale_family": ("system", DIGITS),
  "scale_family_emoji16": ("system", ()),
  "xar": ("arm", DIGITS),
}

HEAD = """# {title}

{what} Failures come first.
Each name leads to a page: the claim, the paper's figure, the baseline, what was
measured, and the command that measures it again. "In part" is said of a claim
of which a part fails, or which falls short of its figure. "Undecided" is said
where what was trained is too poor to tell.

Written by `python -m experiments.report` from `experiments/results/*.json`.
"""
RESULTS_HEAD = HEAD.format(
  title="Results",
  what="What the papers claim, as far as two CPU cores can check it.",
)
MEASURED_HEAD = HEAD.format(
  title="Measurements",
  what="What programs and kernels cost, measured or compiled.",
)


def _verdict_line(record: dict, most: int = 110) -> str:
  """The verdict with its reason, cut to a line."""
  short = textwrap.shorten(reason(record), most, placeholder=" ...")
  return f"{verdict(record)}: {short}" if short else verdict(record)


def sized(record: dict) -> str:
  """The data and the steps of a record that does not hold its command, as far
  as the title of its first table tells."""
  title = next(iter(record["tables"]), "")
  found = re.match(r"Digits at 16 px, (\d+) steps, mean", title)
  return f" digits --steps={found[1]}" if found else ""


def page(name: str, record: dict) -> str:
  """All of one result."""
  why = reason(record)
  seeds = ", ".join(map(str, record["seeds"])) or "none"
  facts = {
    "verdict": f"{verdict(record)}: {why}" if why else verdict(record),
    "paper": record["paper"],
    "baseline here": record["baseline"],
    "measured here": record["ours"],
    "seeds": seeds,
    "run": f"{record['seconds']} s on {record['device']}, "
    f"jax {record['jax']}, commit {record['commit']}",
    "command": f"`{record.get('command') or command(name) + sized(record)}`",
  }
  if "note" in record:
    facts["note"] = record["note"]
  index = f"[all {folder(name)}](../{folder(name)}.md)"
  parts = [f"# {name}", index, record["claim"]]
  parts.append(table([{"": k, " ": v} for k, v in facts.items()]))
  if record["picture"]:
    parts.append(f"![{name}](../images/{record['picture']})")
  for title, rows in record["tables"].items():
    parts += [f"**{title}**", table(rows)]
  return "\n\n".join(parts) + "\n"


def index(head: str, found: dict[str, dict]) -> str:
  """A line for each result, failures first."""
  names = sorted(found, key=lambda k: (ORDER.index(verdict(found[k])), k))
  rows = [
    {
      "name": f"[{name}]({folder(name)}/{name}.md)",
      "claim": found[name]["claim"],
      "verdict": _verdict_line(found[name]),
      "seconds": round(found[name]["seconds"]),
      "device": found[name]["device"],
      "commit": found[name]["commit"],
    }
    for name in names
  ]
  return f"{head}\n{table(rows)}\n"


def pages() -> dict[pathlib.Path, str]:
  """Path -> what belongs there, of all pages that are written from the tree."""
  every = read()
  parts = {
    "results": (RESULTS_HEAD, lambda name: not measured(name)),
    "measurements": (MEASURED_HEAD, measured),
  }
  written = {}
  for where, (head, ours) in parts.items():
    found = {k: v for k, v in every.items() if ours(k)}
    written[DOCS / f"{where}.md"] = index(head, found)
    for name, record in found.items():
      written[DOCS / where / f"{name}.md"] = page(name, record)
  return written | catalog.pages(every)


def picture(name: str, record: dict) -> Image.Image:
  """Of a result, large enough, its rows and columns named."""
  path = RESULTS / record["picture"]
  with Image.open(path) as image:
    named = image.mode == "RGB" and image.width >= pictures.WIDTH
  large = pictures.enlarged(path)
  if name not in GRIDS or named:  # the harness names them as it saves
    return large
  rows, columns = GRIDS[name]
  if isinstance(rows, str):
    table = next(iter(record["tables"].values()))
    known = dict.fromkeys(row[rows] for row in table)
    unseen = ("test images", "cells of training images, no context")
    rows = [k for k in known if k not in unseen]
  return pictures.named(large, rows, columns)


def stale(written: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Pages of results that are no more."""
  there = {p for d in ("results", "measurements") for p in (DOCS / d).glob("*")}
  return sorted(there - set(written))


def main() -> None:
  written = pages()
  for path in stale(written):
    path.unlink()
  for path, text in written.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  (DOCS / "images").mkdir(exist_ok=True)
  for name, record in read().items():
    if (record["picture"] or "").endswith(".gif"):
      own = (RESULTS / record["picture"]).read_bytes()
      (DOCS / "images" / record["picture"]).write_bytes(own)
    elif record["picture"]:
      shown = picture(name, record)
      shown.save(DOCS / "images" / record["picture"], optimize=True)
  print(f"wrote {len(written)} pages below {DOCS}")


if __name__ == "__main__":
  main()
