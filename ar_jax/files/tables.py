"""Key tables: how the names and layouts of a published file map to ours.

A table is a tuple of rules. A rule pairs one official key with one path of
our parameter tree, both with {placeholders} for integers:

    Rule("blocks.{i}.attn.proj.weight", "blocks/attn/proj/kernel", LINEAR)
    Rule("down.{l}.block.{i}.norm1.weight", "down_{l}_block_{i}/norm1/scale")

A placeholder on both sides is copied. One on the official side alone is
*stacked*: our array has a leading axis over it, as for layers that run in a
scan. The same table serves both directions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from ar_jax.core.errors import UserError

State = Mapping[str, np.ndarray]
Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one array changes, from the official layout to ours and back."""

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(np.transpose, np.transpose)
# Velocities that point the other way: theirs from data to noise, ours from
# noise to data (`core.flows.flow`).
AGAINST = Layout(np.negative, np.negative)
AGAINST_LINEAR = Layout(lambda x: -np.transpose(x), lambda x: -np.transpose(x))
CONV = Layout(
  lambda x: np.transpose(x, (2, 3, 1, 0)),
  lambda x: np.transpose(x, (3, 2, 0, 1)),
)
# Of convolutions of side 1, which are linear maps here.
POINT = Layout(
  lambda x: np.transpose(x[:, :, 0, 0]),
  lambda x: np.transpose(x)[:, :, None, None],
)


def half_turned(features: int, then: Layout = SAME) -> Layout:
  """Queries or keys of a file that turns feature i of a head together with
  i + K / 2 ("rotate half"); ours turn neighbours, see `positions.rotate`.

  Args:
    features: K of a head; axis 0 of the official array is [heads K]. A bias
      and the scale of a norm over K change in the same way.
    then: how the array changes else, such as LINEAR.
  """
  order = np.arange(features).reshape(2, -1).T.reshape(-1)

  def take(x, order):
    heads = x.reshape(-1, features, *x.shape[1:])
    return heads[:, order].reshape(x.shape)

  return Layout(
    lambda x: then.ours(take(x, order)),
    lambda x: take(then.theirs(x), np.argsort(order)),
  )


@dataclasses.dataclass(frozen=True)
class Rule:
  """One official key, one path of ours, and the layout between them."""

  theirs: str
  ours: str
  layout: Layout = SAME

  @property
  def stacked(self) -> str | None:
    """The placeholder that became a leading axis, if any."""
    lost = set(_names(self.theirs)) - set(_names(self.ours))
    return lost.pop() if lost else None


def affine(theirs: str, ours: str, layout: Layout) -> tuple[Rule, Rule]:
  """Rules of a linear or convolutional layer: weight -> kernel, and bias."""
  return (
    Rule(f"{theirs}.weight", f"{ours}/kernel", layout),
    Rule(f"{theirs}.bias", f"{ours}/bias"),
  )


def norm(theirs: str, ours: str) -> tuple[Rule, Rule]:
  """Rules of a norm: weight -> scale, and bias."""
  return (
    Rule(f"{theirs}.weight", f"{ours}/scale"),
    Rule(f"{theirs}.bias", f"{ours}/bias"),
  )


def _names(pattern: str) -> list[str]:
  return re.findall(r"{(\w+)}", pattern)


def _match(pattern: str, key: str) -> dict[str, str] | None:
  parts = re.split(r"{(\w+)}", pattern)
  literals, names = parts[::2], parts[1::2]
  regex = re.escape(literals[0])
  for name, literal in zip(names, literals[1:], strict=True):
    regex += rf"(?P<{name}>\d+)" + re.escape(literal)
  found = re.fullmatch(regex, key)
  return found.groupdict() if found else None


def _find(table: Sequence[Rule], side: str, key: str):
  for rule in table:
    values = _match(getattr(rule, side), key)
    if values is not None:
      return rule, values
  raise KeyError(key)


QKV = ("q", "k", "v")


def fuse(state: State, parts: Sequence[str] = QKV) -> dict[str, np.ndarray]:
  """Joins matrices that an official file keeps apart and we do not.

  `x.q.weight`, `x.k.weight` and `x.v.weight` become `x.qkv.weight`, their
  rows behind each other; so do biases. `split` is the way back.
  """
  fused = dict(state)
  for key in state:
    stem, dot, leaf = key.rpartition(".")
    if not stem.endswith("." + parts[0]):
      continue
    stem = stem[: -len(parts[0])]
    keys = [f"{stem}{part}.{leaf}" for part in parts]
    if all(k in state for k in keys):
      joined = np.concatenate([fused.pop(k) for k in keys])
      fused[f"{stem}{''.join(parts)}.{leaf}"] = joined
  return fused


def split(state: State, parts: Sequence[str] = QKV) -> dict[str, np.ndarray]:
  """Undoes `fuse`; the parts are of equal size."""
  apart, name = {}, "".join(parts)
  for key, array in state.items():
    stem, _, leaf = key.rpartition(".")
    if not stem.endswith("." + name):
      apart[key] = array
      continue
    pieces = np.split(array, len(parts))
    for part, piece in zip(parts, pieces, strict=True):
      apart[f"{stem[: -len(name)]}{part}.{leaf}"] = piece
  return apart


def split_biases(state: State) -> dict[str, np.ndarray]:
  """As `split`, of the biases alone: their matrix is one in our layers, too,
  but each of them is a parameter of its own. `fuse` is the way back."""
  fused = {k: v for k, v in state.items() if k.endswith(".qkv.bias")}
  rest = {k: v for k, v in state.items() if k not in fused}
  return rest | split(fused)


def to_official(table: Sequence[Rule], params: Params) -> dict[str, np.ndarray]:
  """The official state of our parameters.

  Raises:
    KeyError: the table has no rule for one of our parameters.
  """
  state = {}
  for path, array in traverse_util.flatten_dict(dict(params), sep="/").items():
    rule, values = _find(table, "ours", path)
    if rule.stacked is None:
      slices = {rule.theirs.format(**values): array}
    else:
      slices = {
        rule.theirs.format(**values, **{rule.stacked: i}): array[i]
        for i in range(len(array))
      }
    for key, part in slices.items():
      state[key] = rule.layout.theirs(np.asarray(part))
  return state


def to_ours(
  table: Sequence[Rule],
  state: State,
  like: Params,
  *,
  ignore: Sequence[str] = (),
) -> dict[str, Any]:
  """Our float32 parameters from an official state.

  Args:
    table: the rules.
    state: official key -> array.
    like: tree of anything with a shape, as `jax.eval_shape` of `init` gives.
    ignore: patterns of official keys that hold nothing to learn (buffers).

  Raises:
    UserError: keys are missing, unexpected or of another shape, or numbers
      are not finite.
  """
  state = {
    key: array
    for key, array in state.items()
    if all(_match(pattern, key) is None for pattern in ignore)
  }
  flat = traverse_util.flatten_dict(dict(like), sep="/")
  # Arrays that take no memory, sent through the table for their shapes.
  hollow = {k: np.broadcast_to(np.float32(0), v.shape) for k, v in flat.items()}
  _check(state, to_official(table, hollow))
  _check_finite(state)

  stacks, params = {}, {}
  for key, array in state.items():
    rule, values = _find(table, "theirs", key)
    path = rule.ours.format(**values)
    array = rule.layout.ours(np.asarray(array, np.float32))
    if rule.stacked is None:
      params[path] = np.ascontiguousarray(array)
    else:
      stacks.setdefault(path, {})[int(values[rule.stacked])] = array
  for path, parts in stacks.items():
    params[path] = np.stack([parts[i] for i in range(len(parts))])
  return traverse_util.unflatten_dict(params, sep="/")


def _check_finite(state: State) -> None:
  found = {}
  for key, array in state.items():
    bad = np.size(array) - np.count_nonzero(np.isfinite(array))
    if bad:
      found[key] = bad
  if found:
    key, more = next(iter(found)), len(found) - 1
    raise UserError(
      f"the weights are not finite: {found[key]} numbers of {key} are NaN or "
      "infinite" + (f", and more of {more} others" if more else "")
    )


def _check(state: State, expected: State) -> None:
  problems = []
  for what, keys in {
    "missing": sorted(expected.keys() - state.keys()),
    "unexpected": sorted(state.keys() - expected.keys()),
    "of another shape": [
      f"{key} is {list(np.shape(state[key]))}, "
      f"not {list(np.shape(expected[key]))}"
      for key in sorted(expected.keys() & state.keys())
      if np.shape(state[key]) != np.shape(expected[key])
    ],
  }.items():
    if keys:
      more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
      problems.append(f"{what}: {', '.join(keys[:2])}{more}")
  if problems:
    raise UserError("the weights do not fit the model; " + "; ".join(problems))
