"""The key table of ARFlow's networks; those of SiT have other attention.

A published file holds the table of places as well, which is fixed and not
stored here. Of the last layer, the numbers that nobody reads stand behind the
velocity here, and among the pixels of a patch there.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert.heads import count
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Layout, Params, Rule, State, affine

# Where the converted tree belongs among the variables of the system.
PLACE = ("params",)

PATCH = 2  # of all published files


def reordered(order: tuple[int, ...], then: Layout) -> Layout:
  """Parts of axis 0 in another order."""

  def take(x: np.ndarray, order: Any) -> np.ndarray:
    parts = x.reshape(len(order), -1, *x.shape[1:])
    return parts[np.asarray(order)].reshape(x.shape)

  back = np.argsort(order)
  return Layout(
    lambda x: then.ours(take(x, order)), lambda x: take(then.theirs(x), back)
  )


def _patch_kernel() -> Layout:
  """A convolution [D, c, p, p] as a matrix of patches [p p c, D]."""

  def theirs(x: np.ndarray) -> np.ndarray:
    x = x.reshape(PATCH, PATCH, -1, x.shape[-1])
    return np.transpose(x, (3, 2, 0, 1))

  flat = lambda x: np.transpose(x, (2, 3, 1, 0)).reshape(-1, x.shape[0])
  return Layout(flat, theirs)


def _last(then: Layout) -> Layout:
  """Rows by pixel, then velocity or deviation; ours the other way round."""

  def swap(x: np.ndarray, halves: int, pixels: int) -> np.ndarray:
    parts = x.reshape(halves, pixels, -1, *x.shape[1:])
    return np.swapaxes(parts, 0, 1).reshape(x.shape)

  pixels = PATCH * PATCH
  return Layout(
    lambda x: then.ours(swap(x, pixels, 2)),
    lambda x: swap(then.theirs(x), 2, pixels),
  )


# Theirs: shift, scale, gate of both branches. Ours: the gates, the scales, the
# shifts; of the last norm the scale, then the shift.
MODS, ENDS = (2, 5, 1, 4, 0, 3), (1, 0)
_BLOCK, _OURS = "blocks.{i}", "backbone/block"


def both(theirs: str, ours: str, make: Any, lead: bool = False):
  """Rules of a linear layer whose rows change their order; `lead`: ours has an
  axis of one layer in front."""
  front = lambda layout: Layout(
    lambda x: layout.ours(x)[None], lambda x: layout.theirs(x[0])
  )
  kernel, bias = make(LINEAR), make(tables.SAME)
  if lead:
    kernel, bias = front(kernel), front(bias)
  return (
    Rule(f"{theirs}.weight", f"{ours}/kernel", kernel),
    Rule(f"{theirs}.bias", f"{ours}/bias", bias),
  )


TABLE = (
  Rule("x_embedder.proj.weight", "latent/kernel", _patch_kernel()),
  Rule("x_embedder.proj.bias", "latent/bias"),
  *affine("t_embedder.mlp.0", "time/fc1", LINEAR),
  *affine("t_embedder.mlp.2", "time/fc2", LINEAR),
  Rule("y_embedder.embedding_table.weight", "label/embedding"),
  *(
    Rule(
      f"{_BLOCK}.attn.{theirs}.weight", f"{_OURS}/mixer/{ours}/kernel", LINEAR
    )
    for theirs, ours in (
      ("q_proj", "q"),
      ("k_proj", "k"),
      ("v_proj", "v"),
      ("g_proj", "gate"),
      ("gt_proj", "decay"),
      ("out_proj", "out"),
    )
  ),
  *affine(f"{_BLOCK}.mlp.fc1", f"{_OURS}/mlp/fc1", LINEAR),
  *affine(f"{_BLOCK}.mlp.fc2", f"{_OURS}/mlp/fc2", LINEAR),
  *both(
    f"{_BLOCK}.adaLN_modulation.1",
    "backbone/ada",
    lambda then: reordered(MODS, then),
  ),
  *both(
    "final_layer.adaLN_modulation.1",
    "backbone/out_ada",
    lambda then: reordered(ENDS, then),
    lead=True,
  ),
  *both("final_layer.linear", "out", _last),
)


def config(state: State, heads: int | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    heads: of attention; as its gates say if None.

  Raises:
    UserError: this is not such a file.
  """
  try:
    width, channels, patch = state["x_embedder.proj.weight"].shape[:3]
    labels = len(state["y_embedder.embedding_table.weight"])
    gates = len(state["blocks.0.attn.gt_proj.weight"])
  except (KeyError, ValueError) as e:
    raise UserError(
      f"not a network of ARFlow: {e.args[0]} is not as in such a file"
    ) from e
  if patch != PATCH:
    raise UserError(f"patches of {patch}: those of ARFlow are of {PATCH}")
  side = 32
  if "pos_embed" in state:
    side = PATCH * round(state["pos_embed"].shape[1] ** 0.5)
  tokenizer = {
    "name": "kl_vae",
    "channels": channels,
    "mult": (1, 2, 4, 4),
    "attention": (),
    "size": 8 * side,
  }
  return {
    "system": "arflow",
    "model": {
      "tokenizer": tokenizer,
      "depth": sum(key.endswith("mlp.fc2.bias") for key in state),
      "width": width,
      "heads": count(state, width, {width: gates}, heads, "ARFlow"),
      "num_classes": labels - 1,
      "patch": PATCH,
    },
  }


def to_ours(state: State, heads: int | None = None) -> dict[str, Any]:
  """The `params` of ARFlow from an official state; arguments as in `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  arflow = build("arflow", **config(state, heads)["model"])
  like = jax.eval_shape(
    lambda key: arflow.init(key, {})["params"], jax.random.key(0)
  )
  own = {k: v for k, v in state.items() if k != "pos_embed"}
  return tables.to_ours(TABLE, own, like)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the `params` of ARFlow, but for the table of
  places."""
  return tables.to_official(TABLE, params)
