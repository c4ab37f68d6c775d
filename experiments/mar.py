"""What MAR claims and two cores can check (arXiv 2406.11838).

  python -m experiments.mar [digits | fashion_mnist] [--steps=N] [--seeds=N]
    [--short]

scikit-learn's digits at 8 pixels, units of 2 x 2 pixels, or Fashion-MNIST at
16, units of 4 x 4; equal budgets, three seeds:

(a) masked autoregression in random order beats the raster order;
(b) it models what is between the units: its samples are nearer to the data
    than units drawn independently from those of the class, place by place.
"""

from __future__ import annotations

import functools
import time

from ar_jax import data, main
from ar_jax.core.decoding import refine
from ar_jax.core.plans import makers
from ar_jax.core.system import System, build
from experiments.shared import arms, measures, record, toys
from experiments.shared.arms import Trained

STEPS, BATCH, RATE = 500, 32, 2e-3
LENGTH = 16
# Title, side in pixels, side of a patch, samples to measure.
SETS = {
  "digits": ("Digits", 8, 2, 297),
  "fashion_mnist": ("Fashion-MNIST at 16 px", 16, 4, 1000),
}
SAMPLING = dict(denoise=50, guidance=1.0)

# Name of the arm -> arguments of `build`, steps of the sampler. The raster sees
# any number of units, so that all of its steps are trained; a random order is
# also given that law.
ANY = dict(mask_low=0.0, mask_std=None)
ARMS = {
  "random order, 8 steps": ({}, 8),
  "random order, 16 steps": ({}, 16),
  "random order, any share hidden, 16 steps": (ANY, 16),
  "raster order, 16 steps": (dict(order="raster", **ANY), 16),
}
FEW, OURS, _, RASTER = ARMS


def model(dataset: data.Dataset, patch: int, **arguments) -> System:
  """A small MAR on standardised patches."""
  return build(
    "mar",
    tokenizer=toys.patches(dataset, patch),
    depth=2,
    width=64,
    heads=4,
    prefix=4,
    head_depth=3,
    head_width=128,
    num_classes=10,
    dropout=0.0,
    repeats=1,
    **arguments,
  )


def head_calls(steps: int) -> int:
  """Of the head, for the units of an image."""
  sizes = makers.cosine(LENGTH, steps)
  widths = sum(len(r.sizes) * r.width for r in refine.stretches(sizes))
  return widths * SAMPLING["denoise"]


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("mar", steps=STEPS, words=tuple(SETS))
  name = s.word
  title, size, patch, n = SETS[name]
  n = s.fewer(n)
  dataset = data.load(name, size=size, channels=1, path="")
  independent = toys.bootstrap(dataset, patch)
  baseline = measures.score(None, dataset, seed=0, n=n, draw=independent)
  print("bootstrap", baseline, flush=True)

  @functools.cache
  def trained(seed: int, system: System) -> Trained:
    """The two samplers of one model do not need two runs."""
    budget = dict(steps=s.steps, batch=BATCH, seed=seed, lr=RATE)
    return arms.train(system, dataset, **budget)

  def make(seed: int, arguments: dict, steps: int) -> Trained:
    own = trained(seed, model(dataset, patch, **arguments))
    return own._replace(options=SAMPLING | dict(steps=steps))

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = measures.score(own, dataset, seed=seed, n=n)
    return found | {"seconds": own.seconds}

  found = arms.compare(
    {
      arm: functools.partial(make, arguments=own, steps=steps)
      for arm, (own, steps) in ARMS.items()
    },
    measure,
    s.seeds,
  )
  if s.short:
    return
  mean, spread = found.mean, found.spread
  own, other = found.every(OURS, "frechet"), found.every(RASTER, "frechet")
  wins = sum(a < b for a, b in zip(own, other, strict=True))
  better = mean(OURS, "frechet") < mean(RASTER, "frechet")
  beats = all(mean(arm, "frechet") < baseline["frechet"] for arm in (FEW, OURS))
  record.write(
    "mar" if name == "digits" else f"mar_{name}",
    claim="(a) Random order with masks beats raster order at an equal budget; "
    "(b) samples are nearer to the data than independent patches of the class.",
    paper="(a) FID falls from raster to random masked order, most of it by "
    "the order",
    baseline="(a) raster order; (b) class-wise bootstrap of patches, "
    f"{baseline['frechet']:.4f}",
    ours=f"(a) {mean(OURS, 'frechet'):.4f} +- {spread(OURS, 'frechet'):.4f} "
    f"against {mean(RASTER, 'frechet'):.4f} +- {spread(RASTER, 'frechet'):.4f}"
    f", better on {wins} of {len(own)} seeds; (b) {mean(OURS, 'frechet'):.4f}; "
    f"floor {mean(OURS, 'frechet_floor'):.4f}",
    holds=arms.said(
      {"(a)": better, "(b)": beats},
      "patches of (b) are those of real images; what is drawn after "
      f"{s.steps} steps of {BATCH} is {mean(OURS, 'frechet'):.1f} from the "
      f"data, they are {baseline['frechet']:.1f}",
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{title}, {s.steps} steps of {BATCH}, 64 pixel features": found.table(
        {
          "frechet": ("frechet", 4),
          "ms/image": ("ms/image", 2),
          "seconds": ("seconds", 1),
        },
        floor={arm: mean(arm, "frechet_floor") for arm in ARMS},
        parameters={
          arm: measures.parameters(own.variables["params"])
          for arm, own in found.trained.items()
        },
        **{
          "transformer calls": {arm: own[1] for arm, own in ARMS.items()},
          "head calls": {
            k: head_calls(steps) for k, (_, steps) in ARMS.items()
          },
        },
      )
    },
  )


if __name__ == "__main__":
  run()
