"""Every fast decoder of the library on the same units: quality against passes
of the network and against seconds.

  python -m experiments.comparisons.fast_decoders [FOLDER] [--steps=N]
    [--seeds=N] [--short]

scikit-learn's digits at 8 pixels. One LlamaGen over 16 codes of 2 x 2 pixels is
trained for N updates, and all that can take its weights do: plain raster order,
exact speculation (an EAGLE drafter; Jacobi), LANTERN, GSD, masks of a gated
LoRA (MTP), SDAR, and the students of one pass, DD1 and DD2. NAR over the same
codes and VAR over 21 codes of the same patches in three maps have weights of
their own and the updates of the LlamaGen. Updates beside those of the LlamaGen
are a column; DD1 has the seconds of DD2. All are guided by 1.5.

Passes are those of the large network for one image; guided ones are of two
rows, those of the students of one. Seconds are those of whole batches without
the decoder of the tokenizer, all in turns: a ratio is the median over the turns
of raster order's to the decoder's. It is of the first seed, for one image and
for sixteen at once. The folder is that of `experiments.dd2`, whose LlamaGen,
DD1 and DD2 are taken where they are there.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main
from ar_jax.core.system import build
from experiments import dd2
from experiments.shared import arms, distilled, measures, record
from experiments.shared.arms import Results, Trained, mean_spread
from experiments.shared.distilled import LAW

DRAFTER = 120  # updates of EAGLE, MTP and SDAR
IMAGES, BATCHES, TURNS = 290, (1, 16), 7
RASTER = "raster order"
VAR = distilled.TOKENIZER | dict(form="pyramid", scales=(1, 2, 4))
MODEL = {k: v for k, v in distilled.NET.items() if k not in ("name", "reader")}


class Decoder(NamedTuple):
  """A row: whose weights it takes, its options, whether it draws from the law
  of those weights, and how it is marked in the plot."""

  run: str
  options: dict[str, Any] = {}
  exact: str = "no"
  marker: str = "o"


DECODERS = {
  RASTER: Decoder("raster", LAW, "yes", "*"),
  "EAGLE chain, exact": Decoder(
    "lantern", LAW | dict(drafts=4, delta=0.0), "yes", "s"
  ),
  "Jacobi, exact": Decoder("gsd", LAW | dict(window=8, size=1), "yes", "s"),
  "LANTERN": Decoder("lantern", LAW | dict(drafts=4, delta=0.2, k=8)),
  "GSD": Decoder("gsd", LAW | dict(window=8, size=8)),
  "MTP": Decoder("mtp", LAW, "yes", "s"),
  "SDAR, static": Decoder("sdar", LAW, marker="D"),
  "SDAR, threshold 0.8": Decoder(
    "sdar", LAW | dict(strategy="threshold", threshold=0.8), marker="D"
  ),
  "SDAR, 4 at once": Decoder("sdar", LAW | dict(steps=1), marker="D"),
  "NAR": Decoder("nar", LAW, "its own", "^"),
  "VAR": Decoder("var", LAW, "its own", "^"),
  "DD1, one pass": Decoder("dd1", marker="v"),
  "DD1, two passes": Decoder("dd1", dict(passes=2), marker="v"),
  "DD2, one pass": Decoder("dd2", marker="P"),
  "DD2, teacher from unit 8": Decoder("dd2", dict(teacher=8), marker="P"),
}


class Trainer:
  """What is trained for a seed, once each."""

  def __init__(self, real: data.Dataset, s: arms.Settings):
    self.real, self.s = real, s
    less = lambda n: s.fewer(n, s.steps)
    self.drafter = less(DRAFTER)
    self.runs = distilled.Runs(real, s, s.steps, dd2.SCORES, dd2.STEPS)
    self.of = functools.cache(self._of)
    self._pyramid = functools.cache(self._pyramid)

  def _of(self, name: str, seed: int) -> Trained:
    runs = self.runs
    if name in ("dd1", "dd2"):
      return runs.first(seed) if name == "dd1" else runs.second(seed)
    base = runs.teacher(seed)
    if name == "raster":
      return base._replace(seconds=0.0)
    if name == "gsd":
      return base._replace(system=distilled.model("gsd"), seconds=0.0)
    own = dict(batch=64, seed=seed, ema=0.95, lr=3e-3)
    whole, beside = own | dict(ema=0.98), runs.beside(seed)
    frozen = {"tokenizer": runs.codes}
    train = functools.partial(arms.train, steps=self.drafter)
    if name == "lantern":
      system = distilled.model("lantern")
      return train(system, self.real, **own, given=beside)
    if name == "mtp":
      system = distilled.model("mtp_gated_lora", drafts=4)
      return train(system, self.real, **own, given=beside)
    if name == "sdar":
      system = build("sdar", **MODEL, block=4)
      params = dict(base.variables["params"])
      # SDAR has a table: what the LlamaGen reads of each code.
      table = base.system.embedding(base.variables)
      params["units"] = {"embedding": table}
      given = frozen | {"params": system.adopt("params", params)}
      return train(system, self.real, **own, given=given)
    if name == "nar":
      system = build("nar", **MODEL)
    else:
      sizes = distilled.SIZES | dict(num_classes=10)
      system, frozen = build("var", tokenizer=VAR, **sizes), self._pyramid()
    return arms.train(
      system, self.real, steps=self.s.steps, **whole, given=frozen
    )

  def updates(self, name: str, seed: int) -> int:
    """Of training beside the LlamaGen, or in its place."""
    runs = self.runs
    if name == "dd1":
      spent = self.of("dd1", seed).seconds - runs.seconds("first", 0)
      return round(spent / runs.pace()["first"])
    known = dict(raster=0, gsd=0, nar=self.s.steps, var=self.s.steps)
    known["dd2"] = runs.score_steps + runs.student_steps
    return known.get(name, self.drafter)

  def _pyramid(self) -> dict:
    """The tokenizer of VAR, fitted to the digits."""
    return {"tokenizer": distilled.fitted(VAR, self.real)}


def request(own: Trained, batch: int):
  """Draws the units of one batch."""
  label = jnp.arange(batch, dtype=jnp.int32) % 10
  keys = jax.random.split(jax.random.key(0), batch)
  return lambda: distilled.drawn(own, label, keys)[0]


def speeds(trained: dict[str, Trained], short: bool) -> dict[str, dict]:
  """name -> milliseconds of a batch, and how often as fast as raster order."""
  found: dict[str, dict] = {name: {} for name in trained}
  for batch in BATCHES:
    calls = {name: request(own, batch) for name, own in trained.items()}
    times = measures.in_turns(calls, 1 if short else TURNS)
    for name, own in times.items():
      ratio = statistics.median(np.divide(times[RASTER], own).tolist())
      found[name] |= {
        f"ms, {batch}": 1000 * statistics.median(own),
        f"speed, {batch}": ratio,
      }
  return found


def plot(found: Results, fast: dict[str, dict], path: pathlib.Path) -> None:
  """Quality against passes, and against seconds of one image."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(11, 5.2), layout="constrained")
  panels = figure.subplots(1, 2, sharey=True)
  for i, (name, decoder) in enumerate(DECODERS.items()):
    y, spread = found.mean(name, "frechet"), found.spread(name, "frechet")
    passes = found.mean(name, "forwards")
    took = 1 / fast[name][f"speed, {BATCHES[0]}"]
    for axes, x in zip(panels, (passes, took), strict=True):
      axes.errorbar(
        x, y, spread, label=name, fmt=decoder.marker, capsize=2,
        color=f"C{i % 10}", markersize=8,
        markerfacecolor=None if i < 10 else "white",
      )  # fmt: skip
  panels[0].set(
    xscale="log", xlabel="passes of the network for an image",
    ylabel="Frechet distance, features of the judge",
  )  # fmt: skip
  panels[1].set(
    xscale="log", xlabel="seconds of an image, in those of raster order"
  )
  figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right")
  figure.savefig(path, dpi=100)


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("dd2", steps=dd2.TEACHER)
  real = data.load("digits", size=8, channels=1, path="")
  trainer, n = Trainer(real, s), s.fewer(IMAGES)

  def make(seed: int, decoder: Decoder) -> Trained:
    own = trainer.of(decoder.run, seed)
    return own._replace(options=decoder.options)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    images, _, spent = distilled.images(own, seed, n)
    if np.isnan(spent):
      spent = float(measures.forwards(own.system, own.options))
    found = {"forwards": spent}
    return found if s.short else found | measures.quality(images, real)

  found = arms.compare(
    {k: functools.partial(make, decoder=d) for k, d in DECODERS.items()},
    measure,
    s.seeds,
  )
  fast = speeds(found.trained, s.short)
  if s.short:
    print(found.runs, fast)
    return
  table = found.table(
    {
      "passes": ("forwards", 1),
      "Frechet distance": ("frechet", 2),
      "judge": ("judge_accuracy", 3),
    },
    "decoder",
    **{
      f"times as fast, {batch} at once": {
        k: f"{fast[k][f'speed, {batch}']:.2f}" for k in fast
      }
      for batch in BATCHES
    },
    **{
      "ms of one image": {k: f"{fast[k]['ms, 1']:.2f}" for k in fast},
      "exact": {k: d.exact for k, d in DECODERS.items()},
      "updates of its own": {
        k: trainer.updates(d.run, s.seeds[0]) for k, d in DECODERS.items()
      },
    },
  )
  noise = lambda k: max(found.spread(k, "frechet"),
                        found.spread(RASTER, "frechet"))  # fmt: skip
  behind = {
    k: found.mean(k, "frechet") - found.mean(RASTER, "frechet")
    for k in DECODERS
  }
  good = [k for k in DECODERS if k != RASTER and behind[k] <= noise(k)]
  fewer = [k for k in good if found.mean(k, "forwards") < 16]
  quicker = {
    batch: [k for k in good if fast[k][f"speed, {batch}"] > 1]
    for batch in BATCHES
  }
  listed = lambda names: "; ".join(names) or "none"
  ours = (
    "as good as raster order "
    f"({mean_spread(found.every(RASTER, 'frechet'))}) within a spread, in "
    f"fewer passes: {listed(fewer)}. Of these faster for one image: "
    f"{listed(quicker[1])}; for sixteen at once: {listed(quicker[16])}"
  )
  front = [
    k
    for k in DECODERS
    if not any(
      found.mean(o, "frechet") < found.mean(k, "frechet")
      and fast[o]["speed, 1"] > fast[k]["speed, 1"]
      for o in DECODERS
    )
  ]
  print(ours, front, flush=True)
  plot(found, fast, record.RESULTS / "fast_decoders.png")
  record.write(
    "fast_decoders",
    claim="Decoders of fewer passes keep the quality of raster order, and "
    "fewer passes are less time.",
    paper="none measures them side by side; each claims one of both against "
    "raster order",
    baseline="raster order with a cache, the same weights",
    ours=ours,
    holds=arms.said(
      {k: k in fewer and k in quicker[1] for k in DECODERS if k != RASTER},
      "see the table: worse than raster order by more than a spread, or not "
      "faster",
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px, 16 codes of {distilled.VOCAB}, {s.steps} updates, "
      f"{n} images, mean ± deviation over seeds": table,
      "No other is better and faster for one image": [
        {
          "decoder": k,
          "Frechet distance": mean_spread(found.every(k, "frechet")),
          "times as fast": f"{fast[k]['speed, 1']:.2f}",
        }
        for k in sorted(front, key=lambda k: -fast[k]["speed, 1"])
      ],
    },
    picture="fast_decoders.png",
    law=LAW,
    decoders={k: d.options for k, d in DECODERS.items()},
  )


if __name__ == "__main__":
  run()
