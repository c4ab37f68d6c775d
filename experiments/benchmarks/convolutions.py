"""Convolutions on a CPU, by either of the two libraries that XLA has for them.

  python -m experiments.benchmarks.convolutions [ROUNDS] [--short]

Processes take turns: in one XLA hands convolutions to YNNPACK, as it does of
its own accord, in the other they are Eigen's, which
`ar_jax.cpu.quick_convolutions` asks for. Each times single convolutions, with
their gradients and without, and updates of default presets, batches read and
all.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

from ar_jax import main
from experiments.benchmarks import heap
from experiments.shared import arms, record

# Shape of the input, channels out, side of the kernel, stride, groups.
SHAPES = (
  ((2, 256, 256, 160), 160, 3, 1, 1),  # VAR's tokenizer
  ((2, 128, 128, 320), 320, 3, 1, 1),
  ((2, 128, 128, 160), 160, 3, 2, 1),
  ((2, 16, 16, 640), 640, 3, 1, 1),
  ((64, 32, 32, 32), 32, 3, 1, 1),  # small ones, as trained here
  ((64, 16, 16, 64), 64, 3, 1, 1),
  ((64, 8, 8, 128), 128, 3, 1, 1),
  ((64, 28, 28, 1), 32, 3, 1, 1),
  ((64, 16, 16, 64), 64, 1, 1, 1),
  ((64, 16, 16, 64), 64, 5, 1, 64),  # each channel by itself
  ((16, 2048, 32), 32, 7, 1, 1),  # sound
  ((4, 8, 32, 32, 32), 32, 3, 1, 1),  # video
)
CONFIGS = ("vq", "multiscale_vq", "pixelcnn")
KIND = "LIBRARY_FUSION_TYPE_INDIVIDUAL"
FLAG = f"--xla_cpu_experimental_ynn_fusion_type={KIND}_DOT,{KIND}_CONVOLUTION"
WAYS = {"YNNPACK": FLAG, "Eigen": ""}  # without it `cpu` sets its own
STEPS, WITHIN = 20, 1.05
LARGE = 2  # how many of the shapes are those of published tokenizers at work


def convolution(side: int, stride: int, groups: int, x, kernel):
  space = "DHW"[5 - x.ndim :]
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    [stride] * len(space),
    "SAME",
    dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    feature_group_count=groups,
  )


def seconds(f, *args, least: float = 0.5) -> float:
  """The quickest of at least three calls, and of half a second of them."""
  jax.block_until_ready(f(*args))
  taken: list[float] = []
  while len(taken) < 3 or sum(taken) < least:
    begun = time.perf_counter()
    jax.block_until_ready(f(*args))
    taken.append(time.perf_counter() - begun)
  return min(taken)


def measured(shapes, configs) -> dict[str, float]:
  """Milliseconds of each program, in this process."""
  main.set_up_devices()
  found = {}
  for shape, out, side, stride, groups in shapes:
    name = f"{'x'.join(map(str, shape))} to {out}, {side} wide"
    name += f", stride {stride}" * (stride > 1) + f", {groups} groups" * (
      groups > 1
    )
    kernel = (side,) * (len(shape) - 2) + (shape[-1] // groups, out)
    x, w = (
      jax.random.normal(jax.random.key(i), s)
      for i, s in enumerate((shape, kernel))
    )
    f = functools.partial(convolution, side, stride, groups)
    both = jax.grad(lambda x, w, f=f: jnp.square(f(x, w)).sum(), (0, 1))
    found[name] = 1e3 * seconds(jax.jit(f), x, w)
    found[f"{name}; with gradients"] = 1e3 * seconds(jax.jit(both), x, w)
  for name in configs:
    found[f"update of {name}"] = heap.updates(name, heap.KEPT, STEPS)["ms"]
  return found


def run(rounds: int = 3) -> None:
  """Measures and records."""
  begun = time.perf_counter()
  found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
  for i in range(rounds * len(WAYS)):
    way = list(WAYS)[i % len(WAYS)]
    done = subprocess.run(
      [sys.executable, "-m", __spec__.name, "--here", *sys.argv[1:]],
      env=os.environ | {"XLA_FLAGS": WAYS[way]},
      check=True,
      stdout=subprocess.PIPE,
    )
    found[way].append(json.loads(done.stdout.splitlines()[-1]))
  table, middles = [], {}
  for name in found["Eigen"][0]:
    ratios = sorted(
      a[name] / b[name]
      for a, b in zip(found["YNNPACK"], found["Eigen"], strict=True)
    )
    middles[name] = statistics.median(ratios)
    middle = {
      f"{way}, ms": f"{statistics.median(row[name] for row in rows):.4g}"
      for way, rows in found.items()
    }
    ratio = " ".join(f"{x:.2f}" for x in ratios)
    table.append({"program": name} | middle | {"YNNPACK / Eigen": ratio})
    print(table[-1], flush=True)
  updates = {k: v for k, v in middles.items() if k.startswith("update")}
  large = list(middles.values())[: 2 * LARGE]
  held = {
    "large ones sooner": min(large) >= WITHIN,
    "no update later": min(updates.values()) >= 1 / WITHIN,
  }
  record.write(
    "convolutions",
    claim="On a CPU large convolutions take less time where they are Eigen's "
    "rather than YNNPACK's, and no preset is updated later.",
    paper="none",
    baseline="YNNPACK, which XLA takes of its own accord",
    ours="YNNPACK's time over Eigen's: "
    + ", ".join(f"{v:.2f} for {k}" for k, v in list(middles.items())[:2])
    + "".join(f", {v:.2f} for an {k}" for k, v in updates.items())
    + f"; least {min(middles.values()):.2f}, for "
    + min(middles, key=lambda k: middles[k]),
    holds=arms.said(held, ""),
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={f"{rounds} processes of each in turns": table},
  )


if __name__ == "__main__":
  short = record.trial()
  if "--here" in sys.argv:
    shapes = SHAPES[-1:] if short else SHAPES
    print(json.dumps(measured(shapes, CONFIGS[:1] if short else CONFIGS)))
  else:
    run(*record.numbers(1))
