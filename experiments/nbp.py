"""What NBP claims and two cores can check (arXiv 2502.07737).

  python -m experiments.nbp [FOLDER] [--steps=N] [--seeds=N] [--short]

Digits that drift, 8 frames of 8 x 8 pixels, as 16 codes of patches a frame:
128 units, the first block unit by unit. Blocks of one unit (a GPT), of a row of
4, of two rows and of a frame; equal nets, updates and batches:

(a) rows draw frames as well as single units do, within 10 % of the Frechet
    distance of frames;
(b) two rows a block take at least 5 times fewer forwards than single units, and
    a clip is drawn at least 4 times as fast, by itself;
(c) the nats of a unit grow with the block.

The paper's rows are of 16 units, the sheet's of 8, which makes 7 times fewer
forwards; here a row has 4 and makes 3.7 times fewer, two rows 5.6 times.
Nothing is kept in the folder.
"""

from __future__ import annotations

import functools
import statistics
import time

import jax
import numpy as np

from ar_jax import main
from ar_jax.core.system import build
from experiments.shared import arms, films, measures, pictures, record
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE, FRAMES = 350, 16, 3e-3, 8
COUNT = 256  # videos of each arm
CLIPS = dict(motion="drift", sprite=6)
SIZES = dict(depth=2, width=64, heads=4, num_classes=10)
MODEL = SIZES | dict(label_dropout=0.0, dropout=0.0, token_dropout=0.0)
ONE, ROW, ROWS, FRAME = "1 unit", "a row, 4", "two rows, 8", "a frame, 16"
BLOCKS = {ONE: (1, 1, 1), ROW: (1, 1, 4), ROWS: (1, 2, 4), FRAME: (1, 4, 4)}


@functools.partial(jax.jit, static_argnums=0)
def _units(system, variables, label, keys):
  return system.generate(variables, {"label": label}, keys)


def timed(trained: dict[str, Trained], turns: int = 20) -> dict[str, dict]:
  """`draw`, the median milliseconds of drawing one video alone: a batch of many
  shares its forwards, and their number then says little."""
  label, keys = np.zeros(1, np.int32), jax.random.split(jax.random.key(0), 1)
  calls = {
    arm: functools.partial(_units, *own[:2], label, keys)
    for arm, own in trained.items()
  }
  times = measures.in_turns(calls, turns)
  return {k: {"draw": 1000 * statistics.median(x)} for k, x in times.items()}


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("nbp", steps=STEPS)
  made = films.films(FRAMES, length=s.fewer(4096, 256), **CLIPS)
  n = s.fewer(COUNT, 32)

  def make(seed: int, arm: str) -> Trained:
    system = build("nbp", tokenizer=made.tokenizer, block=BLOCKS[arm], **MODEL)
    given = {"tokenizer": made.frozen}
    return arms.train(
      system, made.units, steps=s.steps, batch=BATCH, seed=seed, lr=RATE,
      ema=0.98, given=given,
    )  # fmt: skip

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = films.distances(films.drawn(own, n, seed), made.raw)
    nats = measures.likelihood(own, made.units)["nats"]
    forwards = float(own.system.forwards())
    return found | {
      "nats": nats, "forwards": forwards, "train": own.seconds
    }  # fmt: skip

  makers = {arm: functools.partial(make, arm=arm) for arm in BLOCKS}
  found = arms.compare(makers, measure, s.seeds, timed)

  ratio = lambda arm, key: [
    a / b
    for a, b in zip(found.every(arm, key), found.every(ONE, key), strict=True)
  ]
  faster = lambda arm: [1 / x for x in ratio(arm, "draw")]
  fewer = lambda arm: 1 / ratio(arm, "forwards")[0]
  nats = [found.mean(arm, "nats") for arm in BLOCKS]
  held = {
    "(a) rows within 10 %": float(np.mean(ratio(ROW, "frames"))) <= 1.1,
    "(b) two rows 4 times as fast": float(np.mean(faster(ROWS))) >= 4,
    "(c) nats grow with the block": sorted(nats) == nats,
  }
  ours = (
    f"frame distance over that of single units: rows "
    f"{mean_spread(ratio(ROW, 'frames'))}, two rows "
    f"{mean_spread(ratio(ROWS, 'frames'))}, frames "
    f"{mean_spread(ratio(FRAME, 'frames'))}; of differences "
    + ", ".join(
      f"{mean_spread(ratio(arm, 'moves'))}" for arm in (ROW, ROWS, FRAME)
    )
    + f"; {fewer(ROW):.1f}, {fewer(ROWS):.1f} and {fewer(FRAME):.1f} times "
    f"fewer forwards, drawn {mean_spread(faster(ROW), 1)}, "
    f"{mean_spread(faster(ROWS), 1)} and {mean_spread(faster(FRAME), 1)} times "
    "as fast; nats a unit " + ", ".join(f"{x:.3f}" for x in nats)
  )
  cost = [
    a / b
    for a, b in zip(ratio(ROWS, "draw"), ratio(ROWS, "forwards"), strict=True)
  ]
  why = (
    f"a pass of 8 units takes {mean_spread(cost, 1)} times as long as one of a "
    f"single unit; the nats of the four lie within {max(nats) - min(nats):.3f} "
    f"after {s.steps} updates"
  )
  print(ours, held, why, flush=True)
  if s.short:
    return
  clips = np.stack([made.raw.test[i]["video"] for i in range(8)])
  # The reconstruction is what a model of these codes can reach.
  one = found.trained[ONE]
  again = jax.jit(
    lambda v, b: one.system.decode(v, one.system.encode(v, b)["units"])
  )
  codes = np.asarray(again(one.variables, {"video": clips}))
  shown = {"test clips": clips, "their codes": codes}
  shown |= {k: films.drawn(own, 8, 0) for k, own in found.trained.items()}
  record.write(
    "nbp",
    claim="(a) Blocks of a row draw frames within 10 % of the distance of one "
    "unit after the other; (b) two rows a block are drawn 4 times as fast; (c) "
    "the likelihood falls as blocks grow.",
    paper="K600, 700M: FVD 29.0, 25.7, 25.5, 32.1, 43.7, 67.0 of blocks of 1, "
    "8, 16, 32, 64 and 256; 0.80 frames a second of single units, 8.89 of rows",
    baseline="blocks of one unit, which is a GPT; floors of real clips "
    f"{found.mean(ONE, 'frames_floor'):.4f} of frames and "
    f"{found.mean(ONE, 'moves_floor'):.4f} of differences",
    ours=ours,
    holds=arms.said(held, why),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    picture=pictures.moving("nbp", shown),
    tables={
      f"{s.steps} steps of {BATCH}, {n} clips drawn, mean ± deviation over "
      "seeds": found.table(
        {
          "nats a unit": ("nats", 3),
          "Frechet of frames": ("frames", 4),
          "of differences": ("moves", 4),
          "forwards": ("forwards", 0),
          "milliseconds of a clip alone": ("draw", 1),
          "seconds of training": ("train", 0),
        },
        "block",
      )
    },
  )


if __name__ == "__main__":
  run()
