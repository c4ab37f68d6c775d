"""`docs/papers.md`: what every paper claims, what was measured here, and what
became of it, on one page, counted at the top.

Written from the rows of `catalog` and the records of results; nothing here
needs JAX.
"""

from __future__ import annotations

import re

from experiments.shared.markdown import table
from experiments.shared.records import ORDER, reason, verdict

# Systems of the library that are none of the 49 papers.
BASELINES = ("llamagen", "mar")
FURTHER = ("igpt", "infinity", "janus", "pixelcnn")
NOT_YET = "not measured"
SURVEY = {
  "slug": "taxonomy",
  "what": 'The classes of "Autoregressive Models in Vision: A Survey".',
  "paper": "[2411.05902](https://arxiv.org/abs/2411.05902)",
  "code": "[`taxonomy`](taxonomy.md)",
}
HEAD = """# The papers

What the {papers} papers claim, as far as two CPU cores can check it: small
nets, little data, minutes of training. "In part" is said of a claim of which a
part fails, or which falls short of its figure, "undecided" where what was
trained is too poor to tell; where a paper has several results, that of its own
experiment counts. The order is that of the verdicts,
failures first.

Written by `python -m experiments.report` from `experiments/results/*.json`.
"""


def _entries(rows: dict[str, list[dict]]) -> list[dict]:
  """What has a claim to check: slug, what, paper, code."""
  found = [SURVEY]
  for row in (row for own in rows.values() for row in own):
    if row["verdict"] == "checked by its tests":
      continue
    slug = re.search(r"`(\w+)`", row["system"])[1]
    found.append(
      {"slug": slug, "code": row["system"]}
      | {k: row[k] for k in ("what", "paper")}
    )
  return found


def _verdict(slug: str, records: dict[str, dict]) -> str:
  record = records.get(slug)
  return verdict(record) if record else NOT_YET


def _section(entry: dict, record: dict | None) -> str:
  """A paper with its claim and what became of it."""
  head = f"### {entry['code']}, {entry['paper']}\n\n{entry['what']}"
  if record is None:
    return f"{head}\n\n- **{NOT_YET}**\n"
  why = reason(record)
  seeds = ", ".join(map(str, record["seeds"])) or "none"
  lines = {
    verdict(record): why,
    "claim": record["claim"],
    "paper": record["paper"],
    "here": record["ours"],
    "seeds": f"{seeds}; [all of it](results/{entry['slug']}.md)",
  }
  return (
    head
    + "\n\n"
    + "".join(
      f"- **{k}**: {v}\n" if v else f"- **{k}**\n" for k, v in lines.items()
    )
  )


def _counts(entries: list[dict], records: dict[str, dict]) -> str:
  """A row for each verdict."""
  rows = []
  for kind in (*ORDER, NOT_YET):
    own = [x for x in entries if _verdict(x["slug"], records) == kind]
    if own:
      names = sorted(x["slug"] for x in own)
      rows.append(
        {"verdict": kind, "how many": len(names), "which": ", ".join(names)}
      )
  return table(rows)


def page(rows: dict[str, list[dict]], records: dict[str, dict]) -> str:
  """The page.

  Args:
    rows: family -> the rows of `catalog.rows`.
    records: name -> what an experiment wrote.
  """
  entries = _entries(rows)
  kinds = (*ORDER, NOT_YET)
  entries.sort(
    key=lambda x: (kinds.index(_verdict(x["slug"], records)), x["slug"])
  )
  beside = BASELINES + FURTHER
  papers = [x for x in entries if x["slug"] not in beside]
  others = [x for x in entries if x["slug"] in beside]
  parts = [HEAD.format(papers=len(papers)), _counts(papers, records)]
  parts += ["## One by one"]
  parts += [_section(x, records.get(x["slug"])) for x in papers]
  parts += ["## Baselines, and what others build on", _counts(others, records)]
  parts += [_section(x, records.get(x["slug"])) for x in others]
  return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
