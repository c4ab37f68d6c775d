"""A stack in parts is the stack."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.dit import dit
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.segments import Segments

B, T, D = 2, 6, 16


class SegmentsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    sizes = dict(width=D, heads=2, multiple_of=16, dropout=0.0)
    cls.whole = llama(3, **sizes)
    parts = llama(2, out_norm=Identity(), **sizes), llama(1, **sizes)
    cls.net = Segments(parts)
    cls.x = jax.random.normal(jax.random.key(0), (B, T, D))
    cls.mask = jnp.tril(jnp.ones((T, T), bool))[None, None]
    init = jax.jit(cls.whole.init_with_output)
    (cls.expected, _), cls.variables = init(jax.random.key(1), cls.x, cls.mask)
    params = cls.variables["params"]
    cut = lambda at: {"block": jax.tree.map(lambda p: p[at], params["block"])}
    last = {**cut(slice(2, None)), "out_norm": params["out_norm"]}
    cls.own = {"params": {"parts_0": cut(slice(2)), "parts_1": last}}

  def test_parts_make_up_the_whole(self):
    out, cache = jax.jit(self.net.apply)(self.own, self.x, self.mask)
    np.testing.assert_allclose(out, self.expected, atol=1e-5)
    self.assertIsNone(cache)

  def test_cached_is_uncached(self):

    @jax.jit
    def run(own):
      bound = self.net.bind(own)
      cache, outs = bound.cache(B, T, D), []
      for at in (slice(0, 4), slice(4, 5), slice(5, 6)):
        x = self.x[:, at]
        mask = cache.causal(x.shape[1])
        out, cache = bound(x, mask, cache=cache)
        outs.append(out)
      self.assertEqual(cache.index, T)
      return jnp.concatenate(outs, axis=1)

    np.testing.assert_allclose(run(self.own), self.expected, atol=1e-5)
    self.assertIsNone(self.net.clone(cached=False).cache(B, T, D))

  def test_between_reads_and_changes(self):

    @jax.jit
    def every(own):
      shown = {}

      def between(i, x):
        shown[i] = x
        return x + 1.0 if i else x

      out, _ = self.net.apply(own, self.x, self.mask, between=between)
      first, last = self.net.parts
      of = lambda i: {"params": own["params"][f"parts_{i}"]}
      h, _ = first.apply(of(0), self.x, self.mask)
      want, _ = last.apply(of(1), h + 1.0, self.mask)
      return shown[1], h, out, want

    shown, h, out, want = every(self.own)
    np.testing.assert_allclose(shown, h, atol=1e-6)
    np.testing.assert_allclose(out, want, atol=1e-6)

  def test_what_is_added_between_is_added_at_every_step(self):
    bound, taps = self.net.bind(self.own), []
    control = jax.random.normal(jax.random.key(2), (B, T, D))

    def adding(at):
      def between(i, x):
        taps.append(x)
        return x + control[:, at] if i == 1 else x

      return between

    want, _ = bound(self.x, self.mask, between=adding(slice(None)))
    self.assertGreater(float(jnp.abs(want - self.expected).max()), 0.1)
    shown, taps = taps[1], []
    cache, outs = bound.cache(B, T, D), []
    for at in (slice(0, 4), slice(4, 5), slice(5, 6)):
      x = self.x[:, at]
      mask = cache.causal(x.shape[1])
      out, cache = bound(x, mask, cache=cache, between=adding(at))
      outs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), want, atol=1e-5)
    np.testing.assert_allclose(jnp.concatenate(taps[1::2], 1), shown, atol=1e-5)

  def test_a_joint_cache_is_the_single_one(self):
    own, whole = self.net.bind(self.own), self.whole.bind(self.variables)
    index = jnp.array([1, 3])
    sees = jnp.array([[[1, 0, 0], [1, 1, 0], [1, 0, 1]]] * 2, bool)
    for unstacked in (False, True):
      caches = [net.cache(B, T + 2, D) for net in (own, whole)]
      if unstacked:
        caches = [c.unstacked() for c in caches]
      self.assertEqual([c.size for c in caches], [T + 2] * 2)
      self.assertEqual([c.is_unstacked for c in caches], [unstacked] * 2)
      outs = []
      for net, cache in zip((own, whole), caches, strict=True):
        _, cache = net(self.x[:, :3], cache.causal(3), cache=cache)
        cache = dataclasses.replace(cache, index=index)
        # A tree of three, of which the first and the third stand.
        tree, new = cache.tree(sees), self.x[:, 3:]
        h, cache = net(new, tree, cache=cache)
        cache = cache.compact(index, jnp.array([[0, 2], [0, 2]]))
        cache = dataclasses.replace(cache, index=index + 2)
        half = dataclasses.replace(
          cache.rows(slice(1, None)), index=jnp.int32(5)
        )
        g, half = net(self.x[1:, :1], half.mask(1), cache=half)
        # What a loop carries must not change its type.
        same = jax.tree.structure(half) == jax.tree.structure(
          dataclasses.replace(cache, index=jnp.int32(0))
        )
        self.assertTrue(same)
        outs.append((h, g, half.index, cache.causal(2), cache.mask(1)))
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *outs
      )

  def test_modulated_layers_over_scales(self):
    plan = makers.scales((1, 2))
    make = functools.partial(dit, width=D, heads=2, dropout=0.0)
    net = Segments((make(1).clone(out_norm=Identity()), make(1)))
    x, cond = self.x[:, : len(plan)], self.x[:, -1]
    whole = lambda net, x: net(x, plan, cond=net.condition(cond))[0]

    @jax.jit
    def both(key):
      want, variables = net.init_with_output(key, x, method=whole)
      bound, outs = net.bind(variables), []
      cache, mod = bound.cache(B, len(plan), D), bound.condition(cond)
      for s in range(plan.steps):
        out, cache = bound(x[:, plan.span(s)], cond=mod, cache=cache)
        outs.append(out)
      # Nothing but filled rows was read: the index is no data.
      self.assertIsInstance(cache.index, int)
      return jnp.concatenate(outs, 1), want

    np.testing.assert_allclose(*both(jax.random.key(0)), atol=1e-5)


if __name__ == "__main__":
  absltest.main()
