"""Chains of states from noise to data: how a transition is trained and drawn.

Shapes: B batch, n units of a state, C channels, T transitions, D width. Times:
0 is noise, 1 data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.core.flows import flow, solvers, transitions
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan, plan
from ar_jax.core.system import Vars
from ar_jax.families.flow import draw
from ar_jax.families.flow.states import States, Whole
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.program import TokenProgram

Array = jax.Array
Net = States | Whole | NextToken

KINDS = ("dtm", "artm", "fhtm", "fm")


@dataclasses.dataclass(frozen=True)
class Chain:
  """What a transition is; see `systems.transition_matching`.

  Attributes:
    kind: of KINDS.
    length: n.
    channels: C.
    steps: T of training; None for times between 0 and 1, and then any number
      of transitions in a draw.
    grid: of the times of T transitions; see `transitions.times`.
    process: of the states; see `transitions.states`.
  """

  kind: str
  length: int
  channels: int
  steps: int | None = None
  grid: str = "uniform"
  process: str = "linear"

  def __post_init__(self):
    if self.steps:
      transitions.times(self.steps, self.grid)
    elif self.by_unit:
      raise UserError(f"kind={self.kind!r}: say steps, how many transitions")
    ways = transitions.PROCESSES if self.by_unit else ("linear",)
    if self.process not in ways:
      raise UserError(
        f"process={self.process!r}: of kind={self.kind!r}, choose one of "
        f"{', '.join(ways)}"
      )

  @property
  def by_unit(self) -> bool:
    """Whether a state is drawn unit by unit."""
    return self.kind in ("artm", "fhtm")

  def taus(self, steps: int | None = None) -> np.ndarray:
    """Times of the states, f64[T + 1].

    Raises:
      UserError: the model was trained on another number of transitions, or on
        any number and none is given.
    """
    if self.steps is None and steps is None:
      raise UserError("steps: say how many transitions; this model takes any")
    if self.steps and steps not in (None, self.steps):
      raise UserError(
        f"steps={steps}: this model was trained on {self.steps} transitions"
      )
    return transitions.times(steps or self.steps, self.grid)

  def errors(
    self,
    net: Net,
    cond: Mapping[str, Array],
    x: Array,
    hidden: Array | None,
    keys: Array,
    drop: Array | None,
  ) -> Array:
    """The objective at each unit, f32[B, n]; of fhtm f32[B, T n].

    Args:
      net: bound.
      cond: what it reads.
      x: f32[B, n, C], data.
      hidden: bool[B], whose condition is hidden, or None.
      keys: Key[B] of noise and times.
      drop: Key[B] of dropout, or None.
    """
    noise, time, own = (fold(keys, i) for i in range(3))
    b, n = x.shape[:2]
    if self.kind == "fhtm":
      states = transitions.states(x, noise, self.taus(), self.process)
      flat = states.reshape(b, -1, x.shape[-1])
      h = self._causal(net, cond, flat, hidden, drop)
      return net.head.loss(h, flat[:, n:], own)
    t = jax.vmap(jax.random.uniform)(time)
    if self.steps:
      s = jnp.floor(t * self.steps).astype(jnp.int32)
      t = jnp.asarray(self.taus(), jnp.float32)[s]
    given = net.given(cond, hidden, t, b)
    if self.kind == "artm":
      states = transitions.states(x, noise, self.taus(), self.process)
      take = jax.vmap(lambda states, s: states[s])
      now, target = take(states, s), take(states, s + 1)
      seen, at = jnp.concatenate([now, target[:, :-1]], 1), np.arange(2 * n - 1)
      h, _ = net(seen, at, given, behind(n), keys=drop)
      h = h[:, n - 1 :]  # the last unit of a state predicts the first
    else:
      start = solvers.noise(noise, x.shape[1:])
      now, target = flow.LINEAR.noisy(x, start, t), x - start
      h, _ = net(now, np.arange(n), given, keys=drop)
    return net.head.loss(h, target, own, outer=spread(t, h))

  def _causal(self, net, cond, flat, hidden, drop):
    """Hidden states [B, T n, D] before each unit of X_1, ..., X_T."""
    n = self.length
    if isinstance(net, NextToken):
      return net(cond, flat[:, n:], hidden, drop)
    at = np.arange(flat.shape[1] - 1)
    mask = makers.blocks(len(at), 1)
    given = net.given(cond, hidden, None, len(flat))
    return net(flat[:, :-1], at, given, mask, keys=drop)[0][:, n - 1 :]

  def draw(
    self,
    net: Net,
    variables: Vars,
    cond: Mapping[str, Array],
    keys: Array,
    *,
    steps: int | None = None,
    head_steps: int,
    scale: float = 1.0,
  ) -> Array:
    """X_T, f32[B, n, C].

    Args:
      net: the network.
      variables: of it.
      cond: what it reads.
      keys: Key[B].
      steps: T; None for that of training.
      head_steps: K, of the flow of the head.
      scale: of guidance, of each velocity of the head; 1.0 is off.

    Raises:
      UserError: an option is out of range.
    """
    taus, n, guided = self.taus(steps), self.length, scale != 1.0
    if head_steps < 1:
      raise UserError(f"head_steps={head_steps}: must be at least 1")
    if isinstance(net, NextToken):
      scales = (scale,) * len(net.plan) if guided else None
      program = TokenProgram(net, scales, (("times", head_steps),))
      return program.run(variables, dict(cond), keys)[:, -n:]
    rows = len(keys) * (1 + guided)
    hidden = pairs.without(len(keys)) if guided else None
    cond = pairs.double(dict(cond), guided)

    def given(t):
      t = None if t is None else jnp.full(rows, t)
      return net.apply(variables, cond, hidden, t, rows, method="given")

    def law(h, keys, t=None):
      options = {}
      if guided:
        h, null = pairs.split(h)
        options = dict(h_null=null, scale=scale)
      if t is not None:
        options["outer"] = spread(t, h)
      head = net.bind(variables).head
      return head.draw(h, keys, times=head_steps, **options)

    by_unit = functools.partial(draw.units, net, variables, guided=guided)

    def difference(x, s, t, keys):
      del s
      x = pairs.double(x, guided)
      return law(net.apply(variables, x, np.arange(n), given(t))[0], keys, t)

    def following(x, s, t, keys):
      del s
      own = lambda h, keys: law(h, keys, t)
      return by_unit(given(t), x, n, keys, own, causal=False)

    start = solvers.noise(keys, (n, self.channels), 1)
    keys = fold(keys, 0)
    if self.kind == "artm":
      return transitions.follow(following, start, taus, keys)
    if self.kind == "fhtm":
      count = n * self.steps
      return by_unit(given(None), start, count, keys, law, causal=True)[:, -n:]
    return transitions.differences(difference, start, taus, keys)


def spread(t: Array, h: Array) -> Array:
  """f32[B, T]: a time f32[B] or f32[] at each position of h [B, T, D]."""
  return jnp.broadcast_to(jnp.reshape(t, (-1, 1)), h.shape[:2])


def behind(n: int) -> Plan:
  """A state of n units that see each other, and behind it all but the last
  unit of the next, one after the other."""
  return plan((n,) + (1,) * (n - 1))
