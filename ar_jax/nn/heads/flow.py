"""Heads for units that are vectors of numbers: a small network between noise
and a unit, that reads the hidden state.

They are used as those of `nn.heads.categorical` are. The backbone runs once a
step and the head many times, so its loops are inside `draw`.

Shapes: B batch, T units, C channels of a unit, D width, M repeats.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs
from ar_jax.core.errors import UserError
from ar_jax.core.flows import flow, solvers
from ar_jax.core.plans import plan
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.flow_nets import GroupTransformer, TokenMLP
from ar_jax.nn.layers.times import thousandths

Array = jax.Array
_LEAST = 1e-6  # of the square of a norm


@functools.cache
def by_step(p: Plan) -> Plan:
  """The slots of a plan, each of which sees its own step only."""
  return dataclasses.replace(p, rule=plan.within)


def cosine(x: Array, y: Array) -> Array:
  """f32[...] of f32[..., C]. Of vectors near 0, as a head says that begins at
  zero, it is 0, and its slope has an end."""
  norm = lambda v: jnp.sqrt(jnp.square(v).sum(-1) + _LEAST)
  return jnp.sum(x * y, -1) / (norm(x) * norm(y))


class NoiseHead(nn.Module):
  """What `Flow` and `Diffusion` share. They have `net`, which reads noisy
  units, their times or levels, and hidden states; and `repeats`, M, how many
  noises a hidden state is trained with."""

  @property
  def channels(self) -> int:
    """C."""
    return self.net.channels

  def _repeated(self, keys: Array, *xs: Array) -> tuple[Array, ...]:
    """Keys of noise and of times, Key[B M] each, and xs [B, ...] for M
    independent repeats, [B M, ...]: those of an example lie side by side, so
    that they stay on its device."""
    m, fold = self.repeats, jax.vmap(jax.random.fold_in, (0, None))
    keys = jnp.stack([fold(keys, i) for i in range(m)], 1).reshape(-1)
    keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    return (*keys, *(jnp.repeat(x, m, 0) for x in xs))

  def _mean(self, x: Array) -> Array:
    """f32[B, T]: the mean over the repeats of x f32[B M, T]."""
    return x.reshape(-1, self.repeats, x.shape[1]).mean(1)

  def _predictor(self, h: Array, h_null: Array | None) -> Callable:
    """(x f32[B, T, C], time or level, **of the net) -> what the network says
    with the condition and without it; None if there is no `h_null`."""
    net, variables = self.net.unbind()
    guided = h_null is not None
    h = pairs.join(h, h_null) if guided else h

    def predict(x, at, *, outer=None, **options):
      x = pairs.double(x, guided)
      if outer is not None:
        options["outer"] = pairs.double(outer, guided)
      at = jnp.full(x.shape[:2], at)
      out = net.apply(variables, x, at, h, **options)
      return pairs.split(out) if guided else (out, None)

    return predict


class Flow(NoiseHead):
  """Flow matching: the network predicts the velocity of a path.

  The time that it reads is that of FlowAR, whole thousandths counted from
  the data.

  Attributes:
    net: a `TokenMLP`, or a `GroupTransformer`, whose units of one step share
      one time in training.
    path: a key of `flow.PATHS`.
    times: law of the times of training.
    repeats: M, how many noises and times a hidden state is trained with.
    pooled: gives every unit of a step the mean of their hidden states: what
      FlowAR is compared with, not FlowAR.
    direction: weight of a second term, 1 less the cosine between velocities
      (CLEAR, arXiv 2508.19098).
  """

  net: TokenMLP | GroupTransformer
  path: str = "linear"
  times: flow.Times = flow.Times()
  repeats: int = 1
  pooled: bool = False
  direction: float = 0.0

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
    outer: Array | None = None,
  ) -> Array:
    """f32[B, T]: squared error of the velocity of each unit, a mean over
    channels and repeats, and what is wrong with its direction.

    Args:
      h: [B, T, D].
      target: f32[B, T, C].
      keys: Key[B].
      plan: the steps of the T units; None if they are all of one step.
      pos: where they are; see `GroupTransformer`.
      outer: f32[B, T], a second time of nets that read one, from 0 to 1.
    """
    t = target.shape[1]
    grouped = self.net.grouped
    h = self._shared(h, plan)
    second = {}
    if outer is not None:
      second["outer"] = self._repeated(keys, 1000 * outer)[2]
    keys, time_keys, h, x = self._repeated(keys, h, target)
    steps = 1 if plan is None else plan.steps
    draw = lambda key: self.times.draw(key, (steps if grouped else t,))
    times = jax.vmap(draw)(time_keys)
    if grouped:
      step = np.zeros(t, int) if plan is None else plan.step_of()
      times = times[:, step]
    noise = solvers.noise(keys, x.shape[1:])
    path = flow.path(self.path)
    xt = path.noisy(x, noise, times)
    mask = by_step(plan) if grouped and plan is not None else None
    v = self.net(xt, thousandths(times), h, mask=mask, pos=pos, **second)
    true = path.velocity(x, noise, times)
    error = jnp.square(v - true).mean(-1)
    if self.direction:
      error += self.direction * (1 - cosine(true, v))
    return self._mean(error)

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    pos: Array | None = None,
    times: int | Sequence[float] = 25,
    solver: str = "euler",
    interval: tuple[float, float] = (0.0, 1.0),
    temperature: float = 1.0,
    outer: Array | None = None,
  ) -> Array:
    """Units f32[B, T, C] of one step.

    Args:
      h: [B, T, D].
      keys: Key[B].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance of the velocity; 1.0 is off.
      pos: where the units are.
      times: the grid from 0 (noise) to 1, or how many equal steps it has.
      solver: a key of `solvers.SOLVERS`, or "sde".
      interval: times between which guidance acts.
      temperature: multiplies the noise that it begins with.
      outer: as in `loss`.

    Raises:
      UserError: no such solver.
    """
    grid = solvers.uniform_grid(times) if isinstance(times, int) else times
    h_null = None if h_null is None else self._shared(h_null, None)
    h = self._shared(h, None)
    velocity = self._velocity(h, h_null, scale, pos, interval, outer)
    shape = h.shape[1], self.channels
    # The steps of a stochastic sampler take the numbers from 1 on.
    x = temperature * solvers.noise(keys, shape)
    if solver != "sde":
      return solvers.integrate(velocity, x, grid, solver)
    path = flow.path(self.path)
    return solvers.euler_maruyama(velocity, x, grid, keys, path=path, start=1)

  def nll(
    self,
    h: Array,
    target: Array,
    *,
    pos: Array | None = None,
    times: int | Sequence[float] = 50,
  ) -> Array:
    """-log p of each unit in nats, f32[B, T], exact up to the solver (Heun).

    Arguments as in `loss` and `draw`.

    Raises:
      UserError: the units of a step have no law each of its own.
    """
    if self.net.grouped:
      raise UserError(
        "the units of a step are drawn together here: there is no likelihood "
        "of each; use solvers.log_likelihood with event=2"
      )
    grid = solvers.uniform_grid(times) if isinstance(times, int) else times
    velocity = self._velocity(h, None, 1.0, pos, (0.0, 1.0))
    return -solvers.log_likelihood(velocity, target, grid)

  def _shared(self, h: Array, plan: Plan | None) -> Array:
    if not self.pooled:
      return h
    step = np.zeros(h.shape[1], int) if plan is None else plan.step_of()
    same = (step[:, None] == step[None]).astype(np.float32)
    return jnp.einsum("ts,bsd->btd", same / same.sum(1, keepdims=True), h)

  def _velocity(self, h, h_null, scale, pos, interval, outer=None):
    predict = self._predictor(h, h_null)
    outer = None if outer is None else 1000 * outer

    def velocity(x, t):
      v, v_null = predict(x, thousandths(t), pos=pos, outer=outer)
      if v_null is None:
        return v
      return flow.guide(v, v_null, scale, t, interval)

    return velocity
