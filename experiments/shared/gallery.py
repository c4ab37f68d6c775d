"""`docs/gallery.md`: what the systems have drawn, family by family, each
picture with the command that draws it again.

Written from the rows of `catalog` and the records of results; nothing here
needs JAX.
"""

from __future__ import annotations

import re

from experiments.shared.records import command

HEAD = """# Gallery

What small models, trained for minutes on two CPU cores, have drawn in the
experiments: pictures to compare arms by, not to be admired; rows and columns
are named in them, and [the papers](papers.md) say what they show. The command
below a picture trains its models and draws it again.

Written by `python -m experiments.report` from `experiments/results/*.json`.
"""


def _pictures(slug: str, records: dict[str, dict]) -> list[str]:
  """The results of a system that have a picture, its own first."""
  module = re.compile(rf"python -m experiments\.{slug}(_\w+)?( .*)?")
  return [
    name
    for name, record in sorted(records.items())
    if record["picture"] and (name == slug or module.fullmatch(command(name)))
  ]


def _section(row: dict, names: list[str], records: dict) -> str:
  parts = [f"### {row['system']}", row["what"]]
  for name in names:
    parts.append(f"![{name}](images/{records[name]['picture']})")
    own = records[name].get("command") or command(name)
    parts.append(f"`{own}` ([figures](results/{name}.md))")
  return "\n\n".join(parts)


def page(
  families: dict[str, str],
  rows: dict[str, list[dict]],
  records: dict[str, dict],
) -> str:
  """The page.

  Args:
    families: family -> what its systems do, in a line.
    rows: family -> the rows of `catalog.rows`.
    records: name -> what an experiment wrote.
  """
  parts, without = [HEAD.rstrip("\n")], []
  for family, own in rows.items():
    sections = []
    for row in own:
      slug = re.search(r"`(\w+)`", row["system"])[1]
      if names := _pictures(slug, records):
        sections.append(_section(row, names, records))
      elif row["verdict"] != "checked by its tests":
        without.append(row["system"])
    if sections:
      parts += [f"## {family.capitalize()}", families[family], *sections]
  parts += ["## Without a picture", ", ".join(without) + "."]
  return "\n\n".join(parts) + "\n"
