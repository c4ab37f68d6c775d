"""Attention and verification at shapes beyond the published models, compiled
for TPUs that are not here.

  python -m experiments.benchmarks.tpu_shapes [--platforms=v5e,v5p]
    [--only=TEXT]

Head widths 32 to 256, both dtypes, 1 to 64 query heads to one of keys, caches
of 2048 rows, vocabularies up to 262,144. The default implementation must never
fail at compile time: a shape either compiles or is refused, and XLA serves it.
Needs `pip install 'jax[tpu]'`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.plans import makers
from ar_jax.tokenizers.multiscale_vq import SCALES
from experiments.shared import record
from pallas_kernels import aot
from pallas_kernels.sparse_attention import tpu, tpu_decode
from pallas_kernels.spec_verify import shapes as verify_shapes
from pallas_kernels.spec_verify import tpu as verify

DTYPES = (jnp.bfloat16, jnp.float32)
# Query heads, heads of keys.
HEADS = ((16, 16), (32, 8), (32, 2), (64, 1))
WIDTHS = (32, 64, 128, 192, 256)

Case = tuple[str, Callable, tuple]


def attention(dtype, heads: int, kv_heads: int, width: int) -> Case:
  """Forward and backward at VAR's scales for 512 pixels, L = 2240."""
  seen = ops.pattern_of(makers.scales(SCALES[512]))
  struct = lambda n: jax.ShapeDtypeStruct((1, seen.queries, n, width), dtype)

  def total(q, k, v):
    return jnp.sum(tpu.attention(q, k, v, seen)[0].astype(jnp.float32))

  name = f"attention, {jnp.dtype(dtype).name}, {heads}/{kv_heads} x {width}"
  args = struct(heads), struct(kv_heads), struct(kv_heads)
  return name, jax.grad(total, (0, 1, 2)), args


def decode(dtype, heads: int, kv_heads: int, width: int, new: int) -> Case:
  """`new` queries over a cache of 2048 rows."""
  struct = lambda t, n: jax.ShapeDtypeStruct((1, t, n, width), dtype)
  args = (
    *(struct(new, heads), struct(new, kv_heads), struct(new, kv_heads)),
    *(struct(2048, kv_heads), struct(2048, kv_heads)),
    jax.ShapeDtypeStruct((1,), jnp.int32),
  )
  call = lambda *x: tpu_decode.decode(*x)[0]
  name = f"decode {new}, {jnp.dtype(dtype).name}, {heads}/{kv_heads} x {width}"
  return name, call, args


def cases() -> Iterator[Case]:
  for dtype in DTYPES:
    for heads, kv_heads in HEADS:
      for width in WIDTHS:
        yield attention(dtype, heads, kv_heads, width)
      for new in (1, 64, 1024):
        yield decode(dtype, heads, kv_heads, 256, new)
  for vocab in (65_536, 131_072, 262_144):
    for guided in (False, True):
      shape = verify_shapes.Shape(8, 8, vocab, guided=guided)
      call = verify_shapes.call(verify.verify, shape)
      name = f"verify, {vocab} tokens{', guided' if guided else ''}"
      yield name, call, tuple(shape.arrays().values())


def row(platform: str, case: Case) -> dict:
  name, call, args = case
  start = time.perf_counter()
  try:
    report = aot.report(aot.compile_for(platform, call, *args))
    verdict = f"compiles, {report.get('vmem', 0) / 2**20:.1f} MiB"
  except NotImplementedError as error:
    verdict = f"refused: {error}"
  except Exception as error:  # whatever the compiler says
    verdict = f"FAILS: {str(error).splitlines()[0][:160]}"
  seconds = round(time.perf_counter() - start, 1)
  return {
    "case": name, "platform": platform, "verdict": verdict, "s": seconds
  }  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--platforms", default="v5e,v5p")
  parser.add_argument("--only", default="", help="part of a case's name")
  options = parser.parse_args()
  start, rows = time.perf_counter(), []
  for platform in options.platforms.split(","):
    if reason := aot.missing(platform):
      raise SystemExit(f"{platform}: {reason}")
    for case in cases():
      if options.only in case[0]:
        rows.append(row(platform, case))
        print(*rows[-1].values(), flush=True)
  failed = [r for r in rows if r["verdict"].startswith("FAILS")]
  refused = sum(r["verdict"].startswith("refused") for r in rows)
  if options.only:
    return
  record.write(
    "tpu_shapes",
    claim="No shape of attention or verification fails at compile time on a "
    "TPU: it compiles, or is refused and served by XLA.",
    paper="none",
    baseline="before tiles were bounded: bfloat16 heads of 192 and 256 "
    "features (backward), float32 ones (forward), 64 heads to one of keys, "
    "float32 decoding of 256 features and 262,144 tokens failed",
    ours=f"{len(rows) - len(failed) - refused} of {len(rows)} compile, "
    f"{refused} are refused, {len(failed)} fail",
    holds=not failed,
    seeds=[],
    seconds=time.perf_counter() - start,
    tables={"shapes": rows},
  )


if __name__ == "__main__":
  main()
