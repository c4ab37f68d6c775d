"""Verification of drafts that are vectors, by densities.

What was drawn from a law q is taken with the chance min(1, p / q), and else
drawn anew from the residual (p - q)+, which makes its law p (Leviathan et al.,
arXiv 2211.17192). Of a continuous law the residual needs no integral: what is
drawn from p stands with the chance (1 - q / p)+ (Continuous Speculative
Decoding, arXiv 2411.11925). That takes one proposal for each verified draft on
average, however near q is to p, since a rejection that comes with the chance
1 - b needs 1 / (1 - b) of them.

A rule says what is compared:

  Exact    densities: of a mixture, or of the whole way of a denoising chain
  Aligned  the last steps of two chains that share their noise; biased

The loop is in `speculate_vectors`.

Shapes: N rows, each a place of an example; C channels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import place_keys
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.core.flows.chains import Chain, End, log_normal

Array = jax.Array


class Density(Protocol):
  """A law of N rows that can be drawn from and evaluated."""

  def draw(self, keys: Array) -> Array:
    """Samples [N, ...], by keys Key[N]."""

  def log_prob(self, sample: Array) -> Array:
    """f32[N]."""

  def unit(self, sample: Array) -> Array:
    """f32[N, C], the unit that a sample stands for."""


@dataclasses.dataclass(frozen=True)
class Exact:
  """The ratio of two densities; what is drawn follows p exactly.

  Of chains the ways are judged, of which the unit is the end: exact as well.
  Their last step adds its noise, without which a unit would not follow the
  density that is judged.
  """

  def draw(self, law: Density, keys: Array) -> tuple[Array, Any]:
    """A draft, and what must be known of it later."""
    return law.draw(keys), ()

  def look(self, law: Density, keys: Array) -> Any:
    """What must be known of the target at the place of a draft."""
    del law, keys
    return ()

  def fresh(self, law: Density, seen: Any, keys: Array) -> Array:
    """Units f32[N, C] of the target where there is no draft."""
    del seen
    return law.unit(law.draw(keys))

  def log_ratio(
    self, q: Density, p: Density, sample: Array, known: Any, seen: Any
  ) -> Array:
    """f32[N]: of a draft, by what `draw` and `look` said."""
    del known, seen
    return p.log_prob(sample) - q.log_prob(sample)

  def propose(self, p: Density, seen: Any, keys: Array) -> Array:
    """Samples of the target for the residual, by keys of their own."""
    del seen
    return p.draw(keys)

  def stands(
    self, q: Density, p: Density, sample: Array, known: Any, seen: Any
  ) -> Array:
    """f32[N]: the chance with which a proposal stands."""
    ratio = self.log_ratio(q, p, sample, known, seen)
    return jnp.maximum(0.0, -jnp.expm1(-ratio))

  def unit(self, law: Density, sample: Array) -> Array:
    """f32[N, C]."""
    return law.unit(sample)


@dataclasses.dataclass(frozen=True)
class Aligned:
  """Chains that share all noise but that of the last step, which is not added.

  Of each chain's density what is left is S N(x), with S the product of 1 /
  deviation over the steps before the last: the noise there is the same. The
  paper's rule, and biased: a way of q is not one of p.

  Attributes:
    inverse: whether S enters by its inverse, as in the released code.
    inner: the deviations of the last step are so much larger where a draft is
      judged; 42 in the released code, which has no such factor in the residual.
    blank: what is left of a rejected draft where no proposal stands: 0, as in
      the released code, or the last of them.
  """

  inverse: bool = False
  inner: float = 1.0
  blank: bool = False

  def draw(self, law: Chain, keys: Array) -> tuple[Array, End]:
    end = law.walk(keys, last=False).end
    return end.mean, end

  def look(self, law: Chain, keys: Array) -> End:
    return law.walk(keys, last=False).end

  def fresh(self, law: Chain, seen: End, keys: Array) -> Array:
    del law, keys
    return seen.mean

  def log_ratio(
    self, q: Chain, p: Chain, sample: Array, known: End, seen: End
  ) -> Array:
    del q, p
    apart = lambda end: jnp.sum(
      jnp.square((sample - end.mean) * jnp.exp(-end.log_std)), -1
    )
    scales = jnp.sum(known.log_std - seen.log_std, -1)
    square = (apart(known) - apart(seen)) / (2 * self.inner**2)
    return square + scales + self.scale(known, seen)

  def scale(self, known: End, seen: End) -> Array:
    """f32[N], log S of the target over that of the drafter."""
    scale = known.spread - seen.spread
    return -scale if self.inverse else scale

  def propose(self, p: Chain, seen: End, keys: Array) -> Array:
    del p
    return seen.mean + jnp.exp(seen.log_std) * normal(keys, seen.mean.shape[1:])

  def stands(
    self, q: Chain, p: Chain, sample: Array, known: End, seen: End
  ) -> Array:
    del q, p
    ratio = log_normal(sample, *seen[:2]) - log_normal(sample, *known[:2])
    return jnp.maximum(0.0, -jnp.expm1(-ratio - self.scale(known, seen)))

  def unit(self, law: Chain, sample: Array) -> Array:
    del law
    return sample


Rule = Exact | Aligned
# What each mode of CSpD compares.
RULES = {
  "exact": Exact(),
  "surrogate": Aligned(),
  "official": Aligned(inverse=True, inner=42.0, blank=True),
}


def uniform(keys: Array) -> Array:
  """f32[N] in [0, 1), of keys Key[N]."""
  return jax.vmap(jax.random.uniform)(keys)


def normal(keys: Array, shape: tuple[int, ...]) -> Array:
  """f32[N, *shape], of keys Key[N]."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


class Redrawn(NamedTuple):
  """What `residual` returns.

  Attributes:
    unit: f32[N, C].
    proposals: i32[N], how many each row took; 0 of rows that asked for none.
    capped: bool[N], rows in which none of them stood.
  """

  unit: Array
  proposals: Array
  capped: Array


def residual(
  rule: Rule,
  q: Density,
  p: Density,
  known: Any,
  seen: Any,
  asked: Array,
  keys: Array,
  most: int = 64,
) -> Redrawn:
  """Draws from the residual of rejected drafts, by rejection.

  Args:
    rule, q, p, known, seen: as in `rule.stands`, of N rows.
    asked: bool[N], the rows that want one.
    keys: Key[N], which nothing else has used.
    most: proposals of a row at most. Where none stands the last one is taken,
      which is a plain draw of p.
  """

  def propose(tries):
    own = fold(keys, tries)
    sample = rule.propose(p, seen, own)
    chance = rule.stands(q, p, sample, known, seen)
    stands = uniform(fold(own, jnp.uint32(place_keys.ACCEPT))) < chance
    return rule.unit(p, sample), stands

  def body(state):
    tries, unit, count, done = state
    new, stands = propose(tries)
    unit = jnp.where(done[:, None], unit, new)
    return tries + 1, unit, count + ~done, done | stands

  on = lambda state: (state[0] < most) & ~jnp.all(state[3])
  shape = jax.eval_shape(lambda: propose(0)[0])
  unit = jnp.zeros(shape.shape, shape.dtype)
  start = jnp.int32(0), unit, jnp.zeros(len(asked), jnp.int32), ~asked
  _, unit, count, done = jax.lax.while_loop(on, body, start)
  if getattr(rule, "blank", False):
    unit = jnp.where(done[:, None], unit, 0.0)
  return Redrawn(unit, count, ~done)


def check_temperature(temperature: float) -> None:
  """Raises a UserError where a law has no density."""
  if not (temperature > 0 and math.isfinite(temperature)):
    raise UserError(
      f"temperature={temperature}: a density is judged, so it must be above 0"
    )
