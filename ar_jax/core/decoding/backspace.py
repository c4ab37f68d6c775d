"""Texts that were written with a backspace: a stack of symbols, which an
action makes longer, shorter, or a finished text.

A push makes a *node*: a symbol, how deep it lies, and the nodes below it, which
are all that it sees. A state is the node on top. So whoever comes back to a
state after a detour comes back to the same node: one pass of a network over
the nodes says what it says of all states, and a detour leaves no trace.

Shapes: B batch, A actions, N nodes (the first one stands for the empty stack),
L units of a text, V symbols. The action V is the backspace.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Walk:
  """Actions one after the other, and the nodes that they pass.

  Attributes:
    token: i32[B, N], the symbol of each node; 0 where there is none.
    depth: i32[B, N], how many symbols lie on the stack with it.
    sees: bool[B, N, N], its ancestors, itself among them.
    action: i32[B, A].
    state: i32[B, A], the node on top before each action.
    next: i32[B, A], the same after it.
    valid: bool[B, A], false behind the last action.
    ends: bool[B, A], which action finishes the text.
  """

  token: Array
  depth: Array
  sees: Array
  action: Array
  state: Array
  next: Array
  valid: Array
  ends: Array


def nodes(actions: int, length: int) -> int:
  """The most nodes of so many actions, with at most `length` on the stack."""
  return min(actions, (actions + length) // 2) + 1


def walk(
  action: Array,
  count: Array,
  *,
  vocab: int,
  stop: int | None,
  size: int,
  length: int,
) -> Walk:
  """The nodes of given actions.

  Args:
    action: i32[B, A]; no backspace on an empty stack.
    count: i32[B], how many of them there are.
    vocab: V, also the backspace.
    stop: the symbol that finishes a text; None where no symbol does.
    size: N; see `nodes`.
    length: L; a text of so many symbols is finished, too.
  """
  batch, most = action.shape
  at = jnp.arange(most)[None]
  valid = at < count[:, None]
  pops = valid & (action == vocab)
  ends = valid & (action == (-1 if stop is None else stop))
  push = valid & ~pops & ~ends
  after = jnp.cumsum(push.astype(jnp.int32) - pops, axis=1)
  full = push & (after == length)
  # on[b, t, u]: what action t put there still lies there after action u.
  later = (at >= at.T)[None]
  since = jnp.where(later, after[:, None], most + 1)
  lowest = jax.lax.cummin(since, axis=2)
  on = push[:, :, None] & later & (lowest >= after[:, :, None])
  made = jnp.cumsum(push, axis=1)
  top = jnp.max(jnp.where(on, made[:, :, None], 0), axis=1)
  state = jnp.pad(top, ((0, 0), (1, 0)))[:, :-1]
  # The action that made each node, the first one aside.
  number = jnp.arange(1, size)[None, :, None]
  by = jnp.sum(made[:, None] < number, axis=2)
  there = by < most
  by = jnp.minimum(by, most - 1)
  pick = lambda x: jnp.where(there, jnp.take_along_axis(x, by, 1), 0)
  first = lambda x: jnp.pad(x, ((0, 0), (1, 0)))
  rows = jnp.take_along_axis(on, by[:, :, None], axis=1)
  below = jnp.take_along_axis(rows, by[:, None], axis=2)  # [B, m, n]: m on n
  below &= there[:, :, None] & there[:, None]
  sees = jnp.pad(jnp.swapaxes(below, 1, 2), ((0, 0), (1, 0), (1, 0)))
  own = jnp.eye(size, dtype=bool).at[:, 0].set(True)[None]
  # Nodes beyond the last one see themselves and the empty stack.
  return Walk(
    first(pick(action)), first(pick(after)), sees | own, action, state, top,
    valid, ends | full,
  )  # fmt: skip


def noised(
  units: Array,
  keys: Array,
  *,
  rate: float,
  vocab: int,
  stop: int | None,
  actions: int,
  prompt: int = 0,
) -> tuple[Array, Array, Array]:
  """Texts as someone writes them who now and then hits a wrong key, sees it,
  and takes it back. Not before the last of L units, where a wrong key would
  finish the text.

  Args:
    units: i32[B, L].
    keys: Key[B].
    rate: probability of a random symbol and a backspace before each unit.
    vocab: V.
    stop: as in `walk`; what is behind it is no action.
    actions: A; what does not fit in is cut off.
    prompt: units at the beginning that are given and stay as they are.

  Returns:
    The actions i32[B, A], how many there are i32[B], and which of them are
    such wrong keys, bool[B, A].
  """
  batch, length = units.shape
  at = jnp.arange(length)[None]
  ends = units == (-1 if stop is None else stop)
  real = jnp.cumsum(ends, 1) - ends == 0

  def one(key):
    where, what = jax.random.split(key)
    wrong = jax.random.bernoulli(where, rate, (length,))
    return wrong, symbols(what, (length,), vocab, stop)

  wrong, what = jax.vmap(one)(keys)
  wrong &= real & (at >= prompt) & (at < length - 1)
  place = at + 2 * jnp.cumsum(wrong, 1)
  rows = jnp.arange(batch)[:, None]
  put = lambda into, at, where, what: into.at[
    rows, jnp.where(where, at, actions)
  ].set(what, mode="drop")
  made = jnp.zeros((batch, actions), jnp.int32)
  made = put(made, place, real, units)
  made = put(made, place - 2, wrong, what)
  made = put(made, place - 1, wrong, vocab)
  injected = put(jnp.zeros(made.shape, bool), place - 2, wrong, True)
  count = jnp.sum(real, 1) + 2 * jnp.sum(wrong, 1)
  return made, jnp.minimum(count, actions), injected


def symbols(
  key: Array, shape: tuple[int, ...], vocab: int, stop: int | None
) -> Array:
  """Random symbols i32[shape], each as likely as any other, `stop` never."""
  if stop is None:
    return jax.random.randint(key, shape, 0, vocab)
  drawn = jax.random.randint(key, shape, 0, vocab - 1)
  return drawn + (drawn >= stop)
