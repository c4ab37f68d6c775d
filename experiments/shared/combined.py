"""The parts of `experiments.comparisons.combinations`: what is trained of a
seed, once each, and what is drawn from it.

Digits of 16 pixels as 16 codes of 4 x 4 pixels, or as maps of them; and texts
of a Markov chain, of which every nat is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import conditions, data, evals
from ar_jax.core.system import System, Vars, build, part
from ar_jax.data.text import made
from ar_jax.evals.safety import mark_reader
from ar_jax.families.token.backspace import stack_draw
from configs.families import bit_maps
from experiments.shared import arms, measures, toys
from experiments.shared.arms import Settings, Trained

BATCH, LETTERS, LENGTH, ALPHA = 32, 62, 64, 0.01
PAIRS, PART = 2000, 500  # of a student; drawn at once
EDGES = dict(kind="sobel", threshold=0.3)
WORDS = "zero one two three four five six seven eight nine".split()
TEXTS = dict(length=LENGTH, symbols=LETTERS, sharpness=1.0, end=0.005)
SIZES = dict(depth=2, width=48, heads=3)
TOKEN = SIZES | dict(multiple_of=32, dropout=0.0, token_dropout=0.0)
MAPS = SIZES | dict(drop_path=0.0, gate_init=0.5)
CODES = dict(name="patch_codes", vocab=64, patch=4, size=16)
PYRAMID = CODES | dict(form="pyramid", scales=(1, 2, 3, 4))
RESIZED = CODES | dict(form="resized", scales=(1, 2, 4))
BITS = dict(name="patch_bits", bits=8, patch=4, scales=(1, 2, 4))
SYMBOLS = dict(name="given", form="tokens", vocab=LETTERS + 1, length=LENGTH)
LISTS = dict(always=(1, 2, 4), some=((1, (3,)),), limit=30)
# What is around others takes their names from here.
NETS = {
  "llamagen": dict(tokenizer=CODES, num_classes=10, **TOKEN),
  "controlar": dict(
    tokenizer=CODES, num_classes=10, **TOKEN | dict(depth=3),
    encoder=dict(depth=1, width=32, heads=2),
  ),
  "var": dict(tokenizer=PYRAMID, num_classes=10, **MAPS),
  "hmar": dict(tokenizer=PYRAMID, num_classes=10, tail=1, **MAPS),
  "flexvar": dict(
    tokenizer=RESIZED, num_classes=10, lists=LISTS, grid=8, **MAPS
  ),
  "infinity": dict(
    tokenizer=BITS, text=bit_maps.words(length=2, width=16), **MAPS
  ),
  "letters": dict(
    name="llamagen", tokenizer=SYMBOLS, num_classes=0, prefix_rope="line",
    **TOKEN,
  ),
  "sdar": dict(tokenizer=SYMBOLS, num_classes=0, block=4, **TOKEN),
}  # fmt: skip


def net(name: str, **more: Any) -> dict[str, Any]:
  """A system by its arguments, for whoever is around it."""
  return dict(dict(name=name), **NETS[name]) | more


@functools.cache
def model(name: str) -> System:
  """One of NETS."""
  return part(net(name))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _drawn(system, variables, cond, keys, options):
  found = system.generate(variables, cond, keys, **dict(options))
  units, spent = found if isinstance(found, tuple) else (found, None)
  n = jnp.float32(system.plan.steps)
  forwards = getattr(spent, "forwards", n)
  chance, trials = (getattr(spent, k, jnp.nan) for k in ("chance", "trials"))
  return (
    units,
    jnp.mean(forwards.astype(jnp.float32)),
    jnp.sum(chance) / jnp.sum(trials),
  )


@functools.partial(jax.jit, static_argnums=0)
def _encoded(system, variables, index):
  return system.encode(variables, {"label": index % 10, "index": index})


@functools.partial(jax.jit, static_argnums=0)
def _decoded(system, variables, units):
  while hasattr(system, "target"):
    system = system.target
  return system.decode(variables, units)


@functools.partial(jax.jit, static_argnums=0)
def _written(system, variables, keys, errors):
  given, none = (jnp.zeros((len(keys), n), jnp.int32) for n in (0, 1))
  made = stack_draw.draw(
    system.net, system.net_variables(variables), given, none[:, 0], keys,
    legal=system.legal, stop=system.stop, actions=system.actions,
    errors=errors,
  )  # fmt: skip
  return system.decode(variables, made.units)


@dataclasses.dataclass(eq=False)
class Bench:
  """Data, what is trained of a seed, and what is measured.

  Attributes:
    s: as the command line says.
    n: samples of an arm.
  """

  s: Settings
  n: int

  def __post_init__(self):
    derive = {
      "edges": EDGES,
      "prompts": dict(words=WORDS, templates=("{}",)),
    }
    known = dict(size=16, channels=1, path="", derive=derive)
    self.real = data.load("digits", **known)
    self.texts = data.load("markov_text", **TEXTS)
    law = {k: v for k, v in TEXTS.items() if k != "length"}
    self.chain = made.chain(**law)
    for name in ("frozen", "coded", "base", "after"):
      setattr(self, name, functools.cache(getattr(self, f"_{name}")))

  def _frozen(self, name: str) -> Vars:
    """The weights of the tokenizer of a net, fitted to the digits."""
    if NETS[name]["tokenizer"] is SYMBOLS:
      return {}
    codes = part(NETS[name]["tokenizer"])
    first = data.batch_at(self.real.train, 0, batch=1, seed=0)
    fresh = jax.device_get(codes.init(jax.random.key(0), first))
    return codes.fitted(fresh, self.real.train, 0)["params"]["tokenizer"]

  def _coded(self, name: str) -> data.Dataset:
    """The data of a net, images as their units."""
    if NETS[name]["tokenizer"] is SYMBOLS:
      return self.texts
    return toys.encoded(model(name), self.real, self.frozen(name))

  def train(
    self,
    system: System,
    name: str,
    seed: int,
    steps: int,
    given: Mapping[str, Any] | None = None,
    lr: float = 3e-3,
  ) -> Trained:
    """A system over the units of the net `name`."""
    beside = {"tokenizer": self.frozen(name)} | dict(given or {})
    return arms.train(
      system, self.coded(name), batch=BATCH, seed=seed, ema=0.98, lr=lr,
      steps=self.s.fewer(steps, self.s.steps), given=beside,
    )  # fmt: skip

  def _base(self, name: str, seed: int) -> Trained:
    """A net, trained for all of the updates."""
    return self.train(model(name), name, seed, self.s.steps)

  def _after(
    self, system: System, name: str, seed: int, beside: str = "params"
  ) -> Trained:
    """A system that begins with the weights of a net, or has them beside it,
    trained for a third of the updates."""
    params = system.adopt(beside, self.base(name, seed).variables["params"])
    steps = max(1, self.s.steps // 3)
    lr = 1e-3 if beside == "params" else 3e-3
    return self.train(system, name, seed, steps, {beside: params}, lr)

  def student(self, system: System, name: str, seed: int) -> Trained:
    """A distilled system, trained on pairs that the net `name` has drawn."""
    params = self.base(name, seed).variables["params"]
    beside, rows = {"target": params, "tokenizer": self.frozen(name)}, []
    for start in range(0, self.s.fewer(PAIRS, PART), PART):
      index = jnp.arange(start, start + PART)
      pairs = jax.device_get(_encoded(system, beside, index))
      pairs.pop("index")
      rows += [{k: v[i] for k, v in pairs.items()} for i in range(PART)]
    return arms.train(
      system, dataclasses.replace(self.real, train=rows, test=rows, digest=""),
      batch=BATCH, seed=seed, ema=0.98, lr=2e-3, steps=self.s.steps,
      given=beside,
    )  # fmt: skip

  def units(
    self, own: Trained, seed: int, cond: Mapping[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, float]]:
    """Units i32[n, L] for classes in turns, or for the conditions of test
    examples; and `forwards` and `acceptance` of drafts."""
    keys = jax.random.split(jax.random.key(1000 + seed), self.n)
    if cond is None:
      cond = conditions.truth(
        own.system, self.real, self.n, fields=own.system.needs
      )
    cond = {k: jnp.asarray(v) for k, v in cond.items()}
    options = tuple(sorted(own.options.items()))
    units, *spent = _drawn(own.system, own.variables, cond, keys, options)
    forwards, acceptance = map(float, spent)
    return np.asarray(units), dict(forwards=forwards, acceptance=acceptance)

  def marked(
    self, own: Trained, seed: int, field: str, label: bool
  ) -> tuple[np.ndarray, dict[str, float]]:
    """Units of a system of LBW by `own.options`, and how sure its detector is:
    `z` of the list that was used, `found` the share with p at most ALPHA,
    `green` the share of green units."""
    strength = dict(own.options)
    law = {k: strength.pop(k) for k in dict(strength) if k != "strength"}
    which = np.arange(self.n, dtype=np.int32) % own.system.pool.count
    inner = own.system.target
    vocab = own.system.pool.vocab
    # One program for all strengths.
    cond = {"green_list": which, "bias": jnp.zeros((self.n, vocab))}
    keys = jax.random.split(jax.random.key(1000 + seed), self.n)
    cond, _ = own.system.marked(own.variables, cond, keys, **strength)
    if label:
      cond["label"] = np.arange(self.n, dtype=np.int32) % 10
    drawn = Trained(inner, own.variables, law)
    units, spent = self.units(drawn, seed, cond)
    reader = mark_reader.reader_of(own.system, own.variables, field=field)
    found = reader.detector(units)
    rows = np.arange(self.n)
    return units, spent | {
      "z": float(found.z[rows, which].mean()),
      "found": float((found.pooled() <= ALPHA).mean()),
      "green": float(found.green[rows, which].mean()),
    }

  def surprise(self, units: np.ndarray) -> float:
    """Nats of a symbol under the chain that made the texts, up to the end."""
    ends = units == 0
    real = np.cumsum(ends, 1) - ends == 0
    said = np.maximum(self.chain.log_probability(units), np.log(1e-6))
    return float(-(said * real).sum() / real.sum())

  def decoded(self, own: Trained, units: np.ndarray) -> np.ndarray:
    """Images f32[n, H, W, 1] of units of a system around others."""
    return np.asarray(_decoded(own.system, own.variables, jnp.asarray(units)))

  def followed(self, own: Trained, units: np.ndarray) -> float:
    """F1 of the edges of what `units` has drawn for test examples."""
    images = self.decoded(own, units)

    def given(system, variables, cond, key, *, start, **_):
      del system, variables, key
      return {"image": images[start : start + len(cond["label"])]}

    judge = evals.build("control", self.real, edges=EDGES, n=self.n, draw=given)
    return judge(own.system, own.variables, None, jax.random.key(0))["f1"]

  def written(self, own: Trained, seed: int, errors: float) -> np.ndarray:
    """Images f32[n, H, W, 1] that a SequenceMatch writes while a share of its
    codes is replaced."""
    keys = jax.random.split(jax.random.key(1000 + seed), self.n)
    rate = jnp.float32(errors)
    return np.asarray(_written(own.system, own.variables, keys, rate))

  def judged(self, images: np.ndarray) -> dict[str, float]:
    """Of images f32[n, H, W, 1], classes in turns: the judge's accuracy and
    the Frechet distance of its features."""
    found = measures.quality(images, self.real)
    return dict(accuracy=found["judge_accuracy"], frechet=found["frechet"])

  def drawn(self, own: Trained, seed: int) -> dict[str, float]:
    """The same of samples, by the options of the arm."""
    images = measures.sampled(own, self.real, seed=1000 + seed, n=self.n)
    return self.judged(images)


def lbw(target: Mapping[str, Any], seed: int) -> System:
  """LBW around another system, by a key of the seed."""
  return build("lbw", target=target, key=f"seed {seed}", lists=4)
