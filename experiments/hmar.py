"""What HMAR claims and two cores can check (arXiv 2506.04421).

  python -m experiments.hmar [FOLDER] [fashion | digits] [--steps=N]
    [--seeds=N] [--short]

On the units of one tokenizer, with equal sizes and steps: (a) a scale that sees
itself only loses little (cross-entropy within 5 % of VAR's, judge accuracy of
one-shot samples within 3 points); (b) an update is not slower, and a sampler
keeps nothing; (c) the same weights can be drawn by any schedule, and refined
samples are not below one-shot ones. Weights of the scales on and off. For the
share of attention see `experiments.benchmarks.attention_share`. A trial
(--short) is of digits.
"""

from __future__ import annotations

import time

from ar_jax import main
from configs import hmar, var
from experiments.shared import arms, pictures, record, scales
from experiments.shared.scales import Arm

EVEN = {"generator.model.weights": "units", "refinement.model.weights": "units"}
OTHER = ((1,), (1, 1, 2))
ARMS = (
  Arm("VAR", var),
  Arm("HMAR, one shot", hmar),
  Arm("HMAR, refined", hmar, "refinement"),
  Arm("HMAR, refined otherwise", hmar, "refinement", options={"refine": OTHER}),
  Arm("HMAR, even weights, one shot", hmar, changes=EVEN),
)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = scales.settings("scales")
  rows, found, dataset = scales.compare(ARMS, s.word, s)
  mean = found.mean
  gap = mean("HMAR, even weights, one shot", "nats") / mean("VAR", "nats") - 1
  accuracy = {arm.name: mean(arm.name, "judge_accuracy") for arm in ARMS}
  below = accuracy["VAR"] - accuracy["HMAR, one shot"]
  gained = accuracy["HMAR, refined"] - accuracy["HMAR, one shot"]
  speed = mean("VAR", "update") / mean("HMAR, one shot", "update")
  held = {
    "(a) cross-entropy": gap <= 0.05,
    "(a) accuracy": below <= 0.03,
    "(b) update": speed >= 1,
    "(c) refinement": gained >= 0,
  }
  ours = (
    f"(a) cross-entropy {100 * gap:+.1f} %, accuracy {-100 * below:+.1f} "
    f"points; (b) update {speed:.2f}x as fast; (c) refinement "
    f"{100 * gained:+.1f} points"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  record.write(
    "hmar",
    claim="(a) Scales that do not see each other lose little; (b) an update "
    "takes no longer; (c) refinement by any schedule does no harm.",
    paper="matches or beats VAR of equal size",
    baseline="VAR with equal sizes and steps on the same units",
    ours=ours,
    holds=arms.said(
      held,
      f"the judge is right of {100 * accuracy['HMAR, one shot']:.1f} % of one "
      f"shot and {100 * accuracy['HMAR, refined']:.1f} % of the refined, where "
      "seeds differ by "
      f"{100 * found.spread('HMAR, refined', 'judge_accuracy'):.1f} points",
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={scales.title(s): rows},
    picture=pictures.save("hmar", scales.samples(found), dataset.class_names),
  )


if __name__ == "__main__":
  run()
