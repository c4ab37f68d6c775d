"""What ARRA claims and two cores can check (arXiv 2503.07334).

  python -m experiments.arra [FOLDER] [--steps=N] [--seeds=N] [--short]

Fashion-MNIST at 16 pixels, 16 codes of 128 by k-means of 4 x 4 patches, a
decoder of 4 layers whose class is hidden half of the time. The teacher is a
small classifier of half of the images; hidden states of all codes are aligned
with its features behind layer 1 or 3. Controls: a weight of 0, and features
that are shuffled over the images.

(a) a linear probe of the class, of the mean hidden state of the codes behind
    that layer, without a class shown: at least 5 points above shuffled
    features;
(b) test nats a code at most 0.01 above those without alignment;
(c) samples are nearer to real images, as Frechet distance in a classifier of
    the other half: at most 0.95 of the distance without alignment, in every
    seed, and shuffled features do not help;
(d) an update, features being stored, takes at most 3 % longer, and drawing as
    long as LlamaGen's.

The distance of (c) must hold for every seed; this was decided after the record
was made, whose mean behind layer 3, 0.91, would have passed.

Nothing is kept in the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time

import jax
import numpy as np

from ar_jax import data, main
from ar_jax.core.system import System, Vars, build, part
from ar_jax.evals import probe
from ar_jax.families.token import tapped
from experiments.shared import arms, measures, pictures, record
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 250, 64, 3e-3
TRAIN, TEST, IMAGES, LABELS = 8000, 1000, 600, 50
CODES = dict(name="patch_codes", vocab=128, patch=4, size=16)
SIZES = dict(
  tokenizer=CODES, depth=4, width=64, heads=4, num_classes=10, multiple_of=32,
  dropout=0.0, token_dropout=0.0, label_dropout=0.5,
)  # fmt: skip
TEACHER = dict(name="classifier", num_classes=10)
NONE = "no alignment"
LAYERS = (1, 3)
AT = {f"layer {n}": n for n in LAYERS}
SHUFFLED = {f"layer {n}, shuffled": n for n in LAYERS}
POINTS, NATS, RATIO, OVERHEAD = 0.05, 0.01, 0.95, 1.03


def model(layer: int = LAYERS[0], weight: float = 1.0) -> System:
  align = {"weight": weight, "layer": layer}
  return build("arra", teacher=TEACHER, align=align, **SIZES)


def rows(source, start: int, stop: int) -> list[dict]:
  return [source[i] for i in range(start, stop)]


@dataclasses.dataclass(frozen=True)
class World:
  """What all arms share.

  Attributes:
    real: images; the teacher has seen the first half of the training split.
    other: the same test split, and the other half.
    given: the frozen collections.
    stored: the images as units, with the features of the teacher.
    shuffled: the same with features of other images.
    accuracy: of the teacher, on test images.
  """

  real: data.Dataset
  other: data.Dataset
  given: Vars
  stored: data.Dataset
  shuffled: data.Dataset
  accuracy: float


def world(short: bool) -> World:
  train, test = (400, 200) if short else (TRAIN, TEST)
  every = data.load("fashion_mnist", size=16, channels=1, path="")
  test = rows(every.test, 0, test)
  of = lambda own: dataclasses.replace(every, train=own, test=test, digest="")
  images = rows(every.train, 0, train)
  real, half = of(images), train // 2
  codes, seer = part(CODES), part(TEACHER)
  variables = codes.init(jax.random.key(0), {"image": images[0]["image"][None]})
  fitted = codes.fitted(variables, images[: min(1500, half)], 0)
  own = dict(batch=128, seed=0, lr=2e-3, ema=0.0)
  steps = 4 if short else 400
  teacher = arms.train(seer, of(images[:half]), steps=steps, **own)
  given = {
    "tokenizer": fitted["params"]["tokenizer"],
    "teacher": teacher.variables["params"],
  }
  system = model()
  encode = jax.jit(lambda batch: system.encode(given, batch))

  def units(source):
    found = []
    for batch in data.epoch(source, batch=200):
      live = int(batch["mask"].sum()) if "mask" in batch else 200
      named = {k: batch[k] for k in ("image", "label")}
      batch = jax.device_get(encode(named))
      found += [{k: v[i] for k, v in batch.items()} for i in range(live)]
    return found

  stored = dataclasses.replace(real, train=units(images), test=units(test))
  order = np.random.default_rng(0).permutation(train)
  mixed = [
    {**row, "feature": stored.train[j]["feature"]}
    for row, j in zip(stored.train, order, strict=True)
  ]
  shuffled = dataclasses.replace(stored, train=mixed)
  seen = {"image": np.stack([row["image"] for row in test])}
  said = np.argmax(teacher.system.logits(teacher.variables, seen), 1)
  right = np.asarray(said) == np.array([row["label"] for row in test])
  return World(
    real, of(images[half:]), given, stored, shuffled, float(right.mean())
  )


def recut(own: Trained, layer: int) -> Trained:
  """The arm, whose hidden states are looked at behind another layer."""
  params = tapped.joined(own.variables["params"])
  params = tapped.parted(params, layer)
  return own._replace(
    system=model(layer), variables={**own.variables, "params": params}
  )


def probed(own: Trained, it: World) -> float:
  """Accuracy of a linear probe."""
  judge = probe.build(it.real, per_class=(LABELS,), n=1000, repeats=1)
  found = judge(own.system, own.variables, None, None)
  return float(found[f"linear_{LABELS}"])


def costs(it: World, short: bool) -> dict[str, dict[str, float]]:
  """Seconds of an update and of a draw, of LlamaGen and of ARRA."""
  trained, own = {}, dict(steps=2, batch=BATCH, seed=0, lr=RATE)
  for name, system in (
    ("LlamaGen", build("llamagen", **SIZES)),
    ("ARRA", model()),
  ):
    given = {
      k: v for k, v in it.given.items() if name == "ARRA" or k != "teacher"
    }
    trained[name] = arms.train(system, it.stored, given=given, **own)
  batch = data.batch_at(it.stored.train, 0, batch=BATCH, seed=0)
  return measures.costs(trained, batch, 64, 1 if short else 21)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("arra", steps=STEPS)
  it, n = world(s.short), s.fewer(IMAGES)
  cost = costs(it, s.short)

  def make(seed: int, arm: str) -> Trained:
    layer = (AT | SHUFFLED).get(arm, LAYERS[0])
    system = model(layer, 0.0 if arm == NONE else 1.0)
    part = it.shuffled if arm in SHUFFLED else it.stored
    own = dict(steps=s.steps, batch=BATCH, seed=seed, lr=RATE, ema=0.98)
    return arms.train(system, part, **own, given=it.given)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    layer = own.system.align.layer
    looked = {layer: own}
    if not own.system.align.weight:  # it is as good as cut anywhere
      looked = {k: recut(own, k) for k in LAYERS}
    found = measures.likelihood(own, it.stored)
    image = measures.sampled(own, it.real, seed=1000 + seed, n=n)

    def given(system, variables, cond, key, *, start, **_):
      del system, variables, key
      return {"image": image[start : start + len(cond["label"])]}

    score = functools.partial(
      measures.score, None, it.other, seed=seed, n=n, draw=given
    )
    return {
      "nats": found["nats"],
      "alignment": found["alignment"],
      **{f"probe {k}": float("nan") for k in LAYERS},
      **{f"probe {k}": probed(v, it) for k, v in looked.items()},
      **score(features="judge"),
      "pixels": score(features="pixels")["frechet"],
      "seconds": own.seconds,
    }

  names = (NONE, *AT, *SHUFFLED)
  makers = {k: functools.partial(make, arm=k) for k in names}
  found = arms.compare(makers, measure, s.seeds)
  finish(s, found, cost, it, time.perf_counter() - begun)


def ratios(found: arms.Results, arm: str) -> list[float]:
  """Frechet distance by that without alignment, of each seed."""
  both = zip(
    found.every(arm, "frechet"), found.every(NONE, "frechet"), strict=True
  )
  return [own / none for own, none in both]


def verdict(found: arms.Results, cost: dict) -> dict[str, bool]:
  """Which parts of the claim hold, at each layer."""
  held, mean = {}, found.mean
  spread = max(found.spread(k, "frechet") for k in found.runs)
  for arm, layer in AT.items():
    control, key = f"{arm}, shuffled", f"probe {layer}"
    held |= {
      f"(a) {arm}: 5 points": min(found.every(arm, key))
      >= max(found.every(control, key)) + POINTS,
      f"(b) {arm}: nats": mean(arm, "nats") <= mean(NONE, "nats") + NATS,
      f"(c) {arm}: distance": max(ratios(found, arm)) <= RATIO,
      f"(c) {arm}: shuffled does not help": mean(control, "frechet")
      > mean(NONE, "frechet") - spread,
    }
  times = {k: cost["ARRA"][k] / cost["LlamaGen"][k] for k in ("update", "draw")}
  held["(d) an update"] = times["update"] <= OVERHEAD
  held["(d) a draw"] = abs(times["draw"] - 1) <= 0.05
  return {k: bool(v) for k, v in held.items()}


def finish(
  s: arms.Settings,
  found: arms.Results,
  cost: dict[str, dict[str, float]],
  it: World,
  seconds: float,
) -> None:
  """The verdict, and the record."""
  held = verdict(found, cost)
  every = lambda key, arms=found.runs, digits=3: ", ".join(
    f"{k} {mean_spread(found.every(k, key), digits)}" for k in arms
  )
  probes = "; ".join(
    f"behind layer {n} "
    + every(f"probe {n}", (NONE, f"layer {n}", f"layer {n}, shuffled"))
    for n in LAYERS
  )
  ours = (
    f"(a) probe {probes}; (b) nats a code {every('nats')}; (c) Frechet "
    f"distance {every('frechet', digits=2)}; (d) an update takes "
    f"{cost['ARRA']['update'] / cost['LlamaGen']['update']:.3f} times as long, "
    f"a draw {cost['ARRA']['draw'] / cost['LlamaGen']['draw']:.3f}"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  holds = arms.said(held)
  if holds is not True:
    shares = ", ".join(
      f"{k} {min(x):.2f} to {max(x):.2f}"
      for k, x in ((k, ratios(found, k)) for k in AT)
    )
    more = ", ".join(
      f"{k} {found.mean(k, 'nats') - found.mean(NONE, 'nats'):+.3f}"
      for k in (*AT, *SHUFFLED)
    )
    holds = (
      f"{holds or 'not at this size'}; by the distance without alignment, over "
      f"seeds: {shares}; nats above those without: {more}"
    )
  real = np.stack([it.real.test[i]["image"] for i in range(10)]) / 255
  drawn = {k: measures.row_of_classes(v) for k, v in found.trained.items()}
  floor = statistics.mean(found.every(NONE, "frechet_floor"))
  record.write(
    "arra",
    claim="Hidden states that are aligned with features of a frozen encoder "
    "(a) tell the class to a linear probe, (b) at no cost of likelihood; (c) "
    "samples are nearer to real ones, (d) for next to no time of training and "
    "none of drawing.",
    paper="FID 25.5 % lower on MIMIC-CXR, 7.5 % on ImageNet (LlamaGen)",
    baseline="a weight of 0; features that are shuffled over the images",
    ours=ours,
    holds=holds,
    seeds=list(s.seeds),
    seconds=seconds,
    tables={
      f"Fashion-MNIST at 16 px, {TRAIN} images, {s.steps} steps of {BATCH}; "
      f"probe of {LABELS} labels a class; the teacher is right on "
      f"{100 * it.accuracy:.1f} % of test images; Frechet distance of {IMAGES} "
      f"samples, of real images {floor:.2f}; mean ± deviation over seeds": (
        found.table(
          {
            **{f"probe behind layer {n}": (f"probe {n}", 3) for n in LAYERS},
            "test nats a code": ("nats", 3),
            "Frechet distance, other network": ("frechet", 2),
            "of pixels": ("pixels", 2),
            "1 - cosine, test": ("alignment", 3),
          },
          "alignment",
        )
      ),
      f"Seconds of an update of {BATCH} and of drawing 64, median of 21": [
        {
          "system": k,
          "update": f"{v['update']:.4f}",
          "draw": f"{v['draw']:.4f}",
        }
        for k, v in cost.items()
      ],
    },
    picture=pictures.save("arra", {**drawn, "real": real}),
  )


if __name__ == "__main__":
  run()
