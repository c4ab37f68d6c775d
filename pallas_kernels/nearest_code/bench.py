"""Speed of the nearest code, each form that runs here beside the reference.

python -m pallas_kernels.nearest_code.bench [NAME ...]
"""

from __future__ import annotations

import sys

import jax

from pallas_kernels import bench_table
from pallas_kernels.nearest_code import shapes


def row(name: str) -> dict:
  """The row of one named codebook."""
  tokens, codes, width = shapes.SHAPES[name]
  keys = jax.random.split(jax.random.key(0), 2)
  args = (
    jax.random.normal(keys[0], (tokens, width)),
    jax.random.normal(keys[1], (codes, width)),
  )
  work = 2 * tokens * codes * width
  found = {
    "shape": name,
    "GFLOP": work / 1e9,
    "MB of distances": 4e-6 * tokens * codes,
  }
  names = ["reference", "xla"]
  here = jax.default_backend()
  if here in shapes.FORMS and name in shapes.cases(here):
    names.append(here)
  forms = {form: shapes.FORMS[form] for form in names}
  for form, taken in bench_table.seconds(forms, args, 5).items():
    found[f"{form}, ms"] = taken * 1e3
    found[f"{form}, GFLOP/s"] = work / taken / 1e9
  return found


def main(names: list[str]) -> None:
  bench_table.show([row(name) for name in names or shapes.SHAPES])


if __name__ == "__main__":
  main(sys.argv[1:])
