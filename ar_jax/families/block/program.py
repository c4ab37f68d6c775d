"""How a `BlockNet` draws: block after block, each filled in a few forwards.

Every example is where it is: it fills its block, stores it, or has ended; one
forward serves all, whatever they do. A block is stored by a forward over its
clean units, since what they know of each other is not what hidden ones knew.
`fused`, that forward is also the first one of the next block: twice the
positions, one forward less a block, and the same units.

Shapes: B examples, rows of the net (B, or 2 B pairs where guided), P positions
of the prefix, L units, N units of a block, M known units, T = N or 2 N
positions of a forward, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.decoding.confident import Fill
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.block.net import BlockNet
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache

Array = jax.Array
_COMMIT = 2**20  # of the keys of noise on confidences


class Counts(NamedTuple):
  """What drawing took, per example, i32[B] each.

  Attributes:
    forwards: of the net, the one that reads prefix and prompt among them.
    stores: those of them that only stored a block.
    units: that were drawn.
  """

  forwards: Array
  stores: Array
  units: Array


class State(NamedTuple):
  """Where every example is.

  Attributes:
    units: i32[B, L'], L' being all blocks in full.
    hide: bool[B, L'], the places that are not yet drawn.
    block: i32[B], the block that is filled.
    step: i32[B], of this block.
    pending: bool[B], whether the block before is not yet in the cache.
    done: bool[B].
    cache: of the blocks before.
    valid: bool[rows, P], the positions of the prefix that are no padding; None
      for all.
    counts: so far.
    when: i32[B, L'], the step of its block that drew each unit; -1 for none.
  """

  units: Array
  hide: Array
  block: Array
  step: Array
  pending: Array
  done: Array
  cache: Cache
  valid: Array | None
  counts: Counts
  when: Array


@dataclasses.dataclass(frozen=True)
class BlockProgram:
  """Hashable; `variables` are those of the net, `cond` is what its prefix
  takes.

  Attributes:
    net: the transformer.
    fill: how a block is filled.
    scales: of guidance, one for each unit; None is off.
    law: arguments of `pick.law`, as a tuple of pairs.
    fused: see above.
    stop: the code that ends an example, behind its block; None for none.
  """

  net: BlockNet
  fill: Fill = Fill()
  scales: tuple[float, ...] | None = None
  law: tuple[tuple[str, float], ...] = ()
  fused: bool = True
  stop: int | None = None

  @property
  def length(self) -> int:
    """L."""
    return len(self.net.plan)

  @property
  def blocks(self) -> int:
    """Blocks of an example, the last perhaps a short one."""
    return -(-self.length // self.net.block)

  def rows(self, x: Array) -> Array:
    """What belongs to the examples, [B, ...], for the rows of the net."""
    return pairs.double(x, self.scales is not None)

  def run(
    self,
    variables: Vars,
    cond: Cond,
    keys: Array,
    bias: Array | None = None,
    prompt: Array | None = None,
    known: Array | None = None,
  ) -> State:
    """The last state: its units i32[B, L'] are drawn, 0 behind the block in
    which an example ends.

    Args:
      variables, cond: as above.
      keys: Key[B].
      bias: f32[B, V] or f32[V], see `pick.biased`.
      prompt: i32[B, M], the first units of each example, M < L.
      known: i32[B], how many of them to keep.

    Raises:
      UserError: M is not below L.
    """
    width = self.net.block * (1 + self.fused)
    ready = self.net.ready(variables, len(self.rows(keys)) * width)
    state = self.begin(ready, cond, len(keys), prompt, known)
    return self.until(ready, state, keys, self.blocks, bias)

  def begin(
    self,
    variables: Vars,
    cond: Cond,
    batch: int,
    prompt: Array | None = None,
    known: Array | None = None,
  ) -> State:
    """Reads the condition, and the whole blocks of a prompt; as in `run`."""
    net, size = self.net, self.net.block
    if prompt is None:
      prompt = jnp.zeros((batch, 0), jnp.int32)
      known = jnp.zeros(batch, jnp.int32)
    count = prompt.shape[1]
    if count >= self.length:
      raise UserError(
        f"a prompt of {count} units: an example has {self.length}, and at "
        "least one must be left to draw"
      )
    known = jnp.clip(jnp.asarray(known, jnp.int32), 0, count)
    bound, hidden = net.bind(variables), None
    if self.scales is not None:
      hidden = pairs.without(batch)
    given = self.rows({k: jnp.asarray(v) for k, v in cond.items()})
    read = self.rows(prompt[:, : count // size * size])
    _, cache = bound.begin(given, read, hidden, spare=2 * size)
    whole = self.blocks * size
    place = jnp.arange(whole)[None]
    units = jnp.pad(prompt, ((0, 0), (0, whole - count)))
    hide = (place >= known[:, None]) & (place < self.length)
    block, zeros = known // size, jnp.zeros(batch, jnp.int32)
    # Where there is nothing to read, no forward is made.
    first = int(net.prefix.length + read.shape[1] > 0)
    return State(
      jnp.where(hide, 0, units).astype(jnp.int32),
      hide,
      block,
      zeros,
      jnp.zeros(batch, bool),
      jnp.zeros(batch, bool),
      dataclasses.replace(cache, index=self._row(block)),
      net.prefix.valid(given),
      Counts(zeros + first, zeros, zeros),
      jnp.full((batch, whole), -1, jnp.int32),
    )

  def until(
    self,
    variables: Vars,
    state: State,
    keys: Array,
    stop: Array | int,
    bias: Array | None = None,
  ) -> State:
    """The state when every example has ended or is beyond the blocks before
    number `stop`."""
    waits = lambda s: ~s.done & (s.block < stop)
    body = lambda s: self.forward(variables, s, keys, waits(s), bias)
    return jax.lax.while_loop(lambda s: jnp.any(waits(s)), body, state)

  def forward(
    self,
    variables: Vars,
    state: State,
    keys: Array,
    live: Array,
    bias: Array | None,
  ) -> State:
    """The state after one forward, in which examples take part that are live,
    bool[B]; the others stay as they are."""
    net, size = self.net, self.net.block
    # A block that is pending comes before the one that is filled.
    shift = jnp.where(state.pending, size, 0)
    begin = state.block * size
    place = (begin - shift)[:, None] + jnp.arange(size * (1 + self.fused))[None]
    units, hide = (
      jnp.take_along_axis(x, place, axis=1, mode="clip")
      for x in (state.units, state.hide)
    )
    there = (place < self.length) & (place < begin[:, None] + size)
    of = place // size
    sees = (of[:, :, None] >= of[:, None]) & there[:, None]
    index = self._row(state.block) - self.rows(shift)
    cache = dataclasses.replace(state.cache, index=index)
    inputs = map(self.rows, (units, hide & there, place, sees))
    bound = net.bind(variables)
    h, cache = bound.step(*inputs, cache, state.valid)

    at = shift[:, None] + jnp.arange(size)[None]
    h = jnp.take_along_axis(h, self.rows(at)[..., None], axis=1)
    at = begin[:, None] + jnp.arange(size)[None]
    logits = self._logits(bound, h, at, bias)
    own = steps.fold(steps.fold(keys, state.block), state.step)
    drawn, sure, entropy = self.fill.propose(logits, own, **dict(self.law))
    mine = partial(jnp.take_along_axis, indices=at, axis=1, mode="clip")
    hide = mine(state.hide) & (at < self.length)
    chosen = self.fill.commit(
      sure, entropy, hide, state.step, steps.fold(own, _COMMIT)
    )
    chosen &= live[:, None]
    row = jnp.arange(len(at))[:, None]
    put = lambda x, new: x.at[row, jnp.where(chosen, at, x.shape[1])].set(
      new, mode="drop"
    )
    units, hide_all = put(state.units, drawn), put(state.hide, False)
    when = put(state.when, jnp.broadcast_to(state.step[:, None], at.shape))

    stored = live & ~jnp.any(hide, 1)
    full = ~jnp.any(hide & ~chosen, 1) if self.fused else stored
    full &= live
    ended = state.block + 1 >= self.blocks
    if self.stop is not None:
      stops = mine(units) == self.stop
      # What was known of a prompt ends nothing.
      ended |= jnp.any(stops & (mine(when) >= 0), 1)
    counts = Counts(
      state.counts.forwards + live,
      state.counts.stores + stored,
      state.counts.units + jnp.sum(chosen, 1),
    )
    return State(
      units,
      hide_all,
      state.block + full,
      jnp.where(full, 0, state.step + live),
      jnp.where(live, full & self.fused, state.pending),
      state.done | (full & ended),
      dataclasses.replace(cache, index=self._row(state.block)),
      state.valid,
      counts,
      when,
    )

  def _row(self, block: Array) -> Array:
    """i32[rows]: the row of the cache of the first unit of a block."""
    return self.net.prefix.length + self.rows(block) * self.net.block

  def _logits(
    self, net: BlockNet, h: Array, place: Array, bias: Array | None
  ) -> Array:
    """Logits f32[B, T, V] of the units at places i32[B, T], guided and biased,
    after hidden states [rows, T, D]."""
    scales = None
    if self.scales is not None:
      scales = jnp.take(jnp.asarray(self.scales), place, mode="clip")[..., None]
    logits = net.head.logits(pairs.guided(h, scales))
    if net.mask_id is not None:
      logits = logits.at[..., net.mask_id].set(-1e30)
    temperature = dict(self.law).get("temperature", 1.0)
    return pick.biased(logits, bias, temperature)


@partial(jax.jit, static_argnums=0)
def _begin(program, variables, cond, keys, prompt, known):
  return program.begin(variables, cond, len(keys), prompt, known)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(program, variables, state, keys, stop, bias):
  return program.until(variables, state, keys, stop, bias)


def stream(
  program: BlockProgram,
  variables: Vars,
  cond: Cond,
  keys: Array,
  *,
  every: int,
  bias: Array | None = None,
  prompt: Array | None = None,
  known: Array | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
  """The same units as `run`, shown after every so many blocks; not for use
  under jit.

  Yields:
    Units i32[B, L], and how many of them are drawn in all examples, those that
    have ended aside; the last time L.

  Raises:
    UserError: `every` is no number of blocks; or as in `run`.
  """
  if every < 1:
    raise UserError(f"every={every}: must be at least one block")
  state = _begin(program, variables, cond, keys, prompt, known)
  block = 0
  while True:
    block = min(block + every, program.blocks)
    state = _advance(program, variables, state, keys, np.int32(block), bias)
    over = block == program.blocks or bool(jnp.all(state.done))
    done = program.length if over else block * program.net.block
    yield np.asarray(state.units[:, : program.length]), done
    if over:
      return
