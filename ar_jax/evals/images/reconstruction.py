"""What a tokenizer loses: PSNR, SSIM, Frechet distance, use of the codebook."""

from __future__ import annotations

import functools

import jax
import numpy as np

from ar_jax.core import processes
from ar_jax.core.forms import Image
from ar_jax.core.system import UserError, example_keys
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.images import sketch, statistics
from ar_jax.evals.images.features import features as load_features
from ar_jax.evals.images.frechet import named

_SIGMA, _RADIUS = 1.5, 5  # an 11-pixel window
_MOST_DB = 100.0


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio in dB of u8[N, H, W, C], f64[N].

  At most 100 dB, which stands for equal images, too: one exact image would
  make the mean of all infinite.
  """
  return _decibel(np.square(x.astype(np.float64) - y).mean((1, 2, 3)))


def _decibel(error: np.ndarray) -> np.ndarray:
  """Of mean squared errors; not more than _MOST_DB."""
  return 10 * np.log10(
    255**2 / np.maximum(error, 255**2 / 10 ** (_MOST_DB / 10))
  )


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Structural similarity of u8[N, H, W, C], f64[N] (Wang et al. 2004).

  Gaussian window of sigma 1.5 and 11 pixels, the valid region only, each
  channel by itself.

  Raises:
    UserError: the images are smaller than the window.
  """
  if min(x.shape[1:3]) <= 2 * _RADIUS:
    raise UserError(
      f"SSIM needs images of at least {2 * _RADIUS + 1} pixels, not "
      f"{x.shape[1]}x{x.shape[2]}"
    )
  x, y = x.astype(np.float64), y.astype(np.float64)
  mx, my = _blur(x), _blur(y)
  vx, vy = _blur(x * x) - mx * mx, _blur(y * y) - my * my
  cov = _blur(x * y) - mx * my
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  same = (2 * mx * my + c1) * (2 * cov + c2)
  return (same / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean((1, 2, 3))


def _blur(x: np.ndarray) -> np.ndarray:
  """Gaussian mean over the window, where it lies within the image."""
  taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
  taps /= taps.sum()
  for axis in (1, 2):
    size = x.shape[axis] - 2 * _RADIUS
    cut = lambda i, x=x, axis=axis, size=size: x.take(range(i, i + size), axis)
    x = sum(tap * cut(i) for i, tap in enumerate(taps))
  return x


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(system, variables, batch, key):
  drawn = system.sample(variables, batch, example_keys(key, batch))
  return drawn["image"] if isinstance(drawn, dict) else drawn


@functools.partial(jax.jit, static_argnums=0)
def _units(system, variables, batch):
  return system.units(variables, batch)


def build(data: Dataset, *, features: str = "judge", k: int = 3, **network):
  """The evaluator of reconstructions of the test split.

  Args:
    data: whose test split `batches` walks through.
    features: network of the Frechet distance, "" for none.
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
  if features == "inception" and not network.get("path"):
    net, missing = None, "unavailable: set path to the Inception weights"
  else:
    net = load_features(features, data, **network) if features else None
    missing = ""

  def evaluate(system, variables, batches, key):
    samples.check_makes(system, "image", "reconstruction")
    originals, rebuilt = [], []
    counts, latents = None, []
    for batch in batches:
      image, mask, out = processes.fetch(
        (
          batch["image"],
          batch.get("mask", np.ones(len(batch["image"]))),
          _reconstruct(system, variables, batch, key),
        )
      )
      real = mask > 0
      originals.append(image[real])
      rebuilt.append(
        samples.stored({"image": out[real]}, {"image": Image()})["image"]
      )
      if hasattr(system, "units"):
        units = processes.fetch(_units(system, variables, batch))[real]
        if system.vocab is None:
          latents.append(units.reshape(-1, units.shape[-1]))
          continue
        seen = np.bincount(units.ravel(), minlength=system.vocab)
        counts = seen if counts is None else counts + seen
    if not originals:
      raise UserError("reconstruction: the test split holds no example")
    pairs = list(zip(originals, rebuilt, strict=True))
    error = lambda x, y: np.square(x.astype(np.float64) - y).mean((1, 2, 3))
    found = {
      "psnr": _mean(psnr, pairs),
      "psnr_pooled": float(_decibel(_mean(error, pairs))),
    }
    if min(originals[0].shape[1:3]) > 2 * _RADIUS:
      found["ssim"] = _mean(ssim, pairs)
    else:
      found["ssim"] = "unavailable: the images are smaller than its window"
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
      got = sketch.compare(sketch.sketch(net, rebuilt), true, k=k)
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


def _mean(metric, pairs) -> float:
  return float(np.concatenate([metric(x, y) for x, y in pairs]).mean())
