"""Small digits, a teacher of their units, and its students of one pass: what
the experiments about Distilled Decoding and fast decoders share.

The digits have 8 pixels and 16 codes of 2 x 2 pixels out of 32, by k-means. The
teacher is a LlamaGen that reads vectors, see `readers.CodeVectors`.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data
from ar_jax.core.system import System, Vars, build, part
from experiments.shared import arms
from experiments.shared.arms import Settings, Trained

VOCAB, SIDE, RATE = 32, 4, 2e-3
LAW = dict(guidance=1.5)
TOKENIZER = dict(name="patch_codes", vocab=VOCAB, patch=2, size=8)
SIZES = dict(depth=2, width=48, heads=3)
NET = dict(
  name="llamagen", tokenizer=TOKENIZER, multiple_of=32, num_classes=10,
  dropout=0.0, token_dropout=0.0, reader="codes", **SIZES,
)  # fmt: skip
SMALL = dict(depth=2, repeats=2, guides=2)  # of DD2
PART, PILOT = 500, 20  # examples encoded at once; updates that are timed


@functools.cache
def model(name: str, **options) -> System:
  """A system around the teacher, which draws by LAW."""
  if name in ("dd1", "dd2"):
    options["pairs"] = LAW
  return build(name, target=NET, **options)


def fitted(tokenizer: dict, real: data.Dataset) -> Vars:
  """The weights of a tokenizer of patches, by k-means of the digits."""
  made = part(tokenizer)
  like = {"image": np.zeros((1, 8, 8, 1), np.uint8)}
  fresh = made.init(jax.random.key(0), like)
  return made.fitted(fresh, real.train, 0)["params"]["tokenizer"]


@dataclasses.dataclass(eq=False)
class Runs:
  """What is trained for a seed, once each.

  Attributes:
    real: the digits.
    s: a trial trains all for a few updates.
    teacher_steps, score_steps, student_steps: updates of the teacher, and of
      the two stages of DD2.
    batch: of these stages, and of DD1.
    pairs: from which the first stage and DD1 learn.
  """

  real: data.Dataset
  s: Settings
  teacher_steps: int
  score_steps: int
  student_steps: int
  batch: int = 32
  pairs: int = 2000

  def __post_init__(self):
    self.codes = fitted(TOKENIZER, self.real)
    self.target = model("gsd").target
    for name in ("teacher", "guide", "second", "first"):
      setattr(self, name, functools.cache(getattr(self, name)))

  def teacher(self, seed: int) -> Trained:
    own = dict(batch=64, seed=seed, lr=3e-3, ema=0.98, options=LAW)
    steps = self.s.fewer(self.teacher_steps, self.s.steps)
    given = {"tokenizer": self.codes}
    return arms.train(self.target, self.real, **own, steps=steps, given=given)

  def beside(self, seed: int) -> Vars:
    """The frozen collections of what is around the teacher."""
    params = self.teacher(seed).variables["params"]
    return {"target": params, "tokenizer": self.codes}

  def guide(self, seed: int) -> Trained:
    """The first stage of DD2."""
    system = model("dd2", stage="scores", **SMALL)
    learned, spent = self._rows(system, seed)
    steps = self.s.fewer(self.score_steps, self.s.steps)
    return self._trained(system, learned, seed, steps, spent)

  def second(self, seed: int) -> Trained:
    """DD2; its seconds are those of both stages."""
    system, guide = model("dd2", **SMALL), self.guide(seed)
    params = system.adopt("params", guide.variables["params"])
    labels = [{"label": np.int32(i % 10)} for i in range(100)]
    steps = self.s.fewer(self.student_steps, self.s.steps)
    more = dict(lr=RATE / 2, given={"params": params})
    return self._trained(system, labels, seed, steps, guide.seconds, **more)

  def first(self, seed: int) -> Trained:
    """DD1, with a second pass behind six units, for as many seconds as DD2; the
    pairs are among them."""
    system = model("dd1", starts=(0, 6), split=None)
    learned, spent = self._rows(system, seed)
    pilot = self._trained(system, learned, seed, min(PILOT, self.s.steps))
    left = max(self.second(seed).seconds - spent, 1.0)
    steps = self.s.fewer(int(left * PILOT / pilot.seconds), self.s.steps)
    print(seed, "DD1", steps, "updates", flush=True)
    return self._trained(system, learned, seed, steps, spent)

  def _rows(self, system: System, seed: int) -> tuple[list[dict], float]:
    """What a student learns from, by its teacher, and the seconds it took."""
    encode, beside, found = jax.jit(system.encode), self.beside(seed), []
    count, begun = self.s.fewer(self.pairs, PART), time.perf_counter()
    for start in range(0, count, PART):
      index = jnp.arange(start, start + PART)
      made = encode(beside, {"label": index % 10, "index": index})
      made = jax.device_get(made)
      made.pop("index")
      found += [{k: v[i] for k, v in made.items()} for i in range(PART)]
    return found[:count], time.perf_counter() - begun

  def _trained(
    self, system, rows, seed, steps, spent=0.0, given=None, lr=RATE
  ) -> Trained:
    known = dataclasses.replace(self.real, train=rows, test=rows, digest="")
    own = dict(batch=self.batch, seed=seed, lr=lr, ema=0.99, steps=steps)
    beside = self.beside(seed) | (given or {})
    made = arms.train(system, known, **own, given=beside)
    return made._replace(seconds=made.seconds + spent)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _drawn(system, variables, label, keys, options):
  found = system.generate(variables, {"label": label}, keys, **dict(options))
  return found if isinstance(found, tuple) else (found, None)


def drawn(own: Trained, label, keys) -> tuple[jax.Array, float]:
  """Units i32[B, L] or vectors f32[B, L, C] by the options of an arm, and the
  forwards that one took, or nan where the arm does not count them."""
  static = tuple(sorted(own.options.items()))
  units, counts = _drawn(own.system, own.variables, label, keys, static)
  spent = getattr(counts, "forwards", np.nan)
  return units, float(np.mean(spent))


@functools.partial(jax.jit, static_argnums=0)
def _shown(system, variables, units):
  if jnp.issubdtype(units.dtype, jnp.floating):
    return system.decoded(variables, units)
  while hasattr(system, "target"):
    system = system.target
  return system.decode(variables, units)


def show(own: Trained, units) -> np.ndarray:
  """Images f32[N, 8, 8, 1] in [0, 1] of units or vectors."""
  return np.asarray(_shown(own.system, own.variables, units))


def images(own: Trained, seed: int, n: int) -> tuple[np.ndarray, ...]:
  """Images f32[n, 8, 8, 1] in [0, 1], classes in turns; what they are made of;
  and the forwards of one."""
  label = jnp.arange(n, dtype=jnp.int32) % 10
  units, spent = drawn(own, label, jax.random.split(jax.random.key(seed), n))
  return show(own, units), units, spent
