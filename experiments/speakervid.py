"""What SpeakerVid's baseline claims and a core can check (arXiv 2507.09862).

  python -m experiments.speakervid [FOLDER] [--steps=N] [--seeds=N] [--short]

Dialogues by rule, 8 chunks of a frame of 8 x 8 and four tokens of speech. Arms
of the same layers, trained alike:

  SpeakerVid   the question's picture and speech; maps are read with noise and
               filled in 8 passes
  one pass     the same weights; a map is filled at once
  no noise     maps are read as they are
  text alone   the question's text in place of its picture and speech

Claims: an answer's errors grow less from its first chunks to its last where
training read maps with noise; frames are nearer to true ones (Frechet distance
of pixels) in 8 passes than in one, for the light of a frame is one for all of
its tokens; and where the rule of the answer is told by the question's picture
and not by its text, more tokens of speech are right.

The error of a frame is to the true one in the light that it is nearer to. No
network of features is there, so no figure is an FID or FVD. Nothing is kept in
the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax

from ar_jax import conditions, data, evals, main, step
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import build
from ar_jax.data.video.dialogues import error_by_chunk
from experiments.shared import arms, record
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, COUNT, TESTS = 350, 24, 4000, 96
CHUNKS = 8
SIZES = dict(
  tokenizer=dict(name="patches", patch=2, size=8, in_channels=1, scale=1.5),
  chunks=CHUNKS,
  ask_frames=CHUNKS,
  width=48,
  depth=2,
  heads=4,
  refine_depth=1,
  head_width=64,
  head_depth=2,
  levels=100,
  repeats=2,
  box=1.5,
)
OURS, ONE, CLEAN, TEXT = "SpeakerVid", "one pass", "no noise", "text alone"
OPTIONS = {"passes": 8, "steps": 25}


def main_loop(settings: arms.Settings) -> arms.Results:
  """Trains and measures the arms."""
  count = settings.fewer(COUNT, 64)
  tests = settings.fewer(TESTS, 8)
  made = data.load("dialogues", chunks=CHUNKS, count=max(count, 8 * tests))
  kept = dataclasses.replace(made, train=[made.train[i] for i in range(count)])
  known: dict[int, Trained] = {}

  def make(seed: int, **model: Any) -> Trained:
    return arms.train(
      build("speakervid", **SIZES | model),
      kept,
      steps=settings.steps,
      batch=BATCH,
      seed=seed,
      lr=3e-3,
      ema=0.98,
      options=OPTIONS,
    )

  def ours(seed: int) -> Trained:
    known[seed] = make(seed)
    return known[seed]

  def one(seed: int) -> Trained:
    return known[seed]._replace(options=OPTIONS | {"passes": 1})

  def measure(own: Trained, seed: int) -> dict[str, Any]:
    drawn = {}

    def draw(*args, **options):
      drawn.update(step.draw(*args, **options))
      return drawn

    scored = evals.build(
      "dialogue", made, n=tests, batch=tests, options=own.options, draw=draw
    )
    key = jax.random.key(1000 + seed)
    found = scored(own.system, own.variables, (), key)
    found = {k: v for k, v in found.items() if isinstance(v, float)}
    true = conditions.truth(own.system, made, tests, fields=("video",))
    error = error_by_chunk(to_uint8(drawn["video"]), true["video"]).mean(0)
    quarter = CHUNKS // 4
    found["first error"] = float(error[:quarter].mean())
    found["last error"] = float(error[-quarter:].mean())
    found["growth"] = found["last error"] - found["first error"]
    found["seconds"] = own.seconds
    return found

  makers = {
    OURS: ours,
    ONE: one,
    CLEAN: functools.partial(make, noise=0.0),
    TEXT: functools.partial(make, condition="text"),
  }
  return arms.compare(makers, measure, settings.seeds)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("speakervid", steps=STEPS)
  found = main_loop(s)
  mean = found.mean
  held = {
    "errors grow less with noise": mean(OURS, "growth") < mean(CLEAN, "growth"),
    "frames nearer in 8 passes than in one": mean(OURS, "frechet_frames")
    < mean(ONE, "frechet_frames"),
    "more tokens right than by the text": mean(OURS, "token_accuracy")
    > mean(TEXT, "token_accuracy"),
  }
  holds = arms.said(
    {k: bool(v) for k, v in held.items()},
    f"{s.steps} updates of {BATCH} dialogues are few; the sheet's targets are "
    "of 3,000 of 32",
  )
  each = lambda key, names, n=3: "; ".join(
    f"{k} {mean_spread(found.every(k, key), n)}" for k in names
  )
  ours = (
    "Squared error of the last chunks less that of the first: "
    f"{each('growth', (OURS, CLEAN), 4)}. Frechet distance of frames: "
    f"{each('frechet_frames', (OURS, ONE))}, of true ones "
    f"{mean(OURS, 'frechet_frames_floor'):.3f}. Tokens of speech right: "
    f"{each('token_accuracy', (OURS, TEXT))}"
  )
  print(ours, holds, flush=True)
  if s.short:
    return
  columns = {
    "error, first chunks": ("first error", 4),
    "last chunks": ("last error", 4),
    "growth": ("growth", 4),
    "Frechet, frames": ("frechet_frames", 3),
    "its floor": ("frechet_frames_floor", 3),
    "Frechet, clips": ("frechet_clips", 2),
    "PSNR": ("psnr", 1),
    "tokens right": ("token_accuracy", 3),
    "coherence": ("coherence", 2),
    "mouth with speech": ("sync", 2),
    "seconds of training": ("seconds", 0),
  }
  record.write(
    "speakervid",
    claim="Noise in the maps that are read keeps the errors of an answer from "
    "growing; a map filled in 8 passes is nearer to true ones than one that is "
    "filled at once; picture and speech of a question tell what its text "
    "lacks.",
    paper="with noise FID 35.67 -> 32.35, with the spatial refiner 49.86 -> "
    "35.67 (dyadic, 500 items)",
    baseline="the same layers without noise; one pass; the text alone",
    ours=ours,
    holds=holds,
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Dialogues by rule, {s.steps} updates of {BATCH}, {TESTS} answers to "
      "test questions, mean ± deviation over seeds": found.table(columns, "arm")
    },
  )


if __name__ == "__main__":
  run()
