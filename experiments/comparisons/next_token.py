"""Five ways to draw the units of one tokenizer, side by side.

  python -m experiments.comparisons.next_token runs/next_token

Raster order (LlamaGen), exact speculation (EAGLE chain and tree, Jacobi),
LANTERN, GSD and NAR on the units of Fashion-MNIST. For every seed LlamaGen
and NAR are trained for equally many steps with equal batches and sizes, and
an EAGLE drafter for that LlamaGen; speculation draws from LlamaGen's own
weights. The tokenizer and the judge are the same for all. The folder keeps
every run: the command goes on where it stopped.

Forwards are those of the large network for one image. Seconds are those of
whole batches without the tokenizer's decoder, all decoders in turns, and a
ratio is the median over the turns.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import checkpoint, data, evals, main, train
from ar_jax.core.decoding import speculate
from ar_jax.core.system import System, build
from configs import gsd, lantern, llamagen, nar
from experiments.shared import record

SEEDS = (0, 1, 2)
STEPS, DRAFTER_STEPS, WIDTH, DEPTH = 200, 150, 128, 5
IMAGES = 500  # drawn for every distance
BATCHES, TURNS = (1, 16), 5
LAW = dict(guidance=1.75)
EXACT = dict(drafts=4, delta=0.0)
RELAXED = dict(drafts=4, delta=0.2, k=64)


class Decoder(NamedTuple):
  """A row of the table.

  Attributes:
    name: of the row.
    run: whose weights it takes.
    options: of `System.sample`.
    base: the row that its paper compares it with.
    paper: the paper's ratio of speed over that row, or None.
  """

  name: str
  run: str
  options: dict[str, Any]
  base: str = "raster"
  paper: str | None = None


DECODERS = (
  Decoder("raster", "llamagen", {}),
  Decoder("EAGLE chain, exact", "lantern", EXACT),
  Decoder("EAGLE tree, exact", "lantern", EXACT | dict(tree=(3, 4, 12))),
  Decoder("Jacobi, exact", "gsd", dict(window=8, size=1)),
  Decoder("LANTERN", "lantern", RELAXED, "EAGLE chain, exact", "1.75"),
  Decoder(
    "LANTERN, published residual",
    "lantern",
    RELAXED | dict(residual="official"),
    "EAGLE chain, exact",
    "1.75",
  ),
  Decoder("GSD", "gsd", dict(window=8, size=14), paper="3.7"),
  Decoder("NAR", "nar", {}, paper="L / (2 n - 1) forwards"),
)


def configs(folder: pathlib.Path, seed: int) -> dict:
  """name -> (config, folder) of the runs of a seed, in the order of need."""
  small = dict(width=WIDTH, depth=DEPTH, heads=4)
  at = lambda name: folder / f"{name}-{seed}"
  runs = {}
  for name, module in (("llamagen", llamagen), ("nar", nar), ("gsd", gsd)):
    c = module.get_config("fashion").generator
    (c.model.target if name == "gsd" else c.model).update(small)
    c.train.steps = c.train.save_every = STEPS
    runs[name] = c, at(name)
  runs["gsd"] = runs["gsd"][0], at("llamagen")  # the same weights
  c = lantern.get_config("fashion").drafter
  c.model.target.update(small)
  c.train.steps = c.train.save_every = DRAFTER_STEPS
  c.weights.target = str(at("llamagen"))
  runs["lantern"] = c, at("lantern")
  for c, _ in runs.values():
    c.seed, c.weights.tokenizer = seed, str(folder / "tokenizer")
  return runs


def prepare(folder: pathlib.Path) -> None:
  """Trains what is not yet trained."""
  train.run(llamagen.get_config("fashion").tokenizer, folder / "tokenizer")
  for seed in SEEDS:
    runs = configs(folder, seed)
    for name in ("llamagen", "nar", "lantern"):
      config, workdir = runs[name]
      workdir.mkdir(parents=True, exist_ok=True)
      first, own = folder / f"{name}-{SEEDS[0]}" / "units", workdir / "units"
      if name != "lantern" and first.exists() and not own.exists():
        own.symlink_to(first.resolve())  # the same for every seed
      train.run(config, workdir)


@functools.partial(jax.jit, static_argnums=(0, 4))
def generate(system, variables, label, keys, options):
  """(units, forwards f32[], acceptance f32[] or nan) of a batch."""
  drawn = system.generate(variables, {"label": label}, keys, **dict(options))
  units, stats = drawn if isinstance(drawn, tuple) else (drawn, None)
  if not isinstance(stats, speculate.Stats):
    return units, jnp.float32(system.plan.steps), jnp.nan
  summary = speculate.summary(stats, len(system.plan))
  return units, summary["forwards"], summary["acceptance"]


def request(system: System, decoder: Decoder, batch: int) -> Callable:
  """A function of variables that draws one batch."""
  label = jnp.arange(batch) % system.classes
  keys = jax.random.split(jax.random.key(0), batch)
  options = tuple(sorted((LAW | decoder.options).items()))
  return lambda variables: generate(system, variables, label, keys, options)


def seconds(
  loaded: dict, batch: int, decoders: Sequence[Decoder]
) -> dict[str, list[float]]:
  """name -> seconds a batch, one for each turn; compiled before."""
  runs = {}
  for decoder in decoders:
    system, variables = loaded[decoder.run]
    draw = request(system, decoder, batch)
    runs[decoder.name] = functools.partial(draw, variables)
  for run in runs.values():
    jax.block_until_ready(run())
  times = {name: [] for name in runs}
  for _ in range(TURNS):
    for name, run in runs.items():
      start = time.perf_counter()
      jax.block_until_ready(run())
      times[name].append(time.perf_counter() - start)
  return times


def measure(
  runs: dict,
  seed: int,
  dataset: data.Dataset,
  decoders: Sequence[Decoder],
  images: int = IMAGES,
) -> dict:
  """name -> figures of every decoder with the weights of one seed.

  Args:
    runs: name -> (config, folder).
    seed: of what is drawn.
    dataset: real images.
    decoders: the rows.
    images: drawn for every distance.
  """
  loaded = {
    name: (build(c.system, **c.model.to_dict()), checkpoint.load(workdir)[0])
    for name, (c, workdir) in runs.items()
  }
  rows = {}
  for decoder in decoders:
    system, variables = loaded[decoder.run]
    _, forwards, accepted = request(system, decoder, 100)(variables)
    rows[decoder.name] = {
      "forwards": float(forwards),
      "acceptance": float(accepted),
    }
    options = LAW | decoder.options
    for name in ("frechet", "judge_accuracy"):
      judge = evals.build(name, dataset, n=images, options=options)
      found = judge(system, variables, (), jax.random.key(seed))
      rows[decoder.name].update(
        {k: v for k, v in found.items() if isinstance(v, float)}
      )
    print(seed, decoder.name, rows[decoder.name], flush=True)
  for batch in BATCHES:
    times = seconds(loaded, batch, decoders)
    for decoder in decoders:
      own = np.array(times[decoder.name])
      row = rows[decoder.name]
      row[f"images/s, {batch}"] = batch / statistics.median(own)
      for base in {decoders[0].name, decoder.base}:
        ratio = statistics.median(np.array(times[base]) / own)
        row[f"over {base}, {batch}"] = ratio
  return rows


def mean_spread(values: list[float], digits: int = 2) -> str:
  """Mean and spread over the seeds."""
  if any(np.isnan(values)):
    return ""
  spread = statistics.stdev(values) if len(values) > 1 else 0.0
  return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"


def table(results: list[dict], decoders: Sequence[Decoder]) -> list[dict]:
  """A row for each decoder, over the seeds."""
  rows = []
  for decoder in decoders:
    every = lambda key, name=decoder.name: [r[name][key] for r in results]
    row = {
      "decoder": decoder.name,
      "forwards": mean_spread(every("forwards"), 1),
      "acceptance": mean_spread(every("acceptance")),
      "Frechet distance": mean_spread(every("frechet")),
      "judge accuracy": mean_spread(every("judge_accuracy"), 3),
    }
    for batch in BATCHES:
      row[f"images/s, batch {batch}"] = mean_spread(
        every(f"images/s, {batch}"), 1
      )
      row[f"over raster, batch {batch}"] = mean_spread(
        every(f"over raster, {batch}")
      )
    rows.append(row)
  return rows


def ratios(results: list[dict]) -> list[dict]:
  """A row for each decoder that its paper compares with another."""
  rows = []
  for decoder in DECODERS:
    if decoder.paper is None:
      continue
    own, base = decoder.name, decoder.base
    fewer = [r[base]["forwards"] / r[own]["forwards"] for r in results]
    row = {
      "decoder": own,
      "over": base,
      "paper": decoder.paper,
      "fewer forwards": mean_spread(fewer),
    }
    for batch in BATCHES:
      faster = [r[own][f"over {base}, {batch}"] for r in results]
      row[f"faster, batch {batch}"] = mean_spread(faster)
    rows.append(row)
  return rows


def verdict(against: list[dict]) -> bool | str:
  """Whether every decoder is faster, in forwards and seconds; else which are
  not, and why."""
  mean = lambda text: float(text.split()[0])
  failed = lambda key: [r["decoder"] for r in against if mean(r[key]) <= 1]
  more, slow = failed("fewer forwards"), failed("faster, batch 1")
  if not more and not slow:
    return True
  return (
    f"in forwards {'not of ' + ', '.join(more) if more else 'of all'}; in "
    f"seconds at batch 1 not of {', '.join(slow) or 'none'}: on two cores and "
    "at this size a forward costs what its rows cost, and what surrounds it"
  )


def run(folder: str) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  folder = pathlib.Path(folder)
  prepare(folder)
  dataset = data.load(**llamagen.get_config("fashion").generator.data)
  results = [
    measure(configs(folder, seed), seed, dataset, DECODERS) for seed in SEEDS
  ]
  against = ratios(results)
  record.write(
    "next_token",
    claim="On the units of one tokenizer, with equal training: GSD is faster "
    "than raster order, LANTERN than exact speculation with the same drafter, "
    "and NAR needs 2 n - 1 forwards, all at about the same quality.",
    paper="GSD 3.7x over raster order; LANTERN 1.75x over exact speculation; "
    "NAR 2 n - 1 forwards (15 of 64 here)",
    baseline="LlamaGen in raster order with a cache; EAGLE chain, exact",
    ours="; ".join(
      f"{row['decoder']} {row['fewer forwards']}x fewer forwards and "
      f"{row['faster, batch 1']}x faster at batch 1 than {row['over']}"
      for row in against
    ),
    holds=verdict(against),
    seeds=list(SEEDS),
    seconds=time.perf_counter() - begun,
    tables={
      f"Fashion-MNIST, 8x8 units, {STEPS} steps, mean ± deviation over seeds, "
      f"{IMAGES} images": table(results, DECODERS),
      "Against the papers": against,
      "Real images": [
        {
          "Frechet distance, floor": results[0]["raster"]["frechet_floor"],
          "judge accuracy": results[0]["raster"]["judge_test_accuracy"],
        }
      ],
    },
    law=LAW,
    decoders={d.name: d.options for d in DECODERS},
  )


if __name__ == "__main__":
  run(sys.argv[1])
