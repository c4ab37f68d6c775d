"""How a `NextScale` draws: one forward a map.

Shapes: B batch, L slots, T slots of one map, C latent channels, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.decoding.editing import Edit
from ar_jax.core.errors import UserError
from ar_jax.families.scale.net import NextScale

Array = jax.Array


def generate(
  net: NextScale,
  codes: nn.Module,
  label: Any,
  keys: Array,
  *,
  scales: Sequence[float],
  laws: Sequence[Mapping[str, float]],
  smooth: bool = False,
  edit: Edit | None = None,
  redraw: Callable[..., Array] | None = None,
  bias: Array | None = None,
  known: Array | None = None,
  deep: int | None = None,
  cache: Any = None,
) -> tuple[Array, Any]:
  """Draws the maps of one image per key, one forward for each.

  Args:
    net: bound.
    codes: a bound tokenizer with `start` and `advance`, of the same maps as the
      net's plan; to be smooth also with `codebook` and `advance_soft`.
    label: what `net.begin` reads, [B, ...]: labels i32[B], or a tree; with
      guidance [2 B, ...], pairs with the null condition.
    keys: Key[B].
    scales: of guidance, one for each map.
    laws: arguments of `pick.law`, for each map.
    smooth: mixes codes by a Gumbel softmax in place of drawing them; the
      units are then the heaviest of each mixture.
    edit: overwrites units after they are drawn.
    redraw: (s, state before map s, units i32[B, T], their law f32[B, T, V],
      keys, bias=, **laws[s]) -> the units that stand of map s; not with
      `smooth`.
    bias: f32[B, V], or f32[B, K, V] for each map; see `pick.biased`.
    known: [B, n, ...], the units of the first maps, which are then read in one
      forward; of nets with `read`.
    deep: guides the hidden states behind this layer in place of the logits; of
      nets whose `step` takes `after`.
    cache: what the net has read before the first map; empty if None.

  Returns:
    Units i32[B, L], and the state of the tokenizer after the last map.
  """
  p, b = net.plan, len(keys)
  rows = len(jax.tree.leaves(label)[0])
  guided = rows > b
  codebook = codes.codebook() if smooth else None
  first, ada = net.begin(label)

  def step(carry, s, keys):
    state, x, cache = carry
    run = {}
    if guided and deep is not None:
      run["after"] = (
        deep,
        lambda h: pairs.double(pick.guide(*pairs.split(h), scales[s])),
      )
    h, cache = net.step(s, x, ada, cache, **run)
    h, h_null = pairs.split(h) if guided else (h, None)
    h_null = None if run else h_null
    own = pick.bias_at(bias, s)
    logp = net.head.law(h, h_null=h_null, scale=scales[s], bias=own, **laws[s])
    if smooth:
      weights = _mixture(logp, keys, s / max(1, p.steps - 1))
      units = jnp.argmax(weights, -1).astype(jnp.int32)
      mixed = weights @ codebook
      if edit is not None:
        units = edit(p.span(s), units)
        mixed = edit.codes(p.span(s), mixed, codebook)
      state, x = codes.advance_soft(state, s, mixed)
    else:
      units = pick.draw(logp, keys)
      units = units if edit is None else edit(p.span(s), units)
      if redraw is not None:
        units = redraw(s, state, units, logp, keys, bias=own, **laws[s])
        units = units if edit is None else edit(p.span(s), units)
      state, x = codes.advance(state, s, units)
    if x is not None:
      x = pairs.double(net.latent(x), guided)
    return (state, x, cache), units

  carry = codes.start(b), first, net.cache(rows) if cache is None else cache
  begun = 0
  if known is not None:
    carry, begun = _read(net, codes, known, ada, carry, guided)
  (state, *_), units = steps.unroll_steps(step, carry, p, keys, start=begun)
  if known is not None:
    units = jnp.concatenate([known, units], axis=1)
  return units, state


def _read(net, codes, known, ada, carry, guided) -> tuple[Any, int]:
  """What `generate` carries behind the maps whose units are `known`, and how
  many they are."""
  state, x, cache = carry
  inputs, s, plan = [x], 0, net.plan
  while plan.span(s).start < known.shape[1]:
    state, x = codes.advance(state, s, known[:, plan.span(s)])
    s += 1
    if x is None:
      raise UserError("all maps are known: nothing is left to draw")
    inputs.append(pairs.double(net.latent(x), guided))
  before = jnp.concatenate(inputs[:-1], axis=1)
  _, cache = net.read(slice(0, known.shape[1]), before, ada, cache)
  return (state, inputs[-1], cache), s


def cooled(
  law: Mapping[str, float], last: float | None, maps: int
) -> tuple[dict[str, float], ...]:
  """The law of each map: its temperature goes evenly from that of `law` at the
  first one to `last` (ECM, arXiv 2510.05610, as far as it is known); None for
  the same at all."""
  if last is None or maps < 2:
    return (dict(law),) * maps
  first = law.get("temperature", 1.0)
  every = (first + (last - first) * s / (maps - 1) for s in range(maps))
  return tuple({**law, "temperature": float(t)} for t in every)


def _mixture(logp: Array, keys: Array, progress: float) -> Array:
  """Weights f32[B, T, V] of the codes in smooth sampling, harder at finer
  scales; the constants are those of VAR's published sampler."""
  temperature = max(0.27 * (1 - 0.95 * progress), 0.005)
  return pick.soften(logp * (1 + progress), keys, temperature)
