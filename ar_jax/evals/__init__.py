"""Evaluation: what a trained system is worth, with the protocol beside it.

likelihood       exact mean of the loss and its terms over the test split
frechet          FID and relatives of samples, each with its floor
pairs            images against what they should be: PSNR, SSIM, L1
control          do samples follow the edges that they were given?
transcripts      texts against what they should be: character and word errors
sounds           length and spread of sounds against what they should be
spoken_chirps    which letters chirps say, and in whose voice
first_sound      seconds to the first of a sound that is made in pieces
peptides         residues and whole peptides against what they should be
skeletons        joints, bones and parents against what they should be
ngrams           texts of a language model against the text of the data
probe            what the features of a system know of the classes
watermark        is there a mark of green lists, in samples or in files?
reconstruction   PSNR, SSIM, Frechet distance and codebook use of tokenizers
previews         errors of an image after each group of its units
vtbench          tokenizers by three tasks and six metrics, text among them
judge_accuracy   do samples show the class that was asked for?
concept          is a concept still drawn, and all else as before?
series           errors of forecasts, beside those that need no network
interaction      an agent in a conversation: states, motion, answers
dialogue         answers in picture and speech: the groups of VidChatBench
speed            images per second, compile time, traces
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from ar_jax.command.arguments import Arguments, of
from ar_jax.core.system import Batch, System, UserError, Vars
from ar_jax.data import Dataset
from ar_jax.evals import samples

Results = dict[str, float | str | dict[str, Any]]
Evaluator = Callable[[System, Vars, Iterable[Batch], jax.Array], Results]

# Evaluator -> its module in this package.
NAMES = {
  "likelihood": "likelihood",
  "frechet": "images.frechet",
  "reconstruction": "images.reconstruction",
  "previews": "images.previews",
  "vtbench": "images.vtbench",
  "judge_accuracy": "images.judge_accuracy",
  "series": "series.errors",
  "interaction": "series.interaction",
  "dialogue": "video.dialogue",
  "pairs": "images.pairs",
  "control": "images.control",
  "transcripts": "text.transcripts",
  "ngrams": "text.ngrams",
  "sounds": "audio.sounds",
  "spoken_chirps": "audio.spoken_chirps",
  "first_sound": "audio.first_sound",
  "peptides": "science.peptides",
  "skeletons": "science.skeletons",
  "probe": "probe",
  "watermark": "safety.watermark",
  "concept": "safety.concept",
  "speed": "speed",
}


# Those that score a field of samples, an image where no option says which.
_SCORE = {
  "frechet",
  "reconstruction",
  "previews",
  "vtbench",
  "judge_accuracy",
  "concept",
  "pairs",
  "control",
  "transcripts",
  "ngrams",
  "watermark",
}
# Those of them that compare each sample with its own test example.
_PAIR = {
  "pairs",
  "transcripts",
  "skeletons",
  "peptides",
  "sounds",
  "spoken_chirps",
}
_SOUND = {"sounds", "spoken_chirps", "first_sound"}


def check_system(name: str, options: Mapping[str, Any], system: System) -> None:
  """Checks that a system can be scored by the evaluator `name`, one of NAMES.

  Raises:
    UserError: it does not make the field that is scored, or no sample has a
      truth of its own.
  """
  if name in _SCORE:
    known = arguments(name)
    default = known["field"].default if "field" in known else "image"
    if name == "reconstruction" and "video" in system.makes:
      default = "video"
    samples.check_makes(system, options.get("field", default), name)
  if name == "peptides":
    samples.check_makes(system, "peptide", name)
  if name == "skeletons":
    samples.check_makes(system, "joints", name)
  if name in _SOUND:
    samples.check_makes(system, "audio", name)
  if name == "first_sound" and not hasattr(system, "stream"):
    raise UserError("evals.first_sound: this system makes no sound in pieces")
  if name == "interaction":
    samples.check_makes(system, "motion_a", name)
  if name == "dialogue":
    samples.check_makes(system, "video", name)
  if name in _PAIR:
    samples.check_pairs(system, name)
  if name == "previews" and not hasattr(system, "previews"):
    raise UserError(
      "evals.previews: this system shows nothing before all its units are "
      "there; d_ar does, and LlamaGen over it"
    )
  if name == "watermark" and not hasattr(system, "pool"):
    raise UserError(
      "evals.watermark: this system has no green lists; look for a mark with "
      "the config that made it, such as lbw"
    )


def check_name(name: str) -> None:
  """Raises UserError unless there is an evaluator of this name."""
  if name not in NAMES:
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"evals.{name}: {hint}there are {', '.join(NAMES)}")


def arguments(name: str) -> Arguments:
  """The options of an evaluator, one of NAMES."""
  module = importlib.import_module(f"ar_jax.evals.{NAMES[name]}")
  return of(module.build, skip=1)  # the data set


def build(
  name: str,
  data: Dataset,
  *,
  sampling: Mapping[str, Any] | None = None,
  draw: Callable[..., Any] | None = None,
  **options,
) -> Evaluator:
  """The evaluator `name` for one data set.

  Args:
    name: one of NAMES.
    data: the data set; an evaluator may train or measure on it here.
    sampling: options of `system.sample` for those that draw samples, unless
      `options` brings its own.
    draw: in place of `ar_jax.step.draw` for these.
    **options: of that evaluator; see its `build`.

  Returns:
    A function of (system, variables, batches, key): `batches` is one ordered
    pass over the test split, padded and masked.

  Raises:
    UserError: unknown name or option, or something that it needs is missing.
  """
  check_name(name)
  module = importlib.import_module(f"ar_jax.evals.{NAMES[name]}")
  for key, value in (("options", sampling), ("draw", draw)):
    if value and key in inspect.signature(module.build).parameters:
      options.setdefault(key, value)
  try:
    return module.build(data, **options)
  except TypeError as e:
    if "argument" not in str(e):
      raise
    raise UserError(f"evals.{name}: {e}") from e
