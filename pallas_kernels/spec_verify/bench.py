"""Speed of verification, each form that runs here beside the reference.

python -m pallas_kernels.spec_verify.bench [NAME ...]
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import bench_table
from pallas_kernels.spec_verify import shapes


def inputs(shape: shapes.Shape, seed: int = 0) -> tuple[jax.Array, ...]:
  """Random arrays for a shape; drafts that mostly stand, so that all of the
  rows are read and the time is that of the most work."""
  rng = np.random.default_rng(seed)
  made = {}
  for name, spec in shape.arrays().items():
    if name == "logits":
      z = rng.standard_normal(spec.shape, np.float32)
      made[name] = jnp.asarray(z, spec.dtype)
    elif name == "noise" and spec.dtype == jnp.float32:
      made[name] = jnp.full(spec.shape, 1e-6)
    elif name == "noise":
      bits = rng.integers(0, 2**32, spec.shape, np.uint32)
      made[name] = jnp.asarray(bits)
    elif name == "table" and len(spec.shape) == 2:
      ring = np.arange(shape.vocab) - np.arange(shape.vocab)[:, None]
      made[name] = jnp.asarray(ring % shape.vocab, jnp.int32)
    elif name == "table":
      made[name] = jnp.arange(shape.vocab, dtype=jnp.int32) // 4
    elif name == "valid":
      made[name] = jnp.full(spec.shape, shape.k, jnp.int32)
    elif name == "parents":
      parents = np.broadcast_to(np.arange(shape.k), spec.shape)
      made[name] = jnp.asarray(parents, jnp.int32)
    elif name == "guidance":
      made[name] = jnp.full(spec.shape, 1.5)
  logits = made["logits"].astype(jnp.float32)
  made["drafts"] = jnp.argmax(logits[:, 0, :-1], -1).astype(jnp.int32)
  if "draft_logp" in shape.arrays():
    made["draft_logp"] = jax.nn.log_softmax(logits[:, 0, :-1])
  return tuple(made[name] for name in shape.arrays())


def row(name: str) -> dict:
  """The row of one named shape."""
  shape = shapes.SHAPES[name]
  args = inputs(shape)
  found = {"shape": name, "MB, one pass": shape.bytes() / 1e6}
  names = ["reference"]
  if jax.default_backend() in shapes.FORMS:
    names.append(jax.default_backend())
  forms = {form: shapes.call(shapes.FORMS[form], shape) for form in names}
  for form, taken in bench_table.seconds(forms, args, 5).items():
    found[f"{form}, ms"] = taken * 1e3
    found[f"{form}, GB/s"] = shape.bytes() / taken / 1e9
    found[f"{form}, share"] = bench_table.share(shape.bytes(), taken)
  return found


def main(names: list[str]) -> None:
  bench_table.show([row(name) for name in names or shapes.SHAPES])


if __name__ == "__main__":
  main(sys.argv[1:])
