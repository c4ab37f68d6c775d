"""Jacobi decoding of steps of many units: the law, the edit, the counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import ops
from ar_jax.core.decoding import jacobi, pick, place_keys
from ar_jax.core.decoding.editing import Edit
from ar_jax.core.plans.plan import plan
from tests import laws, optimised

V, PLAN = 3, plan((1, 2, 1))
L, N = len(PLAN), 40_000
LEVEL = PLAN.step_of()
# One row for each unit and each prefix, numbered in base V + 1.
WEIGHTS = (V + 1) ** np.arange(L)
TABLE = 1.5 * jax.random.normal(jax.random.key(0), (L, (V + 1) ** L, V))
KEYS = jax.random.split(jax.random.key(7), 6)


def rows(units):
  """The rows of TABLE, [..., L], of units [..., L]."""
  before = LEVEL[:, None] > LEVEL[None]  # a step does not see itself
  return (units + 1) @ (before * WEIGHTS[None]).T


def score(units):
  return TABLE[jnp.arange(L)[None], rows(units)]


def exact():
  """f64[V^L], the probability of every sequence."""
  every = laws.sequences(V, L)
  logp = np.asarray(jax.nn.log_softmax(TABLE), np.float64)
  own = logp[np.arange(L)[None], rows(every), every]
  return np.exp(own.sum(1))


def no_residual(logits, drafts, noise, **kwargs):
  """A verifier that draws what follows a rejection from the law itself."""
  verdict = ops.verify(logits, drafts, noise, **kwargs)
  cumulative = jnp.cumsum(jax.nn.softmax(logits[:, 0, 0]), -1)
  token = jnp.sum(cumulative <= noise[:, -1:], -1)
  return verdict._replace(token=jnp.minimum(token, V - 1))


@functools.cache
def drawn(verify=ops.verify):
  keys = jax.random.split(jax.random.key(1), N)
  run = optimised.jit(lambda keys: jacobi.decode(score, verify, PLAN, keys))
  return run(keys)


def p_value(units):
  return laws.chi_square(units, exact(), V)


class JacobiTest(absltest.TestCase):
  def test_law(self):
    units, took = drawn()
    self.assertGreater(p_value(units), 1e-4)
    self.assertGreaterEqual(took.forwards.min(), 2)
    self.assertLessEqual(took.forwards.max(), PLAN.steps + 1)
    # Every unit behind the first step is judged once.
    np.testing.assert_array_equal(took.trials, L - 1)
    rate = float(jnp.sum(took.chance) / jnp.sum(took.trials))
    self.assertLess(abs(rate - np.mean(took.accepted) / (L - 1)), 0.01)

  def test_without_the_residual_the_law_is_another(self):
    self.assertLess(p_value(drawn(no_residual)[0]), 1e-6)

  def test_drafts_of_a_law_without_context_always_stand(self):
    logits = jax.random.normal(jax.random.key(2), (1, L, V))
    wide = lambda units: jnp.broadcast_to(logits, (len(units), L, V))
    run = jax.jit(lambda keys: jacobi.decode(wide, ops.verify, PLAN, keys))
    units, took = run(KEYS)
    np.testing.assert_array_equal(took.forwards, 2)
    place = jnp.broadcast_to(jnp.arange(L), (6, L))
    plain = place_keys.draw_at(pick.law(wide(units)), KEYS, place)
    np.testing.assert_array_equal(units, plain)

  def test_known_units_stay(self):
    given = jax.random.randint(jax.random.key(3), (6, L), 0, V)
    keep = jnp.arange(L)[None] % 2 == jnp.arange(6)[:, None] % 2
    edit = Edit(given, keep)

    @jax.jit
    def run(keys):
      return jacobi.decode(score, ops.verify, PLAN, keys, edit=edit)

    units, took = run(KEYS)
    given, keep = np.asarray(given), np.asarray(keep)
    np.testing.assert_array_equal(np.asarray(units)[keep], given[keep])
    asked = (~keep & (LEVEL > 0)[None]).sum(1)
    np.testing.assert_array_equal(took.trials, asked)


if __name__ == "__main__":
  absltest.main()
