"""Which letters do chirps say, and in whose voice? A matched filter of
`data.audio.chirps`.

N samples, S symbols, m symbols of a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.data.audio.chirps import Rule
from ar_jax.evals import samples
from ar_jax.evals.text.distance import edit_distance

_STEP = 0.01  # between the pitches that are tried, in parts of one


def heard(
  rule: Rule, audio: np.ndarray, count: int, slack: int = 0
) -> tuple[np.ndarray, float]:
  """(symbols i[m] from 1 on, the pitch): the chirps of m equal parts that have
  the largest share of the power of a sound, of one pitch.

  Args:
    rule: how letters sound.
    audio: f[N], to its end.
    count: m.
    slack: samples by which the sound may have ended before.
  """
  size = (len(audio) - np.linspace(0, slack, 4)).astype(int) // count
  best = -1.0, np.ones(count, int), 1.0
  if size.max() < 2:
    return best[1:]
  low, high = min(rule.pitches), max(rule.pitches)
  steps = max(2, math.ceil(math.log(high / low) / _STEP) + 1)
  pitches = np.geomspace(low, high, steps) if high > low else [low]
  for part in sorted(set(size.clip(2).tolist())):
    rows = audio[: part * count].reshape(count, part)
    for pitch in pitches:
      power = _powers(rule, rows, pitch)
      total = power.max(1).sum()
      if total > best[0]:
        best = total, power.argmax(1) + 1, float(pitch)
  return best[1:]


def _powers(rule: Rule, rows: np.ndarray, pitch: float) -> np.ndarray:
  """f64[m, S]: the power of each part along each chirp of any phase."""
  part = rows.shape[1]
  found = []
  for symbol in range(rule.symbols):
    pair = [rule.chirp(symbol, pitch, part, phase) for phase in (0.0, 0.25)]
    norm = sum(np.square(x).sum() for x in pair) / 2
    found.append(sum(np.square(rows @ x) for x in pair) / norm)
  return np.stack(found, 1)


def scores(
  rule: Rule,
  audio: np.ndarray,
  length: np.ndarray,
  text: np.ndarray,
  slack: int = 0,
) -> tuple[float, np.ndarray]:
  """(the share of symbols that are not heard, pitches f64[B]) of sounds
  f[B, N], of their lengths i[B] and true texts i[B, W]."""
  wrong, total, pitches = 0, 0, []
  for x, n, ids in zip(audio, length, text, strict=True):
    ids = ids[: int(np.cumprod(ids > 0).sum())]
    said, pitch = heard(rule, np.asarray(x[:n], np.float64), len(ids), slack)
    wrong += edit_distance(said.tolist(), ids.tolist())
    total += len(ids)
    pitches.append(pitch)
  return wrong / total, np.asarray(pitches)


def halves(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The conditions of going on: of each example the first half of the symbols
  is a voice, and the others are the text to be spoken."""
  audio, text = rows["audio"], rows["text"]
  m = (text > 0).sum(1)
  first = m // 2
  cut = rows["audio_length"] * first // m
  at = np.arange(text.shape[1])[None]
  behind = np.minimum(at + first[:, None], text.shape[1] - 1)
  rest = np.take_along_axis(text, behind, 1)
  rest = np.where(at < (m - first)[:, None], rest, 0)
  most = text.shape[1] // 2
  there = np.arange(audio.shape[1])[None] < cut[:, None]
  return {
    "text": rest[:, : text.shape[1] - most],
    "voice": np.where(there, audio, 0.0).astype(np.float32),
    "voice_length": cut.astype(np.int32),
    "voice_text": np.where(at < first[:, None], text, 0)[:, :most],
  }


def build(
  data: Dataset,
  *,
  n: int = 0,
  batch: int = 64,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of chirps that were spoken.

  Args:
    data: `chirps`, or what is made of them; texts are of its test split.
    n: how many test examples, in a random order; 0 means all.
    batch: samples drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `symbol_error`, of a matched filter, and
    `symbol_error_data`, of the test examples themselves; of systems that take
    a voice also `pitch_correlation`, of what goes on behind the first half of
    a test example with that example; `protocol`.

  Raises:
    UserError: the data are no chirps.
  """
  rule = getattr(data.test, "rule", None)
  if rule is None:
    raise UserError(
      f"spoken_chirps: {data.name!r} says nothing in chirps; take it out of "
      "evals, or set data.name=chirps"
    )

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, "audio", "spoken_chirps")
    samples.check_pairs(system, "spoken_chirps")
    count = n or len(data.test)
    slack = getattr(getattr(system, "tokenizer", None), "stride", 0)

    def made(cond):
      drawn = samples.whole(
        system, variables, cond, key, batch=batch, forms=data.forms,
        options=options, draw=draw,
      )  # fmt: skip
      return [drawn[k] for k in ("audio", "audio_length")]

    names = "audio", "audio_length", "text", "label"
    true = conditions.truth(system, data, count, fields=names)
    own = made(conditions.conditions(system, data, count))
    found: dict[str, Any] = {
      "symbol_error": scores(rule, *own, true["text"], slack)[0],
      "symbol_error_data": scores(
        rule, true["audio"], true["audio_length"], true["text"]
      )[0],
    }
    if "voice" in system.takes:
      cond = halves(true)
      wrong, pitch = scores(rule, *made(cond), cond["text"], slack)
      meant = rule.pitches[true["label"]]
      spread = meant.std() * pitch.std()
      found["symbol_error_behind_voice"] = wrong
      found["pitch_correlation"] = (
        float(((pitch - pitch.mean()) * (meant - meant.mean())).mean() / spread)
        if spread > 0
        else 0.0
      )
    found["protocol"] = {"samples": count, "sampling": dict(options or {})}
    return found

  return evaluate
