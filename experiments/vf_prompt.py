"""What VF-prompt claims and two cores can check (arXiv 2502.16965).

  python -m experiments.vf_prompt [FOLDER] [--steps=N] [--seeds=N] [--short]

That images are better, by about a fifth, if the model is shown k codes before
it draws: those of another image of the class, or random ones. scikit-learn's
digits at 8 pixels in four levels, 64 codes; k = 64 of all three prompts, in
equal steps. The arms are no prompt (LlamaGen), both prompts of the paper, and
k copies of one learned row, which is as much computation without content.

Judged by samples without guidance: Frechet distance of pixels to the quantised
images, accuracy of a judge. And whether a class prompt is copied: distance of a
sample to its own prompt, an image of the training split, against that of the
other arms to the same images, which they do not see.

Nothing is kept in the folder.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np

from ar_jax import data, main, step
from ar_jax.conditions import conditions
from ar_jax.core import prng
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import System, build
from ar_jax.data.wrap import peers
from ar_jax.evals.images.features import features
from experiments.shared import arms, measures, pictures, record, toys
from experiments.shared.arms import Trained, mean_spread

STEPS, BATCH, RATE = 200, 32, 3e-3
LEVELS, SIDE, IMAGES = 4, 8, 500
GAIN = 0.2  # of the Frechet distance, as claimed
NONE, CLASS, RANDOM, PAUSE = "no prompt", "class", "universal", "pause"
ARMS = {NONE: "none", CLASS: "class", RANDOM: "universal", PAUSE: "pause"}
SIZES = dict(depth=3, width=64, heads=4, num_classes=10, multiple_of=32)


def quantised(real: data.Dataset) -> data.Dataset:
  """The digits as the codes can say them."""

  def rows(source):
    found = []
    for i in range(len(source)):
      level = np.round(source[i]["image"] / 255.0 * (LEVELS - 1))
      image = np.round(level * 255 / (LEVELS - 1)).astype(np.uint8)
      found.append({"image": image, "label": np.int32(source[i]["label"])})
    return found

  train, test = rows(real.train), rows(real.test)
  return dataclasses.replace(real, train=train, test=test, digest="")


def model(kind: str) -> System:
  codes = dict(name="given", form="levels", levels=LEVELS, size=SIDE)
  return build("vf_prompt", tokenizer=codes, kind=kind, **SIZES)


def drawn(own: Trained, cond: dict, seed: int) -> np.ndarray:
  """f32[N, H, W, 1], a sample for each condition."""
  key, batch = prng.key(seed), min(100, len(cond["label"]))
  made = step.draw(*own[:2], cond, key, batch=batch, options=own.options)
  return made["image"]


def accuracy(
  image: np.ndarray, label: np.ndarray, plain: data.Dataset
) -> dict[str, float]:
  """How many are what they should be, as the judge sees it."""
  judge = features("judge", plain)
  said = judge.embed(to_uint8(image)).logits.argmax(1)
  return {"accuracy": float((said == label).mean())}


def nearness(image: np.ndarray, cond: dict, plain: data.Dataset) -> dict:
  """Root mean squared distance of pixels to the prompt and to the nearest
  training image of the class, and how often that is the prompt."""
  train, labels = toys.pixels(plain)
  flat = train.reshape(len(train), -1)
  prompt = cond["peer_image"][:, 0].reshape(len(image), -1) / 255.0
  image = image.reshape(len(image), -1)
  apart = lambda a, b: np.sqrt(np.square(a - b).mean(-1))
  own, nearest = apart(image, prompt), np.zeros(len(image))
  for i, label in enumerate(cond["label"]):
    nearest[i] = apart(image[i], flat[labels == label]).min()
  return {
    "to_prompt": float(own.mean()),
    "to_nearest": float(nearest.mean()),
    "copies": float((own <= nearest + 1e-3).mean()),
  }


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("vf_prompt", steps=STEPS)
  plain = quantised(data.load("digits", size=SIDE, channels=1, path=""))
  beside = peers.add(plain, 1)
  n = s.fewer(IMAGES)
  # The same for all arms; the class prompt alone looks at more than labels.
  cond = conditions(model("class"), beside, n)

  def make(seed: int, kind: str) -> Trained:
    own = dict(steps=s.steps, batch=BATCH, seed=seed, lr=RATE, ema=0.98)
    part = beside if kind == "class" else plain
    return arms.train(model(kind), part, **own)

  def measure(own: Trained, seed: int) -> dict[str, float]:
    part = beside if own.system.kind == "class" else plain
    image = drawn(own, cond, 1000 + seed)

    def given(system, variables, asked, key, *, start, **_):
      del system, variables, key
      return {"image": image[start : start + len(asked["label"])]}

    return {
      **measures.score(None, plain, seed=seed, n=n, draw=given),
      **accuracy(image, cond["label"], plain),
      "nats": measures.likelihood(own, part)["nats"],
      "seconds": own.seconds,
      **nearness(image, cond, plain),
    }

  makers = {k: functools.partial(make, kind=v) for k, v in ARMS.items()}
  found = arms.compare(makers, measure, s.seeds)
  finish(s, found, cond, plain, time.perf_counter() - begun)


def finish(
  s: arms.Settings,
  found: arms.Results,
  cond: dict,
  plain: data.Dataset,
  seconds: float,
) -> None:
  """The verdict, and the record."""
  frechet = {k: found.mean(k, "frechet") for k in ARMS}
  spread = max(found.spread(k, "frechet") for k in ARMS)
  held = {
    f"{k} {what}": bool(frechet[k] < frechet[than] - max(least, spread))
    for k in (CLASS, RANDOM)
    for what, than, least in (
      ("a fifth better than no prompt", NONE, GAIN * frechet[NONE]),
      ("better than its control", PAUSE, 0.0),
    )
  }
  ours = (
    "Frechet distance of pixels "
    + ", ".join(f"{k} {mean_spread(found.every(k, 'frechet'))}" for k in ARMS)
    + "; a sample is as far from its class prompt as "
    f"{found.mean(CLASS, 'to_prompt'):.3f}, without one "
    f"{found.mean(NONE, 'to_prompt'):.3f}"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  holds = arms.said(held)
  nats = {k: found.mean(k, "nats") for k in ARMS}
  if holds is not True:
    holds = f"{holds or 'not at this size'}: a prompt is independent of the "
    holds += (
      "image given its class, so the best likelihood is the same; nats a "
    )
    holds += "unit: " + ", ".join(f"{k} {v:.3f}" for k, v in nats.items())
  first = {k: v[:10] for k, v in cond.items()}
  rows = {k: drawn(v, first, 0) for k, v in found.trained.items()}
  rows |= {"class prompts": first["peer_image"][:, 0]}
  record.write(
    "vf_prompt",
    claim="Images are better if the model is shown k codes before it draws, "
    "of another image of the class or random ones, in equal steps; and not by "
    "the length alone.",
    paper="about 20 % better than the same model without",
    baseline="no prompt, which is LlamaGen; k copies of one learned row",
    ours=ours,
    holds=holds,
    seeds=list(s.seeds),
    seconds=seconds,
    tables={
      f"Digits at {SIDE} px, {LEVELS} levels, prompts of {SIDE**2} codes, "
      f"{s.steps} steps of {BATCH}, {len(cond['label'])} images without "
      "guidance, mean ± deviation over seeds": found.table(
        {
          "Frechet distance of pixels": ("frechet", 2),
          "of real images": ("frechet_floor", 2),
          "judge accuracy": ("accuracy", 3),
          "test nats a unit": ("nats", 3),
          "seconds of training": ("seconds", 0),
        },
        "prompt",
      ),
      "Distance of samples to training images, root mean square of pixels in "
      "[0, 1]; only the class prompt is seen": found.table(
        {
          "to its class prompt": ("to_prompt", 3),
          "to the nearest of the class": ("to_nearest", 3),
          "share whose nearest is the prompt": ("copies", 3),
        },
        "prompt",
      ),
    },
    picture=pictures.save("vf_prompt", rows, ()),
  )


if __name__ == "__main__":
  run()
