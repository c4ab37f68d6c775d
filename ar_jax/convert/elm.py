"""The key table of ELM's transformers, `{L,XL,XXL,2B}-t-b.pth`, and of its
masked arm.

The tokenizer comes in a file of its own; see `convert/bits.py`. Modulated
layers (adaLN) have norms with a learned scale there, and here none: the scale
is multiplied into the modulation, which is the same function. What is written
back then has scales of 1.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from ar_jax.convert import llamagen
from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  LINEAR,
  SAME,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

PLACE = ()

_ONE = Layout(lambda x: x[None], lambda x: x[0])
_ONE_LINEAR = Layout(
  lambda x: np.transpose(x)[None], lambda x: np.transpose(x[0])
)
_ROW = Layout(np.ravel, lambda x: x[None, None])
_CLASS = Rule(
  "cls_embedding.embedding_table.weight", "params/prefix/label/embedding"
)
_LAYERS = tuple(
  rule
  for rule in llamagen.TABLE
  if rule.theirs.startswith(("layers.", "norm."))
)
_ADA = "layers.{i}.adaLN_modulation.1"
_MODULATED = (
  Rule(f"{_ADA}.weight", "params/backbone/ada/kernel", LINEAR),
  Rule(f"{_ADA}.bias", "params/backbone/ada/bias"),
  Rule("final_adaLN.1.weight", "params/out_ada/kernel", _ONE_LINEAR),
  Rule("final_adaLN.1.bias", "params/out_ada/bias", _ONE),
)
_READ = "params/units/embedding"

# Several codes a cell, one, and the masked arm.
MANY = (
  Rule("tok_embedder.{j}.weight", _READ),
  Rule("proj.weight", "params/units/proj/kernel", LINEAR),
  Rule("output.{j}.weight", "params/head/kernel", LINEAR),
  _CLASS,
  *_LAYERS,
  *_MODULATED,
)
SINGLE = (
  Rule("tok_embedder.weight", _READ, _ONE),
  Rule("output.weight", "params/head/kernel", _ONE_LINEAR),
  _CLASS,
  *_LAYERS,
  *_MODULATED,
)
MASKED = (
  Rule("tok_embedder.weight", _READ, SAME),
  *affine("mlm_layer.fc", "params/fc", LINEAR),
  *norm("mlm_layer.ln", "params/norm"),
  Rule("mlm_layer.bias", "params/bias", _ROW),
  _CLASS,
  *_LAYERS,
)

# The masked arm has these and never reads them.
IGNORE = (
  "freqs_cis",
  "proj.weight",
  "output.weight",
  "output.{j}.weight",
  "pos_embed.weight",
)

# Heads by width; the file does not tell.
HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24, 1792: 28, 2560: 40}


def config(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; that attention goes by
  cosines they do not.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.
    size: side of the images; 256 if None.

  Raises:
    UserError: this is not such a file, or its heads are not known.
  """
  several = [k for k in state if re.fullmatch(r"tok_embedder\.\d+\.weight", k)]
  first = several[0] if several else "tok_embedder.weight"
  masked = "mlm_layer.fc.weight" in state
  try:
    vocab, width = state[first].shape
    hidden = len(state["layers.0.feed_forward.w1.weight"])
    labels = len(state[_CLASS.theirs])
  except KeyError as e:
    raise UserError(
      f"not a transformer of ELM: there is no {e.args[0]} in the file"
    ) from e
  codes = len(several) or 1
  if masked:
    vocab -= 1
    codes = state.get("proj.weight", np.zeros((width, width))).shape[1] // width
  bits = vocab.bit_length() - 1
  if vocab != 2**bits:
    raise UserError(
      f"not a transformer of ELM: codes of {vocab} values are no codes of bits"
    )
  model = {
    "tokenizer": {"name": "bits", "bits": codes * bits},
    "codes": codes,
    "depth": sum(key.endswith("attention_norm.weight") for key in state),
    "width": width,
    "heads": count(state, width, HEADS, heads, "ELM"),
    "num_classes": labels - 1,
    "multiple_of": llamagen.multiple(hidden, width),
  }
  if size is not None:
    model["tokenizer"]["size"] = size
  if masked:
    model["masked"] = {}
  if "final_adaLN.1.weight" in state:
    model["adaln"] = True
  return {"system": "elm", "model": model}


def _table(masked: bool, several: bool) -> tuple[Rule, ...]:
  return MASKED if masked else MANY if several else SINGLE


def to_ours(
  state: State, *, heads: int | None = None, size: int | None = None
) -> dict[str, Any]:
  """`params` of ELM from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  del size  # of no parameter; and the published side fits all strides
  model = config(state, heads=heads)["model"]
  system, masked = build("elm", **model), "masked" in model
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  if "adaln" in model:
    state = _folded(state)
  return tables.to_ours(
    _table(masked, model["codes"] > 1),
    state,
    {"params": like["params"]},
    ignore=IGNORE if masked else IGNORE[:1],
  )


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the variables of ELM; of the masked arm without what
  it never reads."""
  params = variables["params"]
  masked = "fc" in params
  table = _table(masked, not masked and "proj" in params["units"])
  state = tables.to_official(table, {"params": params})
  return _unfolded(state) if "out_ada" in params else state


# Theirs and ours: shift, scale, gate of attention, then of the MLP; gates,
# scales, shifts.
_TO_OURS, _TO_THEIRS = (2, 5, 1, 4, 0, 3), (4, 2, 0, 5, 3, 1)
_NORMS = {1: "attention_norm", 4: "ffn_norm"}


def _folded(state: State) -> dict[str, np.ndarray]:
  """The modulations in our order, with the scales of the norms in them:
  w (1 + s) = 1 + (w s + w - 1)."""
  state = dict(state)
  for i in range(sum(k.endswith("attention_norm.weight") for k in state)):
    start = f"layers.{i}.adaLN_modulation.1"
    weight, bias = (
      np.split(state.get(f"{start}.{x}", np.zeros(6)), 6)
      for x in ("weight", "bias")
    )
    for part, name in _NORMS.items():
      w = state.pop(f"layers.{i}.{name}.weight", np.ones(1))
      weight[part] = weight[part] * w.reshape(-1, *(1,) * (weight[0].ndim - 1))
      bias[part] = bias[part] * w + w - 1
    for name, parts in {"weight": weight, "bias": bias}.items():
      if f"{start}.{name}" in state:
        state[f"{start}.{name}"] = np.concatenate([parts[j] for j in _TO_OURS])
  return state


def _unfolded(state: State) -> dict[str, np.ndarray]:
  """The modulations in their order, and norms whose scales are 1."""
  state = dict(state)
  for key in [k for k in state if ".adaLN_modulation." in k]:
    parts = np.split(state[key], 6)
    state[key] = np.concatenate([parts[j] for j in _TO_THEIRS])
    layer = key.partition(".adaLN")[0]
    for name in _NORMS.values():
      width = len(parts[0])
      state[f"{layer}.{name}.weight"] = np.ones(width, np.float32)
  return state
