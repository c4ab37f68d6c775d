"""What the pixel-based class of the survey (arXiv 2411.05902) claims, on what
one core can train: PixelCNN (arXiv 1601.06759), Gated PixelCNN (1606.05328),
PixelCNN++ (1701.05517) and iGPT, the same data and updates.

  python -m experiments.pixelcnn [FOLDER] [--steps=N] [--seeds=N] [--short]

scikit-learn's digits at 8 pixels, of 17 levels, without classes, so that the
likelihood is that of the pictures as they are, in bits of a pixel:

(a) each model needs at least 15 % less than the marginal, the frequencies of
    the levels of every pixel by itself, each level counted once more;
(b) the gates and the second stack cost nothing: Gated PixelCNN needs at most
    0.02 more than PixelCNN.

Nothing is kept in the folder.
"""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from ar_jax import data, main, step
from ar_jax.core.system import System, build
from experiments.shared import arms, measures, pictures, record
from experiments.shared.arms import Trained

STEPS, BATCH = 500, 32
LEVELS, SIDE = 17, 8
PLAIN, GATED, PLUS, GPT = "PixelCNN", "Gated PixelCNN", "PixelCNN++", "iGPT"
PIXELS = dict(name="given", form="pixels", levels=LEVELS, size=SIDE)
CODES = dict(name="given", form="levels", levels=LEVELS, size=SIDE)
# Arguments of `build`, and the peak of the rate.
ARMS = {
  PLAIN: (dict(kind="pixelcnn", width=32, depth=5), 4e-3),
  GATED: (dict(kind="gated", width=32, depth=5), 4e-3),
  PLUS: (
    dict(kind="plus", width=24, depth=1, components=5, dropout=0.1),
    4e-3,
  ),
  GPT: (dict(width=64, depth=3, heads=4, dropout=0.1), 3e-3),
}
DRAWN = 10  # samples of each that are shown


def model(arm: str) -> System:
  if arm == GPT:
    return build("igpt", tokenizer=CODES, **ARMS[arm][0])
  return build("pixelcnn", tokenizer=PIXELS, **ARMS[arm][0])


def marginal(dataset: data.Dataset) -> float:
  """Bits of a pixel of the test images, from the frequencies of the levels of
  each pixel by itself."""

  def levels(source):
    images = np.stack([source[i]["image"] for i in range(len(source))])
    return (
      np.round(images / 255 * (LEVELS - 1)).astype(int).reshape(len(images), -1)
    )

  train, test = levels(dataset.train), levels(dataset.test)
  counts = np.stack([(train == v).sum(0) + 1 for v in range(LEVELS)], 1)
  law = counts / counts.sum(1, keepdims=True)
  return float(-np.log2(law[np.arange(SIDE**2), test]).mean())


def drawn(own: Trained, seed: int, count: int) -> tuple[np.ndarray, float]:
  """Samples, and milliseconds for each of a batch."""

  def draw():
    return step.draw(
      *own[:2], {"rows": np.arange(count)}, jax.random.key(seed), batch=count
    )["image"]

  draw()
  begun = time.perf_counter()
  images = draw()
  return images, 1e3 * (time.perf_counter() - begun) / count


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("pixelcnn", steps=STEPS)
  dataset = data.load("digits", size=SIDE, channels=1, path="")
  base = marginal(dataset)

  def make(seed: int, arm: str) -> Trained:
    return arms.train(
      model(arm),
      dataset,
      steps=s.steps,
      batch=BATCH,
      seed=seed,
      lr=ARMS[arm][1],
      ema=0.98,
    )

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = measures.likelihood(own, dataset)
    bits = found["bits_per_dim"]
    return {
      "bits": bits,
      "below": 100 * (1 - bits / base),
      "forwards": own.system.forwards(),
      "parameters": measures.parameters(own.variables["params"]),
      "ms/image": drawn(own, seed, 100)[1],
      "seconds": own.seconds,
    }

  makers = {arm: functools.partial(make, arm=arm) for arm in ARMS}
  found = arms.compare(makers, measure, s.seeds)
  below = {arm: np.array(found.every(arm, "below")) for arm in ARMS}
  gap = np.array(found.every(GATED, "bits")) - found.every(PLAIN, "bits")
  held = {
    f"(a) {arm} 15 % below": bool((value >= 15).all())
    for arm, value in below.items()
  } | {"(b) Gated at most 0.02 above": bool(gap.mean() <= 0.02)}
  say = arms.mean_spread
  ours = (
    f"the marginal needs {base:.3f} bits of a pixel; "
    + ", ".join(
      f"{arm} {say(found.every(arm, 'bits'), 3)} ({say(below[arm].tolist(), 1)}"
      " % below)"
      for arm in ARMS
    )
    + f"; Gated - PixelCNN {say(gap.tolist(), 3)}"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  shown = {k: drawn(v, 0, DRAWN)[0] for k, v in found.trained.items()}
  record.write(
    "pixelcnn",
    claim="(a) Four models of pixels need at least 15 % fewer bits than every "
    "pixel by itself; (b) Gated PixelCNN needs at most 0.02 more than "
    "PixelCNN.",
    paper="CIFAR-10, bits of a value: PixelCNN 3.14, Gated PixelCNN 3.03, "
    "PixelCNN++ 2.92",
    baseline=f"the marginal of every pixel, {base:.3f} bits; a uniform law, "
    f"{np.log2(LEVELS):.3f}",
    ours=ours,
    holds=arms.said(held),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px of 17 levels, {s.steps} steps of {BATCH}, mean ± "
      "deviation over seeds": found.table(
        {
          "bits of a pixel": ("bits", 3),
          "% below the marginal": ("below", 1),
          "forwards of an image": ("forwards", 0),
          "parameters": ("parameters", 0),
          "ms/image": ("ms/image", 2),
          "seconds of training": ("seconds", 0),
        }
      ),
    },
    picture=pictures.save("pixelcnn", shown),
  )


if __name__ == "__main__":
  run()
