"""The key table of Paraformer's large recipe, as FunASR stores it: SAN-M
encoder and decoder, and either predictor."""

from __future__ import annotations

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

PLACE = ()
_P = "params"
# (out, in / groups, k) -> (k, in / groups, out).
_CONV1 = Layout(
  lambda x: np.transpose(x, (2, 1, 0)), lambda x: np.transpose(x, (2, 1, 0))
)
# Of every channel by itself: (d, 1, k) -> (k, d).
_TAPS = Layout(
  lambda x: np.transpose(x[:, 0]), lambda x: np.transpose(x)[:, None]
)
_SAMPLES, _PLACES = 480_000, 128  # which no shape shows


def _mlp(theirs: str, ours: str) -> tuple[Rule, ...]:
  return (
    *affine(f"{theirs}.w_1", f"{ours}/fc1", LINEAR),
    *affine(f"{theirs}.w_2", f"{ours}/fc2", LINEAR),
    *norm(f"{theirs}.norm", f"{ours}/norm"),
  )


def _encoder(theirs: str, ours: str) -> tuple[Rule, ...]:
  attention, mixer = f"{theirs}.self_attn", f"{ours}/mixer"
  return (
    *norm(f"{theirs}.norm1", f"{ours}/norm1"),
    *norm(f"{theirs}.norm2", f"{ours}/norm2"),
    *affine(f"{attention}.linear_q_k_v", f"{mixer}/qkv", LINEAR),
    *affine(f"{attention}.linear_out", f"{mixer}/out", LINEAR),
    Rule(f"{attention}.fsmn_block.weight", f"{mixer}/memory/kernel", _TAPS),
    *_mlp(f"{theirs}.feed_forward", f"{ours}/mlp"),
  )


_DECODER, _BLOCK = "decoder.decoders.{i}", f"{_P}/decoder/stack/block"
_LAST, _OURS = "decoder.decoders3.0", f"{_P}/decoder/stack/out_norm"


def _looks(name: str) -> tuple[Rule, ...]:
  """The attention to what was heard, keys and values in one matrix."""
  theirs, ours = f"{_DECODER}.src_attn", f"{_BLOCK}/cross"
  return (
    Rule(f"{theirs}.linear_q.weight", f"{ours}/query/kernel", LINEAR),
    Rule(f"{theirs}.{name}.weight", f"{ours}/key_value/kernel", LINEAR),
    Rule(f"{theirs}.linear_q.bias", f"{ours}/bias_q"),
    Rule(f"{theirs}.linear_k.bias", f"{ours}/bias_k"),
    Rule(f"{theirs}.linear_v.bias", f"{ours}/bias_v"),
    *affine(f"{theirs}.linear_out", f"{ours}/out", LINEAR),
  )


TABLE = (
  *_encoder("encoder.encoders0.0", f"{_P}/encoder"),
  *_encoder("encoder.encoders.{i}", f"{_P}/encoder/stack/block"),
  *norm("encoder.after_norm", f"{_P}/encoder/stack/out_norm"),
  Rule("predictor.cif_conv1d.weight", f"{_P}/predictor/kernel", _CONV1),
  Rule("predictor.cif_conv1d.bias", f"{_P}/predictor/bias"),
  *affine("predictor.cif_output", f"{_P}/predictor/out", LINEAR),
  Rule("decoder.embed.0.weight", f"{_P}/symbols/embedding"),
  *norm(f"{_DECODER}.norm1", f"{_BLOCK}/norm1"),
  *norm(f"{_DECODER}.norm2", f"{_BLOCK}/norm2"),
  *norm(f"{_DECODER}.norm3", f"{_BLOCK}/norm3"),
  Rule(
    f"{_DECODER}.self_attn.fsmn_block.weight", f"{_BLOCK}/mixer/kernel", _TAPS
  ),
  *_looks("linear_k_v"),
  *_mlp(f"{_DECODER}.feed_forward", f"{_BLOCK}/mlp"),
  *norm(f"{_LAST}.norm1", f"{_OURS}/norm1"),
  *_mlp(f"{_LAST}.feed_forward", f"{_OURS}/mlp"),
  *norm("decoder.after_norm", f"{_OURS}/norm"),
  *affine("decoder.output_layer", f"{_P}/decoder/head/linear", LINEAR),
  *affine("ctc.ctc_lo", f"{_P}/ctc_head/linear", LINEAR),
)
# The plain decoder of pre-norm layers with self-attention.
PLAIN = (
  Rule(
    f"{_DECODER}.self_attn.linear_qkv.weight",
    f"{_BLOCK}/mixer/qkv/kernel",
    LINEAR,
  ),
  *(
    Rule(f"{_DECODER}.self_attn.linear_{x}.bias", f"{_BLOCK}/mixer/bias_{x}")
    for x in tables.QKV
  ),
  *affine(f"{_DECODER}.self_attn.linear_out", f"{_BLOCK}/mixer/out", LINEAR),
  *norm(f"{_DECODER}.norm1", f"{_BLOCK}/norm1"),
  *norm(f"{_DECODER}.norm2", f"{_BLOCK}/norm3"),
  *norm(f"{_DECODER}.norm3", f"{_BLOCK}/norm2"),
  *_looks("linear_kv"),
  *_mlp(f"{_DECODER}.feed_forward", f"{_BLOCK}/mlp"),
  *norm("decoder.after_norm", f"{_P}/decoder/stack/out_norm"),
  *affine("decoder.output_layer", f"{_P}/decoder/head/linear", LINEAR),
)
_KV = "src_attn.linear_k_v.bias"


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell: 16 kHz, 80 bands of which 7
  frames stand side by side; half a minute of sound and 128 symbols.

  Args:
    state: official key -> array.
    heads: of attention; 4, as published, if None.

  Raises:
    UserError: this is not such a file.
  """
  try:
    vocab, width = state["decoder.embed.0.weight"].shape
    features = state["encoder.encoders0.0.norm1.weight"].shape[0]
    hidden = len(state["encoder.encoders0.0.feed_forward.w_1.bias"])
    kernel = state["encoder.encoders0.0.self_attn.fsmn_block.weight"].shape[2]
    inner = state["predictor.cif_conv1d.weight"].shape[1]
  except KeyError as e:
    raise UserError(
      f"not a Paraformer of SAN-M: there is no {e.args[0]} in the file"
    ) from e
  count = lambda start: sum(
    k.startswith(start) and k.endswith("norm1.weight") for k in state
  )
  stack = 7 if features % 7 == 0 else 1
  tokens = dict(name="given", form="tokens", vocab=vocab, length=_PLACES)
  return {
    "system": "paraformer",
    "model": {
      "tokenizer": tokens | {"stop": 2},
      "samples": _SAMPLES,
      "bands": features // stack,
      "stack": stack,
      "skip": 6 if stack == 7 else 1,
      "width": width,
      "heads": heads or 4,
      "hidden": hidden,
      "depth": 1 + count("encoder.encoders."),
      "layers": count("decoder.decoders."),
      "kernel": kernel,
      "depthwise": inner == 1,
      "ctc_weight": 0.3 if "ctc.ctc_lo.weight" in state else 0.0,
    },
  }


def split_biases(state: State) -> dict[str, np.ndarray]:
  """Biases of keys and values that are one in the file, apart."""
  found = {}
  for key, array in state.items():
    if key.endswith(_KV):
      stem = key.removesuffix("linear_k_v.bias")
      for name, part in zip("kv", np.split(array, 2), strict=True):
        found[f"{stem}linear_{name}.bias"] = part
    else:
      found[key] = array
  return found


def join_biases(state: State) -> dict[str, np.ndarray]:
  """The way back."""
  found = dict(state)
  for key in state:
    if key.endswith("src_attn.linear_k.bias"):
      stem = key.removesuffix("linear_k.bias")
      parts = [found.pop(f"{stem}linear_{name}.bias") for name in "kv"]
      found[f"{stem}linear_k_v.bias"] = np.concatenate(parts)
  return found


def plain(state: State) -> dict[str, np.ndarray]:
  """A state of the plain decoder for the table PLAIN: matrices of queries, keys
  and values are one in ours, where the file has them apart."""
  found = dict(state)
  for key in state:
    if not key.endswith("linear_q.weight"):
      continue
    stem = key.removesuffix("q.weight")
    names = "qkv" if "self_attn" in key else "kv"
    parts = [found.pop(f"{stem}{name}.weight") for name in names]
    found[f"{stem}{names}.weight"] = np.concatenate(parts)
  return found


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  system = build("paraformer", **config(state, heads)["model"])
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  found = tables.to_ours(TABLE, split_biases(state), {_P: like[_P]})
  return {**found, "tokenizer": {}}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables."""
  return join_biases(tables.to_official(TABLE, {_P: variables[_P]}))
