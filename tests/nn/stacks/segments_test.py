"""A stack in parts is the stack."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.nn.layers.norms import Identity
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
    cls.variables = cls.whole.init(jax.random.key(1), cls.x, cls.mask)
    params = cls.variables["params"]
    cut = lambda at: {"block": jax.tree.map(lambda p: p[at], params["block"])}
    last = {**cut(slice(2, None)), "out_norm": params["out_norm"]}
    cls.own = {"params": {"parts_0": cut(slice(2)), "parts_1": last}}
    cls.expected, _ = cls.whole.apply(cls.variables, cls.x, cls.mask)

  def test_parts_make_up_the_whole(self):
    out, cache = self.net.apply(self.own, self.x, self.mask)
    np.testing.assert_allclose(out, self.expected, atol=1e-5)
    self.assertIsNone(cache)

  def test_cached_is_uncached(self):
    bound = self.net.bind(self.own)
    cache, outs = bound.cache(B, T, D), []
    for at in (slice(0, 4), slice(4, 5), slice(5, 6)):
      x = self.x[:, at]
      mask = cache.causal(x.shape[1])
      out, cache = bound(x, mask, cache=cache)
      outs.append(out)
    out = jnp.concatenate(outs, axis=1)
    np.testing.assert_allclose(out, self.expected, atol=1e-5)
    self.assertEqual(cache.index, T)
    self.assertIsNone(self.net.clone(cached=False).cache(B, T, D))

  def test_between_reads_and_changes(self):
    shown = {}

    def between(i, x):
      shown[i] = x
      return x + 1.0 if i else x

    out, _ = self.net.apply(self.own, self.x, self.mask, between=between)
    first, last = self.net.parts
    own = self.own["params"]
    h, _ = first.apply({"params": own["parts_0"]}, self.x, self.mask)
    np.testing.assert_allclose(shown[1], h, atol=1e-6)
    h, _ = last.apply({"params": own["parts_1"]}, h + 1.0, self.mask)
    np.testing.assert_allclose(out, h, atol=1e-6)


if __name__ == "__main__":
  absltest.main()
