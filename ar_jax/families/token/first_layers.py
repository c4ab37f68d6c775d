"""The attention of the first layers of a net as params of their own, beside
those of the whole net, which are frozen.

Queries, keys, values and outputs of k of N layers:
{"qkv": {"kernel": [k, ...]}, "out": {"kernel": [k, ...]}}.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.segments import Segments

NAMES = ("qkv", "out")


def taken(params: Any, layers: int) -> dict[str, Any]:
  """Copies of these matrices of the params of a net."""
  mixer = params["backbone"]["block"]["mixer"]
  return {name: {"kernel": mixer[name]["kernel"][:layers]} for name in NAMES}


def put(params: Any, own: Any) -> dict[str, Any]:
  """The params of a net with matrices of `taken`'s kind in their places."""
  stack, block = params["backbone"], params["backbone"]["block"]
  mixer = dict(block["mixer"])
  for name in NAMES:
    new, old = own[name]["kernel"], mixer[name]["kernel"]
    rest = old[len(new) :]
    mixer[name] = {"kernel": jnp.concatenate([new.astype(rest.dtype), rest])}
  block = {**block, "mixer": mixer}
  return {**params, "backbone": {**stack, "block": block}}


def cut(net: NextToken, params: Any, own: Any) -> tuple[NextToken, Any]:
  """The same net in two parts, and its params, so that no gradients are
  computed of what is frozen: the first part has the matrices of `own`."""
  k, stack = len(own[NAMES[0]]["kernel"]), net.backbone
  copy = lambda **changed: stack.clone(_deep_clone=True, **changed)
  first = copy(depth=k, out_norm=Identity())
  net = net.clone(backbone=Segments((first, copy(depth=stack.depth - k))))
  block = params["backbone"]["block"]
  one = jax.tree.map(lambda x: x[:k], block)
  one = {**one, "mixer": {**one["mixer"], **own}}
  rest = {name: v for name, v in params["backbone"].items() if name != "block"}
  parts = {
    "parts_0": {"block": one},
    "parts_1": {"block": jax.tree.map(lambda x: x[k:], block), **rest},
  }
  return net, {**params, "backbone": parts}
