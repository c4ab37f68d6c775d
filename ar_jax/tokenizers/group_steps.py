"""From noise to pixels in as many steps as a line of codes has groups, each led
by one group: how a D-AR draws, all at once or group by group.

Time as in `core.flows.flow`: t = 0 is noise, t = 1 is data.

Shapes: B batch, H image side, c image channels, L units in G groups, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.flows import flow, solvers
from ar_jax.core.system import UserError

Array = jax.Array


class GroupSteps(nn.Module):
  """The decoder of a tokenizer that has `groups`, `group`, `length`, `size`,
  `in_channels`, `sees`, `solver`, `std` and `shift`; `embed`, `states` and
  `velocity`: see `group_diffusion.GroupDiffusion`."""

  def noise(self, keys: Array | None, batch: int) -> Array:
    """f32[B, H, H, c], the noise of these keys Key[B]; None is one and the
    same noise for every example."""
    shape = self.size, self.size, self.in_channels
    if keys is not None:
      return solvers.noise(keys, shape)
    own = jax.random.normal(jax.random.key(0), shape)
    return jnp.broadcast_to(own[None], (batch, *shape))

  def grid_times(self) -> np.ndarray:
    """f64[G + 1], the times of the steps, from 0 to 1."""
    return flow.shift(solvers.uniform_grid(self.groups), self.shift)

  def step(
    self,
    states: Array,
    carry: tuple[Array, Array],
    group: Array,
    known: Array | int | None = None,
    start: int = 0,
  ) -> tuple[tuple[Array, Array], Array]:
    """One step of the flow: what goes on, and what is shown if none follows.

    Args:
      states: f32[B, L, D], of all units.
      carry: x at the time of this step and the velocity of the one before.
      group: i32[], which step it is.
      known: groups that are seen where a step sees all; None for all.
      start: the first step.

    Returns:
      The next carry; and f32[B, H, H, c] in [-1, 1], a step of the same slope
      to t = 1.
    """
    x, before = carry
    times = self.grid_times()
    steps = np.diff(times)
    now = np.arange(self.groups)
    # Of this step and of one to the end, to the step before.
    ratio = lambda h: np.where(now > start, h / np.roll(steps, 1), 0.0)
    leap = 1 - times[:-1]
    rows = [times[:-1], steps, ratio(steps), leap, ratio(leap)]
    t, dt, part, rest, rest_part = jnp.asarray(np.float32(rows))[:, group]
    if self.sees == "all":
      known = self.groups if known is None else known
      seen = jnp.arange(self.length)[None] < known * self.group
      own = states, seen
    else:
      at = group * self.group
      own = (jax.lax.dynamic_slice_in_dim(states, at, self.group, 1),)
    v, _ = self.velocity(x, jnp.full(len(x), t), *own)

    def moved(by, ratio):
      of_now, of_before = solvers.SLOPES[self.solver](ratio)
      return x + by * (of_now * v + of_before * before)

    shown = jnp.clip(moved(rest, rest_part) / self.std, -1.0, 1.0)
    return (moved(dt, part), v), shown

  def decode(
    self,
    units: Array,
    keys: Array | None = None,
    *,
    groups: Array | int | None = None,
    start: int = 0,
    image: Array | None = None,
  ) -> Array:
    """Images f32[B, H, H, c] in [-1, 1] of units i32[B, L].

    Args:
      units: of which groups that do not count may be anything.
      keys: Key[B], of the noise; see `noise`.
      groups: the first so many lead a step each, and the last of these goes
        to the end; int or i32[], None for all. Of 0 there is grey.
      start: steps that are left away, in place of which
      image: f32[B, H, H, c] in [-1, 1] is brought to the noise of their end.
    """
    groups = self.groups if groups is None else groups
    net, variables = self.unbind()
    states = self.states(self.embed(units))
    x = self.noise(keys, len(units))
    if start:
      times = jnp.full(len(x), np.float32(self.grid_times()[start]))
      x = flow.LINEAR.noisy(self.std * image, x, times)

    def step(group, carry):
      bound = net.bind(variables)
      return bound.step(states, carry[0], group, groups, start)

    zeros = jnp.zeros_like(x)
    return jax.lax.fori_loop(start, groups, step, ((x, zeros), zeros))[1]

  def previews(self, units: Array, keys: Array | None = None) -> Array:
    """f32[G, B, H, H, c] in [-1, 1]: `decode` of 1, 2, ... G groups; all of
    them for the cost of the last, where a step sees its own group."""
    net, variables = self.unbind()
    if self.sees == "all":
      some = lambda n: net.bind(variables).decode(units, keys, groups=n)
      return jax.lax.map(some, jnp.arange(1, self.groups + 1))
    states = self.states(self.embed(units))
    step = lambda carry, n: net.bind(variables).step(states, carry, n)
    x = self.noise(keys, len(units))
    begin = x, jnp.zeros_like(x)
    return jax.lax.scan(step, begin, jnp.arange(self.groups))[1]

  def decode_part(self, units: Array, done: Array | int) -> Array:
    """Images f32[B, H, H, c] in [-1, 1] of the groups that are whole among the
    first `done` units; grey before the first."""
    return self.decode(units, groups=done // self.group)

  def shown(
    self,
    units: Array,
    keys: Array | None = None,
    *,
    groups: int | None = None,
    previews: bool = False,
    start: int = 0,
    image: Array | None = None,
  ) -> Array:
    """Images f32[B, H, H, c] in [0, 1] of units; or with `previews`, f32[B, H,
    G H, c], those of 1, 2, ... G groups side by side. Else as `decode`.

    Raises:
      UserError: there are no so many groups, or previews of some of them.
    """
    if groups is not None and not 1 <= groups <= self.groups:
      raise UserError(f"groups={groups}: must be in 1..{self.groups}")
    if not 0 <= start < (groups or self.groups):
      raise UserError(f"start={start}: must be below the {self.groups} groups")
    if not previews:
      more = dict(start=start, image=image)
      return (self.decode(units, keys, groups=groups, **more) + 1) / 2
    if groups is not None or start:
      raise UserError("previews=True shows every group: leave groups and start")
    every = jnp.moveaxis(self.previews(units, keys), 0, 2)  # [B, H, G, H, c]
    return (every.reshape(*every.shape[:2], -1, every.shape[-1]) + 1) / 2
