"""How good an answer in picture and speech is: the six groups of measures of
VidChatBench (arXiv 2507.09862), with whatever networks a user has.

A measure has the name that it may be cited by only where the network behind it
is the published one, which is for the user to say (`names`): what is measured
here in pixels is a `frechet_frames`, no FID, and a `frechet_clips`, no FVD.
What needs a network that is not given is "unavailable".

N answers, T frames, L tokens of speech, d features.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.images.pairs import fits, psnr, ssim
from ar_jax.evals.images.statistics import Moments, frechet
from ar_jax.evals.text.distance import edit_distance

SCORES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of five candidates, the worst first
# Group -> what a network of it is given, and gives.
NETWORKS = {
  "frames": "u8[N, H, W, c] -> f[N, d]",
  "clips": "u8[N, T, H, W, c] -> f[N, d]",
  "face": "u8[N, H, W, c] -> f[N, d]",
  "text": "i32[N, L] -> f[N, d]",
  "sync": "u8[N, T, H, W, c], i32[N, L] -> f[N]",
  "expression": "u8[N, H, W, c] -> f[N, 64]",
  "voice": "i32[N, L] -> f[N, d]",
}


def coherence(
  said: np.ndarray,
  candidates: np.ndarray,
  embed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
  """f64[N]: the score of the candidate that each answer is nearest to; 1 for
  an exact copy of the best.

  Args:
    said: i32[N, L], what was recognised in the speech.
    candidates: i32[N, 5, L'], the worst first.
    embed: tokens -> vectors, whose cosine says how near; without, the number
      of edits from one to the other.
  """
  n, count = candidates.shape[:2]
  if embed is None:
    near = -np.array(
      [
        [edit_distance(x.tolist(), y.tolist()) for y in own]
        for x, own in zip(said, candidates, strict=True)
      ],
      np.float64,
    )
  else:
    flat = embed(candidates.reshape(n * count, -1))
    near = _cosine(embed(said)[:, None], flat.reshape(n, count, -1))
  # Of those that are equally near, the better one.
  best = count - 1 - near[:, ::-1].argmax(1)
  return np.asarray(SCORES)[best]


def identity(video: np.ndarray, face: np.ndarray, embed: Callable) -> float:
  """The mean cosine of every frame of videos u8[N, T, H, W, c] with a picture
  u8[N, H, W, c] of the one who answers."""
  n, frames = video.shape[:2]
  each = embed(video.reshape(-1, *video.shape[2:])).reshape(n, frames, -1)
  return float(_cosine(each, embed(face)[:, None]).mean())


def distance(made: np.ndarray, true: np.ndarray) -> float:
  """Frechet's, of features f[N, d]; a little is added to the variances, for
  N may be small beside d."""
  moments = [Moments.of(np.float64(x)) for x in (made, true)]
  if min(len(made), len(true)) > made.shape[1]:
    return frechet(*moments)
  ridge = 1e-6 * np.eye(made.shape[1])
  return frechet(*(Moments.given(m.mean, m.cov + ridge, m.n) for m in moments))


def correlation(video: np.ndarray, speech: np.ndarray) -> np.ndarray:
  """f64[N]: of the mouth of each answer of the data set `dialogues` with its
  tokens, in place of SyncNet's confidence."""
  from ar_jax.data.video.dialogues import SLOTS, mouths

  opening = mouths(video)
  token = np.float64(speech).reshape(len(speech), -1, SLOTS)[..., 0]
  a, b = (x - x.mean(1, keepdims=True) for x in (opening, token))
  size = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
  return np.where(size > 0, (a * b).sum(1) / np.maximum(size, 1e-12), 0.0)


def pixels(x: np.ndarray) -> np.ndarray:
  """f64[N, d]: pictures or videos as they are, of side 8 at most, by means of
  squares of pixels."""
  x = np.float64(x) / 255
  for axis in (-3, -2):
    side = x.shape[axis]
    by = next(k for k in range(max(1, side // 8), side + 1) if side % k == 0)
    at = axis % x.ndim
    shape = (*x.shape[:at], side // by, by, *x.shape[at + 1 :])
    x = x.reshape(shape).mean(at + 1)
  return x.reshape(len(x), -1)


def network(name: str, given: Callable | str) -> Callable:
  """A function that a user names, `module:function`, or the function.

  Raises:
    UserError: there is no such group, or no such function.
  """
  if name not in NETWORKS:
    raise UserError(
      f"evals.dialogue: networks.{name}: there are {', '.join(NETWORKS)}"
    )
  if callable(given):
    return given
  module, _, function = str(given).partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(
      f"evals.dialogue: networks.{name}={given!r}: must be module:function "
      f"that takes and gives {NETWORKS[name]}; {e}"
    ) from e


def build(
  data: Dataset,
  *,
  n: int = 500,
  networks: Mapping[str, Callable | str] | None = None,
  names: Mapping[str, str] | None = None,
  batch: int = 50,
  options: Mapping[str, Any] | None = None,
  draw: Any = None,
):
  """The evaluator of answers to the dialogues of the test split.

  Args:
    data: dialogues, with `video`, `speech` and `face`.
    n: how many; as many as there are, if fewer. 500 in VidChatBench.
    networks: group -> a function, or `module:function`; see `NETWORKS`.
      Without, frames and clips are compared in pixels, faces and voices and
      expressions not at all, speech by edits, and lips only where the data
      are `dialogues`.
    names: measure -> the name it may be cited by, where the networks are the
      published ones: {"frechet_frames": "fid", "frechet_clips": "fvd"}.
    batch: drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are `frechet_frames`, `frechet_clips`, each with
    its `_floor`; `psnr`, `ssim`; `identity`; `coherence`, where the data have
    `candidates`; `sync`, without those who listen; `frechet_expression`;
    `voice`; `token_accuracy` of the speech; `protocol`.

  Raises:
    UserError: the data are no dialogues, or a network is none.
  """
  networks = {k: network(k, v) for k, v in dict(networks or {}).items() if v}
  example = data.test[0] if len(data.test) else {}
  for name in ("video", "speech", "face"):
    if name not in example:
      raise UserError(
        f"evals.dialogue: the examples of {data.name!r} have no {name!r}; take "
        "a set of dialogues"
      )
  n = min(n, len(data.test))
  if n < 4:
    raise UserError(f"evals.dialogue: n={n}: at least 4 answers are compared")
  by_rule = data.name == "dialogues"
  fields = ["video", "speech", "face"]
  fields += [k for k in ("candidates", "listens") if k in example]

  def evaluate(system, variables, batches, key):
    nonlocal draw
    del batches
    samples.check_makes(system, "video", "dialogue")
    if draw is None:
      from ar_jax.step import draw
    cond = conditions.conditions(system, data, n)
    truth = conditions.truth(system, data, n, fields=fields)
    made = draw(
      system, variables, cond, key, batch=min(batch, n),
      options=dict(options or {}),
    )  # fmt: skip
    made = samples.stored(
      {k: made[k] for k in ("video", "speech") if k in made}, data.forms
    )
    results = _seen(made["video"], truth, networks)
    if "speech" in made:
      results |= _heard(made, truth, networks, by_rule)
    for name, cited in dict(names or {}).items():
      if name in results:
        results[cited] = results[name]
    results["protocol"] = {
      "answers": n,
      "networks": {
        k: getattr(v, "__name__", str(v)) for k, v in networks.items()
      },
      "sampling": dict(options or {}),
    }
    return results

  return evaluate


def _seen(video, truth, networks) -> dict[str, Any]:
  """Results on the pictures."""
  true, face = truth["video"], truth["face"]
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  half = len(true) // 2
  results = {}
  for name, cut in (("frames", flat), ("clips", lambda x: x)):
    embed = networks.get(name, pixels)
    own, other = embed(cut(video)), embed(cut(true))
    results[f"frechet_{name}"] = distance(own, other)
    at = half * (len(other) // len(true))
    results[f"frechet_{name}_floor"] = distance(other[:at], other[at:])
  results["psnr"] = float(psnr(flat(video), flat(true)).mean())
  results["ssim"] = (
    float(ssim(flat(video), flat(true)).mean())
    if fits(flat(video))
    else "unavailable: frames are smaller than its window, 11 pixels"
  )
  missing = "unavailable: set networks.{} to module:function"
  if "face" in networks:
    results["identity"] = identity(video, face, networks["face"])
  else:
    results["identity"] = missing.format("face")
  if "expression" in networks:
    own, other = (networks["expression"](flat(x)) for x in (video, true))
    results["frechet_expression"] = distance(own, other)
  else:
    results["frechet_expression"] = missing.format("expression")
  return results


def _heard(made, truth, networks, by_rule: bool) -> dict[str, Any]:
  """Results on the speech, and on both together."""
  speech, true = made["speech"], truth["speech"]
  missing = "unavailable: set networks.{} to module:function"
  results = {"token_accuracy": float((speech == true).mean())}
  if "candidates" in truth:
    scores = coherence(speech, truth["candidates"], networks.get("text"))
    results["coherence"] = float(scores.mean())
  else:
    results["coherence"] = "unavailable: the examples have no candidates"
  sync = networks.get("sync", correlation if by_rule else None)
  if sync is None:
    results["sync"] = missing.format("sync")
  else:
    # The sound of one who listens is another's.
    kept = ~np.asarray(truth.get("listens", np.zeros(len(true))), bool)
    found = sync(made["video"][kept], speech[kept])
    results["sync"] = float(np.mean(found)) if kept.any() else float("nan")
  if "voice" in networks:
    own, other = (networks["voice"](x) for x in (speech, true))
    results["voice"] = float(_cosine(own, other).mean())
  else:
    results["voice"] = missing.format("voice")
  return results


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Of the last axis."""
  size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  return (a * b).sum(-1) / np.maximum(size, 1e-12)
