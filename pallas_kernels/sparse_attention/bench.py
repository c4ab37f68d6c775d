"""Times sparse attention against dense and against the best public kernel.

  python -m pallas_kernels.sparse_attention.bench [name ...]

One row per named shape: tiles visited and of dense attention (128 x 128), the
medians of forward and of forward + backward, timed in turns, and the share of
the peak of the device that the visible pairs alone amount to (of its bandwidth
for decoding). "public" is cuDNN on a GPU and splash attention on a TPU, "xla"
the sparse form without a kernel: what a compiler makes of the same mask, as
FlexAttention does. A form that cannot run is named. Asserts nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.sparse_attention import shapes, tiles

# Peak FLOP/s in bfloat16 and bytes/s, as the makers publish them.
PEAKS = {
  "TPU v5 lite": (197e12, 819e9),
  "TPU v5": (459e12, 2765e9),
  "TPU v6 lite": (918e12, 1640e9),
  "NVIDIA H100 80GB HBM3": (989e12, 3352e9),
  "NVIDIA H200": (989e12, 4800e9),
}
# On a CPU: one example, in float32, of the shapes that end in seconds.
ON_CPU = ("hmar_256", "var_256", "hmar_512", "var_512")
ON_CPU += ("xar_b", "nar_text_512", "nbp_base", "decode_one", "decode_scale")

Functions = dict[str, Callable]


def run(names: Iterable[str] | None = None, repeats: int = 7) -> list[dict]:
  """The table; every row has the same keys, None where nothing was run.

  Args:
    names: of `shapes.shapes()`; on a CPU the quick ones if None, else all.
    repeats: of every timing, in turns.
  """
  cpu = jax.default_backend() == "cpu"
  names = names or (ON_CPU if cpu else shapes.shapes())
  rows = []
  for name in names:
    shape = shapes.shapes()[name]
    if cpu:
      shape = dataclasses.replace(shape, batch=1, dtype="float32")
    rows.append(row(name, shape, repeats))
    print(_line(rows[-1]), flush=True)
  return rows


def row(name: str, shape: shapes.Shape, repeats: int) -> dict:
  """The row of one shape; the forms are timed in turns."""
  decoding = shape.cache is not None
  args = _random(shape)
  functions = _decoders(shape) if decoding else _forms(shape)
  refused: dict[str, str] = {}
  given = args if decoding else args[:3]
  functions = _that_run(functions, given, refused)
  forward = timed(functions, given, repeats)
  both = {}
  if not decoding:
    both = {name: _gradients(f) for name, f in functions.items()}
    both = timed(_that_run(both, args, refused), args, repeats)
  work, peak = _work(shape), _peak(shape.dtype)
  compiled = tiles.compile_tiles(shape.pattern, 128, 128)
  found = {
    "shape": name,
    "batch": shape.batch,
    "queries": shape.pattern.queries,
    "heads": f"{shape.heads}/{shape.kv_heads} x {shape.features}",
    "dtype": shape.dtype,
    "tiles": f"{compiled.visited}/{compiled.total}",
  }
  for column in ("sparse", "dense", "public", "xla"):
    found[f"{column} fwd ms"] = _ms(forward.get(column))
    found[f"{column} fwd+bwd ms"] = _ms(both.get(column))
  speedup = lambda t, to: round(t[to] / t["sparse"], 2) if to in t else None
  found["fwd+bwd x dense"] = speedup(both or forward, "dense")
  found["fwd+bwd x public"] = speedup(both or forward, "public")
  found["fwd+bwd x xla"] = speedup(both or forward, "xla")
  share = work / peak[decoding] / forward["sparse"] if peak else None
  found["fwd share of peak"] = None if share is None else round(share, 3)
  found["cannot run"] = "; ".join(f"{k}: {v}" for k, v in refused.items())
  return found


def _that_run(functions: Functions, args, refused: dict[str, str]) -> Functions:
  """Those that compile and run; why the others do not goes to `refused`.

  Raises:
    Exception: what the form that is measured, "sparse", raises.
  """
  able = {}
  for name, f in functions.items():
    try:
      jax.block_until_ready(jax.jit(f)(*args))
      able[name] = f
    except Exception as e:
      if name == "sparse":
        raise
      refused[name] = (str(e).strip().splitlines() or [repr(e)])[0][:120]
  return able


def _ms(seconds: float | None) -> float | None:
  return None if seconds is None else round(1e3 * seconds, 3)


def _line(row: dict) -> str:
  filled = {k: v for k, v in row.items() if v not in (None, "")}
  return "  ".join(f"{k} {v}" for k, v in filled.items())


def _random(shape: shapes.Shape) -> list[jax.Array]:
  def draw(key, x):
    if x.dtype == jnp.int32:  # half filled
      return jnp.full(x.shape, shape.cache // 2, x.dtype)
    return jax.random.normal(key, x.shape, x.dtype)

  args = shapes.arguments(shape)
  keys = jax.random.split(jax.random.key(0), len(args))
  return [draw(key, x) for key, x in zip(keys, args, strict=True)]


def _module(decoding: bool):
  name = {"cpu": "xla", "gpu": "gpu", "tpu": "tpu"}[jax.default_backend()]
  if name == "tpu" and decoding:
    name = "tpu_decode"
  module = importlib.import_module(f"pallas_kernels.sparse_attention.{name}")
  return module if not decoding or hasattr(module, "decode") else _module_xla()


def _module_xla():
  return importlib.import_module("pallas_kernels.sparse_attention.xla")


def _forms(shape: shapes.Shape) -> Functions:
  """name -> (q, k, v) -> out."""
  module, pattern = _module(False), shape.pattern

  def dense(q, k, v):
    mask = jnp.asarray(pattern.mask())[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask)

  forms = {"sparse": lambda *x: module.attention(*x, pattern)[0]}
  if jax.default_backend() != "cpu":
    forms["xla"] = lambda *x: _module_xla().attention(*x, pattern)[0]
  # A mask of all pairs would not fit, nor be of interest.
  if pattern.queries * pattern.keys <= 2**27:
    forms["dense"] = dense
    if jax.default_backend() == "gpu":
      forms["public"] = functools.partial(_cudnn, pattern)
    if jax.default_backend() == "tpu":
      forms["public"] = splash(shape)
  return forms


def _cudnn(pattern: tiles.Pattern, q, k, v):
  mask = jnp.asarray(pattern.mask())[None, None]
  return jax.nn.dot_product_attention(
    q, k, v, mask=mask, implementation="cudnn"
  )


def splash(shape: shapes.Shape) -> Callable:
  """JAX's splash attention for TPU, with the same mask, as (q, k, v) -> out."""
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  length = shape.pattern.queries
  extra = -length % 128
  # It takes whole tiles only; a query of the padding sees itself.
  mask = np.pad(shape.pattern.mask(), ((0, extra), (0, extra)))
  mask[range(length, length + extra), range(length, length + extra)] = True
  size = next(b for b in (512, 256, 128) if len(mask) % b == 0)
  sizes = dict.fromkeys(
    ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv",
     "block_kv_dkv_compute", "block_q_dq", "block_kv_dq"), size)  # fmt: skip
  grouped = shape.heads != shape.kv_heads
  make = kernel.make_splash_mqa if grouped else kernel.make_splash_mha
  heads = shape.heads // shape.kv_heads if grouped else shape.heads
  attend = make(
    masks.MultiHeadMask([masks.NumpyMask(mask)] * heads),
    block_sizes=kernel.BlockSizes(**sizes),
    head_shards=1,
    q_seq_shards=1,
  )
  if grouped:  # over the heads of keys, each with its queries
    attend = jax.vmap(attend)
  attend = jax.vmap(attend)

  def call(q, k, v):
    pad = ((0, 0), (0, 0), (0, extra), (0, 0))
    q = q * jnp.asarray(shape.features**-0.5, q.dtype)
    q, k, v = (jnp.pad(jnp.swapaxes(x, 1, 2), pad) for x in (q, k, v))
    if grouped:
      q = q.reshape(shape.batch, shape.kv_heads, heads, *q.shape[2:])
    out = attend(q, k, v).reshape(shape.batch, shape.heads, *k.shape[2:])
    return jnp.swapaxes(out[:, :, :length], 1, 2)

  return call


def _decoders(shape: shapes.Shape) -> Functions:
  """name -> (q, k, v, cache_k, cache_v[, lengths]) -> out."""
  from pallas_kernels.sparse_attention import reference

  def dense(q, k, v, cache_k, cache_v, lengths=shape.length):
    rows, new = cache_k.shape[1], q.shape[1]
    mask = reference.decode_mask(lengths, rows, new, shape.pattern)[:, None]
    k = jnp.concatenate([cache_k, k], axis=1)
    v = jnp.concatenate([cache_v, v], axis=1)
    return jax.nn.dot_product_attention(q, k, v, mask=mask)

  def sparse(q, k, v, cache_k, cache_v, lengths=shape.length):
    module = _module(True)
    args = q, k, v, cache_k, cache_v, lengths
    return module.decode(*args, shape.pattern)[0]

  def xla(q, k, v, cache_k, cache_v, lengths=shape.length):
    args = q, k, v, cache_k, cache_v, lengths
    return _module_xla().decode(*args, shape.pattern)[0]

  forms = {"sparse": sparse, "dense": dense}
  return forms if jax.default_backend() == "cpu" else forms | {"xla": xla}


def _gradients(function: Callable) -> Callable:
  def both(q, k, v, dout):
    out, back = jax.vjp(function, q, k, v)
    return out, back(dout)

  return both


def timed(functions: Functions, args, repeats: int) -> dict[str, float]:
  """Median seconds of each, one after the other in every round.

  On accelerators a round is ten calls, so that launching is not what counts.
  """
  calls = 1 if jax.default_backend() == "cpu" else 10
  jitted = {name: jax.jit(f) for name, f in functions.items()}
  for f in jitted.values():
    jax.block_until_ready(f(*args))
  seconds = {name: [] for name in functions}
  for _ in range(repeats):
    for name, f in jitted.items():
      start = time.perf_counter()
      results = [f(*args) for _ in range(calls)]
      jax.block_until_ready(results)
      seconds[name].append((time.perf_counter() - start) / calls)
  return {name: statistics.median(s) for name, s in seconds.items()}


def _work(shape: shapes.Shape) -> float:
  """FLOPs of the visible pairs, forward; bytes that are read, of decoding."""
  if shape.cache is None:
    pairs = sum(
      int(shape.pattern.mask(slice(i, i + 1024)).sum())
      for i in range(0, shape.pattern.queries, 1024)
    )
    return 4.0 * shape.batch * shape.heads * shape.features * pairs
  length = shape.cache // 2 if shape.length is None else shape.length
  rows = 2 * (length + shape.pattern.keys) * shape.kv_heads
  rows += 2 * shape.pattern.queries * shape.heads
  return shape.batch * rows * shape.features * jnp.dtype(shape.dtype).itemsize


@functools.cache
def _peak(dtype: str) -> tuple[float, float] | None:
  """FLOP/s and bytes/s; of a CPU, what a large product and a sum reach."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    return PEAKS.get(device.device_kind) if dtype == "bfloat16" else None
  size = 2048
  x, y = jnp.ones((size, size), dtype), jnp.ones((2**26,), dtype)
  product = timed({"": lambda x: x @ x}, (x,), 5)[""]
  read = timed({"": jnp.sum}, (y,), 5)[""]
  return 2 * size**3 / product, y.nbytes / read


if __name__ == "__main__":
  run(sys.argv[1:])
