"""Do sounds that were made have the length and the spread of those of the data?

N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples


def band_powers(
  audio: np.ndarray, length: np.ndarray, bands: int
) -> np.ndarray:
  """f64[bands]: the mean power of sounds in octaves, the lowest first; the
  last reaches to half the rate. A sound has no mean, so this is the variance
  of a band.

  Args:
    audio: f[B, N].
    length: i[B], the samples that count.
    bands: how many.
  """
  there = np.arange(audio.shape[1])[None] < length[:, None]
  spectrum = np.fft.rfft(np.where(there, audio, 0.0), axis=1)
  power = 2 * np.square(np.abs(spectrum)).sum(0) / audio.shape[1]
  share = np.arange(len(power)) / max(len(power) - 1, 1)
  octave = np.floor(-np.log2(np.maximum(share, 1e-9)) - 1e-9)
  band = bands - 1 - np.clip(octave, 0, bands - 1).astype(int)
  band[0] = -1  # what does not sound
  found = [power[band == k].sum() for k in range(bands)]
  return np.asarray(found) / max(length.sum(), 1)


def ratios(own: np.ndarray, true: np.ndarray, least: float) -> np.ndarray:
  """f64[bands]: powers over those that are true; nan where there is less than
  this share of all."""
  heard = true >= least * true.sum()
  return np.where(heard, own / np.where(heard, true, 1.0), np.nan)


def build(
  data: Dataset,
  *,
  n: int = 0,
  batch: int = 64,
  bands: int = 6,
  least: float = 0.02,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of sounds that have a truth.

  Args:
    data: conditions and true sounds are of its test split.
    n: how many test examples, in a random order; 0 means all.
    batch: samples drawn at once.
    bands: octaves, counted from half the rate down.
    least: share of the power below which a band is not looked at.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `variance_ratio` of the power of samples and
    of true sounds, the mean over octaves, and `variance_ratios` of each, from
    the lowest, None where nothing sounds; `length_error` in seconds, mean and
    absolute, where there is an `audio_length`, with `length_error_baseline` of
    another example's; `protocol`.
  """
  if "audio" not in data.test[0]:
    raise UserError(f"sounds: the examples of {data.name!r} have no audio")

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, "audio", "sounds")
    samples.check_pairs(system, "sounds")
    count = n or len(data.test)
    cond = conditions.conditions(system, data, count)
    made = samples.whole(
      system, variables, cond, key, batch=batch, forms=data.forms,
      options=options, draw=draw,
    )  # fmt: skip
    named = "audio_length" in data.test[0] and "audio_length" in made
    fields = ("audio",) + ("audio_length",) * named
    true = conditions.truth(system, data, count, fields=fields)
    whole = np.full(count, true["audio"].shape[1])
    length = lambda x: x["audio_length"] if named else whole
    own, other = (
      band_powers(x["audio"], length(x), bands) for x in (made, true)
    )
    each = ratios(own, other, least)
    found: dict[str, Any] = {
      "variance_ratio": float(np.nanmean(each)),
      "variance_ratios": [None if np.isnan(x) else float(x) for x in each],
    }
    if named:
      rate = data.forms["audio"].rate
      off = lambda x: float(np.abs(x - length(true)).mean() / rate)
      found["length_error"] = off(length(made))
      found["length_error_baseline"] = off(np.roll(length(true), 1))
    found["protocol"] = {
      "samples": count,
      "octaves": bands,
      "sampling": dict(options or {}),
    }
    return found

  return evaluate
