"""Published files of T5's encoder, and the features of texts by them.

  python -m ar_jax.encoders.t5_files WEIGHTS TEXTS.txt OUT.npy
    --pieces=spiece.model [--length=120]

stores what the encoder of a local file says of texts, a line each, as
`data.text_features` reads it. In place of them IDS.npy, i32[N, n], has the
pieces of each text, the end (1) among them and zeros behind it. No file is
downloaded.

Keys are those of transformers; a decoder in the same file is left out.

Shapes: N texts, n pieces, P positions, D width, K features of a head.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.encoders import pieces
from ar_jax.encoders.t5 import T5
from ar_jax.files import tables, torch_file
from ar_jax.files.tables import LINEAR, Params, Rule, State

_LAYER = "encoder.block.{i}.layer"
_TABLE = (
  Rule("shared.weight", "pieces/embedding"),
  Rule("encoder.final_layer_norm.weight", "norm/scale"),
  Rule("encoder.distances", "distances"),
  *(
    Rule(f"{_LAYER}.0.SelfAttention.{x}.weight", f"layers/{y}/kernel", LINEAR)
    for x, y in zip("qkvo", ("query", "key", "value", "out"), strict=True)
  ),
  Rule(f"{_LAYER}.0.layer_norm.weight", "layers/norm1/scale"),
  Rule(f"{_LAYER}.1.layer_norm.weight", "layers/norm2/scale"),
  *(
    Rule(f"{_LAYER}.1.DenseReluDense.{x}.weight", f"layers/{y}/kernel", LINEAR)
    for x, y in (("wi_0", "gate"), ("wi_1", "fc1"), ("wi", "fc1"))
    + (("wo", "fc2"),)
  ),
)
_FIRST = "encoder.block.0.layer.0.SelfAttention"
_DISTANCES = f"{_FIRST}.relative_attention_bias.weight"
_SAME = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def read(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
  """(arguments of `T5`, its parameters) from the state of a file.

  Raises:
    UserError: it is no T5, or keys are missing.
  """
  if _DISTANCES not in state or "shared.weight" not in state:
    raise UserError(
      "not a T5: no 'shared.weight' or no relative_attention_bias in the first "
      "layer of an encoder"
    )
  own = {
    k: np.asarray(x, np.float32)
    for k, x in state.items()
    if not k.startswith(("decoder.", "lm_head.")) and k not in _SAME
  }
  own["encoder.distances"] = own.pop(_DISTANCES)
  gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in own
  buckets, heads = own["encoder.distances"].shape
  vocab, width = own["shared.weight"].shape
  hidden = own["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape[1]
  arguments = dict(
    width=width,
    depth=1 + max(int(k.split(".")[2]) for k in own if ".block." in k),
    heads=heads,
    hidden=hidden,
    features=own[f"{_FIRST}.q.weight"].shape[0] // heads,
    vocab=vocab,
    gated=gated,
    buckets=buckets,
  )
  example = np.zeros((1, 1), np.int32)
  shapes = jax.eval_shape(T5(**arguments).init, jax.random.key(0), example)
  return arguments, tables.to_ours(_table(gated), own, shapes["params"])


def write(params: Params) -> dict[str, np.ndarray]:
  """The state of a file, without a decoder, of these parameters."""
  state = tables.to_official(_table("gate" in params["layers"]), params)
  state[_DISTANCES] = state.pop("encoder.distances")
  return state


def _table(gated: bool) -> tuple[Rule, ...]:
  others = (".wi.",) if gated else (".wi_0.", ".wi_1.")
  return tuple(r for r in _TABLE if not any(x in r.theirs for x in others))


def features(
  path: str, ids: np.ndarray, length: int, batch: int = 8
) -> Iterator[np.ndarray]:
  """f16[B, P, D] for batch after batch of texts i32[N, n], the rows behind the
  end of a text zeros.

  Raises:
    UserError: the file is no T5, or a text is no list of its pieces.
  """
  arguments, params = read(torch_file.read(path))
  ids = np.asarray(ids)
  if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
    raise UserError(f"ids {ids.dtype} of shape {ids.shape}: must be i32[N, n]")
  if ids.min() < 0 or ids.max() >= arguments["vocab"]:
    raise UserError(
      f"ids {ids.min()} to {ids.max()}: {path} knows 0 to "
      f"{arguments['vocab'] - 1}"
    )
  ids = ids[:, :length]
  module = T5(**arguments, length=ids.shape[1])
  apply = jax.jit(functools.partial(module.apply, {"params": params}))
  for start in range(0, len(ids), batch):
    part = ids[start : start + batch]
    full = np.pad(part, ((0, batch - len(part)), (0, 0)))
    found = np.asarray(apply(full), np.float16)[: len(part)]
    rows = np.zeros((len(part), length, found.shape[-1]), np.float16)
    for row, own, text in zip(rows, found, part, strict=True):
      count = int((text > 0).sum())
      row[:count] = own[len(own) - count :]
    yield rows


def main(argv: list[str] | None = None) -> None:
  """See the module's docstring."""
  parser = argparse.ArgumentParser(
    prog="python -m ar_jax.encoders.t5_files", description=__doc__
  )
  parser.add_argument("weights", help=".safetensors or .bin of a T5")
  parser.add_argument("texts", help="a line each, or i32[N, n] of np.save")
  parser.add_argument("out", help="what is made: f16[N, P, D]")
  parser.add_argument("--pieces", default="", help="spiece.model of that T5")
  parser.add_argument("--length", type=int, default=120, help="P")
  asked = parser.parse_args(argv)
  ids = _ids(asked.texts, asked.pieces, asked.length)
  rows = np.concatenate(list(features(asked.weights, ids, asked.length)))
  np.save(asked.out, rows)
  print(f"{asked.out}: {rows.dtype}{list(rows.shape)}")


def _ids(path: str, vocabulary: str, length: int) -> np.ndarray:
  """i32[N, n] of a file of texts or of their pieces.

  Raises:
    UserError: it cannot be read, or there is no vocabulary for texts.
  """
  try:
    if path.endswith(".npy"):
      return np.load(path)
    lines = pathlib.Path(path).read_text("utf-8").splitlines()
  except (OSError, ValueError) as e:
    raise UserError(f"{path}: cannot be read ({e})") from e
  if not vocabulary:
    raise UserError(
      f"{path}: texts need the vocabulary of their T5; give --pieces=FILE, its "
      "spiece.model or tokenizer.json"
    )
  return pieces.read(vocabulary).rows(lines, length)


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(str(error))
