"""Sparse attention against dense: the benchmark of the kernel, recorded.

  python -m experiments.bench_sparse_attention [repeats]

On a CPU this is the form without a kernel, in float32, on one example.
"""

from __future__ import annotations

import sys
import time

import jax

from ar_jax import main
from experiments import record
from pallas_kernels.sparse_attention import bench

# What is asked of the form without a kernel: L = 680, 16 heads of 64.
WANTED = {"hmar_256": 2.5, "var_256": 1.4}


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
    tables={f"Sparse attention on {backend}": rows},
  )


if __name__ == "__main__":
  run(*map(int, sys.argv[1:]))
