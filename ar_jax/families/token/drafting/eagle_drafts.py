"""How an `Eagle` drafts for its target: a chain, or a tree grown anew.

Shapes: B examples, rows of a net (B, or 2 B pairs where guided), P positions
of the prefix, M known units, L units, K drafts, T positions, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, pick, place_keys
from ar_jax.core.decoding.speculate import Draft, Drafter, Progress
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.token.drafting.eagle import Eagle, behind
from ar_jax.families.token.drafting.speculation import Source, Start
from ar_jax.families.token.masks import padding_mask
from ar_jax.nn.layers.cache import Cache

Array = jax.Array


class Tree(NamedTuple):
  """The tree of EAGLE-2 (arXiv 2406.16858), grown anew for every forward.

  Each of the `beam` most probable nodes of a level gets its `beam` most
  probable children; of all, the `nodes` most probable are drafted.
  """

  levels: int = 5
  beam: int = 10
  nodes: int = 58


def source(
  eagle: Eagle,
  variables: Vars,
  *,
  k: int,
  chosen: bool = False,
  tree: Tree | None = None,
) -> Source:
  """Drafts by an `Eagle`.

  Args:
    eagle: the layer.
    variables: its params.
    k: K of a chain; a tree has its own number.
    chosen: the most probable units are drafted, none is drawn: point masses.
    tree: drafts this tree (chosen always) in place of a chain.

  Raises:
    UserError: the tree is no tree.
  """
  if tree is not None:
    most = tree.beam + (tree.levels - 1) * tree.beam**2
    if min(tree) < 1 or tree.nodes > most:
      raise UserError(f"{tree}: it has 1 to {most} nodes")
    k = tree.nodes
  spare = k + 1 if tree is None else tree.levels * (tree.beam + 1)

  def begin(start: Start) -> tuple[Drafter, Cache]:
    if eagle.width != start.program.net.width:
      raise UserError(
        f"the drafter has a width of {eagle.width}, the target of "
        f"{start.program.net.width}: it was made for another model"
      )
    forward = _Forward(eagle, variables, start, _beside(start))
    draft = (
      _chain(forward, k, chosen) if tree is None else _grown(forward, tree)
    )
    return draft, forward.begin(spare)

  return Source(k, begin, None if tree is None else tree.levels)


def _beside(start: Start) -> Array | None:
  """[rows, L, D]: what the target adds where it predicts; None for nothing."""
  program, cond = start.program, start.cond
  hidden = None
  if program.scales is not None:
    hidden = pairs.without(len(start.prompt))
  given = program.rows({k: jnp.asarray(v) for k, v in cond.items()})
  return program.net.bind(start.variables).beside(given, hidden)


@dataclasses.dataclass(frozen=True)
class _Forward:
  """The forward passes of an eagle beside its target.

  Attributes:
    eagle: the layer.
    variables: its params.
    start: of the target.
    beside: [rows, L, D], what the target adds to its positions, or None.
  """

  eagle: Eagle
  variables: Vars
  start: Start
  beside: Array | None = None

  def begin(self, spare: int) -> Cache:
    """The cache after prefix and prompt, as far as these have a next unit."""
    program, prompt = self.start.program, self.start.prompt
    net, hidden = program.net, self.start.hidden
    eagle = self.eagle
    cache = eagle.mixer.empty(
      1, len(hidden), net.rows + spare, net.width, eagle.dtype
    )
    if jax.default_backend() == "cpu":
      cache = cache.unstacked()
    index = jnp.zeros(len(hidden), jnp.int32)
    cache = dataclasses.replace(cache, index=index)
    prefix, known = net.prefix.length, prompt.shape[1]
    if prefix + known > 1:
      ids = jnp.pad(prompt, ((0, 0), (prefix - 1, 0)))
      place = jnp.arange(1 - prefix, known)[None]
      _, cache = self.feed(
        cache,
        ids,
        hidden[:, : prefix - 1 + known],
        place,
        cache.causal(prefix - 1 + known),
      )
    return cache

  def feed(
    self, cache: Cache, units: Array, features: Array, place: Array, mask: Array
  ) -> tuple[Array, Cache]:
    """Features f32[rows, T, D] after units i32[B, T] of places i32[B | 1, T].

    Args:
      cache: its index is i32[rows].
      units: see above.
      features: [rows, T, D], before these units.
      place: see above.
      mask: bool[rows, 1, T, S], of the rows of the cache.
    """
    program, valid = self.start.program, self.start.valid
    net, rows = program.net.bind(self.start.variables), program.rows
    if valid is not None:
      mask = mask & padding_mask(mask, valid[:, :-1])
    place = jnp.broadcast_to(place, units.shape)
    pos = jnp.take(
      net.rotations(), net.prefix.length + rows(place), axis=0, mode="clip"
    )
    layer, x = self.eagle.bind(self.variables), net.units(rows(units))
    if self.beside is not None:
      x = x + behind(self.beside, rows(place)).astype(x.dtype)
    return layer(x, features, mask, pos=pos, cache=cache)

  def catch_up(self, cache: Cache, progress: Progress) -> tuple[Array, Cache]:
    """Reads what the last forward has brought: features [rows, 1, D] before
    the next unit, and the cache up to it."""
    rows = self.start.program.rows
    row = self.start.program.net.prefix.length + progress.count - 1
    cache = dataclasses.replace(cache, index=rows(row - progress.fresh))
    place = progress.count - progress.fresh
    place = place[:, None] + jnp.arange(progress.path.shape[1])[None]
    units = jnp.take_along_axis(progress.units, place, axis=1, mode="clip")
    path = rows(progress.path)[..., None]
    features = jnp.take_along_axis(progress.hidden, path, axis=1)
    h, cache = self.feed(
      cache, units, features, place, cache.causal(place.shape[1])
    )
    newest = jnp.maximum(rows(progress.fresh) - 1, 0)[:, None, None]
    h = jnp.take_along_axis(h, newest, axis=1)
    return h, dataclasses.replace(cache, index=rows(row))

  def law(self, features: Array, place: Array) -> Array:
    """Log-probabilities f32[B, T, V] of the units at places i32[B, T]."""
    program = self.start.program
    logits = program.logits(self.start.variables, features, place)
    law, bias = dict(program.law), self.start.bias
    logits = pick.biased(logits, bias, law.get("temperature", 1.0))
    return pick.law(logits, **law)


def _chain(forward: _Forward, k: int, chosen: bool) -> Drafter:
  """K drafts, one after the other."""

  def draft(cache, progress, keys):
    h, cache = forward.catch_up(cache, progress)

    def step(carry, i):
      h, cache = carry
      place = (progress.count + i)[:, None]
      logp = forward.law(h, place)
      if chosen:
        unit = jnp.argmax(logp, -1).astype(jnp.int32)
      else:
        unit = place_keys.draw_at(logp, keys, place)
      h, cache = forward.feed(cache, unit, h, place, cache.causal(1))
      return (h, cache), (unit[:, 0], logp[:, 0])

    (_, cache), (units, logp) = jax.lax.scan(step, (h, cache), jnp.arange(k))
    units, logp = jnp.moveaxis(units, 0, 1), jnp.moveaxis(logp, 0, 1)
    return Draft(units, None if chosen else logp), cache

  return draft


def _grown(forward: _Forward, tree: Tree) -> Drafter:
  """The nodes of a tree, level by level."""
  levels, beam, nodes = tree
  rows = forward.start.program.rows
  take: Callable = lambda x, at: jnp.take_along_axis(x, at, axis=1)

  def draft(cache, progress, keys):
    del keys
    batch, index = len(progress.count), cache.index
    h, cache = forward.catch_up(cache, progress)
    root = cache
    logp = forward.law(h, progress.count[:, None])[:, 0]
    score, unit = jax.lax.top_k(logp, beam)
    # All candidates so far: probabilities, units, the candidates above them.
    scores, units = [score], [unit]
    above = [jnp.full((batch, beam), -1)]
    # The nodes that are grown: which candidates they are, the features before
    # them, and whom of the nodes grown so far they see.
    node = jnp.broadcast_to(jnp.arange(beam), (batch, beam))
    h = jnp.repeat(h, beam, axis=1)
    lines = jnp.zeros((batch, beam, 0), bool)
    first = beam
    for level in range(1, levels):
      own = jnp.broadcast_to(jnp.eye(beam, dtype=bool), (batch, beam, beam))
      lines = jnp.concatenate([lines, own], axis=2)
      place = jnp.broadcast_to(
        (progress.count + level - 1)[:, None], unit.shape
      )
      h, cache = forward.feed(cache, unit, h, place, root.tree(rows(lines)))
      logp = forward.law(h, place + 1)
      best, children = jax.lax.top_k(logp, beam)
      best = (best + score[..., None]).reshape(batch, -1)
      children = children.reshape(batch, -1)
      scores.append(best)
      units.append(children)
      above.append(jnp.repeat(node, beam, axis=1))
      score, at = jax.lax.top_k(best, beam)
      unit, node, first = take(children, at), first + at, first + best.shape[1]
      mother = at // beam
      h = take(h, rows(mother)[..., None])
      lines = take(lines, mother[..., None])
    scores, units, above = (
      jnp.concatenate(x, axis=1) for x in (scores, units, above)
    )
    # A node is at least as probable as what is below it, and comes before it.
    kept = jnp.sort(jax.lax.top_k(scores, nodes)[1], axis=1)
    mother = take(above, kept)
    same = mother[:, :, None] == kept[:, None, :]
    parents = jnp.where(mother < 0, 0, 1 + jnp.argmax(same, axis=2))
    cache = dataclasses.replace(cache, index=index)
    return Draft(take(units, kept), None, parents.astype(jnp.int32)), cache

  return draft
