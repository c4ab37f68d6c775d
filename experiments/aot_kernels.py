"""Every kernel, and a training step that contains them, compiled for TPUs and
an H100 that are not here.

  python -m experiments.aot_kernels [--only=TEXT] [--no-step]

Needs `pip install libtpu` and, for the H100, what `pallas_kernels.aot_cuda`
asks for. The kernels are those of `pallas_kernels.aot`; the training step is
that of VAR-d16 from photographs: the tokenizer's nearest codes, the
transformer forward and backward, AdamW.
"""

from __future__ import annotations

import functools
import sys
import time

import jax
import jax.numpy as jnp

from ar_jax import optim, step
from experiments import full_size, record
from pallas_kernels import aot

BATCH = 8


def training_step(batch: int = BATCH):
  """(update of VAR-d16 in bfloat16, its abstract arguments)."""
  system = full_size.var(dtype="bfloat16")
  tx = optim.make({"lr": 1e-4, "weight_decay": 0.05, "clip": 2.0}, 100)
  options = step.Options()
  struct = jax.ShapeDtypeStruct
  data = {
    "image": struct((batch, 256, 256, 3), jnp.uint8),
    "label": struct((batch,), jnp.int32),
    "index": struct((batch,), jnp.int32),
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    functools.partial(step.init_state, system, tx, options), key, data
  )
  update = functools.partial(step.train_step, system, tx, options)
  return update, (state, data, key)


def compile_step(platform: str) -> dict:
  """A row about the training step on one device of a platform."""
  update, args = training_step()
  start = time.perf_counter()
  compiled = aot.compile_for(platform, update, *args)
  text = compiled.as_text()
  calls = ("tpu_custom_call", "mosaic_gpu")
  return {
    "kernel": "training step",
    "shape": f"VAR-d16, batch {BATCH}",
    "platform": platform,
    **aot.report(compiled),
    "kernel calls": sum(text.count(f'"{call}') for call in calls),
    "seconds": round(time.perf_counter() - start, 1),
  }


def run(only: str = "", with_step: bool = True) -> None:
  begun = time.perf_counter()
  left_out = {p: aot.missing(p) for p in aot.PLATFORMS if aot.missing(p)}
  rows = list(aot.rows(only))
  for platform in aot.PLATFORMS:
    if with_step and platform not in left_out:
      try:
        rows.append(compile_step(platform))
      except Exception as error:  # one failure must not hide the others
        rows.append(
          {
            "kernel": "training step",
            "shape": f"VAR-d16, batch {BATCH}",
            "platform": platform,
            "error": str(error).splitlines()[0],
          }
        )
  failed = [row for row in rows if "error" in row]
  columns = (
    "kernel", "shape", "platform", "seconds", "arguments", "temporaries",
    "code", "vmem", "kernel calls", "error",
  )  # fmt: skip
  record.write(
    "aot_kernels",
    claim="Every kernel at every named shape, and a training step that "
    "contains kernels, compiles ahead of time for v5e, v5p, v6e and H100.",
    paper="none",
    baseline="none",
    ours=f"{len(rows) - len(failed)} of {len(rows)} programs compiled"
    + "".join(f"; {p} left out: {why}" for p, why in left_out.items()),
    holds=not failed and not left_out,
    seeds=[],
    seconds=time.perf_counter() - begun,
    tables={
      "Compiled for machines that are not here (bytes)": [
        {name: row.get(name, "") for name in columns} for row in rows
      ]
    },
  )


if __name__ == "__main__":
  flags = sys.argv[1:]
  text = [x.removeprefix("--only=") for x in flags if x.startswith("--only=")]
  run("".join(text), "--no-step" not in flags)
