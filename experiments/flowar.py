"""What FlowAR claims and two cores can check (arXiv 2412.15205).

  python -m experiments.flowar [FOLDER] [digits | fashion_mnist] [--steps=N]
    [--seeds=N] [--short]

scikit-learn's digits or Fashion-MNIST at 16 pixels, equal budgets and sizes,
three seeds; of Fashion-MNIST the first 16,000 images to train on and 2000 to
test. The units of FlowAR are patches of 4 x 4 pixels; VAR's tokenizer is
trained first, in the folder, and once only:

(a) next-scale prediction with a flow per map beats VAR, which needs a
    multi-scale tokenizer of its own;
(b) a head modulated position by position beats one modulated by the mean of a
    map's hidden states, with the same parameters.
"""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any, NamedTuple

import jax

from ar_jax import data, main
from ar_jax.core.system import System, Vars, build
from ar_jax.systems.flowar import grid
from configs import flowar, var
from experiments.shared import arms, measures, record, toys
from experiments.shared.arms import Settings, Trained

STEPS, BATCH, RATE = 400, 32, 2e-3
POINTS = 25
MOST = 16_000, 2000  # images of the training and the test split
# Title, samples to measure.
SETS = {
  "digits": ("Digits at 16 px", 297),
  "fashion_mnist": ("Fashion-MNIST at 16 px", 1000),
}
OURS, POOLED, VAR = "FlowAR", "FlowAR, pooled hidden states", "VAR"


class Arm(NamedTuple):
  """A row: a system, its frozen tokenizer, options of sampling, and calls of
  the transformer and of the head for an image."""

  system: System
  frozen: Vars
  options: dict[str, Any]
  calls: tuple[int, int]


def arms_of(s: Settings, theirs, dataset: data.Dataset) -> dict[str, Arm]:
  """The three systems; `theirs` is VAR's staged config."""
  own = "multiscale_vq" + ("" if s.word == "digits" else f"_{s.word}")
  codes = toys.tokenizer(theirs.tokenizer, s.folder / own, s.short)
  model = flowar.get_config("digits").generator.model.to_dict()
  model["tokenizer"] = toys.patches(dataset, 4)
  flow_options = dict(guidance=1.5, times=POINTS)
  maps = len(build("flowar", **model).net.sides)
  calls = maps, maps * len(grid(POINTS)) - maps
  # The width that makes VAR, at its depth of 4, as large as FlowAR.
  vqvar = theirs.generator.model.to_dict() | dict(width=136, heads=4)
  pooled = build("flowar", **model | dict(pooled=True))
  return {
    OURS: Arm(build("flowar", **model), {}, flow_options, calls),
    POOLED: Arm(pooled, {}, flow_options, calls),
    VAR: Arm(
      build("var", **vqvar),
      codes,
      dict(theirs.generator.sample.options.to_dict(), guidance=1.5),
      (len(theirs.generator.model.tokenizer.scales), 0),
    ),
  }


def test_loss(own: Trained, units: data.Dataset) -> float:
  """The loss of the test split, for four draws of times and noise."""
  batch = data.batch_at(units.test, 0, batch=len(units.test), seed=0)
  loss = jax.jit(
    lambda variables, key: own.system.loss(
      variables, batch, key, train=False
    ).value.mean()
  )
  keys = jax.random.split(jax.random.key(0), 4)
  return statistics.mean(float(loss(own.variables, key)) for key in keys)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("flowar", steps=STEPS, words=tuple(SETS))
  title, n = SETS[s.word]
  n = s.fewer(n)
  theirs = var.get_config("default")
  theirs.tokenizer.data.name = s.word
  dataset = data.load(**theirs.tokenizer.data)
  systems = arms_of(s, theirs, dataset)
  most = (s.fewer(MOST[0], 200), s.fewer(MOST[1], 200))
  units = {
    k: toys.encoded(arm.system, dataset, arm.frozen, most)
    for k, arm in systems.items()
  }

  def make(seed: int, name: str) -> Trained:
    arm = systems[name]
    return arms.train(
      arm.system,
      units[name],
      steps=s.steps,
      batch=BATCH,
      seed=seed,
      lr=RATE,
      given={"tokenizer": arm.frozen},
      options=arm.options,
    )

  names = {id(arm.system): name for name, arm in systems.items()}

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = measures.score(own, dataset, seed=seed, features="judge", n=n)
    loss = test_loss(own, units[names[id(own.system)]])
    return found | {"seconds": own.seconds, "loss": loss}

  found = arms.compare(
    {name: functools.partial(make, name=name) for name in systems},
    measure,
    s.seeds,
  )
  mean, spread = found.mean, found.spread
  ahead = mean(VAR, "frechet") - mean(OURS, "frechet")
  most_spread = max(spread(OURS, "frechet"), spread(VAR, "frechet"))
  beats_var = ahead > most_spread
  beats_pooled = mean(OURS, "loss") < mean(POOLED, "loss")
  said = lambda yes: "holds" if yes else "does not hold"
  text = said(beats_var) if abs(ahead) > most_spread else "is within the spread"
  print(ahead, most_spread, text, said(beats_pooled), flush=True)
  if s.short:
    return
  record.write(
    "flowar" if s.word == "digits" else f"flowar_{s.word}",
    claim="(a) FlowAR is nearer to the data than VAR at equal size and "
    "budget; (b) hidden states position by position beat their mean.",
    paper="(a) FID 1.90 with 589M parameters, VAR-d20 2.95 with 600M; (b) the "
    "same direction",
    baseline="(a) VAR on its own tokenizer; (b) pooled hidden states, the "
    "same parameters",
    ours=f"(a) {mean(OURS, 'frechet'):.3f} +- {spread(OURS, 'frechet'):.3f} "
    f"against {mean(VAR, 'frechet'):.3f} +- {spread(VAR, 'frechet'):.3f}, "
    f"floor {mean(OURS, 'frechet_floor'):.3f}; (b) test loss "
    f"{mean(OURS, 'loss'):.4f} against {mean(POOLED, 'loss'):.4f}",
    holds=True
    if beats_var and beats_pooled
    else f"(a) {text}, (b) {said(beats_pooled)} at this size",
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{title}, {s.steps} steps of {BATCH}, judge": found.table(
        {
          "frechet": ("frechet", 3),
          "test loss": ("loss", 4),
          "ms/image": ("ms/image", 2),
          "seconds": ("seconds", 1),
        },
        floor={name: mean(name, "frechet_floor") for name in systems},
        parameters={
          name: measures.parameters(own.variables["params"])
          for name, own in found.trained.items()
        },
        **{
          what: {name: arm.calls[i] for name, arm in systems.items()}
          for i, what in enumerate(("transformer calls", "head calls"))
        },
      )
    },
  )


if __name__ == "__main__":
  run()
