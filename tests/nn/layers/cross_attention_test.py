"""Attention to a memory, and heads of any width and norm, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.nn.layers.attention import Attention, CosineNorm, HeadNorm
from ar_jax.nn.layers.cross_attention import CrossAttention, NullFeatures
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.vit import vit

B, T, S, D, C, H, HKV, K = 3, 5, 7, 12, 9, 4, 2, 8
PAD = np.arange(S)[None] < np.array([[7], [4], [0]])


def noise(variables, seed=0):
  """Away from the initial values, which hide biases and scales."""
  draw = np.random.default_rng(seed)
  return jax.tree.map(lambda p: p + 0.3 * draw.normal(size=p.shape), variables)


def attend(q, k, v, seen):
  """[B, T, H K] of q [B, T, H, K] and k, v [B, S, Hkv, K], in float64."""
  k, v = (np.repeat(y, q.shape[2] // k.shape[2], 2) for y in (k, v))
  scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
  scores = np.where(seen[:, None], scores, -1e30)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  out = np.einsum("bhts,bshk->bthk", weights, v)
  return out.reshape(*out.shape[:2], -1)


def normed(x, p, kind):
  """One norm over the last axis, by its formula."""
  if kind == "layer":
    x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  return x if p is None else x * p["scale"] + p.get("bias", 0)


class CrossAttentionTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.layer = CrossAttention(D, H, HKV, K, norm=HeadNorm(), bias="qv")
    draw = np.random.default_rng(1)
    cls.x, cls.m = draw.normal(size=(B, T, D)), draw.normal(size=(B, S, C))
    call = lambda layer, x, m, seen: layer(x, layer.remember(m), seen)
    init = jax.jit(
      lambda key: cls.layer.init(key, cls.x, cls.m, None, method=call)
    )
    cls.variables = noise(init(jax.random.key(0)))
    cls.call = staticmethod(
      jax.jit(lambda v, x, m, s: cls.layer.apply(v, x, m, s, method=call))
    )

  def reference(self, seen):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), self.variables)
    p = p["params"]
    q = self.x @ p["query"]["kernel"] + p["bias_q"]
    k, v = np.split(self.m @ p["key_value"]["kernel"], 2, -1)
    v = v + p["bias_v"]
    heads = lambda y: y.reshape(*y.shape[:2], -1, K)
    q = normed(heads(q), p["norm"]["q"], "rms")
    k = normed(heads(k), p["norm"]["k"], "rms")
    out = attend(q, k, heads(v), seen)
    return out @ p["out"]["kernel"] + p["out"]["bias"]

  def test_padding(self):
    got = self.call(self.variables, self.x, self.m, PAD)
    want = self.reference(np.broadcast_to(PAD[:, None], (B, T, S)))
    np.testing.assert_allclose(got[:2], want[:2], atol=1e-5)
    # Nothing is seen: nothing is added, not even a bias.
    np.testing.assert_array_equal(got[2], 0)
    whole = self.call(self.variables, self.x, self.m, None)
    want = self.reference(np.ones((B, T, S), bool))
    np.testing.assert_allclose(whole, want, atol=1e-5)

  def test_rows_by_position(self):
    seen = np.random.default_rng(2).random((1, T, S)) < 0.5
    seen[:, 0], seen[:, 1] = False, True
    got = self.call(self.variables, self.x, self.m, seen)
    want = self.reference(np.broadcast_to(seen, (B, T, S)))
    np.testing.assert_allclose(got[:, 1:], want[:, 1:], atol=1e-5)
    np.testing.assert_array_equal(got[:, 0], 0)

  def test_gradients(self):
    value = lambda m: (
      self.call(self.variables, self.x, m, jnp.asarray(PAD)) ** 2
    ).sum()
    grad = np.asarray(jax.jit(jax.grad(value))(self.m))
    self.assertTrue(np.isfinite(grad).all())
    np.testing.assert_array_equal(np.abs(grad).sum(-1) > 0, PAD)

  def test_a_learned_null(self):
    hidden, given = jnp.array([False, True, False]), jnp.ones((B, S, C))
    for length in (1, S + 2):
      layer = NullFeatures(length)
      null = jnp.tile(jnp.arange(1.0, 1 + length)[:, None], (1, C))
      variables = {"params": {"null": null}}
      out = layer.apply(variables, given, hidden)
      np.testing.assert_array_equal(out[::2], given[::2])
      want = np.arange(1, S + 1) if length > 1 else np.ones(S)
      np.testing.assert_array_equal(out[1, :, 0], want)
      np.testing.assert_array_equal(layer.apply(variables, given), given)


class HeadsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("rms", True, False),
    ("rms", True, True),
    ("layer", True, False),
    ("layer", False, False),
  )
  def test_self_attention_of_few_wide_heads(self, kind, affine, per_head):
    norm = HeadNorm(kind, affine, per_head)
    layer = Attention(H, HKV, K, norm=norm, bias="qkv", out_bias=False)
    x = np.random.default_rng(1).normal(size=(B, T, D))
    init = jax.jit(layer.init)(jax.random.key(0), x)
    variables = noise(init)
    seen = np.tril(np.ones((B, T, T), bool))
    got, _ = jax.jit(layer.apply)(variables, x, jnp.asarray(seen)[:, None])
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    biases = [p[f"bias_{n}"] for n in "qkv"]
    qkv = x @ p["qkv"]["kernel"] + np.concatenate(biases)
    q, k, v = np.split(qkv.reshape(B, T, -1, K), [H, H + HKV], 2)
    own = p.get("norm", {"q": None, "k": None})
    if affine:
      shape = (H, K) if per_head else (K,)
      self.assertEqual(own["q"]["scale"].shape, shape)
    q, k = normed(q, own["q"], kind), normed(k, own["k"], kind)
    want = attend(q, k, v, seen) @ p["out"]["kernel"]
    np.testing.assert_allclose(got, want, atol=1e-5)
    # With a cache of as many heads and features.
    bound, outs = layer.bind(variables), []
    cache = layer.empty(1, B, T, D, jnp.float32)
    self.assertEqual(cache.k.shape, (1, B, HKV, T, K))
    for at in (slice(0, 3), slice(3, 4), slice(4, 5)):
      new = x[:, at]
      out, cache = bound(new, cache.causal(new.shape[1]), cache=cache)
      cache = cache.advance(new.shape[1])
      outs.append(out)
    np.testing.assert_allclose(jnp.concatenate(outs, 1), got, atol=1e-5)

  def test_a_cosine_norm_in_two_calls(self):
    norm = CosineNorm(H)
    variables = {"params": {"log_scale": jnp.arange(H) / 3.0}}
    x = jax.random.normal(jax.random.key(0), (B, T, H, K))
    q, k = norm.apply(variables, x, x)
    alone = norm.apply(variables, x, method="query")
    np.testing.assert_array_equal(q, alone)
    np.testing.assert_array_equal(k, norm.apply(variables, x, method="key"))

  def test_makers_refuse_what_does_not_fit(self):
    with self.assertRaisesRegex(UserError, "width=12.*heads=5; features"):
      llama(1, 12, 5)
    with self.assertRaisesRegex(UserError, "heads=4.*kv_heads=3"):
      llama(1, 12, 4, kv_heads=3)
    x = jnp.zeros((1, 2, 12))
    init = lambda net: jax.eval_shape(net.init, jax.random.key(0), x)
    with self.assertRaisesRegex(UserError, "head_norm='rme': choose one of"):
      init(llama(1, 12, 5, features=4, head_norm="rme"))
    with self.assertRaisesRegex(UserError, "act='relo': choose one of gelu"):
      init(vit(1, 12, 4, act="relo"))
    with self.assertRaisesRegex(UserError, "order='past': choose one of pre"):
      init(vit(1, 12, 4, order="past"))


if __name__ == "__main__":
  absltest.main()
