"""The key table of CPPD, in both of its layouts: PaddleOCR's, whose linear maps
are (in, out) and whose edge layer has names of its own, and the authors' port
to PyTorch (OpenOCR).

An official state is brought to the names of the port first. A `.pdparams` file
is to be saved as `.safetensors` before, under its own names.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import CONV, LINEAR, Params, Rule, State, affine, norm

PLACE = ()
_PARAMS, _STATS = "params", "batch_stats"
# What a file holds and nothing reads: norms of keys (Paddle), counters.
_UNREAD = (
  "decoder.char_node_decoder.{i}.normkv.weight",
  "decoder.char_node_decoder.{i}.normkv.bias",
  "decoder.pos_node_decoder.{i}.normkv.weight",
  "decoder.pos_node_decoder.{i}.normkv.bias",
  "decoder.edge_decoder.{i}.normkv.weight",
  "decoder.edge_decoder.{i}.normkv.bias",
  "encoder.patch_embed.proj.{i}.norm.num_batches_tracked",
)
_EDGE = {"p": "mixer.q", "p_proj": "mixer.proj"}
_MEANS = {"_mean": "running_mean", "_variance": "running_var"}


def _block(theirs: str, ours: str) -> tuple[Rule, ...]:
  """The MLP and the norms of any block."""
  return (
    *norm(f"{theirs}.norm1", f"{ours}/norm1"),
    *norm(f"{theirs}.norm2", f"{ours}/norm2"),
    *affine(f"{theirs}.mlp.fc1", f"{ours}/mlp/fc1", LINEAR),
    *affine(f"{theirs}.mlp.fc2", f"{ours}/mlp/fc2", LINEAR),
  )


def _layer(theirs: str, ours: str) -> tuple[Rule, ...]:
  """A layer of nodes."""
  mixer = f"{ours}/mixer"
  return (
    *_block(theirs, ours),
    Rule(f"{theirs}.mixer.q.weight", f"{mixer}/query/kernel", LINEAR),
    Rule(f"{theirs}.mixer.q.bias", f"{mixer}/bias_q"),
    Rule(f"{theirs}.mixer.kv.weight", f"{mixer}/key_value/kernel", LINEAR),
    Rule(f"{theirs}.mixer.k.bias", f"{mixer}/bias_k"),
    Rule(f"{theirs}.mixer.v.bias", f"{mixer}/bias_v"),
    *affine(f"{theirs}.mixer.proj", f"{mixer}/out", LINEAR),
  )


_E, _O = "encoder", f"{_PARAMS}/encoder"
_THEIRS, _OURS = f"{_E}.blocks" + "{s}.{i}", f"{_O}/stage" + "{s}_{i}"
_STEM = f"{_E}.patch_embed.proj." + "{i}"
_CORE = (
  Rule(f"{_E}.pos_embed", f"{_O}/pos"),
  Rule(f"{_STEM}.conv.weight", f"{_O}/stem" + "{i}/kernel", CONV),
  *norm(f"{_STEM}.norm", f"{_O}/stem_norm" + "{i}"),
  Rule(
    f"{_STEM}.norm.running_mean",
    f"{_STATS}/encoder/stem_norm" + "{i}/mean",
  ),
  Rule(f"{_STEM}.norm.running_var", f"{_STATS}/encoder/stem_norm" + "{i}/var"),
  *affine(f"{_E}.sub_sample" + "{s}.conv", f"{_O}/merge" + "{s}", CONV),
  *norm(f"{_E}.sub_sample" + "{s}.norm", f"{_O}/merge_norm" + "{s}"),
  *_block(_THEIRS, _OURS),
  Rule(f"{_THEIRS}.mixer.local_mixer.weight", f"{_OURS}/mixer/kernel", CONV),
  Rule(f"{_THEIRS}.mixer.local_mixer.bias", f"{_OURS}/mixer/bias"),
  Rule(f"{_THEIRS}.mixer.qkv.weight", f"{_OURS}/mixer/qkv/kernel", LINEAR),
  *(
    Rule(f"{_THEIRS}.mixer.{x}.bias", f"{_OURS}/mixer/bias_{x}")
    for x in tables.QKV
  ),
  *affine(f"{_THEIRS}.mixer.proj", f"{_OURS}/mixer/out", LINEAR),
)
_D, _N = "decoder", f"{_PARAMS}/decoder"
_HEADS = {
  "char_node_fc1": "count_head",
  "pos_node_fc1": "place_head",
  "edge_fc": "head",
}
_STACKS = {
  "char_node_decoder": "counting",
  "pos_node_decoder": "placing",
  "edge_decoder": "edges",
}
TABLE = (
  *_CORE,
  Rule(f"{_D}.char_pos_embed", f"{_N}/place_pos"),
  Rule(f"{_D}.vis_pos_embed", f"{_N}/visual_pos"),
  Rule(f"{_D}.char_node_embed.embedding.weight", f"{_N}/characters/embedding"),
  Rule(f"{_D}.pos_node_embed.embedding.weight", f"{_N}/place/embedding"),
  *(
    rule
    for theirs, ours in _STACKS.items()
    for rule in _layer(f"{_D}.{theirs}." + "{i}", f"{_N}/{ours}_" + "{i}")
  ),
  *(
    rule
    for theirs, ours in _HEADS.items()
    for rule in affine(f"{_D}.{theirs}", f"{_N}/{ours}/linear", LINEAR)
  ),
)


def ported(state: State) -> dict[str, np.ndarray]:
  """A state of either layout under the names and in the layout of the port."""
  if not any(key.startswith(("backbone.", "head.")) for key in state):
    return dict(state)
  found = {}
  for key, array in state.items():
    key = key.replace("backbone.", "encoder.", 1).replace(
      "head.", "decoder.", 1
    )
    leaf = key.rpartition(".")[2]
    key = key.removesuffix(leaf) + _MEANS.get(leaf, leaf)
    if np.ndim(array) == 2 and leaf == "weight" and ".embedding." not in key:
      array = np.transpose(array)
    found[key] = array
  edge = "decoder.edge_decoder."
  own = {k: found.pop(k) for k in list(found) if k.startswith(edge)}
  for key, array in own.items():
    part, _, rest = key.removeprefix(edge).partition(".")
    if part not in ("cv", "pv"):
      found[f"{edge}0.{_EDGE.get(part, part)}.{rest}"] = array
  for leaf in ("weight", "bias"):  # keys, then values
    parts = [own.get(f"{edge}{name}.{leaf}") for name in ("pv", "cv")]
    if all(part is not None for part in parts):
      found[f"{edge}0.mixer.kv.{leaf}"] = np.concatenate(parts)
  return found


def config(state: State, size: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell: heads have 32 features, as
  published.

  Args:
    state: official key -> array, of either layout.
    size: the width of an image in pixels, which no shape shows where its
      height is not 32; the height is found from both.

  Raises:
    UserError: this is not such a file.
  """
  state = ported(state)
  try:
    vocab, width = state[f"{_D}.char_node_embed.embedding.weight"].shape
    places = len(state[f"{_D}.pos_node_embed.embedding.weight"])
    stem = state[f"{_STEM.format(i=0)}.conv.weight"]
    cells = state[f"{_E}.pos_embed"].shape[1]
  except KeyError as e:
    raise UserError(f"not a CPPD: there is no {e.args[0]} in the file") from e
  stages = (1, 2, 3)
  count = lambda start, end: sum(
    k.startswith(start) and k.endswith(end) for k in state
  )
  widths = [
    len(state[f"{_THEIRS.format(s=s, i=0)}.norm1.weight"]) for s in stages
  ]
  wide = 4 * cells // 8 if size is None else size
  high = 4 * (4 * cells // wide)
  return {
    "system": "cppd",
    "model": {
      "tokenizer": dict(
        name="given", form="tokens", vocab=vocab, length=places
      ),
      "size": (high, wide),
      "in_channels": stem.shape[1],
      "widths": tuple(widths),
      "depths": tuple(
        count(f"{_E}.blocks{s}.", "norm1.weight") for s in stages
      ),
      "heads": tuple(w // 32 for w in widths),
      "convolutions": count(f"{_E}.blocks", "local_mixer.weight"),
      "layers": count(f"{_D}.char_node_decoder.", "norm1.weight"),
      "edge_layers": count(f"{_D}.edge_decoder.", "norm1.weight"),
      "node_heads": width // 32,
    },
  }


def split_biases(state: State) -> dict[str, np.ndarray]:
  """Biases of keys and values that are one in the file, apart."""
  state = tables.split_biases(state)
  both = {k: v for k, v in state.items() if k.endswith(".kv.bias")}
  rest = {k: v for k, v in state.items() if k not in both}
  return rest | tables.split(both, ("k", "v"))


def join_biases(state: State) -> dict[str, np.ndarray]:
  """The way back."""
  ends = tuple(f".{x}.bias" for x in "qkv")
  own = {k: v for k, v in state.items() if k.endswith(ends)}
  rest = {k: v for k, v in state.items() if k not in own}
  nodes = {k: v for k, v in own.items() if k.startswith(_D)}
  blocks = {k: v for k, v in own.items() if k not in nodes}
  return rest | tables.fuse(blocks) | tables.fuse(nodes, ("k", "v"))


def to_ours(state: State, size: int | None = None) -> dict[str, Any]:
  """Our variables from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  state = ported(state)
  system = build("cppd", **config(state, size)["model"])
  like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  like = {k: like[k] for k in (_PARAMS, _STATS)}
  found = tables.to_ours(TABLE, split_biases(state), like, ignore=_UNREAD)
  return {**found, "tokenizer": {}}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of our variables, under the names of the port."""
  own = {k: variables[k] for k in (_PARAMS, _STATS) if k in variables}
  return join_biases(tables.to_official(TABLE, own))
