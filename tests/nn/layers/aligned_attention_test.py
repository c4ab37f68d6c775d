"""A source at the size of each map: closed forms, and its cache."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers
from ar_jax.core.signals.resize import matrix
from ar_jax.nn.layers.aligned_attention import AlignedAttention
from ar_jax.nn.layers.attention import Attention

SHAPES = ((1, 1), (2, 2), (3, 3), (4, 4))
COUNT, LENGTH, HEADS, FEATURES = 16, 30, 2, 4
LAYER = AlignedAttention(HEADS, source=(4, 4), shapes=SHAPES)
STARTS = np.cumsum([0, *(h * w for h, w in SHAPES)])


def rows(seed, constant=False):
  """q, k, v [2, N + L, H, K]; of a source that is the same everywhere."""
  rng = np.random.default_rng(seed)
  found = rng.normal(size=(3, 2, COUNT + LENGTH, HEADS, FEATURES))
  if constant:
    found[:, :, :COUNT] = found[:, :, :1]
  return found.astype(np.float32)


def attention(q, k, v, bias):
  """Plain attention in float64; bias [S] is added to the scores."""
  q, k, v = (np.float64(x) for x in (q, k, v))
  scores = np.einsum("bqhk,bshk->bhqs", q, k) / np.sqrt(FEATURES) + bias
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum("bhqs,bshk->bqhk", weights, v)


class AlignedAttentionTest(absltest.TestCase):
  def test_a_constant_source_is_one_key_of_all_its_cells(self):
    q, k, v = rows(0, constant=True)
    found = LAYER.attend(q, k, v, None)
    for i, (h, w) in enumerate(SHAPES):
      at = slice(COUNT + STARTS[i], COUNT + STARTS[i + 1])
      stop = COUNT + STARTS[i + 1]
      keys = [np.concatenate([x[:, :1], x[:, COUNT:stop]], 1) for x in (k, v)]
      bias = np.zeros(1 + STARTS[i + 1])
      bias[0] = np.log(h * w)
      want = attention(q[:, at], *keys, bias)
      np.testing.assert_allclose(found[:, at], want, atol=1e-5)

  def test_the_last_map_and_the_source_see_it_as_it_is(self):
    q, k, v = rows(1)
    found = LAYER.attend(q, k, v, None)
    plan = makers.prefixed(makers.scales(SHAPES), COUNT)
    plain = Attention(HEADS).attend(q, k, v, plan)
    last = slice(COUNT + STARTS[-2], None)
    for at in (slice(0, COUNT), last):
      np.testing.assert_allclose(found[:, at], plain[:, at], atol=1e-6)
    apart = np.abs(found - plain).max((0, 2, 3))
    self.assertGreater(apart[COUNT:-COUNT].min(), 1e-3)

  def test_the_middle_map_by_hand(self):
    """Means over areas of 4 / 3 cells, which overlap."""
    q, k, v = rows(2)
    found = LAYER.attend(q, k, v, None)
    at, stop = slice(COUNT + 5, COUNT + 14), COUNT + 14
    keys = []
    for x in (k, v):
      grid = x[:, :COUNT].reshape(2, 4, 4, HEADS, FEATURES)
      cells = [
        grid[:, i : i + 2, j : j + 2].mean((1, 2))
        for i in range(3)
        for j in range(3)
      ]
      pooled = np.stack(cells, 1)
      keys.append(np.concatenate([pooled, x[:, COUNT:stop]], 1))
    want = attention(q[:, at], *keys, 0)
    np.testing.assert_allclose(found[:, at], want, atol=1e-5)

  def test_means(self):
    """Weights sum to 1; a ramp is exact where cells are whole."""
    for side in (12, 20, 24, 40, 48):
      pool = matrix(64, side, "area")
      np.testing.assert_allclose(pool.sum(1), 1, atol=1e-6)
    ramp = np.arange(16, dtype=np.float32)
    x = np.zeros((1, 16, 1, 2), np.float32)
    x[0, :, 0, 0], x[0, :, 0, 1] = ramp // 4, ramp % 4
    found = LAYER.pooled(x, (2, 2))[0, :, 0]
    want = [[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5]]
    np.testing.assert_array_equal(found, want)

  def test_step_by_step_with_a_cache(self):
    """The cache has the source as it is, and no mean of it."""
    width = HEADS * FEATURES
    x = np.random.default_rng(3).normal(size=(2, COUNT + LENGTH, width))
    x = x.astype(np.float32)
    variables = LAYER.init(jax.random.key(0), x[:, :COUNT])
    whole, _ = LAYER.apply(variables, x)
    cache = LAYER.empty(1, 2, COUNT + LENGTH, width, jnp.float32)
    stops, start = [COUNT, *(COUNT + int(n) for n in STARTS[1:])], 0
    for stop in stops:
      out, cache = LAYER.apply(variables, x[:, start:stop], cache=cache)
      cache = cache.advance(stop - start)
      np.testing.assert_allclose(out, whole[:, start:stop], atol=1e-5)
      start = stop
    _, every = LAYER.apply(
      variables, x, cache=LAYER.empty(1, 2, 46, width, jnp.float32)
    )
    np.testing.assert_allclose(cache.k, every.k, atol=1e-6)
    self.assertEqual(cache.size, COUNT + LENGTH)


if __name__ == "__main__":
  absltest.main()
