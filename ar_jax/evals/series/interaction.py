"""How an agent that was drawn behaves in a conversation, beside the true one.

N conversations, R draws of each, T frames, M numbers of motion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax import conditions
from ar_jax.core.domains.conversation import (
  INTERRUPTED,
  RECEIVE,
  STATES,
  late,
)
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.data.series.dyads import phrase_ends
from ar_jax.evals.images.statistics import Moments, frechet

_NEED = "motion_a", "state", "voice_a", "voice_u"
_AFTER = 1.0  # seconds in which an answer to a phrase is looked for


def by_voice(
  state: np.ndarray, voice_a: np.ndarray, voice_u: np.ndarray
) -> float:
  """The best accuracy of one state for each pair of voices, [N, T] each: all
  that a classifier without context can have."""
  hits = 0
  for a, u in np.ndindex(2, 2):
    own = state[(voice_a == a) & (voice_u == u)]
    hits += np.bincount(own, minlength=len(STATES)).max()
  return hits / state.size


def recalls(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
  """State -> share of its frames in which it was found; of those there are."""
  return {
    name: float((found[true == i] == i).mean())
    for i, name in enumerate(STATES)
    if (true == i).any()
  }


def told_apart(found: np.ndarray, true: np.ndarray) -> float:
  """Mean of the shares of frames of feedback received and of interruptions
  that are found as such: 1/2 where they are not told apart."""
  own = [recalls(found, true).get(STATES[i]) for i in (RECEIVE, INTERRUPTED)]
  own = [x for x in own if x is not None]
  return float(np.mean(own)) if own else float("nan")


def answers(
  motion: np.ndarray, voice_u: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray]:
  """(seconds f64[E], size f64[E]): when after the end of each phrase of the
  user the motion [N, T] is largest, within a second, and how large; phrases
  whose second lies within the frames."""
  span, seconds, sizes = int(_AFTER * rate), [], []
  for x, voice in zip(motion, voice_u, strict=True):
    for end in phrase_ends(voice, rate):
      own = np.abs(x[end : end + span])
      if len(own) == span:
        seconds.append(own.argmax() / rate)
        sizes.append(own.max())
  return np.asarray(seconds), np.asarray(sizes)


def spread(draws: np.ndarray) -> np.ndarray:
  """f64[M]: variance over R draws of the same conversation, a mean over N and
  T, of [R, N, T, M]."""
  return np.float64(draws).var(0, ddof=1).mean((0, 1))


def vectors(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Motion and its change from frame to frame, [N T, M] each."""
  flat = lambda x: x.reshape(-1, x.shape[-1])
  return flat(motion), flat(np.diff(motion, axis=1))


def build(
  data: Dataset,
  *,
  n: int = 64,
  draws: int = 2,
  channel: int | str = "",
  batch: int = 64,
  options: Mapping[str, Any] | None = None,
  draw: Any = None,
):
  """The evaluator of agents in conversations of the test split.

  Args:
    data: conversations, see data set `dyads`.
    n: how many.
    draws: R of each, with keys of their own.
    channel: of the motion, by name or number, whose largest size after a
      phrase of the user is its answer; "" is "nod" where there is one, else the
      first.
    batch: drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are
      `state_accuracy` of what was drawn, `state_accuracy_voice`, the best
      without context, `feedback_or_interruption` (`told_apart`), `recall` by
      state; where the system makes states;
      `frechet_motion`, `frechet_velocity`, of numbers of single frames, each
      with the `_floor` of another half of the true ones;
      `variance_ratio` of each number, drawn to true, over all frames; and
      `spread`, its variance between draws of the same conversation;
      `answer_error`, seconds between the drawn and the true answer to a
      phrase, `answer_error_chance`, the same of the answer to another phrase,
      and `answer_size`, of [drawn, true];
      `protocol`.

  Raises:
    UserError: the data are no conversations, or there is no such channel.
  """
  example = data.test[0] if len(data.test) else {}
  for name in _NEED:
    if name not in example:
      raise UserError(
        f"evals.interaction: the examples of {data.name!r} have no {name!r}; "
        "take a set of conversations, such as dyads"
      )
  if n < 1 or draws < 1:
    raise UserError(f"evals.interaction: n={n}, draws={draws}: at least 1")
  form = data.forms["motion_a"]
  at = _channel(channel, form.names, example["motion_a"].shape[1])

  def evaluate(system, variables, batches, key):
    nonlocal draw
    del batches
    if "motion_a" not in system.makes:
      return {"frechet_motion": "unavailable: the system makes no motion_a"}
    if draw is None:
      from ar_jax.step import draw
    cond = conditions.conditions(system, data, n)
    truth = conditions.truth(system, data, n, fields=_NEED)
    made = [
      draw(
        system,
        variables,
        cond,
        jax.random.fold_in(key, r),
        batch=min(batch, n),
        options=dict(options or {}),
      )
      for r in range(draws)
    ]
    motion = np.stack([m["motion_a"] for m in made])
    true = truth["motion_a"]
    results = {}
    if "state" in system.makes:
      found = np.concatenate([m["state"] for m in made])
      state = np.concatenate([truth["state"]] * draws)
      heard = np.stack([late(v) for v in truth["voice_u"]])
      results = {
        "state_accuracy": float((found == state).mean()),
        "state_accuracy_voice": float(
          by_voice(truth["state"], truth["voice_a"], heard)
        ),
        "feedback_or_interruption": told_apart(found, state),
        "recall": recalls(found, state),
      }
    half = max(n // 2, 1)
    for name, own, other in zip(
      ("motion", "velocity"), vectors(motion[0]), vectors(true), strict=True
    ):
      cut = half * (len(other) // n)
      results[f"frechet_{name}"] = frechet(Moments.of(own), Moments.of(other))
      if n > 1:
        results[f"frechet_{name}_floor"] = frechet(
          Moments.of(other[:cut]), Moments.of(other[cut:])
        )
    own, real = np.float64(motion).var((0, 1, 2)), np.float64(true).var((0, 1))
    results["variance_ratio"] = (own / np.maximum(real, 1e-12)).tolist()
    if draws > 1:
      results["spread"] = spread(motion).tolist()
    results |= _timing(motion[0][..., at], true[..., at], truth, form.rate)
    results["protocol"] = {
      "conversations": n,
      "draws": draws,
      "channel": form.names[at] if form.names else at,
      "sampling": dict(options or {}),
    }
    return results

  return evaluate


def _timing(drawn, true, truth, rate) -> dict[str, Any]:
  """Results on the answers to phrases; none where no phrase ends."""
  voice = truth["voice_u"]
  (own, size), (real, full) = (answers(x, voice, rate) for x in (drawn, true))
  if not len(own):
    return {}
  return {
    "answer_error": float(np.abs(own - real).mean()),
    "answer_error_chance": float(np.abs(np.roll(own, 1) - real).mean())
    if len(own) > 1
    else float("nan"),
    "answer_size": [float(size.mean()), float(full.mean())],
  }


def _channel(channel: int | str, names: tuple[str, ...], count: int) -> int:
  if channel == "":
    return names.index("nod") if "nod" in names else 0
  if channel in names:
    return names.index(channel)
  if str(channel).isdigit() and int(channel) < count:
    return int(channel)
  raise UserError(
    f"evals.interaction: channel={channel!r}: no such number of the motion; "
    f"there are {', '.join(names) or f'0 to {count - 1}'}"
  )
