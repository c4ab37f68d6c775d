"""What a tokenizer loses: PSNR, SSIM, Frechet distance, use of the codebook. Of
a video the frames count, one by one."""

from __future__ import annotations

import functools

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.forms import Image
from ar_jax.core.system import UserError, example_keys
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.images import pairs, sketch, statistics
from ar_jax.evals.images.features import features as load_features
from ar_jax.evals.images.frechet import named


@functools.partial(jax.jit, static_argnums=0)
def rebuilt(system, variables, batch, key):
  """Images f32[B, H, W, c] in [0, 1] as a tokenizer keeps them."""
  drawn = system.sample(variables, batch, example_keys(key, batch))
  return next(iter(drawn.values())) if isinstance(drawn, dict) else drawn


@functools.partial(jax.jit, static_argnums=0)
def units_of(system, variables, batch):
  """The units of a batch of images."""
  return system.units(variables, batch)


def build(data: Dataset, *, features: str | None = None, k: int = 3, **network):
  """The evaluator of reconstructions of the test split.

  Args:
    data: whose test split `batches` walks through.
    features: network of the Frechet distance, "" for none; None is "judge" of
      images, and none of videos.
    k: neighbour of precision and recall.
    **network: options of the feature network.

  Returns:
    An evaluator. Its results are `psnr` (the mean over images, of which none
    counts for more than 100 dB), `psnr_pooled` (of the mean squared error of
    all images) and `ssim` (both sides as uint8), with a feature network
    `frechet` between originals and reconstructions (`rfid` as well in
    Inception features), with the floor: the originals against as many
    training images. Where the tokenizer has
    `units(variables, batch) -> i32[B, L]` and `vocab`, also `codebook_usage`
    (the fraction of codes that occur) and `codebook_perplexity`; where the
    units are f32[B, L, C], `units_std`, the least and the largest standard
    deviation of a channel.
  """
  videos = "image" not in data.forms and "video" in data.forms
  field = "video" if videos else "image"
  if features is None:
    features = "" if videos else "judge"
  if videos and features:
    raise UserError(
      f"evals.reconstruction: features={features!r}: of videos there is no "
      "Frechet distance of reconstructions; say features=''"
    )
  pictures = lambda x: x.reshape(-1, *x.shape[-3:])
  if features == "inception" and not network.get("path"):
    net, missing = None, "unavailable: set path to the Inception weights"
  else:
    net = load_features(features, data, **network) if features else None
    missing = ""

  def evaluate(system, variables, batches, key):
    samples.check_makes(system, field, "reconstruction")
    originals, made = [], []
    counts, latents = None, []
    for batch in batches:
      image, mask, out = processes.fetch(
        (
          batch[field],
          batch.get("mask", np.ones(len(batch[field]))),
          rebuilt(system, variables, batch, key),
        )
      )
      real = mask > 0
      originals.append(pictures(image[real]))
      shown = {"image": pictures(out[real])}
      made.append(samples.stored(shown, {"image": Image()})["image"])
      if hasattr(system, "units"):
        units = processes.fetch(units_of(system, variables, batch))[real]
        if system.vocab is None:
          latents.append(units.reshape(-1, units.shape[-1]))
          continue
        seen = np.bincount(units.ravel(), minlength=system.vocab)
        counts = seen if counts is None else counts + seen
    if not originals:
      raise UserError("reconstruction: the test split holds no example")
    errors = pairs.Errors()
    for x, y in zip(originals, made, strict=True):
      errors.add(x, y)
    found = {k: v for k, v in errors.results().items() if k != "l1"}
    if counts is not None:
      p = counts[counts > 0] / counts.sum()
      found["codebook_usage"] = float((counts > 0).mean())
      found["codebook_perplexity"] = float(np.exp(-(p * np.log(p)).sum()))
    if latents:
      std = np.concatenate(latents).std(0)
      found["units_std"] = {"min": float(std.min()), "max": float(std.max())}
    n = sum(map(len, originals))
    if missing:
      found["rfid"] = missing
    elif net is not None:
      true = sketch.sketch(net, originals)
      size = min(n, len(data.train))
      floor = sketch.reference(net, data, n, size, k)[1]
      got = sketch.compare(sketch.sketch(net, made), true, k=k)
      found |= {
        "features": net.name,
        **named(got, floor, net.cited and f"r{net.cited}"),
      }
    protocol = {
      "images": n,
      "psnr": "mean over images, at most 100 dB each",
      "pixels": "floor(255 x + 0.5) of x clipped to [0, 1]",
      "features": net.note if net else "none",
      "floor": "test images against as many training images",
      "score": statistics.SCORE,
    }
    return {**found, "protocol": protocol}

  return evaluate
