"""What it costs that the host waits for the step before the last one.

  python -m experiments.benchmarks.run_ahead [STEPS] [ROUNDS]

Training steps of the smoke VAR, batches read and put as `train` does, with
`watch.Pace` as it is and without a bound, in turn, in one process.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
import time

import jax

from ar_jax import data, main, optim, parallel, step, train, watch
from ar_jax.core.system import build
from configs import var
from experiments.shared import record

FREE = 10**9
AHEAD = (1, 2)


def run(steps: int = 50, rounds: int = 20) -> None:
  """Measures and records."""
  main.set_up_devices()
  begun = time.perf_counter()
  config = var.get_config("smoke")
  mesh = parallel.make_mesh(config.mesh)
  system = build(config.system, **config.model.to_dict())
  dataset = data.load(**config.data)
  tx = optim.make(config.optim.to_dict(), steps)
  options = step.Options(config.train.ema)
  one = data.batch_at(dataset.train, 0, batch=1, seed=0)
  fresh = train.initial_state(config, system, tx, options, one, mesh)[1]
  update = functools.partial(
    parallel.on(mesh, step.jit_step), system, tx, options
  )
  batches = data.batches(
    dataset.train, batch=config.batch, seed=0, **config.loader
  )
  state, key = fresh(), jax.random.key(0)

  def seconds(ahead: int) -> float:
    nonlocal state
    pace = watch.Pace(lambda: None, ahead)
    start = time.perf_counter()
    for batch in itertools.islice(batches, steps):
      placed = parallel.put_batch(batch, mesh)
      state, values = update(state, placed, key)
      pace.began(values)
    pace.catch_up()
    return time.perf_counter() - start

  seconds(1)  # compiles
  free, ratios = [], {ahead: [] for ahead in AHEAD}
  for _ in range(rounds):
    free.append(seconds(FREE))
    for ahead in AHEAD:
      ratios[ahead].append(seconds(ahead) / free[-1])
  table = []
  for ahead, found in ratios.items():
    low, middle, high = statistics.quantiles(found, n=4)
    table.append({
      "steps that may wait": ahead,
      "time / time without a bound": round(middle, 3),
      "quartiles": f"{low:.3f} to {high:.3f}",
    })  # fmt: skip
  cost = table[0]["time / time without a bound"]
  record.write(
    "run_ahead",
    claim="A run that waits for the step before the last one is as fast as "
    "one that runs ahead of its devices.",
    paper="none",
    baseline=f"no bound: {statistics.median(free) / steps * 1e3:.1f} ms a step",
    ours=f"{cost} of the time, quartiles {table[0]['quartiles']}",
    holds=_holds(*statistics.quantiles(ratios[AHEAD[0]], n=4)),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={f"Pairs of {steps} steps, {rounds} rounds": table},
  )


def _holds(low: float, middle: float, high: float) -> bool | str:
  if high < 1.02 or low > 1.02:
    return middle < 1.02
  return "no cost is seen, within a spread that says little of small ones"


if __name__ == "__main__":
  run(*map(int, sys.argv[1:]))
