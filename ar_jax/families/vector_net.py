"""A teacher that reads vectors, and its stack with a velocity in the place of
its law (Distilled Decoding 2, arXiv 2510.21003).

A hidden state before a unit depends on the units, or the noise, of earlier
steps and on the class; a small network takes it, and a noisy unit, to a
velocity. So the same parameters are an autoregressive model of a diffusion for
each unit where the stack reads units, and a generator in one pass where it
reads noise.

Shapes: B batch, L units, M repeats, C numbers of a code, D width, V codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import ops
from ar_jax.core.decoding import pick
from ar_jax.core.flows import distillation, solvers
from ar_jax.core.flows.codes import Points
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.scale.net import NextScale
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import CodeVectors
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.layers.norms import Identity

Array = jax.Array


class VectorNet(nn.Module):
  """The stack and the small network.

  Attributes:
    net: of the teacher, reading vectors.
    head: reads a noisy unit, its time and a hidden state.
  """

  net: NextToken | NextScale
  head: TokenMLP

  @property
  def channels(self) -> int:
    """C."""
    return self.head.channels

  def __call__(self, label: Array, inputs: Array, x: Array, t: Array) -> Array:
    """Velocities f32[B, L, C]; see the two below."""
    return self.velocity(self.states(label, inputs), x, t)

  def states(self, label: Array, inputs: Array) -> Array:
    """Hidden states [B, L, D] before each unit, of labels i32[B] and what
    `inputs_of` makes of vectors."""
    if isinstance(self.net, NextToken):
      return self.net({"label": label}, inputs)
    return self.net(label, inputs)

  def velocity(self, h: Array, x: Array, t: Array) -> Array:
    """f32[..., L, C] at noisy units x f32[..., L, C] and times t f32[..., L],
    behind hidden states [..., L, D]; leading axes are as those of B."""
    lead = x.shape[:-2]
    flat = lambda y: jnp.broadcast_to(y, (*lead, *y.shape[-2:])).reshape(
      -1, *y.shape[-2:]
    )
    # The thousandths from the data on, as of other flow heads.
    at = jnp.broadcast_to(1000 * (1 - t), x.shape[:-1]).reshape(-1, x.shape[-2])
    return self.head(flat(x), at, flat(h)).reshape(x.shape)


def reading_vectors(target: Generator) -> NextToken | NextScale:
  """The net of a teacher for vectors in the place of codes, with its variables.

  Raises:
    UserError: it has a row of a table for each code.
  """
  net = target.net
  if isinstance(net, NextScale):
    return net
  if not isinstance(net.units, CodeVectors):
    raise UserError(
      "target: it must read vectors; build llamagen with reader='codes'"
    )
  return net.clone(units=net.units.clone(vocab=None, _deep_clone=True))


def beside(target: Generator, depth: int, width: int | None) -> VectorNet:
  """The net beside a teacher.

  Args:
    target: the teacher.
    depth, width: of the small network; the width of the teacher if None.

  Raises:
    UserError: as in `reading_vectors`.
  """
  channels = target.tokenizer.channels
  head = TokenMLP(channels, width or target.net.width, depth, channels)
  net = reading_vectors(target).clone(head=Identity(), _deep_clone=True)
  return VectorNet(net, head)


def from_teacher(params: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict:
  """Parameters of a `VectorNet` with copies of those that its teacher has."""
  copies = {k: jax.tree.map(jnp.copy, teacher[k]) for k in params["net"]}
  return {**params, "net": copies}


def inputs_of(target: Generator, variables: Vars, vectors: Array) -> Array:
  """What the stack reads, [B, L, C]: vectors f32[B, L, C] as they are, or of
  maps what the tokenizer has added up before each, at its size."""
  if isinstance(target.net, NextToken):
    return vectors
  codec, plan = target.codec(variables), target.plan
  state, inputs = codec.start(len(vectors)), [vectors[:, plan.span(0)]]
  for s in range(plan.steps - 1):
    state, x = codec.advance_soft(state, s, vectors[:, plan.span(s)])
    inputs.append(x)
  return jnp.concatenate(inputs, axis=1)


def law_of(
  target: Generator,
  variables: Vars,
  label: Array,
  inputs: Array,
  *,
  guidance: float | None = 1.0,
  schedule: str | None = None,
  **law,
) -> Points:
  """The law of every unit behind the vectors before it; no gradient goes into
  these.

  Args:
    target: the teacher.
    variables: its own.
    label: i32[B].
    inputs: what `inputs_of` makes of vectors.
    guidance, schedule: scale, and a key of `pick.SCHEDULES`; the teacher's own
      schedule if None.
    **law: of `pick.law`. With a top_k only so many codes are looked at.
  """
  scale, plan = target.scale(guidance), target.plan
  net = reading_vectors(target).bind(target.net_variables(variables))
  inputs, states = jax.lax.stop_gradient(inputs), None
  if isinstance(target.net, NextToken):
    states = functools.partial(net, {"label": label}, inputs)
    h, null = states(), jnp.ones(len(label), bool)
    null = states(null) if scale != 1.0 else None
  else:
    h, null = net(label, inputs), jnp.full_like(label, target.null or 0)
    null = net(null, inputs) if scale != 1.0 else None
  scales = pick.schedule(schedule or target.schedule, scale, plan.steps)
  scales = np.asarray(scales, np.float32)[plan.step_of()][None, :, None]
  logp = net.head.law(h, h_null=null, scale=scales, **law)
  points = Points(logp, target.codec(variables).codebook())
  keep = law.get("top_k", 0)
  if 0 < keep < logp.shape[-1]:
    points, _ = points.likeliest(keep)
  return jax.tree.map(jax.lax.stop_gradient, points)


def one_by_one(
  guide: Callable[[Array], distillation.Velocity],
  eps: Array,
  codebook: Array,
  plan: Plan,
  steps: int,
) -> Array:
  """Units f32[B, L, C] by the flows of a guide: those of each step together,
  behind those before them, each brought to the nearest code.

  Args:
    guide: of units [B, L, C] -> velocities behind them.
    eps: f32[B, L, C], where the flows begin.
    codebook: f32[V, C].
    plan: of the units.
    steps: of Euler's method.
  """
  times, step = solvers.uniform_grid(steps), jnp.asarray(plan.step_of())

  def one(s, x):
    velocity = guide(x)
    field = lambda y, t: velocity(y, jnp.full(y.shape[:2], t))
    new = solvers.integrate(field, eps, times)
    new = codebook[ops.nearest_code(new, codebook)]
    return jnp.where((step == s)[None, :, None], new, x)

  return jax.lax.fori_loop(0, plan.steps, one, jnp.zeros_like(eps))
