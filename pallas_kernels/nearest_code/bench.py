"""Speed of the nearest code, each form that runs here beside the reference.

python -m pallas_kernels.nearest_code.bench [NAME ...]
"""

from __future__ import annotations

import sys

import jax

from pallas_kernels import bench_table
from pallas_kernels.nearest_code import shapes


def main(names: list[str]) -> None:
  rows = []
  for name in names or shapes.SHAPES:
    tokens, codes, width = shapes.SHAPES[name]
    keys = jax.random.split(jax.random.key(0), 2)
    args = (
      jax.random.normal(keys[0], (tokens, width)),
      jax.random.normal(keys[1], (codes, width)),
    )
    work = 2 * tokens * codes * width
    row = {
      "shape": name,
      "GFLOP": work / 1e9,
      "MB of distances": 4e-6 * tokens * codes,
    }
    forms = ["reference", "xla"]
    if name in shapes.cases(backend := jax.default_backend()):
      forms.append(backend)
    for form in forms:
      taken = bench_table.seconds(shapes.FORMS[form], args, 5)
      row[f"{form}, ms"] = taken * 1e3
      row[f"{form}, GFLOP/s"] = work / taken / 1e9
    rows.append(row)
  bench_table.show(rows)


if __name__ == "__main__":
  main(sys.argv[1:])
