"""A model that drafts its own next units from masks behind the known ones
(gated LoRA, arXiv 2507.11851).

One forward reads the last unit and its drafts, the anchors, and k masks behind
them, which are changed by LoRA, as nothing else is. What the anchors say is the
model's own law, which verifies the drafts; what the masks say drafts the next
ones. In the quadratic layout there are masks behind every anchor, so that k
drafts follow whatever stands of these; in the linear one behind the last alone.

Masks lie behind all anchors, and are written over by the next forward: what
stays in the cache is what the model itself would have written.

Shapes: B examples, rows of the net (B, or 2 B pairs where guided), k drafts, S
= k + 1 anchors, A of them with masks, T = S + A k positions of a forward, D
width, V codes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick, place_keys
from ar_jax.core.decoding.speculate import Draft, Drafter, Progress
from ar_jax.core.system import Vars
from ar_jax.families.token.drafting.speculation import (
  Source,
  Start,
  biased_logits,
)
from ar_jax.families.token.masks import groups
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.program import TokenProgram
from ar_jax.nn.layers import lora
from ar_jax.nn.layers.norms import LayerNorm

Array = jax.Array


class Sampler(nn.Module):
  """What a mask says, given the unit before the one that it stands for: twice
  linear, SiLU, LayerNorm. The head of the model reads the result.

  Attributes:
    width: D.
  """

  width: int

  @nn.compact
  def __call__(self, z: Array, before: Array) -> Array:
    """f32[..., D] of states and embeddings [..., D]."""
    x = jnp.concatenate([z, before.astype(z.dtype)], -1)
    for i in (1, 2):
      x = nn.silu(nn.Dense(self.width, name=f"fc{i}")(x))
      x = LayerNorm(name=f"norm{i}")(x)
    return x


@dataclasses.dataclass(frozen=True)
class SelfDrafter:
  """What drafts, static: its params are {"lora", "masks" [k, D]} and, with a
  sampler, {"sampler"}.

  Attributes:
    drafts: k.
    scale: of the changes by LoRA, see `lora.gated`.
    sampler: of what masks say; None for what the head makes of their states.
  """

  drafts: int
  scale: float
  sampler: Sampler | None = None

  def init(self, key: Array, net: NextToken, params: Any, rank: int) -> Any:
    """Fresh params, beside the params of the net."""
    change, masks, sampler = jax.random.split(key, 3)
    made = {
      "lora": {"backbone": lora.init(change, params["backbone"], rank)},
      "masks": 0.02 * jax.random.normal(masks, (self.drafts, net.width)),
    }
    if self.sampler is not None:
      row = jnp.zeros((1, net.width))
      made["sampler"] = self.sampler.init(sampler, row, row)["params"]
    return made

  def opened(self, variables: Vars, own: Any, gate: Array) -> Vars:
    """The variables of the net, changed where the gate bool[B | 1, T] is
    open."""
    return {**variables, lora.LORA: lora.gated(own["lora"], gate, self.scale)}

  def forced(
    self,
    net: NextToken,
    variables: Vars,
    own: Any,
    cond: Any,
    units: Array,
    anchors: Array,
    hidden: Array | None = None,
  ) -> tuple[Array, Array]:
    """As `NextToken.grouped`, with the params of both."""
    slots = net.rows + anchors.shape[1] * self.drafts
    gate = jnp.arange(slots)[None] >= net.rows
    given = self.opened(variables, own, gate)
    args = cond, units, own["masks"], anchors, hidden
    return net.apply(given, *args, method="grouped")

  def said(self, own: Any, z: Array, before: Array) -> Array:
    """What the head reads, f32[..., D], of the states of masks and embeddings
    of the units before theirs [..., D]."""
    if self.sampler is None:
      return z
    return self.sampler.apply({"params": own["sampler"]}, z, before)


def source(
  drafter: SelfDrafter,
  own: Any,
  program: TokenProgram,
  *,
  quadratic: bool = True,
  chosen: bool = False,
) -> Source:
  """The drafts of a program by itself.

  Args:
    drafter: what drafts.
    own: its params.
    program: drafts and verifies.
    quadratic: the layout, see above.
    chosen: the most probable units are drafted, none is drawn: point masses.
  """
  k = drafter.drafts
  groups_of = k + 1 if quadratic else 1

  def begin(start: Start) -> tuple[Drafter, Any]:
    return functools.partial(_draft, drafter, own, start, chosen), ()

  def wrap(hidden: Array) -> dict[str, Array]:
    # The forward that reads the condition has no masks, so no drafts follow.
    rows, _, width = hidden.shape
    examples = rows // len(program.rows(jnp.zeros(1)))
    return {
      "z": jnp.zeros((rows, 1, k, width)),
      "live": jnp.zeros((examples, 1), bool),
    }

  return Source(
    k,
    begin,
    score=functools.partial(_score, drafter, own, quadratic),
    wrap=wrap,
    spare=k + groups_of * k,
  )


def _draft(
  drafter: SelfDrafter,
  own: Any,
  start: Start,
  chosen: bool,
  state: Any,
  progress: Progress,
  keys: Array,
) -> tuple[Draft, Any]:
  """k drafts, one after the other, from the masks behind the last anchor that
  stands."""
  program = start.program
  net, rows = program.net.bind(start.variables), program.rows
  row = (progress.fresh - 1)[:, None]
  z = progress.hidden["z"]
  z = jnp.take_along_axis(z, rows(row)[..., None, None], axis=1)[:, 0]
  live = jnp.take_along_axis(progress.hidden["live"], row, axis=1)[:, 0]

  def step(before, i):
    own_z = jax.lax.dynamic_index_in_dim(z, i, 1)
    h = drafter.said(own, own_z, net.units(rows(before[:, None])))
    place = (progress.count + i)[:, None]
    logits = biased_logits(program, start.variables, start.bias, h, place)
    logp = pick.law(logits, **dict(program.law))
    if chosen:
      unit = jnp.argmax(logp, -1).astype(jnp.int32)
    else:
      unit = place_keys.draw_at(logp, keys, place)
    return unit[:, 0], (unit[:, 0], logp[:, 0])

  count = drafter.drafts
  _, (units, logp) = jax.lax.scan(step, progress.last, jnp.arange(count))
  units, logp = jnp.moveaxis(units, 0, 1), jnp.moveaxis(logp, 0, 1)
  count = jnp.where(live, count, 0)
  return Draft(units, None if chosen else logp, count=count), state


def _score(
  drafter: SelfDrafter,
  own: Any,
  quadratic: bool,
  program: TokenProgram,
  variables: Vars,
  valid: Array | None,
  bias: Array | None,
  cache: Any,
  progress: Progress,
  draft: Draft,
) -> tuple[Array, Any, Any]:
  """A `speculate.Score` of anchors, with masks behind them."""
  rows, k, b = program.rows, drafter.drafts, len(draft.units)
  line = jnp.arange(k + 1)
  anchors = jnp.broadcast_to(line, (b, k + 1))
  if not quadratic:
    anchors = draft.count[:, None]
  sees, after = groups(line, anchors, k)
  gate = jnp.arange(sees.shape[1])[None] > k
  net = program.net.bind(drafter.opened(variables, own, gate))
  units = jnp.concatenate([progress.last[:, None], draft.units], axis=1)
  x = net.units(rows(units))
  masks = own["masks"][None].astype(x.dtype)
  masks = jnp.tile(masks, (len(x), anchors.shape[1], 1))
  row = program.net.prefix.length + progress.count - 1
  cache = dataclasses.replace(cache, index=rows(row))
  h, cache = net.look(
    jnp.concatenate([x, masks], axis=1),
    cache,
    valid,
    (rows(sees), rows(after)),
  )
  place = progress.count[:, None] + line[None]
  logits = biased_logits(program, variables, bias, h[:, : k + 1], place)
  z = h[:, k + 1 :].reshape(len(x), -1, k, h.shape[-1])
  live = jnp.ones((b, k + 1), bool) if quadratic else line[None] == anchors
  z = jnp.broadcast_to(z, (len(x), k + 1, *z.shape[2:]))
  return logits, {"z": z, "live": live}, cache
