"""Every kernel, and a training step that contains them, compiled for TPUs and
an H100 that are not here.

  python -m experiments.benchmarks.aot_kernels \\
    --keep=experiments/results/aot_kernels.jsonl
  python -m experiments.benchmarks.aot_kernels [--only=TEXT] [--no-step]
    [--keep=FILE] [--platforms=v5e,h100] [--short]

Needs `pip install 'jax[tpu]'` and, for the H100, what `pallas_kernels.aot_cuda`
asks for. The kernels are those of `pallas_kernels.aot`; the training step is
that of VAR-d16 from photographs: the tokenizer's nearest codes, the
transformer forward and backward, AdamW.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp

from ar_jax import optim, step
from experiments.shared import full_size, record
from pallas_kernels import aot

# Per device; 8 examples without rematerialisation take 16.4 GB, and a v5e has
# 15.75.
BATCH = 4


def training_step(platform: str, batch: int = BATCH):
  """(update of VAR-d16 in bfloat16, its abstract arguments).

  Its attention is the kernel of the platform, which has to be named for a GPU.
  """
  kernel = "pallas_tpu" if platform in aot.TPUS else "pallas_gpu"
  system = full_size.var(dtype="bfloat16", impl=kernel)
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
  update, args = training_step(platform)
  start = time.perf_counter()
  compiled = aot.compile_for(platform, update, *args)
  text = compiled.as_text()
  calls = ("tpu_custom_call", "mosaic_gpu")
  return {
    **_step(platform),
    **aot.report(compiled),
    "kernel calls": sum(text.count(f'"{call}') for call in calls),
    "seconds": round(time.perf_counter() - start, 1),
  }


def step_of(platform: str) -> dict:
  """`compile_step`, or what failed: one failure must not hide the others."""
  try:
    return compile_step(platform)
  except Exception as error:
    return {**_step(platform), "error": str(error).splitlines()[0]}


def _wanted() -> int:
  """How many programs there are."""
  forms = [("tpu" if p in aot.TPUS else "gpu") for p in aot.PLATFORMS]
  kernels = (len(aot.cases(op, form)) for form in forms for op in aot.ops())
  return sum(kernels) + len(aot.PLATFORMS)


def _step(platform: str) -> dict:
  name = f"VAR-d16, batch {BATCH}"
  return {"kernel": "training step", "shape": name, "platform": platform}


def run(
  only: str = "",
  with_step: bool = True,
  keep: str = "",
  platforms: tuple[str, ...] = aot.PLATFORMS,
) -> None:
  """Compiles and records.

  Args:
    only: what "kernel/shape/platform" contains.
    with_step: the training steps, too.
    platforms: those to compile for now.
    keep: a file of rows, one JSON a line: what is in it is not compiled
      again, unless it failed, and what is compiled is added to it, so that a
      run that was stopped goes on. Rows say which commit they are of.
  """
  begun, commit = time.perf_counter(), record.commit()
  left_out = {p: aot.missing(p) for p in aot.PLATFORMS if aot.missing(p)}
  path = pathlib.Path(keep or os.devnull)
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [row for row in map(json.loads, lines) if "error" not in row]
  done = {tuple(row[x] for x in aot.NAMED) for row in rows}
  spent = sum(row.get("seconds", 0) for row in rows)
  new = aot.rows(only, platforms, done)
  if with_step:
    there = [p for p in platforms if p not in left_out]
    there = [p for p in there if tuple(_step(p).values()) not in done]
    new = itertools.chain(map(step_of, there), new)
  with path.open("a") as file:
    for row in new:
      rows.append({**row, "commit": commit})
      print(rows[-1], flush=True)
      print(json.dumps(rows[-1]), file=file, flush=True)
      if record.trial():  # the first is enough
        break
  failed = [row for row in rows if "error" in row]
  wanted, compiled = _wanted(), len(rows) - len(failed)
  rest = f"{len(failed)} failed, {wanted - len(rows)} not compiled yet"
  columns = (
    *aot.NAMED, "seconds", "arguments", "outputs", "temporaries", "code",
    "vmem", "registers", "spilled", "kernel calls", "commit", "error",
  )  # fmt: skip
  tables = {}
  for platform in aot.PLATFORMS:
    mine = [row for row in rows if row["platform"] == platform]
    used = [c for c in columns if any(c in row for row in mine)]
    if mine:
      tables[f"Compiled for {platform} (memory in bytes)"] = [
        {name: row.get(name, "") for name in used} for row in mine
      ]
  record.write(
    "aot_kernels",
    claim="Every kernel at every named shape, and a training step that "
    "contains kernels, compiles ahead of time for v5e, v5p, v6e and H100.",
    paper="none",
    baseline="none",
    ours=f"{compiled} of {wanted} programs compiled"
    + "".join(f"; {p} left out: {why}" for p, why in left_out.items()),
    holds=True if compiled == wanted else rest,
    seeds=[],
    seconds=time.perf_counter() - begun + spent,
    tables=tables,
  )


if __name__ == "__main__":
  flags = dict(x.removeprefix("--").partition("=")[::2] for x in sys.argv[1:])
  run(
    flags.get("only", ""),
    "no-step" not in flags and not record.trial(),
    flags.get("keep", ""),
    tuple(flags.get("platforms", ",".join(aot.PLATFORMS)).split(",")),
  )
