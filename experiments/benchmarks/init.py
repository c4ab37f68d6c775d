"""What the keys of initial weights cost in compilation.

  python -m experiments.benchmarks.init [--short]

The init of VAR's smoke preset, compiled with the keys of `core.prng` and with
JAX's own, in turns and without a cache; seconds of CPU.
"""

from __future__ import annotations

import statistics
import time

import jax

from ar_jax import data, main
from ar_jax.core import prng
from ar_jax.core.system import build
from configs import var
from experiments.shared import record

TURNS = 2
KEYS = {
  "hashed": prng.key,
  "rbg": lambda seed: jax.random.key(seed, impl="rbg"),
  "threefry": lambda seed: jax.random.key(seed, impl="threefry2x32"),
}


def run() -> None:
  main.set_up_devices()
  jax.config.update("jax_enable_compilation_cache", False)
  begun = time.perf_counter()
  config = var.get_config("smoke")
  system = build(config.system, **config.model.to_dict())
  batch = data.batch_at(data.load(**config.data).train, 0, batch=1, seed=0)
  spent = {name: [] for name in KEYS}
  for _ in range(TURNS):
    for name, key in KEYS.items():
      init = jax.jit(lambda key: system.init(key, batch)).lower(key(0))
      before = time.process_time()
      init.compile()
      spent[name].append(time.process_time() - before)
  seconds = {name: statistics.median(each) for name, each in spent.items()}
  print(seconds, flush=True)
  rows = [
    {
      "keys": name,
      "CPU seconds": f"{min(each):.1f} to {max(each):.1f}",
      "over hashed": seconds[name] / seconds["hashed"],
    }
    for name, each in spent.items()
  ]
  record.write(
    "bench_init",
    claim="Keys that hash a counter make an init cheaper to compile.",
    paper="none",
    baseline="JAX's generators",
    ours=f"rbg {rows[1]['over hashed']:.1f} times as long, threefry "
    f"{rows[2]['over hashed']:.1f} times",
    holds=seconds["hashed"] < min(seconds["rbg"], seconds["threefry"]),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={"Compilation of the init of VAR-smoke": rows},
  )


if __name__ == "__main__":
  run()
