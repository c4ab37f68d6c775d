"""Decoders that look at features: cached = uncached, who sees whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.families.seq2seq import decoders
from ar_jax.nn.stacks.vit import vit

WIDTH, VOCAB, LENGTH = 16, 5, 6


@functools.cache
def given(kind, order="pre"):
  """(decoder, its variables, features, which are seen)."""
  stack = vit(2, WIDTH, 2, cross=True, order=order, act="relu", dropout=0.0)
  if kind == "causal":
    own = decoders.Causal(stack, WIDTH, VOCAB, LENGTH)
    x = jnp.zeros((1, LENGTH), jnp.int32)
  else:
    own = decoders.Parallel(stack, VOCAB)
    x = jnp.zeros((1, LENGTH, WIDTH))
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(2, 7, 12)).astype(np.float32))
  seen = jnp.arange(7)[None] < jnp.array([7, 4])[:, None]
  make = lambda net, x: net(x, net.remember(features[:1]))
  shapes = jax.eval_shape(
    lambda key: own.init(key, x, method=make), jax.random.key(0)
  )
  fill = lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype)
  return own, jax.tree.map(fill, shapes), features, seen


class CausalTest(absltest.TestCase):
  def test_cached_steps_are_the_training_pass(self):
    own, variables, features, seen = given("causal")

    @jax.jit
    def both(variables):
      net = own.bind(variables)
      memory = net.remember(features, seen)
      keys = jax.random.split(jax.random.key(0))
      drawn = decoders.draw(net, memory, keys, stop=None, temperature=0.0)
      return drawn, net(drawn.units, memory)

    drawn, logits = both(variables)
    np.testing.assert_array_equal(drawn.units, jnp.argmax(logits, -1))
    np.testing.assert_array_equal(drawn.count, [LENGTH] * 2)
    self.assertGreater(len(np.unique(drawn.units)), 1)

  def test_a_symbol_sees_those_before_it(self):
    own, variables, features, seen = given("causal")

    @jax.jit
    def logits(ids):
      net = own.bind(variables)
      return net(ids, net.remember(features, seen))

    ids = jnp.array([[1, 2, 3, 4, 0, 1], [2, 2, 1, 3, 0, 4]])
    change = np.abs(logits(ids) - logits(ids.at[:, 2].set(0)))
    np.testing.assert_array_equal(change[:, :3], 0)
    self.assertGreater(change[:, 3:].max((0, 2)).min(), 0)


class ParallelTest(absltest.TestCase):
  def test_all_places_see_each_other_and_no_padding(self):
    own, variables, features, seen = given("parallel", "post")
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, LENGTH, WIDTH)), jnp.float32)
    there = jnp.arange(LENGTH)[None] < jnp.array([6, 4])[:, None]

    @jax.jit
    def logits(x, features):
      net = own.bind(variables)
      return net(x, net.remember(features, seen), there)

    before = logits(x, features)
    last = np.abs(logits(x.at[:, -1].add(1.0), features) - before)
    self.assertGreater(last[0, 0].max(), 1e-3)
    np.testing.assert_array_equal(last[1, :4], 0)
    other = features.at[1, 4:].add(1.0)
    np.testing.assert_array_equal(logits(x, other)[:, :4], before[:, :4])


class SinusoidsTest(absltest.TestCase):
  def test_angles(self):
    found = decoders.sinusoids(np.array([0, 3]), 6)
    rates = np.array([1.0, 1e-2, 1e-4])
    want = np.concatenate([np.sin(3 * rates), np.cos(3 * rates)])
    np.testing.assert_allclose(found[1], want, rtol=1e-6)
    np.testing.assert_array_equal(found[0], [0, 0, 0, 1, 1, 1])


if __name__ == "__main__":
  absltest.main()
