"""Do samples follow their control pictures? The edges of each sample, taken by
the rule that made its control, against that control.

N images, H, W sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax import conditions
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.data.wrap.edges import edges as edges_rule
from ar_jax.evals import samples

_HALF = 128  # from here on a pixel of an edge map is an edge


class Agreement:
  """How far edges bool[N, H, W] that were found agree with those that were
  asked for, all pixels of all images counted as one.

  Args:
    tolerance: pixels, in either direction, by which an edge may be off.
  """

  def __init__(self, tolerance: int = 0):
    self._tolerance = tolerance
    self._counts = np.zeros(4, np.int64)

  def add(self, found: np.ndarray, asked: np.ndarray) -> None:
    """Takes in N pairs."""
    right = found & wider(asked, self._tolerance)
    met = asked & wider(found, self._tolerance)
    self._counts += [x.sum() for x in (right, found, met, asked)]

  def results(self) -> dict[str, float]:
    """`precision`, the share of the edges found that were asked for; `recall`,
    the share of those asked for that were found; `f1`, their harmonic mean. 0
    where there is nothing to share."""
    right, found, met, asked = map(int, self._counts)
    precision = right / found if found else 0.0
    recall = met / asked if asked else 0.0
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def wider(edges: np.ndarray, by: int) -> np.ndarray:
  """bool[N, H, W]: all pixels at most so far from an edge, up, down, left,
  right and in diagonals."""
  height, width = edges.shape[1:]
  around = np.pad(edges, ((0, 0), (by, by), (by, by)))
  found = np.zeros_like(edges)
  for i in range(2 * by + 1):
    for j in range(2 * by + 1):
      found |= around[:, i : i + height, j : j + width]
  return found


def build(
  data: Dataset,
  *,
  field: str = "image",
  control: str = "edges",
  edges: Mapping[str, Any] | None = None,
  tolerance: int = 0,
  n: int = 0,
  batch: int = 100,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of images that follow edges.

  A system that reads no control is drawn with what else it needs of the same
  test examples: what one gets without control.

  Args:
    data: conditions, controls and true images are of its test split.
    field: the image that the system makes.
    control: the field of the examples that holds what is asked for.
    edges: options of the rule `edges`, as in `data.derive`.
    tolerance: pixels by which an edge may be off.
    n: how many test examples, in a random order; 0 means all.
    batch: samples drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are those of `Agreement.results`; each also with
    `_floor`, of the true image of the next example, which follows another
    control; and, where the system has a tokenizer, with `_ceiling`, of the
    true image itself as its units hold it.

  Raises:
    UserError: the data have no such fields, or the rule no such options.
  """
  for name in (field, control):
    if name not in data.forms:
      raise UserError(
        f"evals.control: {name!r} is no picture of {data.name!r}, which has "
        f"{', '.join(data.forms)}; see data.derive"
      )
  given = {k: v for k, v in dict(edges or {}).items() if k != "field"}
  try:
    rule = edges_rule(**given)
  except TypeError as e:
    raise UserError(f"evals.control.edges: {e}") from e
  n = n or len(data.test)

  def found(images: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    maps = [rule.make({"image": x}, rng)["edges"] for x in images]
    return np.stack(maps)[..., 0] >= _HALF

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, field, "control")
    needs = conditions.truth(system, data, n, fields=system.needs)
    drawn = samples.field(
      field, system, variables, needs, key, evaluator="control", batch=batch,
      forms=data.forms, options=options, draw=draw,
    )  # fmt: skip
    ours, floor, ceiling = (Agreement(tolerance) for _ in range(3))
    start, coded = 0, hasattr(system, "decode")
    for images in drawn:
      count, own = len(images), (field, control)
      true = conditions.truth(system, data, count, fields=own, start=start)
      asked = true[control][..., 0] >= _HALF
      if found(images[:1]).shape[1:] != asked.shape[1:]:
        raise UserError(
          f"evals.control: samples of {images.shape[1]}x{images.shape[2]}, the "
          f"field {control!r} is of {asked.shape[1]}x{asked.shape[2]}"
        )
      ours.add(found(images), asked)
      floor.add(found(np.roll(true[field], 1, 0)), asked)
      if coded:
        kept = _kept(system, variables, true[field], field, batch)
        ceiling.add(found(data.forms[field].stored(kept)), asked)
      start += count
    results = ours.results()
    results |= {f"{k}_floor": v for k, v in floor.results().items()}
    if coded:
      results |= {f"{k}_ceiling": v for k, v in ceiling.results().items()}
    return {
      **results,
      "protocol": {
        "images": n,
        "edges": given,
        "tolerance": tolerance,
        "counted": "all pixels of all images as one",
        "floor": "true images against the control of another example",
        "ceiling": "true images as the tokenizer of the system holds them",
        "conditions": conditions.described(system, "of the test examples"),
        "options": dict(options or {}),
      },
    }

  return evaluate


def _kept(
  system, variables, images: np.ndarray, field: str, batch: int
) -> np.ndarray:
  """Images as their units hold them."""

  @jax.jit
  def again(x):
    units = system.encode(variables, {field: x})["units"]
    return system.decode(variables, units)

  parts = []
  for i in range(0, len(images), batch):
    part = images[i : i + batch]
    short = min(batch, len(images)) - len(part)
    filled = np.concatenate([part, np.repeat(part[-1:], short, 0)])
    parts.append(np.asarray(again(filled))[: len(part)])
  return np.concatenate(parts)
