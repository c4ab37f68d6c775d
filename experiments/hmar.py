"""What HMAR claims and two cores can check (arXiv 2506.04421).

  python -m experiments.hmar FOLDER [STEPS] [digits]

On the units of one tokenizer, with equal sizes and steps: (a) a scale that sees
itself only loses little (cross-entropy within 5 % of VAR's, judge accuracy of
one-shot samples within 3 points); (b) an update is not slower, and a sampler
keeps nothing; (c) the same weights can be drawn by any schedule, and refined
samples are not below one-shot ones. Weights of the scales on and off. For the
share of attention see `experiments.benchmarks.attention_share`. Below 100 STEPS
it is a trial on digits, which records nothing.
"""

from __future__ import annotations

import sys
import time

from ar_jax import main
from configs import hmar, var
from experiments.shared import record, scales
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


def run(args: list[str]) -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  b = scales.budget(args)
  rows, results, sheet = scales.compare(ARMS, b.kind, b)
  mean = lambda arm, key: scales.mean(results[arm], key)
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
  if b.short:
    return
  failed = [name for name, held in held.items() if not held]
  record.write(
    "hmar",
    claim="(a) Scales that do not see each other lose little; (b) an update "
    "takes no longer; (c) refinement by any schedule does no harm.",
    paper="matches or beats VAR of equal size",
    baseline="VAR with equal sizes and steps on the same units",
    ours=ours,
    holds=not failed or f"does not hold: {', '.join(failed)}",
    seeds=list(b.seeds),
    seconds=time.perf_counter() - begun,
    tables={f"{scales.KINDS[b.kind]}, {b.steps} steps, mean ± deviation": rows},
    picture=scales.picture("hmar", sheet),
  )


if __name__ == "__main__":
  run(sys.argv[1:])
