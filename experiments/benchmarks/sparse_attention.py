"""Sparse attention against dense: the benchmark of the kernel, recorded.

  python -m experiments.benchmarks.sparse_attention [repeats | --short]

On a CPU this is the form without a kernel, in float32, on one example.
"""

from __future__ import annotations

import time

import jax

from ar_jax import main
from experiments.shared import record
from pallas_kernels.sparse_attention import bench, shapes, tiles

# What is asked of the form without a kernel: L = 680, 16 heads of 64.
WANTED = {"hmar_256": 2.5, "var_256": 1.4}


def visited() -> list[dict]:
  """Tiles of 128 x 128 of every named shape: what no machine changes."""
  rows = []
  for name, shape in shapes.shapes().items():
    if shape.cache is not None:
      continue
    compiled = tiles.compile_tiles(shape.pattern, 128, 128)
    full = int((compiled.by_query.kinds == tiles.FULL).sum())
    rows.append(
      {
        "shape": name,
        "queries": shape.pattern.queries,
        "keys": shape.pattern.keys,
        "visited": compiled.visited,
        "of these without a mask": full,
        "dense": compiled.total,
        "share": round(compiled.visited / compiled.total, 3),
      }
    )
  return rows


def run(repeats: int = 9) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  rows = bench.run(repeats=repeats)
  speed = {row["shape"]: row["fwd+bwd x dense"] for row in rows}
  ours = ", ".join(f"{name} {speed[name]:.2f}x" for name in WANTED)
  backend = jax.default_backend()
  record.write(
    f"bench_sparse_attention_{backend}",
    claim="attention that skips hidden tiles beats dense masked attention",
    paper="block-diagonal 2.5x and more (HMAR, training, end to end)",
    baseline="jax.nn.dot_product_attention with a dense mask",
    ours=f"{ours}, forward and backward",
    holds=all(speed[name] >= least for name, least in WANTED.items()),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={
      f"Sparse attention on {backend}": rows,
      "Tiles that are visited, of those of dense attention": visited(),
    },
    accelerators="none could be had" if backend == "cpu" else backend,
  )


if __name__ == "__main__":
  run(*record.numbers(1))
