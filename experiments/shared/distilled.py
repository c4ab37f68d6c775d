"""Small digits, a teacher of their units, and its students of one pass: what
the experiments about Distilled Decoding and fast decoders share.

The digits have 8 pixels and 16 codes of 2 x 2 pixels out of 32, by k-means. The
teacher is a LlamaGen that reads vectors, see `readers.CodeVectors`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data
from ar_jax.core.system import System, Vars, build, part
from experiments.shared import arms, kept
from experiments.shared.arms import Settings, Trained

VOCAB, SIDE, RATE, SECOND_RATE = 32, 4, 2e-3, 3e-3
LAW = dict(guidance=1.5)
TOKENIZER = dict(name="patch_codes", vocab=VOCAB, patch=2, size=8)
SIZES = dict(depth=2, width=48, heads=3)
NET = dict(
  name="llamagen", tokenizer=TOKENIZER, multiple_of=32, num_classes=10,
  dropout=0.0, token_dropout=0.0, reader="codes", **SIZES,
)  # fmt: skip
SMALL = dict(depth=2, repeats=2, guides=3)  # of DD2
PART, PILOT, TURNS = 500, 18, 2  # encoded at once; updates that are timed


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
  """What is trained for a seed, once each; the folder keeps it.

  Attributes:
    real: the digits.
    s: the folder; a trial trains all for a few updates.
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
    self.s.folder.mkdir(parents=True, exist_ok=True)
    self.codes = fitted(TOKENIZER, self.real)
    self.systems = {
      "teacher": model("gsd").target,
      "guide": model("dd2", stage="scores", **SMALL),
      "second": model("dd2", **SMALL),
      "first": model("dd1", starts=(0, 6), split=None),
    }
    self.target = self.systems["teacher"]
    for name in ("teacher", "guide", "second", "first"):
      make = functools.partial(self._kept, name, getattr(self, name))
      setattr(self, name, functools.cache(make))

  def _kept(self, name: str, make: Callable, seed: int) -> Trained:
    """What is in the folder; else it is made, and put there."""
    numbers = self.teacher_steps, self.score_steps, self.student_steps, seed
    path = self.s.folder / f"{'-'.join([name, *map(str, numbers)])}.pickle"
    if not path.exists():
      made = make(seed)
      kept.save(path, made.variables, made.seconds)
    variables, seconds = kept.load(path)
    options = LAW if name == "teacher" else {}
    return Trained(self.systems[name], variables, options, seconds)

  def teacher(self, seed: int) -> Trained:
    own = dict(batch=64, seed=seed, lr=3e-3, ema=0.98)
    steps = self.s.fewer(self.teacher_steps, self.s.steps)
    given = {"tokenizer": self.codes}
    return arms.train(self.target, self.real, **own, steps=steps, given=given)

  def beside(self, seed: int) -> Vars:
    """The frozen collections of what is around the teacher."""
    params = self.teacher(seed).variables["params"]
    return {"target": params, "tokenizer": self.codes}

  def guide(self, seed: int) -> Trained:
    """The first stage of DD2."""
    steps = self.s.fewer(self.score_steps, self.s.steps)
    made = self._trained("guide", self.rows("guide", seed), seed, steps)
    return made._replace(seconds=self.seconds("guide", steps))

  def second(self, seed: int) -> Trained:
    """DD2; its seconds are those of both stages."""
    system, guide = self.systems["second"], self.guide(seed)
    params = system.adopt("params", guide.variables["params"])
    steps, rows = self.s.fewer(self.student_steps, self.s.steps), self.labels()
    more = dict(lr=SECOND_RATE, given={"params": params})
    made = self._trained("second", rows, seed, steps, **more)
    spent = self.seconds("second", steps) + guide.seconds
    return made._replace(seconds=spent)

  def first(self, seed: int) -> Trained:
    """DD1, with a second pass behind six units, for as many seconds as DD2; the
    pairs are among them."""
    left = self.second(seed).seconds - self.seconds("first", 0)
    steps = self.s.fewer(int(left / self.pace()["first"]), self.s.steps)
    print(seed, "DD1", steps, "updates", flush=True)
    made = self._trained("first", self.rows("first", seed), seed, steps)
    return made._replace(seconds=self.seconds("first", steps))

  def seconds(self, name: str, steps: int) -> float:
    """What a student takes: its examples by the teacher, and updates."""
    pace = self.pace()
    return pace.get(f"rows of {name}", 0.0) + steps * pace[name]

  def pace(self) -> dict[str, float]:
    """Seconds of an update of each student, and of all examples by the teacher,
    without compilation, in turns: medians of TURNS. Measured once, and kept."""
    path = self.s.folder / "pace.json"
    if path.exists():
      return json.loads(path.read_text())
    first, found = self.s.seeds[0], collections.defaultdict(list)
    steps = min(PILOT, self.s.steps)
    for _ in range(TURNS + 1):
      for name in ("guide", "second", "first"):
        begun = time.perf_counter()
        rows = self.labels() if name == "second" else self.rows(name, first)
        found[f"rows of {name}"].append(time.perf_counter() - begun)
        made = self._trained(name, rows, first, steps)
        found[name].append(made.seconds / steps)
    found.pop("rows of second")
    pace = {k: statistics.median(v[1:]) for k, v in found.items()}
    print("seconds of an update", pace, flush=True)
    path.write_text(json.dumps(pace))
    return pace

  def labels(self) -> list[dict]:
    """What the second stage of DD2 learns from: classes alone."""
    return [{"label": np.int32(i % 10)} for i in range(100)]

  def rows(self, name: str, seed: int) -> list[dict]:
    """What a student learns from, by its teacher."""
    beside, found = self.beside(seed), []
    count = self.s.fewer(self.pairs, PART)
    for start in range(0, count, PART):
      index = jnp.arange(start, start + PART)
      made = jax.device_get(_encoded(self.systems[name], beside, index))
      made.pop("index")
      found += [{k: v[i] for k, v in made.items()} for i in range(PART)]
    return found[:count]

  def _trained(
    self, name: str, rows, seed: int, steps: int, given=None, lr: float = RATE
  ) -> Trained:
    known = dataclasses.replace(self.real, train=rows, test=rows, digest="")
    own = dict(batch=self.batch, seed=seed, lr=lr, ema=0.99, steps=steps)
    beside = self.beside(seed) | (given or {})
    return arms.train(self.systems[name], known, **own, given=beside)


@functools.partial(jax.jit, static_argnums=0)
def _encoded(system, variables, index):
  return system.encode(variables, {"label": index % 10, "index": index})


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
