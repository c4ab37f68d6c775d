"""The key tables of Distilled Decoding 1's students, of VAR
(`VAR-DD-d{16,20,24}`) and of LlamaGen (`LlamaGen-DD-{B,L}`).

A file holds the student alone: its teacher is a VAR or a LlamaGen, converted
before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert import llamagen, var
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State, affine
from ar_jax.systems.dd1 import SIZES

# The tree holds `params`, the student, and `target`.
PLACE = ()

_POINT = (
  Rule("n_d_embed.weight", "known/embedding"),
  Rule("final_layer_conti.scale_shift_table", "point/table"),
  *affine("final_layer_conti.linear", "point/linear", LINEAR),
)
_LAST, _EACH = "last_n_d_embed", "layerwise_n_d_embed"
_HEAD = "backbone/out_ada"

SCALE_TABLE = (
  *(
    Rule(rule.theirs, rule.ours.replace(_HEAD, "out_ada"), rule.layout)
    for rule in var.TABLE
  ),
  *affine(f"{_EACH}.{{i}}", "backbone/block/cross/linear", LINEAR),
  *affine(_LAST, "last", LINEAR),
  *_POINT,
)
TOKEN_TABLE = (
  *(
    Rule(
      rule.theirs,
      rule.ours.removeprefix("params/").replace("backbone/out_norm", "norm"),
      rule.layout,
    )
    for rule in llamagen.TABLE
    if not rule.theirs.startswith("tok_embeddings")
  ),
  *affine("tok_embeddings", "units/linear", LINEAR),
  *_POINT,
)
IGNORE = (*var.IGNORE, "freqs_cis", "codebook")


def _is_var(state: State) -> bool:
  for key in ("n_d_embed.weight", "final_layer_conti.linear.weight"):
    if key not in state:
      raise UserError(f"not a student of DD1: there is no {key} in the file")
  return "word_embed.weight" in state


def _teacher(
  state: State,
  scales: Sequence[int] | None,
  heads: int | None,
  size: int | None,
) -> dict[str, Any]:
  """The config of a teacher of the student's size."""
  if _is_var(state):
    # The student has one slot and one level more, the class.
    its = {
      **state,
      "pos_1LC": state["pos_1LC"][:, 1:],
      "lvl_embed.weight": state["lvl_embed.weight"][1:],
    }
    return var.config(its, scales, heads)
  its = {**state, "tok_embeddings.weight": state["output.weight"]}
  found = llamagen.config(its, heads=heads, size=size)
  units = found["model"]["tokenizer"]
  units["channels"] = state["tok_embeddings.weight"].shape[1]
  return found


def _published(state: State) -> dict[str, Any]:
  """Starts and split of the published student of this size, if there is one."""
  kind = "var" if _is_var(state) else "llamagen"
  width = state["head.weight" if kind == "var" else "output.weight"].shape[1]
  names = {
    ("var", 1024): "var_d16",
    ("var", 1280): "var_d20",
    ("var", 1536): "var_d24",
    ("llamagen", 768): "llamagen_b",
    ("llamagen", 1024): "llamagen_l",
  }
  return dict(SIZES[names[kind, width]]) if (kind, width) in names else {}


def config(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
  size: int | None = None,
) -> dict[str, Any]:
  """The config of a state; its `target` is to be put in.

  Args:
    state: official key -> array.
    scales: sides of the maps; the published list of that length if None.
    heads: of attention; the published number for that width if None.
    size: side of the images of a LlamaGen; see `convert.llamagen`.

  Raises:
    UserError: this is not such a file, or its scales or heads are not known.
  """
  _teacher(state, scales, heads, size)
  return {"system": "dd1", "model": _published(state)}


def student(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
  size: int | None = None,
) -> dict[str, Any]:
  """The `params` of the student from an official state; arguments as in
  `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  given = _teacher(state, scales, heads, size)
  system = build("dd1", target={"name": given["system"], **given["model"]})
  like = jax.eval_shape(
    lambda key: system.own(key, {}), jax.random.key(0)
  )  # not the teacher
  if not _is_var(state):
    return tables.to_ours(TOKEN_TABLE, state, like, ignore=IGNORE)
  depth = given["model"]["depth"]
  renamed = {
    re.sub(rf"^{_EACH}\.{depth}\.", f"{_LAST}.", key): array
    for key, array in state.items()
  }
  return tables.to_ours(SCALE_TABLE, renamed, like, ignore=IGNORE)


def to_ours(state: State, **options: Any) -> dict[str, Any]:
  """`params` of DD1 without its teacher; see `join`."""
  return {"params": student(state, **options)}


def join(
  state: State, variables: Params, target: Params, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The variables and the config of DD1 over its teacher.

  Args:
    state: official.
    variables: what `to_ours` made of it.
    target: variables of the teacher.
    given: config of the teacher, {"system": name, "model": arguments}.

  Raises:
    UserError: the student was made of another teacher.
  """
  kind = "var" if _is_var(state) else "llamagen"
  params, its = variables["params"], target["params"]
  if given["system"] != kind:
    raise UserError(
      f"the teacher is a {given['system']}; this is the student of a {kind}"
    )
  ours = params["head"]["linear"]["kernel"].shape
  theirs = np.shape(its["head"]["linear"]["kernel"])
  if ours != theirs:
    raise UserError(
      f"the student was made of another teacher: its head is {ours}, that of "
      f"--target is {theirs}"
    )
  rest = {k: v for k, v in target.items() if k != "params"}
  model = {"target": {"name": kind, **given["model"]}, **_published(state)}
  both = {"params": params, "target": its, **rest}
  return both, {"system": "dd1", "model": model}


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the student in the variables of DD1."""
  params = variables["params"]
  if "slots" not in params:
    return tables.to_official(TOKEN_TABLE, params)
  state = tables.to_official(SCALE_TABLE, params)
  depth = sum(key.endswith("ffn.fc1.bias") for key in state)
  return {
    key.replace(f"{_LAST}.", f"{_EACH}.{depth}."): array
    for key, array in state.items()
  }
