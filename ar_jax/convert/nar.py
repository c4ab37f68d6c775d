"""The key table of NAR's transformers: images of classes and of texts, videos.

That of LlamaGen's with a layer, a norm and an output more for every further
axis. Of videos, positions are a table in raster order there and in the order
of the fronts here; their tokenizer, LARP's, is none of ours.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert import llamagen
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State

# The tree holds `params` and, for texts, `null`.
PLACE = ()

HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24}

# Names of the norm and the output of each axis: columns, rows, frames.
_IMAGE = (("norm", "output"), ("medusa_norm", "medusa_output"))
_VIDEO = tuple((f"norm_{x}", f"output_{x}") for x in "RDB")
_PLACES = "abs_pe"
_TABLE = "positional_embedding"  # of LlamaGen's kin with learned positions
# Frames of a published video; its grid is 16 x 16.
FRAMES = 4

_TRUNK = "layers.{i}"


def _table(axes: int) -> tuple[Rule, ...]:
  """The rules; layers are named `stacks.AXIS.LAYER` before they come in."""
  rules = []
  for rule in llamagen.TABLE:
    if rule.theirs.startswith(_TRUNK):
      for axis in range(axes):
        theirs = rule.theirs.replace(_TRUNK, f"stacks.{axis}.{{i}}")
        ours = rule.ours.replace("backbone", f"stacks_{axis}")
        rules.append(Rule(theirs, ours, rule.layout))
    elif rule.theirs not in ("norm.weight", "output.weight", _TABLE):
      rules.append(rule)
  for axis, (norm, output) in enumerate(_VIDEO if axes == 3 else _IMAGE):
    rules += [
      Rule(f"{norm}.weight", f"params/norms_{axis}/scale"),
      Rule(f"{output}.weight", f"params/heads_{axis}/linear/kernel", LINEAR),
    ]
  return (*rules, Rule(_PLACES, "params/places"))


def _renamed(state: State, axes: int) -> dict[str, np.ndarray]:
  """With the layers told apart by their axis: the last ones are of the further
  axes, one each."""
  pattern = re.compile(r"^layers\.(\d+)\.")
  trunk = _layers(state) - axes + 1

  def name(found):
    i = int(found[1])
    axis, layer = (0, i) if i < trunk else (i - trunk + 1, 0)
    return f"stacks.{axis}.{layer}."

  return {pattern.sub(name, key): array for key, array in state.items()}


def _numbered(state: State) -> dict[str, np.ndarray]:
  """Undoes `_renamed`."""
  pattern = re.compile(r"^stacks\.(\d+)\.(\d+)\.")
  trunk = sum(
    key.startswith("stacks.0.") and key.endswith("attention_norm.weight")
    for key in state
  )

  def name(found):
    axis, layer = int(found[1]), int(found[2])
    return f"layers.{layer if axis == 0 else trunk + axis - 1}."

  return {pattern.sub(name, key): array for key, array in state.items()}


def _layers(state: State) -> int:
  return sum(key.endswith("attention_norm.weight") for key in state)


def config(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  frames: int | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention, which no shape shows; the published number for that
      width if None.
    size: side of the images, which only the positions of videos show; that of
      the tokenizer, 256 unless it was trained here, if None.
    frames: of a video; 4, as published, if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  video = _PLACES in state
  axes = _VIDEO if video else _IMAGE
  for norm, output in axes:
    for key in (f"{norm}.weight", f"{output}.weight"):
      if key not in state:
        raise UserError(f"not a transformer of NAR: there is no {key}")
  plain = {**state, "output.weight": state[f"{axes[0][1]}.weight"]}
  plain["norm.weight"] = state[f"{axes[0][0]}.weight"]
  model = llamagen.config(
    plain, heads=heads, size=size, published=HEADS, name="NAR"
  )["model"]
  model["depth"] = _layers(state) - len(axes) + 1
  if video:
    units = np.shape(state[_PLACES])[-2] - _prefix(model)
    frames = frames or FRAMES
    side = round((units / frames) ** 0.5)
    if frames * side * side != units:
      raise UserError(
        f"{units} units of a video are no {frames} square frames: say how many "
        "with --frames=N"
      )
    model["frames"] = frames
    model["tokenizer"]["size"] = 16 * side
  return {"system": "nar", "model": model}


def _prefix(model) -> int:
  return model["text"]["length"] if "text" in model else 1


def to_ours(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  frames: int | None = None,
) -> dict[str, Any]:
  """`params`, and for texts `null`, of NAR from an official state; arguments
  as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  model = config(state, heads=heads, size=size, frames=frames)["model"]
  system = build("nar", **model)
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  like = {k: v for k, v in like.items() if k != "tokenizer"}
  axes = len(system.net.stacks)
  own = _renamed(state, axes)
  if _PLACES in own:
    table = np.reshape(own[_PLACES], np.shape(own[_PLACES])[-2:])
    own[_PLACES] = table[_order(_prefix(model), len(table), model["frames"])]
  return tables.to_ours(_table(axes), own, like, ignore=("freqs_cis",))


def _order(prefix: int, positions: int, frames: int) -> np.ndarray:
  """Where the position of each of our slots is in the official table."""
  side = round(((positions - prefix) / frames) ** 0.5)
  p = makers.fronts(frames, side, side)
  raster = (p["frame"] * side + p["row"]) * side + p["col"]
  return np.concatenate([np.arange(prefix), prefix + raster])


def to_official(
  variables: Params, *, frames: int | None = None
) -> dict[str, np.ndarray]:
  """The official state of the variables of NAR; `frames` as in `config`."""
  own = {k: v for k, v in variables.items() if k != "tokenizer"}
  axes = sum(name.startswith("heads_") for name in own["params"])
  state = _numbered(tables.to_official(_table(axes), own))
  if _PLACES in state:
    given = state[_PLACES]
    null = own.get("null")
    prefix = len(null["prefix"]["features"]) if null else 1
    table = np.empty_like(given)
    table[_order(prefix, len(given), frames or FRAMES)] = given
    state[_PLACES] = table[None]
  return state
