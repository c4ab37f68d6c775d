"""The key tables of the parents of CrossNovo: PrimeNovo, whose decoder is of
slots, and ContraNovo, whose decoder is of residues. CrossNovo's own weights are
not public.

A file of either becomes a `crossnovo` with that decoder alone, with the masses
and the float32 phases that it was trained with (`released`).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import (
  LINEAR,
  Layout,
  Params,
  Rule,
  State,
  affine,
  norm,
)

PLACE = ("params",)
HEADS = {400: 8, 512: 8}  # of a width, as published
_SLOTS, _RESIDUES = "decoder.layers.{i}", (
  "decoder.transformer_decoder.layers.{i}"
)  # fmt: skip
_FLAT = Layout(lambda x: x.reshape(1, 1), lambda x: x.reshape(1, 1, 1))
# Not read: what PrimeNovo never uses.
_UNREAD = ("decoder.aa_encoder.weight", "decoder.mass_ln", "decoder.layer_ln")
_LENGTH = 40  # residues, as far as these are used


def _layer(theirs: str, ours: str, cross: bool) -> tuple[Rule, ...]:
  block = f"{ours}/stack/block"
  last = "norm3" if cross else "norm2"
  rules = (
    Rule(f"{theirs}.self_attn.qkv.weight", f"{block}/mixer/qkv/kernel", LINEAR),
    *(
      Rule(f"{theirs}.self_attn.{x}.bias", f"{block}/mixer/bias_{x}")
      for x in tables.QKV
    ),
    *affine(f"{theirs}.self_attn.out_proj", f"{block}/mixer/out", LINEAR),
    *affine(f"{theirs}.linear1", f"{block}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.linear2", f"{block}/mlp/fc2", LINEAR),
    *norm(f"{theirs}.norm1", f"{block}/norm1"),
    *norm(f"{theirs}.{last}", f"{block}/norm2"),
  )
  if not cross:
    return rules
  own, looks = f"{theirs}.multihead_attn", f"{block}/cross"
  return (
    *rules,
    Rule(f"{own}.q.weight", f"{looks}/query/kernel", LINEAR),
    Rule(f"{own}.kv.weight", f"{looks}/key_value/kernel", LINEAR),
    *(Rule(f"{own}.{x}.bias", f"{looks}/bias_{x}") for x in tables.QKV),
    *affine(f"{own}.out_proj", f"{looks}/out", LINEAR),
    *norm(f"{theirs}.norm2", f"{block}/norm3"),
  )


_ENCODER = (
  Rule(
    "encoder.peak_encoder.int_encoder.weight",
    "encoder/intensity/kernel",
    LINEAR,
  ),
  *_layer("encoder.transformer_encoder.layers.{i}", "encoder", False),
)


def _charge(ours: str) -> Rule:
  place = f"{ours}/precursor/charge/embedding"
  return Rule("decoder.charge_encoder.weight", place)


TABLES = {
  "slots": (
    *_ENCODER,
    Rule("encoder.latent_spectrum", "encoder/token"),
    _charge("slots"),
    *_layer(_SLOTS, "slots", True),
    *affine("decoder.final", "slots/final", LINEAR),
  ),
  "residues": (
    *_ENCODER,
    Rule("encoder.zeroPeaks_intensity", "encoder/front_0", _FLAT),
    Rule("encoder.allPeaks_intensity", "encoder/front_1", _FLAT),
    _charge("residues"),
    Rule("decoder.aa_encoder.weight", "residues/symbols/embedding"),
    *_layer(_RESIDUES, "residues", True),
    Rule("decoder.final_aa_Encoder.weight", "residues/said/embedding"),
    Rule("decoder.finalCharMass", "residues/stop_mass"),
    Rule("decoder.logit_scale", "residues/scale"),
    Rule("decoder.slopes", "residues/slopes"),
    *(
      rule
      for i in range(4)
      for rule in affine(
        f"decoder.finalLinears.{2 * i}", f"residues/fc_{i}", LINEAR
      )
    ),
  ),
}


def _kind(state: State) -> str:
  """Which parent it is.

  Raises:
    UserError: none.
  """
  if "encoder.latent_spectrum" in state and "decoder.final.weight" in state:
    return "slots"
  if "decoder.finalCharMass" in state:
    return "residues"
  raise UserError(
    "not a file of PrimeNovo or ContraNovo: it has neither "
    "encoder.latent_spectrum nor decoder.finalCharMass"
  )


def config(state: State, *, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; the published number for that width if None.

  Raises:
    UserError: it is a file of neither, or its heads are not known.
  """
  kind = _kind(state)
  width = state["encoder.peak_encoder.int_encoder.weight"].shape[0]
  heads = heads or HEADS.get(width)
  if heads is None:
    raise UserError(
      f"how many heads has it? No file tells, and width {width} is no "
      "published one: say it with --heads=N"
    )
  first = "encoder.transformer_encoder.layers.0.linear1.bias"
  own = "decoder.layers." if kind == "slots" else (
    "decoder.transformer_decoder.layers."
  )  # fmt: skip
  model = dict(
    decoders=kind,
    width=width,
    heads=heads,
    hidden=len(state[first]),
    encoder_layers=_count(state, "encoder.transformer_encoder.layers."),
    released=True,
    length=_LENGTH,
    slots=_LENGTH,
  )
  if kind == "slots":
    model |= dict(slot_layers=_count(state, own), front="token")
  else:
    model |= dict(residue_layers=_count(state, own), front="peaks", masses=True)
  # Of places they begin with 1.
  waves = [
    np.ravel(x).tolist() for k, x in state.items() if k.endswith("sin_term")
  ]
  waves = {len(x): x for x in waves if x[0] < 0.01}
  if waves:
    model["terms"] = list(waves.values())
  return {"system": "crossnovo", "model": model}


def _count(state: State, prefix: str) -> int:
  at = len(prefix)
  return 1 + max(
    int(k[at:].split(".")[0]) for k in state if k.startswith(prefix)
  )


def _apart(state: State, kind: str) -> dict[str, np.ndarray]:
  """The state without what is not learned, its joint matrices by the names of
  their parts."""
  found = {}
  for key, x in state.items():
    if key.endswith(("sin_term", "cos_term")):
      continue
    if kind == "slots" and key.startswith(_UNREAD):
      continue
    stem, joint, leaf = key.partition("in_proj_")
    if not joint:
      found[key] = x
      continue
    q, k, v = np.split(x, 3)
    if leaf == "bias":
      parts = {"q.bias": q, "k.bias": k, "v.bias": v}
    elif "multihead" in stem:
      parts = {"q.weight": q, "kv.weight": np.concatenate([k, v])}
    else:
      parts = {"qkv.weight": x}
    found |= {stem + name: part for name, part in parts.items()}
  if kind == "residues":
    slopes = [found.pop(f"decoder.finalLinears.{i}.weight") for i in (1, 3, 5)]
    found["decoder.slopes"] = np.concatenate(slopes)
    scale = found.get("decoder.logit_scale", math.log(1 / 0.07))
    found["decoder.logit_scale"] = np.reshape(scale, 1)
  return found


def to_ours(state: State, *, heads: int | None = None) -> dict[str, Any]:
  """The parameters of `CrossNovo`; arguments as in `config`.

  Raises:
    UserError: as in `config`, or the file is not whole.
  """
  made = config(state, heads=heads)
  system, kind = build(made["system"], **made["model"]), _kind(state)
  batch = {
    k: np.zeros((1, *shape), np.float32)
    for k, shape in (("peaks", (4, 2)), ("mz", (4, 2)), ("precursor", (4,)))
  }
  like = jax.eval_shape(lambda key: system.init(key, batch), jax.random.key(0))
  return tables.to_ours(TABLES[kind], _apart(state, kind), like["params"])


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state, without its buffers and what is never used."""
  kind = "slots" if "slots" in params else "residues"
  state = tables.to_official(TABLES[kind], params)
  found = {}
  for key, x in state.items():
    if key.endswith("qkv.weight"):
      found[key.replace("qkv.weight", "in_proj_weight")] = x
    elif key.endswith("multihead_attn.q.weight"):
      stem = key.removesuffix("q.weight")
      whole = np.concatenate([x, state[f"{stem}kv.weight"]])
      found[f"{stem}in_proj_weight"] = whole
    elif key.endswith("attn.q.bias"):
      stem = key.removesuffix("q.bias")
      parts = [state[f"{stem}{p}.bias"] for p in tables.QKV]
      found[f"{stem}in_proj_bias"] = np.concatenate(parts)
    elif key == "decoder.slopes":
      for i, slope in zip((1, 3, 5), x, strict=True):
        found[f"decoder.finalLinears.{i}.weight"] = slope.reshape(1)
    elif key == "decoder.logit_scale":
      found[key] = x.reshape(())
    elif not key.endswith(("attn.kv.weight", "attn.k.bias", "attn.v.bias")):
      found[key] = x
  return found
