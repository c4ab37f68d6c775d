"""What ELM claims and two cores can check (arXiv 2410.16257).

  python -m experiments.elm [FOLDER] [--steps=N] [--seeds=N] [--short]

Cells of several bits, cut into t codes that are drawn at once:

(a) codes are independent given the hidden state: on a source of cells of two
    bits, which are independent or equal, two codes reach the entropy of the
    first and stay one bit above that of the second, where one code reaches it;
(b) on images that costs little: scikit-learn's digits at 8 pixels in four
    levels of brightness, a cell of 2 x 2 of them being 8 bits; 1-8, 2-4 and 4-2
    (codes - bits of each) are within 0.02 nats a pixel of each other and below
    tables of frequencies, in as many passes and with the fewer parameters, the
    more codes there are. Compared is a cell, never a code;
(c) bits that are learned are better than bits that are not: the autoencoder of
    8 bits a cell against the signs of 8 random projections of its pixels, with
    the same decoder, trained alike; mean squared error of reconstructions.

Nothing is kept in the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main
from ar_jax.core.system import System, build
from ar_jax.nn.quantize.bits import pack, unpack
from ar_jax.tokenizers.autoencoder import Reconstruction, autoencoder
from ar_jax.tokenizers.bits import BAE
from ar_jax.tokenizers.patches import cut
from experiments.shared import arms, measures, pictures, record, toys
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 500, 64, 2e-3  # of (b)
SPLITS = {"1-8": 1, "2-4": 2, "4-2": 4}
TIE = 0.02  # nats a pixel
SOURCES = {"independent": (0.8, 0.3), "equal": None}  # chances of a 1
SMALL = dict(depth=1, width=16, heads=2, multiple_of=16, dropout=0.0)
MODEL = dict(depth=3, width=64, heads=4, multiple_of=32)
NET = dict(bits=8, z=32, ch=16, mult=(1, 2), blocks=1, size=8, in_channels=1)
TRAINED, CENTRE, ANYWHERE = (
  "binary autoencoder",
  "random planes through the mean",
  "random planes through random cells",
)


def codes(bits: np.ndarray, t: int) -> np.ndarray:
  """i32[..., t] of bits [..., K]."""
  return np.asarray(pack(jnp.asarray(bits), t))


def model(t: int, cell: int, grid: int, num_classes: int, **net) -> System:
  """ELM over cells of so many bits; the tokenizer is never asked, units are
  given."""
  tokenizer = dict(name="patch_codes", vocab=2**cell, patch=2, size=2 * grid)
  return build(
    "elm", tokenizer=tokenizer, codes=t, num_classes=num_classes, **net
  )


# (a)


def source(kind: str, like: data.Dataset, t: int, seed: int) -> data.Dataset:
  """Examples of 2 x 2 cells of two bits."""

  def rows(count, part):
    rng = np.random.default_rng((seed, part))
    if SOURCES[kind] is None:
      bits = np.repeat(rng.random((count, 4, 1)) < 0.5, 2, axis=2)
    else:
      bits = rng.random((count, 4, 2)) < np.array(SOURCES[kind])
    label = np.int32(0)
    return [{"units": u, "label": label} for u in codes(bits, t)]

  train, test = rows(8192, 0), rows(8192, 1)
  return dataclasses.replace(like, train=train, test=test)


def entropy(kind: str) -> float:
  """Of a cell, in nats."""
  if SOURCES[kind] is None:
    return math.log(2)
  each = ((p, 1 - p) for p in SOURCES[kind])
  return -sum(q * math.log(q) for pair in each for q in pair)


def factorised(s: arms.Settings, real: data.Dataset) -> arms.Results:
  """Test cross-entropy of a cell by kind of source and number of codes."""

  def make(seed: int, kind: str, t: int) -> Trained:
    system = model(t, 2, 2, 1, token_dropout=0.0, label_dropout=0.0, **SMALL)
    return arms.train(
      system,
      source(kind, real, t, seed),
      steps=s.steps if s.short else 300,
      batch=BATCH,
      seed=seed,
      lr=1e-2,
      options=dict(kind=kind, t=t),
    )

  def measure(own: Trained, seed: int) -> dict[str, float]:
    kind, t = own.options["kind"], own.options["t"]
    found = measures.likelihood(own, source(kind, real, t, seed))
    return {"nats": found["nats"], "above": found["nats"] - entropy(kind)}

  makers = {
    f"{kind} bits, {t} {'code' if t == 1 else 'codes'}": functools.partial(
      make, kind=kind, t=t
    )
    for kind in SOURCES
    for t in (1, 2)
  }
  return arms.compare(makers, measure, s.seeds)


# (b)


def cells(dataset: data.Dataset, t: int) -> data.Dataset:
  """Digits whose units are the codes of 4 x 4 cells of 2 x 2 pixels of two
  bits each."""
  levels = toys.levels(dataset, 4)

  def rows(source):
    units, label = toys.arrays(source)
    square = units.reshape(-1, 4, 2, 4, 2).swapaxes(2, 3).reshape(-1, 16, 4)
    bits = np.stack([square >> 1, square & 1], -1).reshape(-1, 16, 8)
    both = zip(codes(bits, t), label, strict=True)
    return [{"units": u, "label": own} for u, own in both]

  train, test = rows(levels.train), rows(levels.test)
  return dataclasses.replace(dataset, train=train, test=test)


def pixels(units: np.ndarray, t: int) -> np.ndarray:
  """f32[N, 8, 8, 1] of units i32[N, 16, t]."""
  bits = np.asarray(unpack(jnp.asarray(units), 8 // t)).reshape(-1, 16, 4, 2)
  level = (2 * bits[..., 0] + bits[..., 1]).reshape(-1, 4, 4, 2, 2)
  return level.swapaxes(2, 3).reshape(-1, 8, 8, 1) / 3.0


def counts(dataset: data.Dataset) -> float:
  """Test nats a pixel of a table of frequencies of the cell by class and
  place; what is added to every count is chosen on a fifth of the training
  images."""
  (train, of), (test, label) = map(toys.arrays, (dataset.train, dataset.test))
  train, test = train[..., 0], test[..., 0]

  def cost(known, whose, asked, label, added):
    table = np.full((10, 16, 256), added)
    place = np.broadcast_to(np.arange(16), known.shape)
    np.add.at(table, (whose[:, None], place, known), 1)
    logp = np.log(table / table.sum(-1, keepdims=True))
    place = np.broadcast_to(np.arange(16), asked.shape)
    return -logp[label[:, None], place, asked].mean() / 4

  cut_at = len(train) * 4 // 5
  trial = lambda added: cost(
    train[:cut_at], of[:cut_at], train[cut_at:], of[cut_at:], added
  )
  best = min((1.0, 0.3, 0.1, 0.03, 0.01, 0.003), key=trial)
  return float(cost(train, of, test, label, best))


def splits(s: arms.Settings, real: data.Dataset) -> arms.Results:
  """Digits by how the 8 bits of a cell are cut."""
  every = {t: cells(real, t) for t in SPLITS.values()}

  def make(seed: int, t: int) -> Trained:
    own = dict(steps=s.steps, batch=BATCH, seed=seed, lr=RATE, ema=0.98)
    return arms.train(model(t, 8, 4, 10, **MODEL), every[t], **own)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    del seed
    nats = measures.likelihood(own, every[own.system.codes])["nats"] / 4
    size = measures.parameters(own.variables["params"])
    return {"nats": nats, "parameters": size, "seconds": own.seconds}

  makers = {k: functools.partial(make, t=t) for k, t in SPLITS.items()}
  return arms.compare(makers, measure, s.seeds)


def drawn(own: Trained) -> np.ndarray:
  """A sample of each class."""
  label = jnp.arange(10, dtype=jnp.int32)
  draw = functools.partial(own.system.generate, guidance=2.0, schedule="linear")
  keys = jax.random.split(jax.random.key(0), 10)
  units = jax.jit(draw)(own.variables, {"label": label}, keys)
  return pixels(np.asarray(units), own.system.codes)


# (c)


class Planes(BAE):
  """The decoder of `BAE` over bits that say on which side of a random plane
  the pixels of a cell lie.

  Attributes:
    seed: of the planes.
    centres: a point on each of them, K of p p numbers.
  """

  seed: int = 0
  centres: tuple[tuple[float, ...], ...] = ()

  def encode(self, x, keys=None):
    del keys
    parts = cut(x, self.stride)
    parts = parts.reshape(len(x), -1, parts.shape[-1])
    centres = np.asarray(self.centres, np.float32)
    rng = np.random.default_rng(self.seed)
    planes = rng.normal(size=centres.shape).astype(np.float32)
    side = parts @ planes.T - (planes * centres).sum(1)[None, None]
    return (side > 0).astype(jnp.int32)

  def __call__(self, x, keys=None):
    units = self.encode(x)
    image, feature = self.decoded(self._map(self.embed(units)))
    return Reconstruction(image, feature, units, {})


def coders(s: arms.Settings, real: data.Dataset) -> arms.Results:
  """Learned bits and random ones."""
  image = 2 * toys.pixels(real)[0] - 1
  parts = np.asarray(cut(jnp.asarray(image), 2)).reshape(-1, 4)

  def make(seed: int, kind: str) -> Trained:
    rng = np.random.default_rng((seed, 1))
    points = {
      CENTRE: np.repeat(parts.mean(0)[None], 8, 0),
      ANYWHERE: parts[rng.integers(len(parts), size=8)],
    }
    if kind == TRAINED:
      net = BAE(**NET)
    else:
      centres = tuple(map(tuple, points[kind].tolist()))
      net = Planes(**NET, seed=seed, centres=centres)
    own = dict(steps=s.steps, batch=BATCH, seed=seed, lr=4e-3, ema=0.98)
    return arms.train(autoencoder(net.checked()), real, **own)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    del seed
    error, ones = [], []
    again = jax.jit(own.system.sample)
    units = jax.jit(own.system.units)
    for batch in data.epoch(real.test, batch=180):
      given = {"image": batch["image"]}
      keys = jax.random.split(jax.random.key(0), len(batch["image"]))
      seen = batch["image"].astype(np.float32) / 255
      apart = np.square(again(own.variables, given, keys) - seen)
      live = batch.get("mask", np.ones(len(seen))) > 0
      error.append(apart.mean((1, 2, 3))[live])
      ones.append(np.asarray(units(own.variables, given))[live])
    share = np.concatenate(ones).mean((0, 1)).clip(1e-9, 1 - 1e-9)
    used = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return {
      "mse": 1000 * float(np.concatenate(error).mean()),
      "bits": float(used.sum()),
      "seconds": own.seconds,
    }

  makers = {
    kind: functools.partial(make, kind=kind)
    for kind in (TRAINED, CENTRE, ANYWHERE)
  }
  return arms.compare(makers, measure, s.seeds)


def rebuilt(own: Trained, image: np.ndarray) -> np.ndarray:
  """Reconstructions f32[N, 8, 8, 1] of images u8."""
  keys = jax.random.split(jax.random.key(0), len(image))
  return np.asarray(own.system.sample(own.variables, {"image": image}, keys))


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("elm", steps=STEPS)
  real = data.load("digits", size=8, channels=1, path="")
  law, cut_up, learned = (f(s, real) for f in (factorised, splits, coders))
  table = counts(cells(real, 1))
  above = {k: law.every(k, "above") for k in law.runs}
  near = lambda k, bits: all(
    abs(x - bits * math.log(2)) < 0.02 for x in above[k]
  )
  nats = {k: cut_up.mean(k, "nats") for k in SPLITS}
  sizes = [cut_up.mean(k, "parameters") for k in SPLITS]
  worst = min(learned.mean(k, "mse") for k in (CENTRE, ANYWHERE))
  held = {
    "(a) two codes reach independent bits": near(
      "independent bits, 2 codes", 0
    ),
    "(a) one code reaches both": near("independent bits, 1 code", 0)
    and near("equal bits, 1 code", 0),
    "(a) two codes stay one bit above equal bits": near(
      "equal bits, 2 codes", 1
    ),
    "(b) a tie": max(nats.values()) - min(nats.values()) < TIE,
    "(b) below the table": max(
      x for k in SPLITS for x in cut_up.every(k, "nats")
    )
    < table,
    "(b) fewer parameters": sizes == sorted(sizes, reverse=True),
    "(c) learned bits": max(learned.every(TRAINED, "mse")) < worst,
  }
  ours = (
    "(a) two codes on equal bits: "
    f"{mean_spread(above['equal bits, 2 codes'], 3)} nats above the entropy "
    f"(ln 2 is {math.log(2):.3f}), one code "
    f"{mean_spread(above['equal bits, 1 code'], 3)}; (b) nats a pixel "
    + ", ".join(
      f"{k}: {mean_spread(cut_up.every(k, 'nats'), 3)}" for k in SPLITS
    )
    + f", the table {table:.3f}; (c) MSE x 1000 "
    f"{mean_spread(learned.every(TRAINED, 'mse'))} against {worst:.2f} of the "
    "better random planes"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  rows = {f"{k} drawn": drawn(v) for k, v in cut_up.trained.items()}
  shown = np.stack([real.test[i]["image"] for i in range(10)])
  rows |= {"real": shown / 255.0}
  rows |= {k: rebuilt(v, shown) for k, v in learned.trained.items()}
  record.write(
    "elm",
    claim="(a) Codes of a cell that are drawn at once are independent given "
    "the hidden state, so what they have in common is lost; (b) on images that "
    "costs little and saves parameters; (c) learned bits are better than "
    "random ones.",
    paper="L, 2-10 is best of the ways to cut 20 bits; FID 2.17 of L, 1.54 of "
    "2B; nothing is said of likelihood",
    baseline="(a) the entropy of the source; (b) one code for the cell, and a "
    "table of frequencies by class and place; (c) signs of random projections "
    "under the same decoder",
    ours=ours,
    holds=arms.said(held),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      "Cells of two bits, test cross-entropy, mean ± deviation over seeds": (
        law.table(
          {
            "nats a cell": ("nats", 4),
            "above the entropy": ("above", 4),
          },
          "source and codes",
        )
      ),
      f"Digits at 8 px, cells of 8 bits, {s.steps} steps of {BATCH}": [
        {
          **row,
          "passes": 16,
        }
        for row in cut_up.table(
          {
            "test nats a pixel": ("nats", 3),
            "parameters": ("parameters", 0),
            "seconds of training": ("seconds", 0),
          },
          "codes - bits",
        )
      ]
      + [
        {
          "codes - bits": "table by class and place",
          "test nats a pixel": f"{table:.3f}",
          "parameters": "",
          "seconds of training": "",
          "passes": "",
        }
      ],
      f"Digits at 8 px, 8 bits a cell of 2 x 2, {s.steps} steps": (
        learned.table(
          {
            "MSE x 1000": ("mse", 2),
            "bits in use, by their shares": ("bits", 2),
          },
          "bits",
        )
      ),
    },
    picture=pictures.save("elm", rows, real.class_names),
  )


if __name__ == "__main__":
  run()
