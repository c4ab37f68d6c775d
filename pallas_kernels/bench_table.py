"""Timing and printing that the benchmarks of all operations share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax

# Bytes per second of main memory, by the vendors' data sheets.
BANDWIDTH = {
  "TPU v5 lite": 819e9,
  "TPU v5e": 819e9,
  "TPU v5": 2765e9,
  "TPU v5p": 2765e9,
  "TPU v6 lite": 1640e9,
  "TPU v6e": 1640e9,
  "NVIDIA H100 80GB HBM3": 3350e9,
  "NVIDIA H200": 4800e9,
}


def seconds(
  forms: dict[str, Callable], args, repeats: int = 20
) -> dict[str, float]:
  """The median time of each form, compilation left out; timed in turns."""
  jitted = {name: jax.jit(fn) for name, fn in forms.items()}
  for run in jitted.values():
    jax.block_until_ready(run(*args))
  times = {name: [] for name in forms}
  for _ in range(repeats):
    for name, run in jitted.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*args))
      times[name].append(time.perf_counter() - start)
  return {name: statistics.median(each) for name, each in times.items()}


def share(size: float, taken: float) -> float | None:
  """Achieved share of this device's memory bandwidth, if it is known."""
  rate = BANDWIDTH.get(jax.devices()[0].device_kind)
  return size / taken / rate if rate else None


def show(rows: list[dict]) -> None:
  """Prints rows with equal keys as a table."""
  print(jax.devices()[0].device_kind, "jax", jax.__version__)
  print(" | ".join(rows[0]))
  for row in rows:
    cell = lambda x: f"{x:.4g}" if isinstance(x, float) else str(x)
    print(" | ".join(cell(x) for x in row.values()))
