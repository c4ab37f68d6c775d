"""Sampling speed of LlamaGen-B at full size, and of cached decoding.

  python -m experiments.benchmarks.llamagen [repeats | --short]

256 pixels, 256 units, float32, guidance 2, top-k 2000, batch 1 and 8: the form
in which the official code was timed on a machine of this kind. Beside each
rate stand two bounds, from a bandwidth and an arithmetic rate that are
measured here just before: a step reads every weight once, and multiplies
every weight with two rows for each image.
"""

from __future__ import annotations

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import main
from ar_jax.core.decoding import pick, steps
from ar_jax.core.system import System, build
from experiments.shared import full_size, record

OPTIONS = dict(guidance=2.0, top_k=2000)
# Units a second of the official PyTorch code, float32, 2 threads.
OFFICIAL = {1: 19.0, 8: 40.0}
AIM = {1: 1.2, 8: 2.0}


@functools.partial(jax.jit, static_argnums=(0, 1))
def generate(system, options, variables, label, keys):
  return system.generate(variables, {"label": label}, keys, **dict(options))


@functools.partial(jax.jit, static_argnums=0)
def recompute(system, variables, label, keys):
  """The same units without a cache: a whole pass for each of them."""

  def step(units, s, keys):
    logits = system.logits(variables, label, units)[:, s]
    new = pick.draw(pick.law(logits), keys)
    return units.at[:, s].set(new), new

  n = len(system.plan)
  units = jnp.zeros((len(label), n), jnp.int32)
  return steps.scan_steps(step, units, n, keys)[1]


def request(batch: int) -> tuple[jax.Array, jax.Array]:
  """(labels, keys)."""
  return jnp.arange(batch), jax.random.split(jax.random.key(0), batch)


def weights(system: System, variables) -> int:
  """Parameters that a step multiplies with: all but the look-up tables."""
  params = variables["params"]
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  return size(params["backbone"]) + size(params["head"])


def sampling(repeats: int) -> list[dict]:
  """A row for each batch size."""
  system = full_size.llamagen()
  variables = full_size.random_variables(system)
  variables = {k: v for k, v in variables.items() if k != "tokenizer"}
  count, options = weights(system, variables), tuple(OPTIONS.items())
  read, multiply = full_size.read_rate(), full_size.matmul_rate()
  rows = []
  for batch, official in OFFICIAL.items():
    run = functools.partial(
      generate, system, options, variables, *request(batch)
    )
    first, rest = full_size.timed(run, repeats)
    units = batch * len(system.plan)
    rate = units / statistics.median(rest)
    rows.append(
      {
        "batch": batch,
        "units/s": rate,
        "slowest": units / max(rest),
        "fastest": units / min(rest),
        "official units/s": official,
        "ratio": rate / official,
        "aim": AIM[batch],
        "bandwidth bound": batch * read / (4 * count),
        "arithmetic bound": multiply / (4 * count),
        "first call, s": first,
      }
    )
    print(rows[-1], flush=True)
  return rows


def caching(repeats: int) -> dict:
  """Cached against recomputed, 4 layers of width 256, 256 units."""
  system = build(
    "llamagen",
    tokenizer={"name": "vq", "vocab": 512},
    depth=4,
    width=256,
    heads=4,
    num_classes=10,
  )
  variables = full_size.random_variables(system)
  variables = {k: v for k, v in variables.items() if k != "tokenizer"}
  label, keys = request(1)
  cached = lambda: generate(system, (), variables, label, keys)
  again = lambda: recompute(system, variables, label, keys)
  _, fast = full_size.timed(cached, repeats)
  _, slow = full_size.timed(again, 1)
  row = {
    "units": len(system.plan),
    "cached, s": statistics.median(fast),
    "recomputed, s": statistics.median(slow),
    "ratio": statistics.median(slow) / statistics.median(fast),
    "equal units": float(np.mean(np.asarray(cached()) == np.asarray(again()))),
  }
  print(row, flush=True)
  return row


def run(repeats: int = 2) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  rows, cache = sampling(repeats), caching(repeats)
  reached = all(row["ratio"] >= row["aim"] for row in rows)
  text = "; ".join(
    f"{row['units/s']:.1f} units/s at batch {row['batch']}, "
    f"{row['ratio']:.2f}x (aim {row['aim']}x)"
    for row in rows
  )
  text += f"; cached {cache['ratio']:.1f}x recomputed (aim 8x)"
  record.write(
    "bench_llamagen",
    claim="LlamaGen-B draws units faster than the official PyTorch code on "
    "the same kind of machine, and a cache pays.",
    paper="not stated for CPUs",
    baseline="19 units/s at batch 1, 40 at batch 8 (PyTorch, float32, "
    "2 threads)",
    ours=text,
    holds=reached and cache["ratio"] >= 8 or f"not in full: {text}",
    seeds=[0],
    seconds=time.perf_counter() - begun,
    tables={"Sampling": rows, "Caching": [cache]},
    options={k: str(v) for k, v in OPTIONS.items()},
  )


if __name__ == "__main__":
  run(*record.numbers(1))
