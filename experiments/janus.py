"""Does Janus draw what a prompt names (arXiv 2410.13848), on two cores?

  python -m experiments.janus [FOLDER] [--steps=N] [--seeds=N] [--short]

A Janus of four layers draws scikit-learn's digits at 8 pixels from prompts, 16
codes an image. A judge that learned from real images says which digit it sees:
that of the prompt, and more often with guidance by a prompt of padding.

Nothing is kept in the folder but the tokenizer.
"""

from __future__ import annotations

import time

import jax
import numpy as np

from ar_jax import main
from experiments.shared import arms, record
from experiments.shared.arms import Trained, mean_spread
from experiments.shared.prompted import BATCH, GUIDANCE, STEPS, Prompted

WAYS = {f"{GUIDANCE:g}": GUIDANCE, "none": 1.0}  # guidance
GUIDED, PLAIN = WAYS


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("janus", steps=STEPS)
  shared = Prompted(s)
  judges = {way: shared.evaluator(scale) for way, scale in WAYS.items()}

  def measure(own: Trained, seed: int) -> dict[str, float]:
    key, found = jax.random.key(1000 + seed), {}
    for way, judge in judges.items():
      rates = judge(own.system, own.variables, None, key)
      found[way] = float(np.mean(list(rates["per_class"].values())))
    return found

  found = arms.compare({"janus": shared.model}, measure, s.seeds)
  right = {way: found.every("janus", way) for way in WAYS}
  held = {
    "what prompts name": min(right[PLAIN]) > 0.5,
    "guidance": min(right[GUIDED]) > max(right[PLAIN]),
  }
  print(right, held, flush=True)
  if s.short:
    return
  record.write(
    "janus",
    claim="A decoder of text draws what its prompt names, and guidance by a "
    "prompt of padding makes it do so more often.",
    paper="GenEval 0.80 of Janus-Pro-7B, 0.61 of Janus",
    baseline="the same models without guidance; chance is 0.1",
    ours="the judge sees the digit that the prompt names in "
    f"{mean_spread(right[GUIDED], 3)} of the samples at guidance {GUIDED}, in "
    f"{mean_spread(right[PLAIN], 3)} without",
    holds=arms.said(held),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px by prompts, {s.steps} steps of {BATCH}, mean ± "
      "deviation over seeds": [
        {"guidance": way, "accuracy of classes": mean_spread(all_, 3)}
        for way, all_ in right.items()
      ]
    },
  )


if __name__ == "__main__":
  run()
