"""Attention against JAX's own, with every kind of mask and cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import ops
from ar_jax.core.plans import makers, plan
from ar_jax.core.system import UserError
from ar_jax.nn.layers.cache import Cache


@functools.partial(jax.jit, static_argnums=range(4))
def qkv(length, heads=4, kv_heads=4, features=8):
  keys = jax.random.split(jax.random.key(0), 3)
  sizes = (heads, kv_heads, kv_heads)
  return [
    jax.random.normal(key, (2, length, n, features))
    for key, n in zip(keys, sizes, strict=True)
  ]


class AttentionTest(parameterized.TestCase):
  @parameterized.parameters(4, 2, 1)
  def test_equals_jax(self, kv_heads):
    q, k, v = qkv(12, kv_heads=kv_heads)
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (2, 1, 12, 12))
    mask = mask | jnp.eye(12, dtype=bool)[None, None]
    attention = jax.jit(functools.partial(ops.attention, scale=0.3))
    for m in (None, mask, mask[:1]):
      want = jax.nn.dot_product_attention(q, k, v, mask=m, scale=0.3)
      got = attention(q, k, v, m)
      np.testing.assert_allclose(got, want, atol=1e-5)

  @parameterized.parameters(
    makers.scales((1, 2, 3, 4, 5, 6)),
    makers.scales((1, 2, 3, 4, 5, 6), plan.within),
    makers.raster(9, 9),
    makers.blocks(130, 4),
    makers.blocks(5, 5),
  )
  def test_a_plan_equals_its_mask(self, p):
    args = qkv(len(p))
    mask = jnp.asarray(p.mask())[None, None]

    @jax.jit
    def value_and_gradients(*args):
      out, back = jax.vjp(lambda *x: ops.attention(*x, p), *args)
      want, want_back = jax.vjp(lambda *x: ops.attention(*x, mask), *args)
      return (out, *back(out)), (want, *want_back(out))

    for got, want in zip(*value_and_gradients(*args), strict=True):
      np.testing.assert_allclose(got, want, atol=1e-5)

  def test_bfloat16_has_a_float32_softmax(self):
    q, k, v = (x.astype(jnp.bfloat16) for x in qkv(64))
    exact = ops.attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    got = ops.attention(q, k, v)
    self.assertEqual(got.dtype, jnp.bfloat16)
    np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=1e-2)

  def test_implementations(self):
    args = qkv(4)
    np.testing.assert_array_equal(
      ops.attention(*args), ops.attention(*args, impl="xla")
    )
    with self.assertRaisesRegex(NotImplementedError, "no kernel for cpu"):
      ops.attention(*args, impl="pallas")
    mask = jnp.ones((1, 1, 4, 4), bool)
    with self.assertRaisesRegex(NotImplementedError, "a Plan or None as mask"):
      ops.attention(*args, mask, impl="pallas_tpu")
    with self.assertRaises(UserError):
      ops.attention(*args, impl="cudnn")
    with self.assertRaisesRegex(NotImplementedError, "TF32"):
      ops.attention(*args, makers.raster(2, 2), impl="pallas_gpu")

  def test_says_once_which_form_it_took(self):
    args = qkv(4)
    ops._tell.cache_clear()
    with self.assertLogs("absl", level="INFO") as logs:
      for _ in range(2):
        ops.attention(*args, makers.raster(2, 2))
    self.assertLen([x for x in logs.output if "on cpu: xla" in x], 1)


class CacheTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.cache = Cache(*jnp.zeros((2, 3, 2, 4, 10, 8)))
    self.k = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))

  def test_static_index_reads_the_filled_rows_only(self):
    cache = self.cache.advance(3)
    self.assertIsNone(cache.mask(4))
    k, _, cache = cache.extend(1, self.k, self.k)
    self.assertEqual(k.shape, (2, 7, 4, 8))
    np.testing.assert_array_equal(k[:, 3:], self.k)
    stored = jnp.swapaxes(cache.k[1, :, :, 3:7], 1, 2)
    np.testing.assert_array_equal(stored, self.k)
    self.assertEqual(float(jnp.abs(cache.k[::2]).sum()), 0)
    self.assertEqual(jax.jit(lambda c: c.advance(4))(cache).index, 7)
    with self.assertRaisesRegex(UserError, "10 rows cannot hold 11"):
      cache.advance(4).extend(0, self.k, self.k)

  def test_traced_index_masks_the_rest(self):
    cache = Cache(self.cache.k, self.cache.v, jnp.array(3))
    np.testing.assert_array_equal(cache.mask(4)[0, 0, 0], np.arange(10) < 7)
    k, _, cache = cache.extend(2, self.k, self.k)
    self.assertEqual(k.shape, (2, 10, 4, 8))
    np.testing.assert_array_equal(k[:, 3:7], self.k)

  def test_ragged_rows_lie_behind_each_other(self):
    cache = Cache(self.cache.k, self.cache.v, jnp.array([1, 8]))
    k, _, cache = cache.extend(0, self.k, self.k)
    np.testing.assert_array_equal(k[0, 1:5], self.k[0])
    # What does not fit is dropped; nothing else is overwritten.
    np.testing.assert_array_equal(k[1, 8:], self.k[1, :2])
    self.assertEqual(
      float(jnp.abs(k[0, 5:]).sum() + jnp.abs(k[1, :8]).sum()), 0
    )
    seen = cache.mask(4)[:, 0, 0]
    np.testing.assert_array_equal(seen.sum(1), [5, 10])
    self.assertEqual(cache.advance(4).index.tolist(), [5, 12])

  def test_new_positions_see_those_before_them(self):
    for index in (3, jnp.array(3), jnp.array([3, 3])):
      seen = Cache(self.cache.k, self.cache.v, index).causal(2)[-1, 0]
      np.testing.assert_array_equal(seen.sum(1), [4, 5])
      self.assertTrue(bool(seen[0, :4].all()))

  def test_separate_buffers_hold_the_same(self):
    for index in (2, jnp.array(2), jnp.array([2, 5])):
      cache = Cache(self.cache.k, self.cache.v, index)
      k, v, after = cache.extend(1, self.k, -self.k)
      k2, v2, unstacked = cache.unstacked().extend(1, self.k, -self.k)
      np.testing.assert_array_equal(k, k2)
      np.testing.assert_array_equal(v, v2)
      np.testing.assert_array_equal(after.k, jnp.stack(unstacked.k))
    half = cache.unstacked().rows(slice(None, None, 2))
    self.assertEqual(half.k[0].shape, (1, 4, 10, 8))
    self.assertEqual(cache.rows(slice(None, None, 2)).k.shape, (3, 1, 4, 10, 8))


if __name__ == "__main__":
  absltest.main()
