"""The key table of HMAR, `hmar-d{16,20,24,30}`: both stages in one file.

Its tokenizer is VAR's; see `convert/multiscale_vq.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert import var
from ar_jax.core.system import UserError, build
from ar_jax.files import tables
from ar_jax.files.tables import LINEAR, Params, Rule, State

# The file holds the parameters and the frozen net.
PLACE = ()

HEADS = var.HEADS

# Stacks of blocks: official name, where in our tree.
_STACKS = {
  "base_blocks": "net/backbone/parts_0",
  "ns_blocks": "net/backbone/parts_1",
  "mask_blocks": "params/tail",
}
# Heads, with the norm before each: where in our tree, the stack it ends.
_HEADS = {
  "ns_head": ("net/head", "net/backbone/parts_1"),
  "mask_head": ("params/head", "params/tail"),
}


def _table() -> tuple[Rule, ...]:
  """VAR's rules, once for each stack and each head."""
  rules = [
    Rule("word_embed.weight", "net/latent/kernel", LINEAR),
    Rule("word_embed_bias", "net/latent/bias"),
    Rule("mask_embed.weight", "params/mask/embedding"),
  ]
  for rule in var.TABLE:
    kind, _, rest = rule.theirs.partition(".")
    if kind == "blocks":
      for name, place in _STACKS.items():
        ours = rule.ours.replace("backbone", place)
        rules.append(Rule(f"{name}.{rest}", ours, rule.layout))
    elif kind in ("head", "head_nm"):
      for name, (head, stack) in _HEADS.items():
        theirs = rule.theirs.replace("head", name, 1)
        ours = rule.ours.replace("backbone", stack)
        ours = ours if kind == "head_nm" else ours.replace("head", head, 1)
        rules.append(Rule(theirs, ours, rule.layout))
    elif kind not in ("word_embed", "shared_ada_lin"):
      rules.append(Rule(rule.theirs, f"net/{rule.ours}", rule.layout))
  return tuple(rules)


TABLE = _table()
IGNORE = (
  "lvl_1L",
  "attn_bias_for_masking",
  *(f"{name}.{{i}}.attn.zero_k_bias" for name in _STACKS),
)


def config(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The config of a state; arguments as those of `var.config`.

  Raises:
    UserError: this is not such a file, or its scales are not known.
  """
  if "mask_head.weight" not in state:
    raise UserError("not HMAR: there is no mask_head.weight in the file")
  # Seen as a VAR, which the first stage is.
  base, tail = (
    sum(k.startswith(name) and k.endswith("ffn.fc1.bias") for k in state)
    for name in ("base_blocks", "ns_blocks")
  )
  seen = {}
  for key, array in state.items():
    kind, _, rest = key.partition(".")
    if kind in ("base_blocks", "ns_blocks"):
      i, _, rest = rest.partition(".")
      seen[f"blocks.{int(i) + base * (kind == 'ns_blocks')}.{rest}"] = array
    elif not kind.startswith("mask_"):
      seen[key.removeprefix("ns_")] = array
  model = var.config(seen, scales, heads)["model"]
  del model["shared_ada"]
  return {"system": "hmar", "model": model | {"tail": tail, "refine": True}}


def to_ours(
  state: State,
  scales: Sequence[int] | None = None,
  heads: int | None = None,
) -> dict[str, Any]:
  """The `params` and the `net` of HMAR from an official state; arguments as in
  `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  hmar = build("hmar", **config(state, scales, heads)["model"])
  like = jax.eval_shape(lambda key: hmar.init(key, {}), jax.random.key(0))
  like = {k: like[k] for k in ("params", "net")}
  return tables.to_ours(TABLE, state, like, ignore=IGNORE)


def to_official(variables: Params) -> dict[str, np.ndarray]:
  """The official state of the variables of HMAR."""
  own = {k: variables[k] for k in ("params", "net")}
  return tables.to_official(TABLE, own)
