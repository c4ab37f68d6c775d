"""Speculation over the nets of this library.

A `NextToken` is a target and a drafter by its cached forwards;
`self_speculation` serves any other model of discrete units.

Shapes: B examples, rows of a net (B, or 2 B pairs where guided), P positions
of the prefix, M known units, L units, K drafts, S = K + 1, D width, V
vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core.decoding import (
  draft_tree,
  drafters,
  pick,
  place_keys,
  speculate,
  steps,
)
from ar_jax.core.decoding.speculate import Draft, Drafter, Progress, Stats
from ar_jax.core.system import UserError, Vars
from ar_jax.families.token.prefix import Cond
from ar_jax.families.token.program import TokenProgram
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Start(NamedTuple):
  """What a drafter may begin with.

  Attributes:
    program: the target.
    variables: those of its net.
    cond: what its prefix takes.
    prompt: i32[B, M], units that may be known.
    hidden: [rows, P + M, D], what it says of prefix and prompt.
    valid: bool[rows, P], the positions of the prefix that are no padding, or
      None for all.
    bias: f32[B, V] of the target's logits, or None; see `pick.biased`.
  """

  program: TokenProgram
  variables: Vars
  cond: Cond
  prompt: Array
  hidden: Array
  valid: Array | None
  bias: Array | None = None


class Source(NamedTuple):
  """Where drafts come from.

  Attributes:
    k: K, drafts a forward.
    begin: makes the drafter and its first state.
    levels: of a tree; None for chains.
    score: the target's forward, where it brings more than laws, with
      (program, variables, valid, bias) first, see `speculate.Score`.
    wrap: what that one says of its rows, of the hidden state f32[rows, 1, D]
      of the forward that reads the condition.
    spare: rows of the cache that a forward needs beyond the first; None for K.
  """

  k: int
  begin: Callable[[Start], tuple[Drafter, Any]]
  levels: int | None = None
  score: Callable | None = None
  wrap: Callable[[Array], Any] = lambda hidden: hidden
  spare: int | None = None


def generate(
  program: TokenProgram,
  variables: Vars,
  cond: Cond,
  keys: Array,
  source: Source,
  *,
  mode: str = "exact",
  rule: Any = None,
  table: Array | None = None,
  radius: Array | None = None,
  relax: Callable[[Array, Array, Array], Array] | None = None,
  prompt: Array | None = None,
  known: Array | None = None,
  bias: Array | None = None,
  impl: str | None = None,
) -> tuple[Array, Stats]:
  """Draws the units of one image per key by speculation.

  Args:
    program: the target, with its guidance and filters.
    variables: those of its net.
    cond: what its prefix takes.
    keys: Key[B], threefry; where one needs no more than `program.run` does,
      in mode "gumbel", the units are those of `program.run`.
    source: of the drafts.
    mode: see `speculate.speculate`.
    rule: a relaxed rule of `ops.rules`, None for the exact one.
    table, radius: what the rule asks for; see `ops.verify`.
    relax: makes another law of (log-probabilities f32[B, S, V], drafts, their
      parents), which is then drawn from in place of the target's; for modes
      "point" and "gumbel".
    prompt: i32[B, M], the first units of each image.
    known: i32[B], how many of them to keep.
    bias: f32[B, V], or f32[V], of the target's logits; see `pick.biased`.
      Drafters that have a law draw from it with the bias, too.
    impl: of `ops.verify`.

  Returns:
    Units i32[B, L], and what it took.

  Raises:
    UserError: no draft is asked for, the drafts do not fit the target, units
      are forced, or the prompt is as long as an image.
  """
  if program.forced is not None:
    raise UserError(
      "forced: drafts do not know of forced units; draw without speculation"
    )
  if source.k < 1:
    raise UserError(f"k={source.k}: speculation needs at least one draft")
  if prompt is None:
    prompt = jnp.zeros((len(keys), 0), jnp.int32)
    known = jnp.zeros(len(keys), jnp.int32)
  known = jnp.clip(known, 0, prompt.shape[1]).astype(jnp.int32)
  prefix, law = program.net.prefix.length, dict(program.law)
  spare = source.k if source.spare is None else source.spare
  rows = len(program.rows(known)) * (spare + 1)
  variables = program.net.ready(variables, rows)
  h, cache, valid = program.read(variables, cond, prompt, spare=spare)
  row = program.rows(prefix + known)
  hidden = jnp.take_along_axis(h, row[:, None, None] - 1, axis=1)
  logits = biased_logits(program, variables, bias, hidden, known)
  first = pick.draw(pick.law(logits, **law), steps.fold(keys, known))[:, 0]
  rest = ((0, 0), (0, program.length - prompt.shape[1]))
  units = jnp.pad(prompt, rest).at[jnp.arange(len(keys)), known].set(first)
  hidden = source.wrap(hidden)
  progress = speculate.begin(
    units, known + 1, hidden, logits, source.k, source.levels
  )
  drafter, state = source.begin(
    Start(program, variables, cond, prompt, h, valid, bias)
  )
  score = functools.partial(
    source.score or _score, program, variables, valid, bias
  )
  verify = functools.partial(
    ops.verify, rule=rule, table=table, radius=radius, impl=impl, **law
  )
  if relax is not None:
    verify = functools.partial(_verify_relaxed, relax, law, impl)
  cache = dataclasses.replace(cache, index=row)
  return speculate.speculate(
    drafter, score, verify, progress, (state, cache), keys, mode=mode
  )


def _verify_relaxed(
  relax: Callable, law: dict, impl: str | None, logits, drafts, noise, **kwargs
):
  """`ops.verify` of the law that `relax` makes."""
  parents = kwargs["parents"]
  if parents is None:
    parents = jnp.broadcast_to(jnp.arange(drafts.shape[1]), drafts.shape)
  logp = relax(pick.law(logits[:, 0], **law), drafts, parents)
  return ops.verify(logp[:, None], drafts, noise, impl=impl, **kwargs)


def biased_logits(
  program: TokenProgram,
  variables: Vars,
  bias: Array | None,
  h: Array,
  place: Array,
) -> Array:
  """`TokenProgram.logits` with a bias."""
  logits = program.logits(variables, h, place)
  return pick.biased(logits, bias, dict(program.law).get("temperature", 1.0))


def _score(
  program: TokenProgram,
  variables: Vars,
  valid: Array | None,
  bias: Array | None,
  cache: Cache,
  progress: Progress,
  draft: Draft,
) -> tuple[Array, Array, Cache]:
  """A `speculate.Score`: rows of rejected drafts are written again."""
  rows, net = program.rows, program.net.bind(variables)
  room, need = cache.size, net.rows + draft.units.shape[1]
  if room < need:
    raise UserError(
      f"a cache of {room} rows is too small for {draft.units.shape[1]} drafts "
      f"a forward, which need {need}: read the prefix with more `spare` rows"
    )
  row = net.prefix.length + progress.count - 1
  tree, after = None, jnp.arange(draft.units.shape[1] + 1)[None]
  if draft.parents is not None:
    cache = cache.compact(rows(row - progress.fresh), rows(progress.path))
    lines, after = draft_tree.ancestry(draft.parents)
    tree = rows(lines), rows(after)
  cache = dataclasses.replace(cache, index=rows(row))
  units = jnp.concatenate([progress.last[:, None], draft.units], axis=1)
  h, cache = net.step(rows(units), cache, valid, tree)
  place = progress.count[:, None] + after
  return biased_logits(program, variables, bias, h, place), h, cache


def jacobi(k: int, program: TokenProgram) -> Source:
  """Drafts by the target itself; see `drafters.jacobi`."""
  drafter = drafters.jacobi(k, **dict(program.law))
  return Source(k, lambda start: (drafter, jnp.asarray(False)))


def lookup(k: int, span: int = 2) -> Source:
  """Drafts by what was drawn before; see `drafters.lookup`."""
  return Source(k, lambda start: (drafters.lookup(k, span), ()))


def model(k: int, program: TokenProgram, variables: Vars) -> Source:
  """Drafts by a smaller model with the same units and the same condition.

  Args:
    k: K.
    program: the drafter, with its own guidance; its filters need not be those
      of the target.
    variables: those of its net.
  """
  rows, law = program.rows, dict(program.law)

  def begin(start):
    _check_same_units(program, start.program)
    _, cache, valid = program.read(variables, start.cond, start.prompt, spare=k)
    prefix = program.net.prefix.length

    def draft(cache, progress, keys):
      # It has read all but the last unit, accepted drafts included.
      cache = dataclasses.replace(
        cache, index=rows(prefix + progress.count - 1)
      )

      def step(carry, i):
        unit, cache = carry
        net = program.net.bind(variables)
        h, cache = net.step(rows(unit[:, None]), cache, valid)
        place = (progress.count + i)[:, None]
        logits = biased_logits(program, variables, start.bias, h, place)
        logp = pick.law(logits, **law)
        unit = place_keys.draw_at(logp, keys, place)[:, 0]
        return (unit, cache), (unit, logp[:, 0])

      # The last draft is read too, in case all stand; what follows is not
      # needed.
      (_, cache), (units, logp) = jax.lax.scan(
        step, (progress.last, cache), jnp.arange(k + 1)
      )
      first = lambda x: jnp.moveaxis(x[:k], 0, 1)
      return Draft(first(units), first(logp)), cache

    index = rows(jnp.zeros(len(start.prompt), jnp.int32))
    return draft, dataclasses.replace(cache, index=index)

  return Source(k, begin)


def _check_same_units(drafter: TokenProgram, target: TokenProgram) -> None:
  for what, ours, theirs in (
    ("vocabulary", drafter.net.vocab, target.net.vocab),
    ("number of units", drafter.length, target.length),
  ):
    if ours != theirs:
      raise UserError(
        f"the drafter has a {what} of {ours}, the target of {theirs}: both "
        "need the same tokenizer"
      )
