"""A picture of a plan: the roof of the machine, and its memory."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import numpy as np

log = logging.getLogger("ar_jax")

GIB = 2**30
_PARTS = ("arguments", "temporaries", "outputs", "code")


def draw(report: dict[str, Any], path: pathlib.Path) -> None:
  """Writes the picture of a report of `aot.run`; without matplotlib, none."""
  try:
    from matplotlib.figure import Figure
  except ImportError:
    log.info("no %s: pip install matplotlib", path.name)
    return
  figure = Figure((10, 4), layout="constrained")
  roof, memory = figure.subplots(1, 2)
  _roof(roof, report)
  _memory(memory, report)
  figure.suptitle(f"{report['system']} on {report['topology']}")
  temporary = path.with_suffix(".tmp")
  figure.savefig(temporary, dpi=120, format="png")
  temporary.replace(path)


def _roof(axes: Any, report: dict[str, Any]) -> None:
  """FLOP/s that the bounds leave to each program."""
  machine = report["machine"]
  peak, rate = machine["FLOP/s"]["bf16"], machine["memory bytes/s"]
  rows = [r for r in report["programs"] if "intensity" in r]
  most = max([peak / rate, *(r["intensity"] for r in rows)])
  x = np.geomspace(peak / rate / 100, 4 * most, 100)
  axes.loglog(x, np.minimum(peak, rate * x), color="black")
  for row in rows:
    each = row["FLOPs"] / report["devices"]
    reached = each / row["roofline seconds"]
    label = f"{row['program']}, batch {row['batch']}: {row['bound']}"
    axes.plot(row["intensity"], reached, "o", label=label)
  axes.set_xlabel("FLOPs per byte of memory")
  axes.set_ylabel("FLOP/s of a device")
  if rows:
    axes.legend(loc="lower right", fontsize=8)


def _memory(axes: Any, report: dict[str, Any]) -> None:
  """Bytes of a device by kind, and how many it has."""
  names = [f"{r['program']}\nbatch {r['batch']}" for r in report["programs"]]
  start = np.zeros(len(names))
  for part in _PARTS:
    sizes = np.array([_part(r, part) for r in report["programs"]])
    axes.bar(names, sizes / GIB, bottom=start / GIB, label=part)
    start += sizes
  refused = [
    0.0 if "arguments" in r else r.get("needed", 0.0)
    for r in report["programs"]
  ]
  if any(refused):
    axes.bar(names, np.array(refused) / GIB, label="refused", color="grey")
  axes.axhline(report["machine"]["memory"] / GIB, color="black")
  axes.set_ylabel("GiB of a device")
  axes.legend(fontsize=8)


def _part(row: dict[str, Any], part: str) -> float:
  value = row.get(part, 0.0)
  if part == "outputs":
    value -= row.get("aliased", 0.0)  # these lie where arguments lay
  return max(value, 0.0)
