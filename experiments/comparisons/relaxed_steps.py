"""GSD and LANTERN over systems of many units a step: NAR and VAR.

  python -m experiments.comparisons.relaxed_steps \\
    runs/next_token runs/scales 220

The folders are those of `experiments.comparisons.next_token` (NAR on
Fashion-MNIST) and of the experiments of scale-wise systems (VAR on digits, so
many steps); what is not yet trained there is trained. A model drafts for
itself, see `ar_jax.core.decoding.jacobi`. A forward of speculation reads a
whole image, one of the plain sampler what is new of it; that is what the
seconds say.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import time

import ml_collections

from ar_jax import data, main
from configs import llamagen, var
from experiments.comparisons import next_token
from experiments.comparisons.next_token import Decoder
from experiments.shared import record, scales

IMAGES = 250  # drawn for every distance
DECODERS = (
  Decoder("plain", "target", {}, "plain"),
  Decoder("Jacobi, exact", "gsd", dict(size=1), "plain"),
  Decoder("GSD", "gsd", dict(size=14), "Jacobi, exact"),
  Decoder("LANTERN", "lantern", dict(k=64, delta=0.2), "Jacobi, exact"),
)


def around(config, workdir) -> dict:
  """name -> (config, folder): a run, and the systems around it."""
  target = {"name": config.system, **config.model.to_dict()}
  runs = {"target": (config, workdir)}
  for name, own in (("gsd", {}), ("lantern", {"drafter": "itself"})):
    c = config.copy_and_resolve_references()
    c.system = name
    c.model = ml_collections.ConfigDict({"target": target, **own})
    runs[name] = c, workdir
  return runs


def table(results: list[dict]) -> list[dict]:
  """A row for each decoder, over the seeds."""
  rows = []
  for decoder in DECODERS:
    every = lambda key, name=decoder.name: [r[name][key] for r in results]
    fewer = [
      r[decoder.base]["forwards"] / r[decoder.name]["forwards"] for r in results
    ]
    row = {
      "decoder": decoder.name,
      "forwards": next_token.mean_spread(every("forwards"), 1),
      "acceptance": next_token.mean_spread(every("acceptance")),
      "fewer than": decoder.base,
      "by": next_token.mean_spread(fewer),
      "Frechet distance": next_token.mean_spread(every("frechet")),
      "judge accuracy": next_token.mean_spread(every("judge_accuracy"), 3),
    }
    for batch in next_token.BATCHES:
      row[f"images/s, batch {batch}"] = next_token.mean_spread(
        every(f"images/s, {batch}"), 1
      )
    rows.append(row)
  return rows


def further(results: list[dict], name: str) -> bool:
  """Whether its distance is above the plain sampler's by more than a spread."""
  own, plain = (
    [r[decoder]["frechet"] for r in results] for decoder in (name, "plain")
  )
  spread = max(map(statistics.stdev, (own, plain)))
  return statistics.mean(own) - statistics.mean(plain) > spread


def run(args: list[str]) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  tokens, *rest = args
  tokens, b = pathlib.Path(tokens).resolve(), scales.budget([*rest, "digits"])
  next_token.prepare(tokens)
  fashion = data.load(**llamagen.get_config("fashion").generator.data)
  digits = data.load(**var.get_config().generator.data)
  arm = scales.Arm("VAR", var)
  results = {"NAR, Fashion-MNIST": [], "VAR, digits": []}
  for seed in next_token.SEEDS:
    nar = around(*next_token.configs(tokens, seed)["nar"])
    maps = around(*scales.prepare(arm, "digits", seed, b))
    for found, runs, images in zip(
      results.values(), (nar, maps), (fashion, digits), strict=True
    ):
      found.append(next_token.measure(runs, seed, images, DECODERS, IMAGES))
  tables = {
    f"{name}, mean ± deviation over seeds, {IMAGES} images": table(rows)
    for name, rows in results.items()
  }
  mean = lambda rows, name: statistics.mean(r[name]["forwards"] for r in rows)
  gains = {
    f"{rule}, {name.split(',')[0]}": mean(rows, "Jacobi, exact")
    / mean(rows, rule)
    for name, rows in results.items()
    for rule in ("GSD", "LANTERN")
  }
  failed = [
    f"{decoder.name}, {name.split(',')[0]}, over {base}"
    for name, rows in results.items()
    for decoder in DECODERS[1:]
    for base in dict.fromkeys((decoder.base, "plain"))
    if mean(rows, base) <= mean(rows, decoder.name)
  ]
  slow = [
    f"{decoder.name}, {name.split(',')[0]}"
    for name, rows in results.items()
    for decoder in DECODERS[1:]
    if statistics.mean(r[decoder.name]["over plain, 1"] for r in rows) <= 1
  ]
  worse = [
    f"{decoder.name}, {name.split(',')[0]}"
    for name, rows in results.items()
    for decoder in DECODERS[1:]
    if further(rows, decoder.name)
  ]
  record.write(
    "relaxed_steps",
    claim="Where a step has many units, a relaxed rule still takes fewer "
    "forwards than exact speculation, and both fewer than the plain sampler, "
    "at about the same quality.",
    paper="none measures it: GSD and LANTERN draw one unit a step",
    baseline="the plain sampler of each, with its cache",
    ours="fewer forwards than exact Jacobi decoding: "
    + "; ".join(f"{name} {gain:.2f}x" for name, gain in gains.items()),
    holds=f"in forwards {'not of ' + '; '.join(failed) if failed else 'of all'}"
    f"; further from the data than the plain sampler: "
    f"{'; '.join(worse) or 'none'}; slower at batch 1: "
    f"{'; '.join(slow) or 'none'}",
    seeds=list(next_token.SEEDS),
    seconds=time.perf_counter() - begun,
    tables=tables,
    law=next_token.LAW,
    decoders={d.name: d.options for d in DECODERS},
  )


if __name__ == "__main__":
  run(sys.argv[1:])
