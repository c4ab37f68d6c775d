"""How a CPU reads the matrices of a decoding step: what `layers.linear` does.

  python -m experiments.benchmarks.linear [repeats | --short]

Forty float32 matrices of 768 x 2048, 252 MB, more than any cache holds, are
multiplied one after the other with few rows: by one product, by one product
with the transposed matrix, and by a product for each row; in turns.
"""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import main
from experiments.shared import full_size, record

FEATURES, OUT, COUNT = 768, 2048, 40
ROWS = (1, 2, 4, 16)


def along(product, x, matrices):
  """All matrices in turn, each waiting for the one before."""
  total = 0.0
  for matrix in matrices:
    y = product(x, matrix)
    x, total = x + 1e-3 * y[:, :FEATURES], total + y.sum()
  return total


FORMS = {
  "one product": lambda x, w: x @ w,
  "turned": lambda x, w: jax.lax.dot_general(x, w, (((1,), (1,)), ((), ()))),
  "row by row": lambda x, w: jnp.stack([row @ w for row in x]),
}


def run(repeats: int = 7) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  draw = np.random.default_rng(0)
  matrices = [
    jnp.asarray(draw.standard_normal((FEATURES, OUT), np.float32))
    for _ in range(COUNT)
  ]
  turned = [jnp.asarray(m.T) for m in matrices]
  rows = []
  for count in ROWS:
    x = jnp.asarray(draw.standard_normal((count, FEATURES), np.float32))
    runs = {}
    for name, product in FORMS.items():
      given = turned if name == "turned" else matrices
      compiled = jax.jit(lambda x, m, p=product: along(p, x, m))
      runs[name] = lambda c=compiled, x=x, m=given: c(x, m)
      jax.block_until_ready(runs[name]())
    seconds = {name: [] for name in runs}
    for _ in range(repeats):  # in turns
      for name, one in runs.items():
        seconds[name] += full_size.timed(one, 0)[:1]
    rows.append(
      {"rows": count}
      | {f"{k}, ms": 1e3 * statistics.median(v) for k, v in seconds.items()}
    )
    print(rows[-1], flush=True)
  few = next(r for r in rows if r["rows"] == 2)
  many = next(r for r in rows if r["rows"] == 16)
  gain = few["one product, ms"] / few["row by row, ms"]
  turn = many["one product, ms"] / many["turned, ms"]
  record.write(
    "bench_linear",
    claim="On a CPU two rows are multiplied faster one by one, and sixteen "
    "with the transposed matrix: what `nn.layers.linear` relies on.",
    paper="none",
    baseline="one product of all rows with the matrix as it is stored",
    ours=f"2 rows one by one {gain:.2f}x, 16 rows turned {turn:.2f}x",
    holds=gain > 1 and turn > 1,
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={f"{COUNT} matrices of {FEATURES} x {OUT}, median": rows},
  )


if __name__ == "__main__":
  run(*record.numbers(1))
