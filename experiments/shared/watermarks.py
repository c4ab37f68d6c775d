"""Marks of green lists, drawn and put into images, and what is left of them;
for `experiments.lbw`."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data
from ar_jax.core.decoding import speculate
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import System, Vars, build
from ar_jax.evals.images import pairs
from ar_jax.evals.images.features import features
from ar_jax.evals.safety import attacks as attacked
from ar_jax.evals.safety import mark_reader, spread_spectrum, watermark
from experiments.shared import arms
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 120, 16, 3e-3
SIDE, IMAGES, CLEAN = 28, 100, 150
ALPHA, LISTS, NOBODY, PIXEL_KEYS = 0.01, 4, 300, 50
FITTED = 300  # images that codes and judge are fitted to, at least
CODES = dict(name="patch_codes", vocab=256, size=SIDE, in_channels=1)
SIZES = dict(depth=3, width=64, heads=4, num_classes=10)
MAP = CODES | dict(patch=2)
MAPS = CODES | dict(patch=4, form="pyramid", scales=(1, 2, 3, 4, 5, 6, 7))
HOSTS = {
  "LlamaGen": dict(name="llamagen", tokenizer=MAP, multiple_of=32, **SIZES),
  "VAR": dict(name="var", tokenizer=MAPS, **SIZES),
}
OTHER = CODES | dict(patch=4, vocab=512)  # another tokenizer, for regeneration
# What is drawn: the lists, and who draws.
DRAWS = {
  "delta 0": (dict(strength=0.0), None),
  "delta 1": (dict(strength=1.0), None),
  "delta 2": (dict(strength=2.0), None),
  "delta 4": (dict(strength=4.0), None),
  "hard": (dict(hard=True), None),
  "delta 4, exact speculation": (dict(strength=4.0), dict(size=1)),
}
GROWING = tuple(DRAWS)[:5]
MARKED, FAST = "delta 4", "delta 4, exact speculation"
AGAIN, DENOISED = "another VQ", "denoise:0.1"
ATTACKS = (
  "none", "noise:0.05", "noise:0.1", "blur:0.7", "jpeg:50", AGAIN, DENOISED
)  # fmt: skip


def fitted(codes: dict, real: data.Dataset, seed: int = 0) -> tuple:
  """(a tokenizer as a system, its variables), fitted to images."""
  system = build(
    codes["name"], **{k: v for k, v in codes.items() if k != "name"}
  )
  fresh = system.init(jax.random.key(seed), {"image": _some(real.train, 1)})
  return system, system.fitted(fresh, _part(real.train, FITTED), seed)


def smaller(real: data.Dataset) -> data.Dataset:
  """The set with fewer examples, which the judge is trained on in seconds."""
  train, test = (_part(x, n) for x, n in ((real.train, 6000), (real.test, 800)))
  return dataclasses.replace(real, train=train, test=test, digest="")


def _part(source, most: int) -> list:
  rows = np.linspace(0, len(source) - 1, min(most, len(source)))
  return [source[int(i)] for i in rows]


def _some(source, n: int) -> np.ndarray:
  return np.stack([source[i]["image"] for i in range(n)])


def _by_class(source, start: int, n: int) -> np.ndarray:
  """Images from `start` on, classes in turns."""
  found, i = [], start
  while len(found) < n:
    row = source[i % len(source)]
    if row["label"] == len(found) % 10:
      found.append(row["image"])
    i += 1
  return np.stack(found)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _draw(system, variables, cond, keys, options):
  """(units, forwards f32[]) of a batch."""
  drawn = system.generate(variables, cond, keys, **dict(options))
  units, stats = drawn if isinstance(drawn, tuple) else (drawn, None)
  if not isinstance(stats, speculate.Stats):
    return units, jnp.float32(system.plan.steps)
  return units, speculate.summary(stats, len(system.plan))["forwards"]


@functools.partial(jax.jit, static_argnums=0)
def _decode(system, variables, units):
  return system.decode(variables, units)


class Bench:
  """Everything that a seed measures with."""

  def __init__(self, s: arms.Settings, real: data.Dataset):
    self.s, self.real = s, real
    self.n = s.fewer(IMAGES, 20)
    self.clean = _some(real.test, s.fewer(CLEAN, 40))
    self.others = _by_class(real.test, len(self.clean), self.n)
    self.judge = features("judge", real, steps=s.fewer(300))
    for name in ("trained", "reader", "chance"):
      setattr(self, name, functools.cache(getattr(self, name)))
    self.frozen = {}
    for name, host in HOSTS.items():
      tokenizer = fitted(host["tokenizer"], real)[1]["params"]["tokenizer"]
      self.frozen[name] = tokenizer
    self.attacks = {"none": lambda images, seed: images}
    for name in ATTACKS[1:]:
      if name == AGAIN:
        own = attacked.by_tokenizer(*fitted(OTHER, real, 1), 200)
      else:
        own = attacked.attack(name, real, steps=s.fewer(200))
      self.attacks[name] = own

  def lbw(self, host: str, seed: int, around: str | None = None) -> System:
    target = HOSTS[host]
    if around:
      target = dict(name=around, target=target)
    return build("lbw", target=target, key=f"seed {seed}", lists=LISTS)

  def trained(self, host: str, seed: int) -> Vars:
    system = self.lbw(host, seed).target
    given = {"tokenizer": self.frozen[host]}
    own = dict(steps=self.s.steps, batch=BATCH, lr=RATE, ema=0.98)
    return arms.train(
      system, self.real, seed=seed, given=given, **own
    ).variables

  def reader(self, host: str, seed: int, null: str = "unique"):
    return mark_reader.reader_of(
      self.lbw(host, seed), {"tokenizer": self.frozen[host]}, null=null
    )

  def chance(self, host: str, seed: int, null: str = "unique") -> dict:
    """What test images look like under keys that nobody used."""
    own = self.reader(host, seed, null)
    return watermark.of_chance(own, self.clean, ALPHA, NOBODY)

  def drawn(self, own: Trained, lists: dict, seed: int):
    """(units, images u8, lists, forwards) of an arm."""
    n, batch = self.n, min(100, self.n)
    units, forwards = [], []
    which = np.arange(n, dtype=np.int32) % LISTS
    for start in range(0, n, batch):
      index = start + np.arange(batch)
      key = jax.random.key(1000 + seed)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
      asked = {"label": index % 10, "green_list": which[index]}
      cond, options = own.system.marked(own.variables, asked, keys, **lists)
      none = jnp.zeros((batch, CODES["vocab"]))  # one program for all
      cond = {"label": jnp.asarray(index % 10), "bias": cond.get("bias", none)}
      options = tuple(sorted((options | dict(own.options)).items()))
      made = _draw(own.system.target, own.variables, cond, keys, options)
      units.append(np.asarray(made[0]))
      forwards.append(float(made[1]))
    units = np.concatenate(units)
    images = [
      _decode(own.system.drawn_from, own.variables, units[i : i + batch])
      for i in range(0, n, batch)
    ]
    return units, to_uint8(np.concatenate(images)), which, np.mean(forwards)


def sampled(bench: Bench, host: str):
  """Arms and their measure: marks that are drawn."""
  shown: dict[str, np.ndarray] = {}

  def make(seed: int, draw: str) -> Trained:
    own = DRAWS[draw][1]
    system = bench.lbw(host, seed, None if own is None else "gsd")
    options = {} if own is None or host == "VAR" else dict(window=8)
    return Trained(system, bench.trained(host, seed), options | (own or {}))

  def measure(own: Trained, seed: int, draw: str) -> dict[str, float]:
    units, images, which, forwards = bench.drawn(own, DRAWS[draw][0], seed)
    shown.setdefault(f"{host}, {draw}", images[:10])
    reader, level = bench.reader(host, seed), bench.chance(host, seed)["p"]
    lists = reader.detector.lists[which]
    said = bench.judge.embed(images).logits.argmax(1)
    seen, p = reader.look(images)
    best, sure = seen.best, p <= ALPHA
    found = {
      "drawn_green": float(np.take_along_axis(lists, units, 1).mean()),
      "right_of_found": float((best == which)[sure].mean())
      if sure.any()
      else 0.0,
      "accuracy": float((said == np.arange(len(said)) % 10).mean()),
      "retention": float((reader.units(images) == units).mean()),
      "forwards": float(forwards),
    }
    for null in ("permutation", "binomial"):
      other = bench.reader(host, seed, null)
      level_of = bench.chance(host, seed, null)["p"]
      after = watermark.scored(other, images, which, ALPHA, level_of)
      found |= {f"{k} {null}": after[k] for k in ("z", "tpr_at_1_fpr")}
    for name, attack in bench.attacks.items():
      if name == "none" or draw == MARKED:
        after = watermark.scored(
          reader, attack(images, seed), which, ALPHA, level
        )
        found |= {f"{k} {name}": v for k, v in after.items()}
    return found

  made = {k: functools.partial(make, draw=k) for k in DRAWS}
  parts = [
    arms.compare({k: v}, functools.partial(measure, draw=k), bench.s.seeds)
    for k, v in made.items()
  ]
  runs = dict(itertools.chain.from_iterable(p.runs.items() for p in parts))
  return arms.Results(runs, {}), shown


def embedded(bench: Bench) -> tuple[arms.Results, dict[str, np.ndarray]]:
  """Marks that are put into test images, each beside one in pixels of the same
  PSNR."""
  shown, runs = {}, {}
  n, images = bench.n, bench.others
  for seed, host in itertools.product(bench.s.seeds, HOSTS):
    system = bench.lbw(host, seed)
    variables = {"tokenizer": bench.frozen[host]}
    reader, level = bench.reader(host, seed), bench.chance(host, seed)["p"]
    which = np.arange(n, dtype=np.int32) % LISTS
    keys = jax.random.split(jax.random.key(seed), n)
    cond = {"given": images, "green_list": which}
    marked = to_uint8(system.requantised(variables, cond, keys))
    plain = to_uint8(
      _decode(system.drawn_from, variables, reader.units(images))
    )
    psnr = pairs.psnr(marked, plain)
    key = f"pixels, seed {seed}"
    spread = spread_spectrum.embedded(plain, key, psnr)
    others = [
      spread_spectrum.score(bench.clean, f"not {key}, {i}")
      for i in range(PIXEL_KEYS)
    ]
    pixels = float(np.quantile(others, 1 - ALPHA))
    ours = {
      "psnr": float(psnr.mean()),
      "to_image": float(pairs.psnr(marked, images).mean()),
      "plain_to_image": float(pairs.psnr(plain, images).mean()),
    }
    theirs = dict(ours, to_image=float(pairs.psnr(spread, images).mean()))
    for name, attack in bench.attacks.items():
      after = watermark.scored(
        reader, attack(marked, seed), which, ALPHA, level
      )
      ours[name] = after["tpr_at_1_fpr"]
      score = spread_spectrum.score(attack(spread, seed), key)
      theirs[name] = float((score > pixels).mean())
    form = "map" if host == "LlamaGen" else "maps"
    names = f"LBW, {form}", f"spread spectrum, PSNR of {form}"
    for name, row in zip(names, (ours, theirs), strict=True):
      runs.setdefault(name, []).append(row)
      print(seed, name, row, flush=True)
    shown.setdefault("given", images[:10])
    shown.setdefault(f"plain codes, {form}", plain[:10])
    shown.setdefault(names[0], marked[:10])
    shown.setdefault(names[1], spread[:10])
  return arms.Results(runs, {}), shown


def nulls(bench: Bench) -> list[dict]:
  """How often chance says less than ALPHA."""
  rows = []
  for null in ("binomial", "permutation", "unique"):
    row = {"null": null}
    for host in HOSTS:
      every = [bench.chance(host, seed, null)["rate"] for seed in bench.s.seeds]
      row[f"false alarms at {ALPHA}, {host}"] = mean_spread(every, 4)
      worst = [bench.chance(host, s, null)["worst"] for s in bench.s.seeds]
      row[f"of the worst key, {host}"] = mean_spread(worst, 3)
      row[host] = every
    rows.append(row)
  return rows
