"""`docs/gallery.md`: what the systems have drawn, family by family, each
picture with the command that draws it again.

Written from the rows of `catalog`, the records of results and the rows of
`samples`.
"""

from __future__ import annotations

import collections
import json
import pathlib
import re

from experiments.shared.record import RESULTS
from experiments.shared.records import command

# What `samples` keeps: a row, and files beside the other pictures.
ROWS = RESULTS / "gallery"
IMAGES = pathlib.Path(__file__).parents[2] / "docs/images/gallery"

HEAD = """# Gallery

What small models, trained on CPU cores for minutes, at most for two hours, have
drawn. First what the default preset of a system draws, where it has
been trained, and some others: of classes a row each, of texts an image above
each, of a tokenizer images and beside each what it decodes, of series what came
before and what was forecast, of what reads or listens what it was given and the
text, red where another is true. Then what the experiments have drawn, to
compare arms by: rows and columns are named, and [the papers](papers.md) say
what they show. The command below a picture trains its models and draws it
again.

Written by `python -m experiments.report` from `experiments/results/*.json` and
what `python -m experiments.shared.samples` leaves.
"""


def _pictures(slug: str, records: dict[str, dict]) -> list[str]:
  """The results of a system that have a picture, its own first."""
  module = re.compile(rf"python -m experiments\.{slug}(_\w+)?( .*)?")
  return [
    name
    for name, record in sorted(records.items())
    if record["picture"] and (name == slug or module.fullmatch(command(name)))
  ]


def drawn() -> dict[str, list[dict]]:
  """System -> what `samples` kept of presets that train it."""
  found = collections.defaultdict(list)
  for path in sorted(ROWS.glob("*.json")):
    row = json.loads(path.read_text())
    found[row.get("system", row["config"])].append(row)
  return found


def _of_preset(own: dict) -> list[str]:
  """The files of a row of `drawn`, and the commands that make them again."""
  parts = []
  for name in own["files"]:
    if name.endswith(".wav"):
      parts.append(f"[The first sound](images/gallery/{name})")
    else:
      parts.append(f"![{own['config']}](images/gallery/{name})")
  run = f"python -m ar_jax.main --config={own['config']}"
  took = ""
  if own["train seconds"] is not None:
    took = f", {own['train seconds'] / 60:.1f} minutes on {own['device']}"
  parts.append(f"`{run}`{took}; then `{run} --mode=sample`")
  return parts


def _section(
  row: dict, names: list[str], records: dict, own: list[dict]
) -> str:
  parts = [f"### {row['system']}", row["what"]]
  for one in own:
    parts += _of_preset(one)
  for name in names:
    parts.append(f"![{name}](images/{records[name]['picture']})")
    run = records[name].get("command") or command(name)
    parts.append(f"`{run}` ([figures](results/{name}.md))")
  return "\n\n".join(parts)


def page(
  families: dict[str, str],
  rows: dict[str, list[dict]],
  records: dict[str, dict],
  presets: dict[str, list[dict]],
) -> str:
  """The page.

  Args:
    families: family -> what its systems do, in a line.
    rows: family -> the rows of `catalog.rows`.
    records: name -> what an experiment wrote.
    presets: see `drawn`.
  """
  parts, without = [HEAD.rstrip("\n")], []
  for family, own in rows.items():
    sections = []
    for row in own:
      slug = re.search(r"`(\w+)`", row["system"])[1]
      names, of_presets = _pictures(slug, records), presets.get(slug, [])
      if names or of_presets:
        sections.append(_section(row, names, records, of_presets))
      elif row["verdict"] != "checked by its tests":
        without.append(row["system"])
    if sections:
      parts += [f"## {family.capitalize()}", families[family], *sections]
  parts += ["## Without a picture", ", ".join(without) + "."]
  return "\n\n".join(parts) + "\n"
