"""VTBench's claim on the tokenizers of this library (arXiv 2505.13439).

  python -m experiments.vtbench [FOLDER] [--steps=N] [--seeds=N] [--short]

Every tokenizer with the same convolutional nets, or with small transformers,
trained alike on Fashion-MNIST at 32 pixels, fine patterns and rendered text
together, and measured on each of the three: 64 units of 8 bits an image (85 for
maps of several sizes), beside codecs without training. The claim:

(a) the continuous autoencoder has a higher PSNR than every discrete one on each
    task, and fewer wrong characters;
(b) what resampling loses, the metrics order: half, a quarter, an eighth of the
    side.

Units of numbers have no bits to be compared by: what (a) compares is what the
paper compares, tokenizers with as many units.
"""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from ar_jax import data, evals, main
from ar_jax.core.system import build
from ar_jax.data.dataset import Arrays, Dataset
from experiments.shared import arms, pictures, record
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 500, 32, 4e-3
EACH, TESTS = 2000, 100  # training and test images of a task
SIZE = 32
NET = dict(ch=8, mult=(1, 2, 4), blocks=1, in_channels=1)
FLAT = NET | dict(size=SIZE)
ONE = FLAT | dict(z=32)
CONTINUOUS, RESIDUAL = "KL, 4 numbers", "VQ, maps of 1, 2, 4, 8"
MAPS = dict(vocab=256, channels=4, scales=(1, 2, 4, 8), spread=0.3)
# Of codes in a line, by transformers, which need all of it to use their codes.
LINE = dict(vocab=256, channels=4, length=64, size=SIZE, in_channels=1)
LINE |= dict(quantizer=dict(spread=0.3, entropy=0.1, rotation=True))
# Name -> (system, its options).
TRAINED = {
  # A KL of full weight leaves nothing in so few numbers.
  CONTINUOUS: (
    "kl_vae",
    dict(channels=4, attention=(2,), bottleneck_weight=1e-5) | FLAT,
  ),
  "VQ": ("vq", dict(vocab=256, channels=4, spread=0.5) | ONE),
  RESIDUAL: ("multiscale_vq", MAPS | NET),
  "VQ, maps of bands": ("frequency_vq", MAPS | NET),
  "VQ, latents of 1, 2, 4, 8": ("flex_vq", MAPS | ONE),
  "FSQ": ("lookup_free", dict(kind="fsq", levels=(8, 8, 4)) | ONE),
  "BSQ": ("lookup_free", dict(kind="bsq", bits_of_code=8) | ONE),
  "LFQ": ("lookup_free", dict(kind="lfq", bits_of_code=8) | ONE),
  "BSQ, maps of 1, 2, 4, 8": (
    "bitwise",
    dict(bits=8, scales=(1, 2, 4, 8)) | NET,
  ),
  "bits that are drawn": ("bits", dict(bits=8) | ONE),
  "GigaTok, a line": (
    "gigatok",
    LINE
    | dict(
      encoder=(64, 2, 2),
      decoder=(64, 2, 2),
      nets=dict(z=32, ch=8, mult=(1, 2, 4), blocks=1),
    ),
  ),
  "D-AR, a line in 8 groups": (
    "d_ar",
    LINE
    | dict(
      groups=8,
      rows=64,
      width=64,
      heads=4,
      depths=(2, 2, 3),
      patch=4,
      pixel_patch=4,
    ),
  ),  # fmt: skip
  "linear, 4 numbers": ("vtbench", dict(kind="linear", patch=4, channels=4)),
}
CODECS = {
  f"1/{f} of the side": dict(kind="resample", factor=f) for f in (2, 4, 8)
}
TASKS = ("images", "patterns", "text")
METRICS = ("psnr", "ssim", "perceptual", "frechet")
UNITS = ("tokens", "bits_per_pixel", "codebook_usage")
ERRORS = ("cer", "wer", "wer_vtbench")


def images(split: str, each: int) -> Dataset:
  """The images of all tasks, evenly."""
  sets = (
    data.load("fashion_mnist", size=SIZE, channels=1),
    data.load("patterns", size=SIZE, channels=1, length=8 * each),
    data.load("rendered_text", size=SIZE, channels=1, scale=1, length=8 * each),
  )
  rows = [getattr(own, split)[i]["image"] for i in range(each) for own in sets]
  label = np.tile(np.arange(len(sets)), each)
  found = Arrays(
    {"image": np.stack(rows), "label": label}, num_classes=3, where="vtbench"
  )
  return Dataset("tasks of vtbench", found, found, 3, TASKS, "rule 1")


def make(seed: int, name: str, own: Dataset, s: arms.Settings) -> Trained:
  """A trained tokenizer."""
  kind, options = TRAINED[name]
  system = build(kind, **options)
  return arms.train(
    system,
    own,
    steps=s.steps,
    batch=BATCH,
    seed=seed,
    lr=RATE,
    ema=0.98,
    keep=s.folder,
  )


def measure(own: Trained, seed: int, judge) -> dict[str, float]:
  """The table's figures."""
  found = judge(own.system, own.variables, [], jax.random.key(seed))
  keep = {k: v for k, v in found.items() if isinstance(v, int | float)}
  nothing = dict.fromkeys(
    ("tokens", "bits_per_pixel", "codebook_usage"), np.nan
  )
  return nothing | keep | {"seconds": own.seconds}


def picture(results: arms.Results, name: str) -> str:
  """Two test images of each task, and what is left of them."""
  sets = [
    data.load("fashion_mnist", size=SIZE, channels=1),
    data.load("patterns", size=SIZE, channels=1),
    data.load("rendered_text", size=SIZE, channels=1, scale=1),
  ]
  true = np.stack([own.test[i]["image"] for own in sets for i in (0, 1, 2)])
  rows = {"original": true}
  for arm, own in results.trained.items():
    keys = jax.random.split(jax.random.key(0), len(true))
    rows[arm] = np.asarray(
      own.system.sample(own.variables, {"image": true}, keys)
    )
  return pictures.save(name, rows)


def run() -> None:
  main.set_up_devices()
  s = arms.settings("vtbench", steps=STEPS)
  begun = time.perf_counter()
  own = images("train", s.fewer(EACH))
  judge = evals.build(
    "vtbench",
    data.load("fashion_mnist", size=SIZE, channels=1),
    n=s.fewer(TESTS),
    scale=1,
    features="pixels",
  )
  makers = {
    name: functools.partial(make, name=name, own=own, s=s) for name in TRAINED
  }
  makers |= {
    name: lambda seed, given=given: Trained(
      build("vtbench", **given), {"params": {}}
    )
    for name, given in CODECS.items()
  }
  results = arms.compare(
    makers, functools.partial(measure, judge=judge), s.seeds
  )
  discrete = [name for name in TRAINED if "numbers" not in name]
  every = lambda name, key: results.every(name, key)
  above = {
    f"a higher PSNR on {task} than every discrete one": all(
      a > b
      for name in discrete
      for a, b in zip(
        every(CONTINUOUS, f"psnr {task}"),
        every(name, f"psnr {task}"),
        strict=True,
      )
    )
    for task in TASKS
  }
  fewer = all(
    a < b
    for name in discrete
    for a, b in zip(
      every(CONTINUOUS, "cer text"), every(name, "cer text"), strict=True
    )
  )
  order = [[results.mean(c, f"psnr {t}") for c in CODECS] for t in TASKS]
  held = above | {
    "fewer wrong characters": fewer,
    "the order of resampling": all(x == sorted(x)[::-1] for x in order),
  }
  best = max(discrete, key=lambda name: results.mean(name, "psnr text"))
  ahead, spreads = [], []
  for task in TASKS:
    key = f"psnr {task}"
    over = [
      results.mean(name, key) - results.mean(CONTINUOUS, key)
      for name in discrete
    ]
    lead = [x for x in over if x > 0]
    spreads.append(results.spread(CONTINUOUS, key))
    ahead.append(
      f"on {task} {len(lead)} of {len(discrete)} discrete ones lead in the mean"
      f", by {max(lead):.2f} dB at most"
      if lead
      else f"on {task} none leads in the mean, the nearest is {-max(over):.2f} "
      "dB behind"
    )
  why = "; ".join(ahead) + f"; seeds differ by up to {max(spreads):.2f} dB"
  text = lambda name, key: mean_spread(every(name, f"{key} text"))
  record.write(
    "vtbench",
    claim="a continuous tokenizer keeps more than every discrete one on each "
    "task, most of all text",
    paper="continuous VAEs beat all discrete tokenizers on every task, most on "
    "text; no figure in the abstract",
    baseline=f"discrete tokenizers with the same nets, of which {best} is best "
    "on text; resampling; a linear codec",
    ours=f"on text {text(CONTINUOUS, 'psnr')} dB and {text(CONTINUOUS, 'cer')} "
    f"of the characters wrong, {best} {text(best, 'psnr')} dB and "
    f"{text(best, 'cer')}",
    holds=arms.said(held, why),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{task}": results.table(
        {m: (f"{m} {task}", 3 if m != "psnr" else 2) for m in METRICS}
        | ({m: (f"{m} text", 3) for m in ERRORS} if task == "text" else {}),
        "tokenizer",
      )
      for task in TASKS
    }
    | {
      "what they cost": results.table(
        {
          "units": ("tokens", 0),
          "bits a pixel": ("bits_per_pixel", 3),
          "codes in use": ("codebook_usage", 2),
          "seconds of training": ("seconds", 1),
        },
        "tokenizer",
      )
    },
    picture=None if s.short else picture(results, "vtbench"),
    settings=dict(steps=s.steps, batch=BATCH, rate=RATE, nets=NET),
  )


if __name__ == "__main__":
  run()
