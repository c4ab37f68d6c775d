"""One member of every class of the survey (arXiv 2411.05902) at equal budget.

  python -m experiments.comparisons.taxonomy [FOLDER] [--steps=N] [--seeds=N]
    [--short]

scikit-learn's digits at 8 pixels, by class, as many updates of as many images
for all, networks of about 100,000 to 300,000 parameters:

(a) all classes run through one factorisation, and the samples of each are
    nearer to the data than those whose 2 x 2 cells come from different images
    of the class: perfect cells, and no context;
(b) the passes for a sample are those of the survey: H W of pixels, L of tokens,
    one a map of scales, fewer than L of masks.

Nothing is kept in the folder but the codes.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from ar_jax import data, main
from ar_jax.core.system import System, Vars, build
from experiments.shared import arms, measures, pictures, record, taxonomy, toys
from experiments.shared.arms import Trained

NAME = "taxonomy"
STEPS, BATCH = 300, 32
SIDE, PATCH, LEVELS, VOCAB = 8, 2, 17, 64
COUNT = 297  # samples, as many as there are test images
PIXELS = dict(name="given", levels=LEVELS, size=SIDE)
MAP = dict(name="patch_codes", vocab=VOCAB, patch=PATCH, size=SIDE)
MAPS = MAP | dict(form="pyramid", scales=(1, 2, SIDE // PATCH))
SMALL = dict(width=64, depth=3, heads=4, num_classes=10)


class Member(NamedTuple):
  """A member of a class.

  Attributes:
    of: the class, a key of `taxonomy.CLASSES`.
    system: its name.
    model: arguments of `build` beside the tokenizer.
    tokenizer: None for standardised patches.
    passes: of the survey, for a sample.
    lr: peak of the rate.
    options: of sampling.
    exact: whether its nats are a likelihood of the units.
  """

  of: str
  system: str
  model: dict[str, Any]
  tokenizer: dict[str, Any] | None
  passes: int
  lr: float = 3e-3
  options: dict[str, Any] = {}
  exact: bool = True


CELLS = (SIDE // PATCH) ** 2
MEMBERS = {
  "Gated PixelCNN": Member(
    taxonomy.PIXEL, "pixelcnn",
    dict(kind="gated", width=32, depth=5, num_classes=10),
    PIXELS | dict(form="pixels"), SIDE**2,
  ),
  "iGPT": Member(
    taxonomy.PIXEL, "igpt", SMALL, PIXELS | dict(form="levels"), SIDE**2
  ),
  "LlamaGen": Member(
    taxonomy.CODES, "llamagen", SMALL | dict(multiple_of=32, dropout=0.0), MAP,
    CELLS,
  ),
  "GIVT": Member(
    taxonomy.VECTORS, "cspd",
    SMALL | dict(multiple_of=32, dropout=0.0, components=8), None, CELLS,
  ),
  "VAR": Member(taxonomy.SCALES, "var", SMALL, MAPS, 3),
  "MAR": Member(
    taxonomy.BETWEEN, "mar",
    SMALL | dict(
      depth=2, prefix=4, head_depth=2, head_width=96, dropout=0.0, repeats=1,
    ),
    None, 8, 2e-3, dict(steps=8, denoise=25), False,
  ),
}  # fmt: skip


def model(member: Member, dataset: data.Dataset) -> System:
  codes = member.tokenizer or toys.patches(dataset, PATCH)
  return build(member.system, tokenizer=codes, **member.model)


def fitted(codes: dict[str, Any], dataset: data.Dataset) -> Vars:
  """The weights of a tokenizer of patches, fitted to the data."""
  own = dict(codes)
  system = build(own.pop("name"), **own)
  example = {"image": dataset.train[0]["image"][None]}
  variables = system.init(jax.random.key(0), example)
  variables = system.fitted(variables, dataset.train, 0)
  return variables["params"]["tokenizer"]


def passes(system: System, options: dict[str, Any]) -> int:
  """Of the network, for a sample."""
  if "steps" in options:
    return options["steps"]
  if hasattr(system, "forwards"):
    return system.forwards()
  return system.plan.steps


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings(NAME, steps=STEPS)
  dataset = data.load("digits", size=SIDE, channels=1, path="")
  systems = {arm: model(m, dataset) for arm, m in MEMBERS.items()}
  given = {
    name: {"tokenizer": fitted(member.tokenizer, dataset)}
    for name, member in MEMBERS.items()
    if member.tokenizer in (MAP, MAPS)
  }

  def make(seed: int, arm: str) -> Trained:
    member = MEMBERS[arm]
    return arms.train(
      systems[arm],
      dataset,
      steps=s.steps,
      batch=BATCH,
      seed=seed,
      lr=member.lr,
      ema=0.98,
      given=given.get(arm),
      options=member.options,
    )

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = measures.score(own, dataset, seed=seed, n=s.fewer(COUNT))
    arm = next(k for k, system in systems.items() if system == own.system)
    member, system = MEMBERS[arm], own.system
    nats = bits = math.nan
    if member.exact:
      measured = measures.likelihood(own, dataset)
      nats = measured["nats"]
      if member.of == taxonomy.PIXEL:
        bits = measured["bits_per_dim"]
    return found | {
      "bits": bits,
      "nats": nats,
      "passes": passes(system, member.options),
      "parameters": measures.parameters(own.variables["params"]),
      "seconds": own.seconds,
    }

  makers = {arm: functools.partial(make, arm=arm) for arm in MEMBERS}
  found = arms.compare(makers, measure, s.seeds)
  cells = measures.score(
    None, dataset, seed=0, n=s.fewer(COUNT),
    draw=toys.bootstrap(dataset, PATCH),
  )["frechet"]  # fmt: skip
  distance = {arm: np.array(found.every(arm, "frechet")) for arm in MEMBERS}
  held = {
    f"(a) {arm} nearer than cells without context": bool((d < cells).all())
    for arm, d in distance.items()
  } | {
    f"(b) passes of {arm}": found.mean(arm, "passes") == member.passes
    for arm, member in MEMBERS.items()
  }
  floor = found.mean("VAR", "frechet_floor")
  ours = (
    "distance of samples from the data: "
    + ", ".join(
      f"{arm} {arms.mean_spread(d.tolist(), 3)}" for arm, d in distance.items()
    )
    + f"; cells without context {cells:.3f}, real images {floor:.3f}"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  drawn = {k: measures.row_of_classes(v) for k, v in found.trained.items()}
  of = {arm: member.of for arm, member in MEMBERS.items()}
  # Who sees pixel by pixel has no plan: its units are the pixels.
  units = {
    arm: f"{len(own.system.plan or range(SIDE**2))} units"
    for arm, own in found.trained.items()
  }
  columns = {
    "forwards of a sample": ("passes", 0),
    "bits of a pixel": ("bits", 3),
    "nats of a unit": ("nats", 3),
    "distance": ("frechet", 3),
    "ms/image": ("ms/image", 1),
    "parameters": ("parameters", 0),
    "seconds of training": ("seconds", 0),
  }
  record.write(
    NAME,
    claim="(a) A member of every class of the survey learns digits by the same "
    "factorisation and command; (b) its passes for a sample are those of its "
    "class.",
    paper="no figure: the survey organises, it measures nothing",
    baseline=f"2 x 2 cells of other images of the class, {cells:.3f}; floor of "
    f"real images {floor:.3f}",
    ours=ours,
    holds=arms.said(
      held,
      f"{s.steps} updates of {BATCH} images leave all but the pixel models far "
      "from trained, those of vectors (GIVT, MAR) the farthest",
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px, {s.steps} steps of {BATCH}, principal components of "
      "the pixels, mean ± deviation over seeds": found.table(
        columns, "system", **{"class": of, "sequence": units}
      ),
    },
    picture=pictures.save(NAME, drawn, dataset.class_names),
  )


if __name__ == "__main__":
  run()
