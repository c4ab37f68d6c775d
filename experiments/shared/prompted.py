"""Models that draw digits from prompts, for the experiments on them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ar_jax import data, evals
from ar_jax.core.system import System, build
from configs import ear as config
from experiments.shared import arms, toys
from experiments.shared.arms import Trained

STEPS, BATCH, RATE = 500, 64, 3e-3
CONCEPT, IMAGES, GUIDANCE = 7, 200, 3.0


class Prompted:
  """Digits with prompts, their codes, and a Janus for each seed.

  Attributes:
    real: the data.
    codes: variables of the tokenizer.
    samples: drawn for every figure, half of them of the concept.
  """

  def __init__(self, s: arms.Settings):
    stages = config.get_config()
    self._settings, self.base = s, stages.base
    self._models: dict[int, Trained] = {}
    self.real = data.load(**stages.base.data)
    self.codes = toys.tokenizer(stages.tokenizer, s.folder / "tokenizer")
    self.samples = 2 * s.fewer(IMAGES)

  def evaluator(self, guidance: float) -> Callable:
    """What a judge sees where prompts are given; see `evals.safety.concept`."""
    return evals.build(
      "concept",
      self.real,
      concept=CONCEPT,
      n=self.samples // 2,
      options={"guidance": guidance},
    )

  @functools.cached_property
  def janus(self) -> System:
    return build("janus", **self.base.model.to_dict())

  def model(self, seed: int) -> Trained:
    """The model of a seed, trained once."""
    if seed not in self._models:
      self._models[seed] = arms.train(
        self.janus,
        self.real,
        steps=self._settings.steps,
        batch=BATCH,
        seed=seed,
        lr=RATE,
        ema=0.99,
        given={"tokenizer": self.codes},
        options={"guidance": GUIDANCE},
      )
    return self._models[seed]
