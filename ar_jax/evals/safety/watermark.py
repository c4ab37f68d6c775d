"""Is there a mark of green lists (LBW)? Of samples, with what attacks leave of
it; or of a folder of images or texts, file by file.

--mode=eval --config.evals.watermark.folder=DIR looks for the lists of the run
in every picture below DIR, or every text (.txt, .md) where `field` is text. It
needs the tokenizer and the key of the run, and nothing of how an image or a
text was made. The code that ends a text counts for nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ar_jax import conditions
from ar_jax.core import forms, processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples
from ar_jax.evals.safety import attacks as attacked
from ar_jax.evals.safety import green_counts, mark_reader
from ar_jax.evals.safety.green_counts import Detector
from ar_jax.evals.safety.mark_reader import Reader

_RATE = 0.01  # of false alarms at which hits are counted
# Keys that nobody used, for the rate of false alarms. Images share what is
# common, such as a black background, so under one key they alarm together.
_OTHERS = 500


def build(
  data: Dataset,
  *,
  field: str = "image",
  folder: str = "",
  null: str = "permutation",
  alpha: float = 0.01,
  n: int = 0,
  attacks: Sequence[str] = (),
  offsets: int = 1,
  draws: int = 4000,
  batch: int = 100,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of marks.

  Args:
    data: gives the conditions of samples, and test images that bear no mark.
    field: what is looked at: "image"; or "text", whose symbols are the units.
    folder: of images or texts to look at, in place of samples.
    null: what chance is: "permutation", "unique" or "binomial"; see
      `green_counts`.
    alpha: the chance of a false alarm at which an image counts as marked, all
      lists of the pool together.
    n: how many samples, and as many test images; 0 means 500, or all there are.
    attacks: what is done to images, as "jpeg:50"; see `attacks`.
    offsets: tries so many places of the grid of the tokenizer each way, for
      images of which something was cut off: 4 are 16 places.
    draws: random lists of the permutation null; no p is below 1 / (draws + 1).
    batch: samples drawn at once.
    options: of `system.sample`; `first_map` says which units count.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Of samples its results are `z` (the median of the best list),
    `z_most` (what no image can exceed), `detected` (the share with p at most
    alpha), `tpr_at_1_fpr` (the share whose p is below that of 99 % of test
    images under keys that nobody used), `right_list`, `green_rate`,
    `retention` (the share of units that stay when the image of them is read
    again), `false_alarms` (the share of test images under such keys with p at
    most alpha), and all but these two for each of `attacks`. Of a folder
    `files`: name -> z, p, list and verdict, or why it cannot be read; of texts
    also how many units each has, and the most that z can be of so many.

  Raises:
    UserError: an option is out of range, or there is no such folder or attack.
  """
  given = dict(options or {})
  first = int(given.get("first_map", 0))
  if not 0 < alpha < 1:
    raise UserError(f"evals.watermark: alpha={alpha}: must be in 0 to 1")
  if offsets < 1:
    raise UserError(f"evals.watermark: offsets={offsets}: must be at least 1")
  texts = isinstance(data.forms.get(field), forms.Text)
  if texts and (attacks or offsets != 1):
    raise UserError(
      f"evals.watermark: field={field!r}: attacks and offsets are of images"
    )
  if folder and not pathlib.Path(folder).expanduser().is_dir():
    raise UserError(f"evals.watermark: folder={folder!r}: no such folder")
  look = dict(null=null, draws=draws, first_map=first, offsets=offsets)
  look["field"] = field
  Detector(green_counts.Pool("", 2), np.arange(2), None, null, draws)
  done = {name: attacked.attack(name, data) for name in attacks}

  def evaluate(system, variables, batches, key):
    del batches
    own = mark_reader.reader_of(system, variables, **look)
    mark_reader.check_alpha(own, alpha)
    if folder:
      path = pathlib.Path(folder).expanduser()
      if texts:
        return mark_reader.of_texts(own, path, alpha, data.forms[field])
      return mark_reader.of_folder(own, path, alpha)
    count = min(n or 500, len(data.test))
    cond = conditions.conditions(system, data, count)
    rng = np.random.default_rng(0)
    lists = rng.integers(system.pool.count, size=count, dtype=np.int32)
    drawn = samples.field(
      field, system, variables, cond | {"green_list": lists}, key,
      evaluator="watermark", batch=batch, forms=data.forms, options=given,
      draw=draw,
    )  # fmt: skip
    images = np.concatenate(list(drawn))
    clean = conditions.truth(system, data, count, fields=(field,))[field]
    chance = of_chance(own, clean, alpha)
    found = scored(own, images, lists, alpha, chance["p"])
    found["retention"] = retention(own, images, data.forms[field])
    for name, make in done.items():
      after = scored(own, make(images, 0), lists, alpha, chance["p"])
      found |= {f"{k} after {name}": v for k, v in after.items()}
    length = len(system.plan)
    return {
      **found,
      "false_alarms": chance["rate"],
      "false_alarms_own_key": chance["own"],
      "z_most": own.detector.most(length),
      "protocol": {
        f"{field}s": count,
        "false alarms": f"{count} test {field}s, {chance['keys']} other keys",
        **mark_reader.protocol(own, alpha),
        "options": given,
      },
    }

  return evaluate


def of_chance(
  own: Reader, clean: np.ndarray, alpha: float, keys: int = _OTHERS
) -> dict[str, Any]:
  """What images u8[N, H, W, c] without a mark look like under keys that nobody
  used: the `rate` of p at most alpha over all pairs, that of the `worst` key,
  and of the run's `own`; the `p` that a share of 0.01 of all pairs does not
  exceed; and how many `keys`."""
  units, detector = own.units(clean), own.detector
  random = None
  if detector.null == "permutation":
    random = detector.random(detector.counts(units))
  alarms, chances = [], []
  for i in range(keys):
    other = f"not {detector.pool.key!r}, {i}"
    found = detector.with_key(other)(units, random)
    chances.append(found.pooled())
    alarms.append(np.mean(chances[-1] <= alpha))
  level = np.quantile(np.concatenate(chances), _RATE, method="lower")
  return {
    "rate": float(np.mean(alarms)),
    "own": float(np.mean(detector(units, random).pooled() <= alpha)),
    "worst": float(np.max(alarms)),
    "p": float(level),
    "keys": keys,
  }


def scored(
  own: Reader,
  images: np.ndarray,
  lists: np.ndarray,
  alpha: float,
  level: float,
) -> dict[str, float]:
  """Figures of marked images u8[N, H, W, c], whose lists are i32[N]; `level`
  is the p that few images without a mark fall to. Not the z: what it can be
  depends on how often the units of an image repeat."""
  found, p = own.look(images)
  rows = np.arange(len(images))
  return {
    "z": float(np.median(found.highest)),
    "detected": float(np.mean(p <= alpha)),
    "tpr_at_1_fpr": float(np.mean(p <= level)),
    "right_list": float(np.mean(found.best == lists)),
    "green_rate": float(np.mean(found.green[rows, lists])),
  }


def retention(own: Reader, images: np.ndarray, form: forms.Form) -> float:
  """The share of units of images that stay when these are decoded, stored as
  their form says (with 8 bits) and read again."""
  units = own.units(images)
  decode = jax.jit(own.system.drawn_from.decode)
  made = processes.fetch(decode(own.variables, units))
  again = own.units(form.stored(made))
  return float(np.mean(units == again))
