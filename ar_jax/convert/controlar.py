"""The key table of ControlAR's transformers, by text (`canny_MR`, `depth_MR`,
`hed`, `seg_cocostuff`, `edge_base`, `depth_base`) and by class.

A file of LlamaGen is taken, too, together with one of a vision transformer
(`--encoder=FILE`, as DINOv2): what the published training begins with. The
control then begins with nothing added.

What no file tells: how the control picture was brought to the patches of the
encoder. It is "nearest" here, which `canny` and `seg` were trained with;
`--config.model.fit=bicubic_corners` is for the others. The tokenizer comes in
a file of its own; see `convert/vq.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ar_jax.convert import llamagen
from ar_jax.convert.llamagen import HEADS as HEADS
from ar_jax.core.system import UserError, build
from ar_jax.encoders import vit_files
from ar_jax.files import tables, torch_file
from ar_jax.files.tables import LINEAR, Params, Rule, State
from ar_jax.systems.controlar import PARTS

PLACE = ()

_SEES, _OURS = "adapter.model.", "params/control"
_STRIDE = 16  # pixels of a unit, in all published files


def _layers(rule: Rule) -> Rule:
  """A rule of LlamaGen for the parts of our stack."""
  theirs, ours = rule.theirs, rule.ours
  if theirs == "norm.weight":
    ours = ours.replace("/backbone/", f"/backbone/parts_{PARTS - 1}/")
  elif theirs.startswith("layers."):
    theirs = f"parts.{{j}}.{theirs}"
    ours = ours.replace("/backbone/", "/backbone/parts_{j}/")
  return Rule(theirs, ours, rule.layout)


def _unbiased(theirs: str, ours: str) -> tuple[Rule, Rule]:
  return tuple(
    Rule(f"{theirs}.{fc}.weight", f"{_OURS}/{ours}/{fc}/kernel", LINEAR)
    for fc in ("fc1", "fc2")
  )


_TABLE = (
  *map(_layers, llamagen.TABLE),
  *_unbiased("adapter_mlp", "adapter"),
  *_unbiased("condition_mlp.cap_proj", "joint"),
  *_unbiased("condition_layers.{j}", "layers_{j}"),
)

# Never read, or zeros.
IGNORE = (
  "freqs_cis",
  "condition_embeddings.weight",
  "condition_mlp.uncond_embedding",
  "condition_norm.weight",
  f"{_SEES}pooler.dense.weight",
  f"{_SEES}pooler.dense.bias",
  f"{_SEES}embeddings.mask_token",
)


def _table(layout: str) -> tuple[Rule, ...]:
  sees = (
    Rule(_SEES + r.theirs, f"{_OURS}/encoder/{r.ours}", r.layout)
    for r in vit_files.TABLES[layout]
  )
  return (*_TABLE, *sees)


def config(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  encoder: str | None = None,
  encoder_heads: int | None = None,
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.
    size: side of the images; that of the file if None, of a LlamaGen 256.
    encoder: a file of a vision transformer, for one of LlamaGen.
    encoder_heads: of its attention; as `heads`.

  Raises:
    UserError: this is not such a file, or an encoder is lacking, or one too
      many.
  """
  model = llamagen.config(state, heads=heads, name="ControlAR")["model"]
  trained = "adapter_mlp.fc1.weight" in state
  if trained == (encoder is not None):
    raise UserError(
      "a model of ControlAR has its encoder in it; leave --encoder out"
      if trained
      else "a LlamaGen to begin with: name the file of the encoder of its "
      "control pictures with --encoder=FILE"
    )
  if trained:
    places = len(state["condition_mlp.uncond_embedding"])
    model["rope_side"] = math.isqrt(places)
    size = size or _STRIDE * model["rope_side"]
  if size is not None:
    model["tokenizer"]["size"] = size
  model["encoder"] = _encoder(state, encoder, encoder_heads)[0]
  return {"system": "controlar", "model": {**model, "control": "control"}}


def _encoder(
  state: State, file: str | None, heads: int | None
) -> tuple[dict[str, Any], str, dict[str, np.ndarray]]:
  """(arguments, layout, state) of the encoder, in the file or beside it."""
  if file is None:
    own = {
      k.removeprefix(_SEES): x for k, x in state.items() if k.startswith(_SEES)
    }
  else:
    own = torch_file.read(file)
  layout, own = vit_files.of_layout(own)
  found = vit_files.described(layout, own, heads)
  # It is shown pixels from -1 to 1, whatever it was trained with.
  return {**found, "mean": 0.5, "std": 0.5}, layout, own


def to_ours(
  state: State,
  *,
  heads: int | None = None,
  size: int | None = None,
  encoder: str | None = None,
  encoder_heads: int | None = None,
) -> dict[str, Any]:
  """`params`, and for texts `null`, of ControlAR from an official state;
  arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  options = dict(heads=heads, encoder=encoder, encoder_heads=encoder_heads)
  model = config(state, size=size, **options)["model"]
  system = build("controlar", **model)
  init = lambda key: system.init(key, {})
  like = jax.eval_shape(init, jax.random.key(0))
  like = {k: v for k, v in like.items() if k != "tokenizer"}
  _, layout, own = _encoder(state, encoder, encoder_heads)
  rest = {k: x for k, x in state.items() if not k.startswith(_SEES)}
  seen = {_SEES + k: x for k, x in vit_files.fused(layout, own).items()}
  whole = _parted(rest, model["depth"] // PARTS) | seen
  if encoder is not None:
    fresh = jax.jit(lambda key: init(key)["params"]["control"])
    control = jax.device_get(fresh(jax.random.key(0)))
    control = {k: v for k, v in control.items() if k != "encoder"}
    whole |= tables.to_official(_TABLE, {"params": {"control": control}})
  ignore = (*IGNORE, *(_SEES + k for k in vit_files.IGNORE))
  return tables.to_ours(_table(layout), whole, like, ignore=ignore)


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the variables of ControlAR, without what is never
  read."""
  own = {k: v for k, v in variables.items() if k != "tokenizer"}
  params = own["params"]
  layout = vit_files.written(params["control"]["encoder"])
  state = tables.to_official(_table(layout), own)
  seen = {
    k.removeprefix(_SEES): x for k, x in state.items() if k.startswith(_SEES)
  }
  rest = {k: x for k, x in state.items() if not k.startswith(_SEES)}
  part = params["backbone"]["parts_0"]["block"]
  depth = len(jax.tree.leaves(part)[0])
  return _joined(rest, depth) | {
    _SEES + k: x for k, x in vit_files.split(layout, seen).items()
  }


def _parted(state: State, depth: int) -> dict[str, np.ndarray]:
  """Layer i as layer i mod depth of part i // depth."""

  def name(found):
    part, layer = divmod(int(found[1]), depth)
    return f"parts.{part}.layers.{layer}."

  return _renamed(state, r"^layers\.(\d+)\.", name)


def _joined(state: State, depth: int) -> dict[str, np.ndarray]:
  """Undoes `_parted`."""
  name = lambda found: f"layers.{int(found[1]) * depth + int(found[2])}."
  return _renamed(state, r"^parts\.(\d+)\.layers\.(\d+)\.", name)


def _renamed(
  state: State, pattern: str, name: Callable[[re.Match], str]
) -> dict[str, np.ndarray]:
  return {re.sub(pattern, name, key): x for key, x in state.items()}
