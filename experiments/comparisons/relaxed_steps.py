"""GSD and LANTERN over systems of many units a step: NAR and VAR.

  python -m experiments.comparisons.relaxed_steps [FOLDER] [--steps=N]
    [--seeds=N] [--short]

NAR on Fashion-MNIST as `experiments.comparisons.next_token` trains it, in
FOLDER/next_token, and VAR on digits as the experiments of scale-wise systems
do, for N steps, in FOLDER/scales; both may be links to the folders of those
experiments, and what is not yet trained there is trained. A model drafts for
itself, see `ar_jax.core.decoding.jacobi`. A forward of speculation reads a
whole image, one of the plain sampler what is new of it; that is what the
seconds say.
"""

from __future__ import annotations

import dataclasses
import time

import ml_collections

from ar_jax import data, main
from configs import var
from experiments.comparisons import next_token
from experiments.comparisons.next_token import Decoder
from experiments.shared import arms, record, scales
from experiments.shared.arms import Results

IMAGES = 250  # drawn for every distance
STEPS = 220  # of VAR
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


def table(found: Results) -> list[dict]:
  """A row for each decoder, over the seeds."""
  rows = next_token.table(found, "plain")
  for row, decoder in zip(rows, DECODERS, strict=True):
    row["fewer forwards than"] = decoder.base
    pairs = zip(
      found.every(decoder.base, "forwards"),
      found.every(decoder.name, "forwards"),
      strict=True,
    )
    row["by"] = arms.mean_spread([base / own for base, own in pairs])
  return rows


def further(found: Results, name: str) -> bool:
  """Whether its distance is above the plain sampler's by more than a spread."""
  spread = max(found.spread(k, "frechet") for k in (name, "plain"))
  return found.mean(name, "frechet") - found.mean("plain", "frechet") > spread


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("relaxed_steps", steps=STEPS)
  tokens = dataclasses.replace(
    s,
    folder=s.folder / "next_token",
    words=("fashion",),
    steps=s.steps if s.short else 0,
  )
  maps = dataclasses.replace(s, folder=s.folder / "scales", words=("digits",))
  runs = next_token.prepare(tokens, ("nar",))
  nar = {seed: around(*own["nar"]) for seed, own in runs.items()}
  arm = scales.Arm("VAR", var)
  every = {
    seed: around(*scales.prepare(arm, "digits", seed, maps)) for seed in s.seeds
  }
  digits = data.load(**var.get_config().generator.data)
  results = {
    name: next_token.compare(own, images, DECODERS, s, IMAGES)
    for name, own, images in (
      ("NAR, Fashion-MNIST", nar, next_token.dataset("fashion")),
      ("VAR, digits", every, digits),
    )
  }
  gains = {
    f"{rule}, {name.split(',')[0]}": found.mean("Jacobi, exact", "forwards")
    / found.mean(rule, "forwards")
    for name, found in results.items()
    for rule in ("GSD", "LANTERN")
  }
  each = [
    (decoder, name.split(",")[0], found)
    for name, found in results.items()
    for decoder in DECODERS[1:]
  ]
  failed = [
    f"{decoder.name}, {name}, over {base}"
    for decoder, name, found in each
    for base in dict.fromkeys((decoder.base, "plain"))
    if found.mean(base, "forwards") <= found.mean(decoder.name, "forwards")
  ]
  slow = [
    f"{decoder.name}, {name}"
    for decoder, name, found in each
    if found.mean(decoder.name, "over plain, 1") <= 1
  ]
  worse = [
    f"{decoder.name}, {name}"
    for decoder, name, found in each
    if further(found, decoder.name)
  ]
  print(gains, failed, slow, worse, flush=True)
  if s.short:
    return
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
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{name}, mean ± deviation over seeds, {IMAGES} images": table(found)
      for name, found in results.items()
    },
    law=next_token.LAW,
    decoders={d.name: d.options for d in DECODERS},
  )


if __name__ == "__main__":
  run()
