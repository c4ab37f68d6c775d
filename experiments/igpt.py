"""What iGPT claims of its features (Generative Pretraining from Pixels, 2020).

  python -m experiments.igpt [FOLDER] [--steps=N] [--seeds=N] [--short]

scikit-learn's digits at 8 pixels of 17 levels, without classes; a linear probe
of ten labels of a class of what each layer reads, averaged over the pixels:

(a) what it is trained for makes them: a middle layer knows more than that of
    the same network before training;
(b) the best layer is neither the first nor the last;
(c) it knows more than the pixels themselves.

Nothing is kept in the folder.
"""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from ar_jax import data, evals, main
from ar_jax.core.system import build
from experiments.shared import arms, measures, record
from experiments.shared.arms import Trained

STEPS, BATCH, RATE = 600, 32, 3e-3
LABELS, LAYERS = 10, 5
SIZES = dict(width=64, depth=LAYERS, heads=4, dropout=0.1)
CODES = dict(name="given", form="levels", levels=17, size=8)
OURS, FRESH = "trained", "untrained"


def probe(own: Trained, dataset: data.Dataset, layer: int) -> dict[str, float]:
  """Shares of test images whose class a linear probe says, by the features of
  a layer and by the pixels."""
  evaluate = evals.build(
    "probe", dataset, per_class=(LABELS,), options={"layer": layer}
  )
  found = evaluate(own.system, own.variables, (), jax.random.key(0))
  return {
    "layer": 100 * found[f"linear_{LABELS}"],
    "pixels": 100 * found[f"linear_{LABELS}_baseline"],
  }


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("igpt", steps=STEPS)
  dataset = data.load("digits", size=8, channels=1, path="")
  system = build("igpt", tokenizer=CODES, **SIZES)

  def make(seed: int, arm: str) -> Trained:
    if arm == FRESH:
      made = jax.jit(system.init)(jax.random.key(seed), {})
      return Trained(system, made)
    return arms.train(
      system, dataset, steps=s.steps, batch=BATCH, seed=seed, lr=RATE, ema=0.98
    )

  def measure(own: Trained, seed: int) -> dict[str, float]:
    del seed
    each = [probe(own, dataset, layer) for layer in range(LAYERS)]
    found = {f"layer {i}": one["layer"] for i, one in enumerate(each)}
    bits = measures.likelihood(own, dataset)["bits_per_dim"]
    return found | {
      "pixels": each[0]["pixels"], "bits": bits, "seconds": own.seconds,
    }  # fmt: skip

  makers = {arm: functools.partial(make, arm=arm) for arm in (OURS, FRESH)}
  found = arms.compare(makers, measure, s.seeds)
  table = lambda arm: np.array(
    [found.every(arm, f"layer {i}") for i in range(LAYERS)]
  )
  own, fresh = table(OURS), table(FRESH)
  middle = LAYERS // 2
  best = own.mean(1).argmax()
  pixels = np.array(found.every(OURS, "pixels"))
  gain = own[middle] - fresh[middle]
  over = own[best] - pixels
  held = {
    "(a) training makes them": bool((gain > 0).all()),
    "(b) the best layer is a middle one": bool(0 < best < LAYERS - 1),
    "(c) more than the pixels": bool(over.mean() > 0),
  }
  say = lambda x: arms.mean_spread(np.asarray(x).tolist(), 1)
  ours = (
    f"a probe of layer {middle} of {LAYERS} is right of {say(own[middle])} %, "
    f"{say(gain)} more than before training; the best is layer {best}, "
    f"{say(own[best])} %, {say(over)} over the pixels, {say(pixels)} %; "
    f"{say(found.every(OURS, 'bits'))} bits of a pixel"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  columns = {f"layer {i}, %": (f"layer {i}", 1) for i in range(LAYERS)}
  columns |= {"pixels, %": ("pixels", 1), "bits of a pixel": ("bits", 3)}
  record.write(
    "igpt",
    claim="(a) Predicting the next pixel makes features that know of classes; "
    "(b) those of the middle layers know the most, (c) more than the pixels.",
    paper="CIFAR-10, linear probes: 96.3 % of iGPT-L, best at layer 20 of 48; "
    "no figure of the pixels",
    baseline="the same layers before training; the pixels",
    ours=ours,
    holds=arms.said(
      held,
      f"layers 1 to {LAYERS - 1} are within {np.ptp(own.mean(1)[1:]):.1f} "
      "points of each other, and pixels of digits alone tell "
      f"{pixels.mean():.0f} %",
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px of 17 levels, {s.steps} steps of {BATCH}, {LABELS} "
      "labels of a class, mean ± deviation over seeds": found.table(columns),
    },
  )


if __name__ == "__main__":
  run()
