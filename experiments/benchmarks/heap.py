"""What it saves that a process keeps the memory that it frees.

  python -m experiments.benchmarks.heap [STEPS] [ROUNDS]

Updates of small nets on a CPU, in processes that take turns: one as the C
library does it, for which a GLIBC_TUNABLES without a word is enough, one after
`ar_jax.cpu.keep_memory`. Both compile before the first
update that is timed.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import time

import jax

from ar_jax import cpu, data, main, optim, step
from ar_jax.core.system import build
from experiments.shared import arms, record

CONFIGS = ("vit", "multiscale_vq", "pixelcnn", "ar_net")
KEPT, FREED = "kept", "freed"
WARM, SHARE, WITHIN = 5, 0.05, 1.05


def updates(name: str, way: str, steps: int) -> dict[str, float]:
  """Of updates of a default preset, batches read and all."""
  if way == KEPT and not cpu.keep_memory():
    raise SystemExit("nothing is kept here, see ar_jax.cpu.keep_memory")
  main.set_up_devices()
  config = importlib.import_module(f"configs.{name}").get_config("default")
  system = build(config.system, **config.model.to_dict())
  dataset = data.load(**config.data)
  tx = optim.make(config.optim.to_dict(), config.train.steps)
  kind, key = step.Options(config.train.ema), jax.random.key(0)
  batches = data.batches(dataset.train, batch=config.batch, seed=0)
  init = jax.jit(functools.partial(step.init_state, system, tx, kind))
  state = init(key, next(batches), {})
  for i in range(WARM + steps):
    if i == WARM:
      jax.block_until_ready(state)
      begun, before = time.perf_counter(), os.times()
    state, _ = step.jit_step(system.at(0), tx, kind, state, next(batches), key)
  jax.block_until_ready(state)
  after = os.times()
  return {
    "ms": (time.perf_counter() - begun) / steps * 1e3,
    "system": (after.system - before.system) / steps * 1e3,
    "gib": record.peak_memory(),
  }


def run(steps: int = 50, rounds: int = 3) -> None:
  """Measures and records."""
  begun = time.perf_counter()
  table, ratios, shares = [], {}, {}
  for name in CONFIGS:
    found = {KEPT: [], FREED: []}
    for _ in range(rounds):
      for way, rows in found.items():
        command = [sys.executable, "-m", __spec__.name, name, way, str(steps)]
        env = os.environ | ({} if way == KEPT else {"GLIBC_TUNABLES": ""})
        done = subprocess.run(
          command, check=True, stdout=subprocess.PIPE, env=env
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
      way: {k: statistics.median(row[k] for row in rows) for k in rows[0]}
      for way, rows in found.items()
    }
    shares[name] = {k: x["system"] / x["ms"] for k, x in middle.items()}
    pairs = zip(*found.values(), strict=True)
    ratios[name] = sorted(a["ms"] / b["ms"] for a, b in pairs)
    table.append({
      "preset": name,
      "ms an update, freed": f"{middle[FREED]['ms']:.1f}",
      "of the system": f"{middle[FREED]['system']:.1f}",
      "ms, kept": f"{middle[KEPT]['ms']:.1f}",
      "of the system, kept": f"{middle[KEPT]['system']:.1f}",
      "time / time": " ".join(f"{x:.2f}" for x in ratios[name]),
      "GiB, freed": f"{middle[FREED]['gib']:.2f}",
      "GiB, kept": f"{middle[KEPT]['gib']:.2f}",
    })  # fmt: skip
    print(table[-1], flush=True)
  middles = {k: statistics.median(v) for k, v in ratios.items()}
  faulty = [k for k, share in shares.items() if share[FREED] > SHARE]
  held = {
    "the system takes no time any more": all(
      share[KEPT] < SHARE for share in shares.values()
    ),
    "sooner where it did": bool(faulty) and all(middles[k] < 1 for k in faulty),
    "none later": max(middles.values()) <= WITHIN,
  }
  record.write(
    "heap",
    claim="A process that keeps the memory it frees spends no time of the "
    "system on it, and updates small nets sooner on a CPU, none later.",
    paper="none",
    baseline="the same process as glibc does it by default",
    ours="of the time: "
    + ", ".join(f"{k} {v:.2f}" for k, v in middles.items()),
    holds=arms.said(held, "of one core, with its noise"),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={f"{steps} updates, median of {rounds} processes in turns": table},
  )


if __name__ == "__main__":
  if len(sys.argv) == 4:
    print(json.dumps(updates(*sys.argv[1:3], int(sys.argv[3]))))
  else:
    run(*map(int, sys.argv[1:]))
