"""Writes texts with a backspace: a stack of symbols whose top may be removed.

The cache has a row for each depth. A pop makes it shorter by one, and the next
push writes over what was there; what the model says of a state is kept by
depth, so that to come back to it costs no pass. A pass of all examples is run
when each has something to read: as many as the pushes of the one with most.

Shapes: B batch, L units, M units of a prompt, V symbols, A actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import backspace, pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import Vars
from ar_jax.families.token.backspace.stack_net import StackNet

Array = jax.Array


class Written(NamedTuple):
  """Texts, and how they came about.

  Attributes:
    units: i32[B, L], what is left on the stack; behind it `stop`, or 0.
    action: i32[B, A], the prompt's first.
    count: i32[B], how many actions there were.
    passes: i32[], of the network, behind the one that reads the prompt.
    said: f32[B, L, V + 1], logits behind so many units of what is left; of
      the last ones only where they were asked for.
  """

  units: Array
  action: Array
  count: Array
  passes: Array
  said: Array


class _State(NamedTuple):
  depth: Array  # i32[B]
  count: Array  # i32[B], actions so far
  done: Array  # bool[B]
  waits: Array  # bool[B], its top has not been read
  stack: Array  # i32[B, L]
  action: Array  # i32[B, A]
  said: Array  # f32[B, L, V + 1], logits by depth


def draw(
  net: StackNet,
  variables: Vars,
  given: Array,
  known: Array,
  keys: Array,
  *,
  legal: Callable[..., Array],
  stop: int | None,
  actions: int,
  errors: float | Array = 0.0,
  law: Mapping[str, float] | None = None,
) -> Written:
  """Writes until every text has ended, is full, or its actions are used up.

  Args:
    net: the transformer.
    variables: of it.
    given: i32[B, M], units of a prompt, M < L.
    known: i32[B], how many of them there are.
    keys: Key[B].
    legal: (logits f32[B, V + 1], depth i32[B], prompt i32[B]) -> logits of what
      may be done.
    stop: the symbol that ends a text; None for none.
    actions: A, those of the prompt among them.
    errors: share of the pushes whose symbol is a random one.
    law: arguments of `pick.law`.
  """
  batch, length, vocab = len(keys), len(net.plan), net.vocab
  rows, law = jnp.arange(batch), dict(law or {})
  variables = net.ready(variables, batch)
  bound = net.bind(variables)
  prompt = given.shape[1]
  h, cache = bound.begin({}, given)
  said = bound.head.logits(h)
  said = jnp.pad(said, ((0, 0), (0, length - prompt - 1), (0, 0)))
  at = jnp.arange(prompt)[None]
  begun = jnp.where(at < known[:, None], given, 0)
  room = lambda x, n: jnp.pad(x, ((0, 0), (0, n - prompt)))
  no = jnp.zeros(batch, bool)
  state = _State(
    known, known, no, no, room(begun, length), room(begun, actions), said
  )

  def act(state: _State) -> _State:
    """One more action of those that need not wait."""
    depth = jnp.minimum(state.depth, length - 1)
    logits = legal(state.said[rows, depth], depth, known)
    own = jax.vmap(jax.random.split)(fold(keys, state.count))
    drawn = pick.draw(pick.law(logits, **law), own[:, 0])
    if isinstance(errors, jax.Array) or errors:
      drawn = jax.vmap(slip)(own[:, 1], drawn)
    goes = ~(state.done | state.waits)
    pops = goes & (drawn == vocab)
    ends = goes & (drawn == (-1 if stop is None else stop))
    push = goes & ~pops & ~ends
    put = lambda into, where, at: into.at[
      rows, jnp.where(where, at, into.shape[1])
    ].set(drawn, mode="drop")
    after = state.depth + push - pops
    count = state.count + goes
    done = state.done | ends | (after == length) | (count >= actions)
    return state._replace(
      depth=after,
      count=count,
      done=done,
      waits=state.waits | (push & ~done),
      stack=put(state.stack, push, state.depth),
      action=put(state.action, goes, state.count),
    )

  def slip(key: Array, drawn: Array) -> Array:
    """In place of a symbol, now and then, a random one."""
    whether, which = jax.random.split(key)
    other = backspace.symbols(which, (), vocab, stop)
    pushed = (drawn != vocab) & (drawn != (-1 if stop is None else stop))
    return jnp.where(
      pushed & jax.random.bernoulli(whether, errors), other, drawn
    )

  def on(loop):
    return jnp.any(loop[0].waits)

  def body(loop):
    state, cache, passes = loop
    # What lies on top of a stack is in the row of its depth. Examples that
    # have ended read some row again, and nothing is kept of it.
    depth = jnp.clip(state.depth, 1, length - 1)
    top = state.stack[rows, depth - 1]
    own = dataclasses.replace(cache, index=depth)
    h, cache = net.bind(variables).step(top[:, None], own)
    logits = net.bind(variables).head.logits(h)[:, 0]
    where = jnp.where(state.waits, depth, length)
    said = state.said.at[rows, where].set(logits, mode="drop")
    state = state._replace(said=said, waits=jnp.zeros_like(state.waits))
    return go_on(state), cache, passes + 1

  def go_on(state):
    """Acts until every text waits or has ended."""
    goes = lambda s: jnp.any(~(s.done | s.waits))
    return jax.lax.while_loop(goes, act, state)

  cache = dataclasses.replace(cache, index=known)
  loop = go_on(state), cache, jnp.zeros((), jnp.int32)
  state, _, passes = jax.lax.while_loop(on, body, loop)
  there = jnp.arange(length)[None] < state.depth[:, None]
  units = jnp.where(there, state.stack, 0 if stop is None else stop)
  return Written(units, state.action, state.count, passes, state.said)
