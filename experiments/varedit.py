"""What VAREdit claims of its reference and a core can check (arXiv 2508.15772).

  python -m experiments.varedit [FOLDER] [--steps=N] [--seeds=N] [--short]

scikit-learn's digits at 16 pixels and instructions with one exact result each:
erase or invert a half, invert, flip. Bits of patches on maps of 1, 2 and twice
4 cells a side (37 units), the instruction as hashed words. Four arms of the
same net and steps, by what of the source stands in front of the maps:

  none      nothing: the instruction alone
  finest    its finest map
  all       all of its maps, as many rows as the target has
  aligned   its finest map, which the first layer shows to each map at the size
            of that map (the paper's)

Asked of all: which share of the bits they say right behind the true maps, of
the coarse half of the maps and of all; and of edits drawn greedily, the mean
absolute error to the exact result, and where the instruction must change
nothing. Beside them: the source as it is, and the exact result as its bits hold
it, the least that any arm can reach: errors are compared by what lies above it.
"""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from ar_jax import conditions, data, evals, main
from ar_jax.core.system import build
from ar_jax.data.wrap import edits
from experiments.shared import arms, pictures, record
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 1500, 32, 3e-3
INSTRUCTIONS = (*edits.LOCAL, "invert", "flip left right", "flip upside down")
CODES = dict(
  name="patch_bits", bits=10, patch=4, scales=(1, 2, 4, 4), in_channels=1
)
MODEL = dict(
  depth=3, width=64, heads=4, gate_init=0.5, drop_path=0.0, label_dropout=0.0,
  text=dict(name="words", length=4, width=32, spelled=False),
)  # fmt: skip
ARMS = ("none", "finest", "all", "aligned")
COARSE = 2  # of 4 maps
TIMES, POINTS = 3.0, 1.0  # as claimed
LAW = dict(temperature=0.0)
SHOWN = 8


def model(arm: str):
  return build("varedit", tokenizer=CODES, reference=arm, **MODEL)


def codes(real: data.Dataset) -> dict:
  """The parameters of the tokenizer, fitted to edited images."""
  own = {k: v for k, v in CODES.items() if k != "name"}
  system = build("patch_bits", **own)
  first = data.batch_at(real.train, 0, batch=1, seed=0)
  fresh = jax.device_get(system.init(jax.random.key(0), first))
  return system.fitted(fresh, real.train, 0)["params"]["tokenizer"]


@functools.partial(jax.jit, static_argnums=0)
def said(system, variables, batch) -> dict:
  """Bits said right behind the true maps, by map; see `BitScales.bit_loss`."""
  return system.loss(variables, batch, jax.random.key(0), train=False).metrics


@functools.partial(jax.jit, static_argnums=0)
def held(system, variables, image) -> jax.Array:
  """Images u8[B, H, W, c] as their bits hold them, f32 in [0, 1]."""
  codec = system.codec(variables)
  units = codec.encode(image / 127.5 - 1.0)
  return (codec.decode(units).clip(-1, 1) + 1) / 2


def measured(own: Trained, real: data.Dataset, n: int) -> dict[str, float]:
  """All that is asked of one arm."""
  system, variables, options, seconds = own
  rows = data.batch_at(real.test, 0, batch=n, seed=0)
  bits = {k: 100 * float(np.mean(v)) for k, v in jax.device_get(
    said(system, variables, rows)).items()}  # fmt: skip
  coarse = [bits[f"bits/map_{k + 1}"] for k in range(COARSE)]
  judge = evals.build(
    "pairs", real, mask="same", baseline="source", n=n, options=dict(options)
  )
  found = judge(system, variables, None, jax.random.key(0))
  image = np.asarray(held(system, variables, rows["image"]))
  floor = np.abs(image - rows["image"] / 255)
  same = np.broadcast_to(rows["same"][..., None] == 1, floor.shape)
  return {
    "coarse": float(np.mean(coarse)),
    "bits": bits["accuracy"],
    "l1": found["l1"],
    "outside": found["l1_masked"],
    "l1_source": found["l1_baseline"],
    "floor": float(floor.mean()),
    "floor outside": float(floor[same].mean()),
    "added outside": found["l1_masked"] - float(floor[same].mean()),
    "rows": float(system.net.before + len(system.plan)),
    "seconds": seconds,
  }


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("varedit", steps=STEPS)
  rule = dict(instructions=INSTRUCTIONS)
  real = data.load(
    "digits", size=16, channels=1, path="", derive={"edits": rule}
  )
  frozen = codes(real)
  n = s.fewer(300, 40)

  def make(seed: int, arm: str) -> Trained:
    return arms.train(
      model(arm), real, steps=s.steps, batch=BATCH, seed=seed, lr=RATE,
      ema=0.98, given={"tokenizer": frozen}, options=LAW, keep=s.folder,
    )  # fmt: skip

  makers = {arm: functools.partial(make, arm=arm) for arm in ARMS}
  measure = lambda own, seed: measured(own, real, min(n, len(real.test)))
  found = arms.compare(makers, measure, s.seeds)
  finish(s, found, real, time.perf_counter() - begun)


def finish(
  s: arms.Settings, found: arms.Results, real: data.Dataset, seconds: float
) -> None:
  """The verdict, and the record."""
  every = {
    k: {a: found.every(a, k) for a in ARMS} for k in found.runs["none"][0]
  }
  pairs = lambda key, a, b: zip(every[key][a], every[key][b], strict=True)
  holds = {
    "coarse maps above finest alone": all(
      x > y for x, y in pairs("coarse", "aligned", "finest")
    ),
    f"within {POINTS:g} point of all maps": all(
      x > y - POINTS for x, y in pairs("bits", "aligned", "all")
    ),
    f"1 / {TIMES:g} of the error without a source, above that of the bits, "
    "where nothing may change": all(
      TIMES * x < y for x, y in pairs("added outside", "aligned", "none")
    ),
  }  # fmt: skip
  listed = lambda key, digits: ", ".join(
    f"{a} {mean_spread(every[key][a], digits)}" for a in ARMS
  )
  ours = (
    f"bits said right of the coarse maps, %: {listed('coarse', 2)}; of all: "
    f"{listed('bits', 2)}; L1 to the exact result {listed('l1', 4)}; where "
    f"nothing may change {listed('outside', 4)}"
  )
  print(ours, holds, flush=True)
  if s.short:
    return
  own = found.trained["aligned"]
  fields = ("source", "text", "image")
  truth = conditions.truth(own.system, real, SHOWN, fields=fields)
  rows = {"source": truth["source"]}
  rows |= {a: arms.after(found.trained[a], real, SHOWN) for a in ARMS}
  rows["exact result"] = truth["image"]
  words = [real.forms["text"].read(x) for x in truth["text"]]
  record.write(
    "varedit",
    claim="A source that the first layer shows to each map at its own size "
    "guides the coarse maps better than its finest map alone, about as well as "
    "all of its maps, at fewer rows; and what an instruction does not name "
    "stays.",
    paper="GPT-balance of the aligned reference above that of the finest map "
    "and of all maps, at about the cost of the finest; no bit accuracies",
    baseline="the finest map alone; all maps; no source",
    ours=ours,
    holds=arms.said(
      holds,
      f"{s.steps} updates of {BATCH}; the finest map has "
      f"{CODES['scales'][-1] ** 2} cells, at 1,024 pixels it has 4,096",
    ),
    seeds=list(s.seeds),
    seconds=seconds,
    tables={
      f"Digits at 16 px, {len(INSTRUCTIONS)} instructions, {s.steps} steps of "
      f"{BATCH}, greedy edits, mean ± deviation over seeds": found.table(
        {
          "rows": ("rows", 0),
          "bits of coarse maps, %": ("coarse", 2),
          "bits of all maps, %": ("bits", 2),
          "L1": ("l1", 4),
          "L1, source as it is": ("l1_source", 4),
          "L1, result as bits": ("floor", 4),
          "L1 where nothing may change": ("outside", 4),
          "the same, result as bits": ("floor outside", 4),
          "seconds of training": ("seconds", 0),
        },
        "reference",
      )
    },
    picture=pictures.save("varedit", rows, words),
  )


if __name__ == "__main__":
  run()
