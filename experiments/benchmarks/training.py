"""Training speed of VAR-d16 at full size on two cores.

  python -m experiments.benchmarks.training [batch] [repeats] [official]
    [--short]

Forward and backward pass on known units, float32: the form in which the
official code is usually timed; and the whole update with AdamW beside it. What
the backward pass computes again is what it does in the published preset.
`official`: seconds of the official code, timed by whoever has it, in turns
with this program.
"""

from __future__ import annotations

import functools
import statistics
import time

import jax
import numpy as np

from ar_jax import main, optim, step
from configs import var as presets
from experiments.shared import full_size, record


def run(batch: int = 2, repeats: int = 3, official: float = 16.0) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  remat = presets.get_config("d16").model.remat
  system = full_size.var(remat=remat)
  variables = full_size.random_variables(system)
  rng = np.random.default_rng(0)
  units = {
    "units": rng.integers(0, 4096, (batch, full_size.LENGTH), np.int32),
    "label": np.arange(batch, dtype=np.int32),
    "index": np.arange(batch, dtype=np.int32),
  }
  key = jax.random.key(0)

  @jax.jit
  def gradients(variables, batch):
    def objective(params):
      given = {**variables, "params": params}
      return system.loss(given, batch, key, train=True).value.mean()

    return jax.grad(objective)(variables["params"])

  first, rest = full_size.timed(lambda: gradients(variables, units), repeats)
  tx = optim.make({"lr": 1e-4, "weight_decay": 0.05, "clip": 2.0}, 100)
  options = step.Options()
  state = [
    step.TrainState(
      jax.numpy.zeros((), jax.numpy.int32),
      variables,
      None,
      tx.init(variables["params"]),
    )
  ]
  update = functools.partial(step.jit_step, system, tx, options)
  traces = step.jit_step._cache_size()

  def one():
    state[0], metrics = update(state[0], units, key)
    return metrics

  first_update, updates = full_size.timed(one, repeats)
  median = statistics.median(rest)
  # Two products backwards for each one forwards.
  bound = 3 * full_size.stack_flops(system, batch) / full_size.matmul_rate()
  record.write(
    "bench_training",
    claim="A forward and backward pass of VAR-d16 is faster than the official "
    "PyTorch code on the same two cores (aim: 1.5x).",
    paper="not stated for CPUs",
    baseline=f"{official} s forward and backward (PyTorch, float32, 2 threads, "
    f"batch {batch})",
    ours=f"{median:.2f} s forward and backward (median of {repeats}; "
    f"{min(rest):.2f} to {max(rest):.2f})",
    holds=f"{official / median:.2f}x of {official} s; at the rate of one large "
    f"product, {official / bound:.2f}x",
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={
      "Training": [
        {
          "program": name,
          "batch": batch,
          "seconds": statistics.median(seconds),
          "bound by arithmetic": bound,
          "first call, s": compiled,
        }
        for name, seconds, compiled in (
          ("forward and backward", rest, first),
          ("update with AdamW", updates, first_update),
        )
      ],
      "Whole process": [
        {
          "traces of the update": step.jit_step._cache_size() - traces,
          "peak memory, GiB": record.peak_memory(),
        }
      ],
    },
  )


if __name__ == "__main__":
  run(*record.numbers(1, 1))
