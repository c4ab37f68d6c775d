"""Published models at full size with random weights, for the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np

from ar_jax.core.system import System, Vars, build
from ar_jax.systems.llamagen import SIZES

LENGTH = 680


def var(
  depth: int = 16,
  dtype: str = "float32",
  impl: str | None = None,
  remat: str = "none",
) -> System:
  """VAR at 256 pixels with the published tokenizer's sizes."""
  return build(
    "var",
    tokenizer={"name": "multiscale_vq"},
    depth=depth,
    num_classes=1000,
    dtype=dtype,
    impl=impl,
    remat=remat,
  )


def llamagen(size: str = "b", dtype: str = "float32") -> System:
  """LlamaGen at 256 pixels with the published tokenizer's sizes."""
  return build(
    "llamagen",
    tokenizer={"name": "vq"},
    num_classes=1000,
    dtype=dtype,
    **SIZES[size],
  )


def random_variables(system: System) -> Vars:
  """Weights of the right shapes; their values do not change the time."""
  rng = np.random.default_rng(0)
  batch = {
    "image": np.zeros((1, 256, 256, 3), np.uint8),
    "label": np.zeros(1, np.int32),
  }
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)

  def fill(leaf):
    scale = leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.02
    values = rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)
    return jax.numpy.asarray(values.astype(leaf.dtype))

  return jax.tree.map(fill, shapes)


def matmul_rate() -> float:
  """Floating-point operations per second of one float32 product, as large as
  those of a layer: no program of the same arithmetic is faster."""
  a = jax.numpy.ones((4 * LENGTH, 1024))
  b = jax.numpy.ones((1024, 4096))
  product = jax.jit(jax.numpy.matmul)
  _, seconds = timed(lambda: product(a, b), 5)
  return 2 * a.size * b.shape[1] / min(seconds)


def read_rate() -> float:
  """Bytes per second read from memory, by as many threads as there are."""
  large, ones = jax.numpy.ones((8, 2**25)), jax.numpy.ones(2**25)
  product = jax.jit(jax.numpy.matmul)
  _, seconds = timed(lambda: product(large, ones), 3)
  return large.nbytes / min(seconds)


def stack_flops(system: System, rows: int) -> float:
  """Of one pass of the stack and the head over all slots of `rows` images."""
  width, depth = system.net.width, system.net.backbone.depth
  matrices = 12 * depth * width * width + width * system.tokenizer.vocab
  # Scores and their use: two products of `width` for each visible pair.
  pairs = 2 * depth * width * system.plan.pairs()
  return 2.0 * rows * (len(system.plan) * matrices + pairs)


def timed(run: Callable[[], object], repeats: int) -> tuple[float, list[float]]:
  """(seconds of the first call, which compiles; seconds of the others)."""
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - start)
  return seconds[0], seconds[1:]
