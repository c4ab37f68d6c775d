"""Rows of figures as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
GIB = 2**30


def size(count: float | None) -> str:
  """Bytes for people."""
  if count is None:
    return "-"
  for unit, name in ((2**40, "TiB"), (GIB, "GiB"), (2**20, "MiB")):
    if count >= unit:
      return f"{count / unit:.2f} {name}"
  return f"{count / 1024:.1f} KiB"


def amount(count: float | None, what: str = "") -> str:
  """A large number for people."""
  if count is None:
    return "-"
  for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
    if count >= unit:
      return f"{count / unit:.4g} {name}{what}"
  return f"{count:.4g} {what}".strip()


def seconds(count: float | None) -> str:
  if count is None:
    return "-"
  return f"{count:.3g} s" if count >= 1 else f"{1e3 * count:.3g} ms"


def fits(row: Row) -> str:
  """Whether it does, with figures."""
  if "needed" not in row:
    return f"no: {row.get('note', '')}"
  verdict = "yes" if row["fits"] else "NO"
  return f"{verdict}: {size(row['needed'])} of {size(row['memory'])}"


def limit(row: Row) -> str:
  """The largest batch, as far as it was found."""
  found = row.get("largest batch")
  if not found:
    return "not searched"
  if not found["batch"]:
    return f"none: {found['too large']} is too large"
  if found["too large"] is None:
    return f"{found['batch']} or more"
  return f"{found['batch']} ({found['too large']} is too large)"


def lines() -> dict[str, Callable[[Row], str]]:
  """Title -> what it says of a row."""
  of = lambda name, how: lambda row: how(row.get(name))
  second = lambda part: lambda row: seconds(row.get("seconds", {}).get(part))
  return {
    "batch": of("batch", str),
    "mesh": lambda r: _mesh(r["mesh"]) or "one device",
    "parameters": of("parameters", amount),
    "frozen parameters": of("frozen parameters", amount),
    "arguments": of("arguments", size),
    "temporaries": of("temporaries", size),
    "outputs": of("outputs", size),
    "of these in place": of("aliased", size),
    "fits a device": fits,
    "largest batch": limit,
    "FLOPs": of("FLOPs", lambda x: amount(x, "FLOP")),
    "FLOPs analytic": of("FLOPs analytic", lambda x: amount(x, "FLOP")),
    "HBM traffic, a device": of("HBM bytes", size),
    "collectives of a device": lambda r: _kinds(r.get("collective bytes")),
    "FLOPs per HBM byte": of("intensity", amount),
    "time: compute": second("compute"),
    "time: HBM": second("HBM"),
    "time: interconnect": second("interconnect"),
    "roofline": lambda r: (
      f"{seconds(r.get('roofline seconds'))}, by {r.get('bound', '-')}"
    ),
    "examples a second": of("examples/s", amount),
    "compiled in": of("compile seconds", seconds),
  }


def _mesh(sizes: dict[str, int]) -> str:
  return " ".join(f"{axis}={n}" for axis, n in sizes.items() if n > 1)


def _kinds(kinds: dict[str, float] | None) -> str:
  if kinds is None:
    return "-"
  return ", ".join(f"{k} {size(n)}" for k, n in kinds.items()) or "none"


def table(rows: list[Row], topology: str) -> str:
  """A column for each program."""
  cells = [[topology, *(r["program"] for r in rows)]]
  cells += [
    [title, *(str(cell(r)) for r in rows)] for title, cell in lines().items()
  ]
  text = _aligned(cells)
  notes = [f"{r['program']}: {note}" for r in rows for note in remarks(r)]
  return "\n".join([text, *notes])


def remarks(row: Row) -> list[str]:
  """What is to be known beside the figures."""
  said = [row["note"]] if row.get("note") else []
  share = max(row["state bytes"] / 2, row["memory"] / 50)
  if row.get("whole bytes", 0) > share:
    said.append(
      f"every device holds {size(row['whole bytes'])} of arrays without a side "
      f"that is a multiple of fsdp={row['mesh']['fsdp']}; try another fsdp"
    )
  return said


def sweep_table(rows: list[Row]) -> str:
  """A line for each mesh and batch, the best first."""
  head = ["mesh", "batch", "examples/s", "roofline", "bound", "fits"]
  cells = [head]
  for row in rows:
    cells.append([
      _mesh(row["mesh"]) or "one device", str(row["batch"]),
      amount(row.get("examples/s")), seconds(row.get("roofline seconds")),
      row.get("bound", "-"), fits(row),
    ])  # fmt: skip
  best = next((r for r in rows if r["fits"]), None)
  said = "best: nothing fits"
  if best:
    axes = " ".join(
      f"--config.mesh.{axis}={n}" for axis, n in best["mesh"].items()
    )
    said = f"best: --config.batch={best['batch']} {axes}"
  return f"{_aligned(cells)}\n{said}"


def _aligned(cells: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  line = lambda row: "  ".join(
    cell.ljust(width) for cell, width in zip(row, widths, strict=True)
  ).rstrip()
  rule = "  ".join("-" * width for width in widths)
  return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])
