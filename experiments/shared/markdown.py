"""Tables, and texts of which a part is written from the tree."""

from __future__ import annotations

import re


def _cell(value) -> str:
  text = f"{value:.4g}" if isinstance(value, float) else str(value)
  return text.replace("|", "\\|").replace("\n", " ")


def table(rows: list[dict]) -> str:
  """A Markdown table of rows with equal keys."""
  keys = list(rows[0])
  lines = [keys, ["---"] * len(keys)]
  lines += [[_cell(row.get(k, "")) for k in keys] for row in rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def between(text: str, marks: tuple[str, str], body: str) -> str:
  """The text with what stands between two marks replaced.

  Raises:
    ValueError: a mark is missing.
  """
  pattern = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.S)
  if not pattern.search(text):
    raise ValueError(f"no {marks[0]} ... {marks[1]} to write between")
  return pattern.sub(lambda _: f"{marks[0]}\n\n{body}\n\n{marks[1]}", text)
