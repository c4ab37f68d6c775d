"""What GSD claims and two cores can check (arXiv 2508.07747).

  python -m experiments.gsd [FOLDER] [digits | fashion] [--steps=N]
    [--seeds=N] [--short]

LlamaGen drafts for itself in a window of eight units, three seeds; a draft is
judged with the mass of a group of G units that the model finds about as likely.
The folder is that of `experiments.comparisons.next_token`, whose runs are taken
where they are there.

(a) larger groups, fewer forwards: G = 1 (speculative Jacobi decoding, which is
    exact), 3, 7 and 15 in this order;
(b) at G = 15 at least 1.3 times fewer forwards than at G = 1 (the paper: 1035
    against 637, so 1.62), and fewer than one a unit (the paper: 3.7 times as
    fast);
(c) at about the same quality: the Frechet distance not above that of G = 1 by
    more than the spread over the seeds;
(d) groups made anew for each draft beat groups that are fixed by the
    embeddings: fewer forwards, or better samples.

A group keeps those of its G units whose embeddings are near the draft's. One
more arm leaves this filter out: it tells what the filter costs.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from ar_jax import main
from experiments.comparisons import next_token
from experiments.comparisons.next_token import Decoder
from experiments.shared import arms, measures, pictures, record
from experiments.shared.arms import Trained, mean_spread

IMAGES = 200
SIZES = (1, 3, 7, 15)
NAMES = [f"G = {size}" for size in SIZES]
EXACT, OURS = NAMES[0], NAMES[-1]
FREE, FIXED = "G = 15, likely ones near or not", "fixed groups of 4"
WINDOW = dict(window=8)
DECODERS = (
  Decoder("raster", "llamagen", {}),
  *(
    Decoder(name, "gsd", WINDOW | dict(size=size))
    for name, size in zip(NAMES, SIZES, strict=True)
  ),
  Decoder(FREE, "gsd", WINDOW | dict(size=15, quantile=None)),
  Decoder(FIXED, "gsd", WINDOW | dict(size=4, grouping="fixed")),
)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = next_token.settings("next_token_digits", kind="digits")
  real, n = next_token.dataset(s.word), s.fewer(IMAGES)
  every = next_token.prepare(s, ("llamagen",))
  pictured: dict[str, np.ndarray] = {}

  def measure(own: Trained, seed: int) -> dict[str, float]:
    drawn, spent = measures.speculated(own, real, seed=seed, n=n)
    pictured.setdefault(str(own.options), drawn[:10])
    return spent | measures.quality(drawn, real)

  found = arms.compare(next_token.makers(every, DECODERS), measure, s.seeds)
  table = found.table(
    {
      "forwards": ("forwards", 1),
      "acceptance": ("acceptance", 3),
      "Frechet distance": ("frechet", 2),
      "judge accuracy": ("judge_accuracy", 3),
    },
    "groups",
  )
  mean = found.mean
  fewer = lambda name, base: np.divide(
    found.every(base, "forwards"), found.every(name, "forwards")
  ).tolist()
  gain, plain, free = (
    fewer(OURS, EXACT), fewer(OURS, "raster"), fewer(FREE, EXACT)
  )  # fmt: skip
  lost = mean(OURS, "frechet") - mean(EXACT, "frechet")
  noise = max(found.spread(name, "frechet") for name in (OURS, EXACT))
  beats = mean(OURS, "forwards") < mean(FIXED, "forwards") or (
    mean(OURS, "frechet") < mean(FIXED, "frechet")
  )
  ours = (
    f"G = 15 over G = 1: {mean_spread(gain)}x fewer forwards, without the "
    f"filter of near embeddings {mean_spread(free)}x; over one a unit "
    f"{mean_spread(plain)}x; Frechet distance {lost:+.2f}, the spread "
    f"being {noise:.2f}"
  )
  held = {
    "(a) larger groups, fewer forwards": all(
      mean(a, "forwards") >= mean(b, "forwards")
      for a, b in itertools.pairwise(NAMES)
    ),
    "(b) 1.3 times fewer forwards than exact": min(gain) >= 1.3,
    "(b) fewer than one a unit": min(plain) > 1,
    "(c) samples as good": lost <= noise,
    "(d) dynamic beats fixed groups": beats,
  }
  print(ours, held, flush=True)
  if s.short:
    return
  holds = arms.said(held)
  if "1.3 times" in str(holds):
    why = "the filter of near embeddings leaves few of the 15"
    if min(free) < 1.3:
      why = "so few units are about as likely as the draft, near or not"
    holds = f"{holds}: {why}"
  rows = dict(zip((d.name for d in DECODERS), pictured.values(), strict=True))
  record.write(
    "gsd" if s.word == "digits" else f"gsd_{s.word}",
    claim="(a) Larger groups take fewer forwards; (b) groups of 15 at least "
    "1.3 times fewer than exact speculation, (c) at about the same quality; "
    "(d) groups made anew for each draft beat fixed ones.",
    paper="3.7x as fast as one unit a forward; 1035 forwards of exact "
    "speculation against 637, 1.62x",
    baseline="the same drafts judged exactly (G = 1); raster order; groups "
    "fixed by the embeddings",
    ours=ours,
    holds=holds,
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{next_token.KINDS[s.word].title}, 64 units, mean ± deviation over "
      f"seeds, {n} images": table,
      "Real images": [next_token.real_images(found)],
    },
    picture=pictures.save("gsd", rows, real.class_names),
    law=next_token.LAW,
  )


if __name__ == "__main__":
  run()
