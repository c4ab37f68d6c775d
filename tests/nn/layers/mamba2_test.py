"""Mamba-2 against its recurrence, position by position in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.nn.layers import mamba2
from ar_jax.nn.layers.mamba2 import Mamba2

B, H, P, K = 2, 3, 4, 5


def inputs(length):
  draw = np.random.default_rng(length)
  return dict(
    x=draw.normal(size=(B, length, H, P)),
    delta=np.exp(draw.uniform(np.log(1e-3), np.log(0.1), (B, length, H))),
    a=-draw.uniform(1, 16, size=H),
    b=draw.normal(size=(B, length, K)),
    c=draw.normal(size=(B, length, K)),
    state=draw.normal(size=(B, H, P, K)),
  )


def sequential(x, delta, a, b, c, state):
  """The definition."""
  out = []
  for t in range(x.shape[1]):
    decay = np.exp(delta[:, t] * a)[..., None, None]
    new = np.einsum("bhp,bk->bhpk", delta[:, t, :, None] * x[:, t], b[:, t])
    state = decay * state + new
    out.append(np.einsum("bhpk,bk->bhp", state, c[:, t]))
  return np.stack(out, 1), state


def layer(params, x):
  """The whole layer in float64, a channel and a position at a time."""
  p = jax.tree.map(lambda y: np.asarray(y, np.float64), params)
  silu = lambda y: y / (1 + np.exp(-y))
  width, heads = x.shape[-1], len(p["skip"])
  inner = 2 * width
  z = x @ p["in"]["kernel"]
  gate, mixed, delta = z[..., :inner], z[..., inner:-heads], z[..., -heads:]
  window = np.pad(mixed, ((0, 0), (3, 0), (0, 0)))
  mixed = np.stack(
    [
      (window[:, t : t + 4] * p["conv_kernel"]).sum(1) + p["conv_bias"]
      for t in range(x.shape[1])
    ],
    1,
  )
  mixed = silu(mixed)
  states = (mixed.shape[-1] - inner) // 2
  u = mixed[..., :inner].reshape(*x.shape[:2], heads, -1)
  b, c = mixed[..., inner:-states], mixed[..., -states:]
  delta = np.log1p(np.exp(delta + p["bias"]))
  begin = np.zeros((len(x), heads, inner // heads, states))
  y, _ = sequential(u, delta, -np.exp(p["log_a"]), b, c, begin)
  y = (y + p["skip"][:, None] * u).reshape(gate.shape) * silu(gate)
  y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
  return y @ p["out"]["kernel"]


class ScanTest(parameterized.TestCase):
  # One chunk is the quadratic form, chunks of one are the recurrence.
  @parameterized.parameters((85, 85), (85, 16), (85, 1), (680, 64), (680, 256))
  def test_equals_the_recurrence(self, length, chunk):
    given = inputs(length)
    args = {k: jnp.asarray(v, jnp.float32) for k, v in given.items()}
    y, state = jax.jit(functools.partial(mamba2.scan, chunk=chunk))(**args)
    want, last = sequential(**given)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state, last, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(21, 8)
  def test_no_state_is_zeros(self, chunk):
    args = {k: jnp.asarray(v, jnp.float32) for k, v in inputs(21).items()}
    state = jnp.zeros_like(args.pop("state"))
    run = jax.jit(functools.partial(mamba2.scan, chunk=chunk))
    for got, want in zip(run(**args), run(**args, state=state), strict=True):
      np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


class Mamba2Test(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.net = Mamba2(features=8, states=4, chunk=8, stddev=0.3)
    cls.x = jax.random.normal(jax.random.key(0), (2, 21, 16))
    shapes = jax.eval_shape(cls.net.init, jax.random.key(0), cls.x)["params"]
    draw = np.random.default_rng(0)
    cls.params = jax.tree.map(
      lambda s: jnp.asarray(0.5 * draw.normal(size=s.shape), jnp.float32),
      shapes,
    )
    cls.call = staticmethod(
      jax.jit(
        lambda p, x, cache=None: cls.net.apply({"params": p}, x, cache=cache)
      )
    )
    cls.whole, _ = cls.call(cls.params, cls.x)

  def test_equals_the_definition(self):
    want = layer(self.params, np.asarray(self.x, np.float64))
    np.testing.assert_allclose(self.whole, want, rtol=1e-4, atol=1e-5)

  def test_parts_equal_the_whole(self):
    """With states, of the second of three layers."""
    cache, out = self.net.empty(3, 2, 16), []
    self.assertEqual(cache.state.shape, (3, 2, 4, 8, 4))
    self.assertEqual(cache.tail.shape, (3, 2, 3, 40))
    part = jax.jit(
      lambda p, x, cache: self.net.apply({"params": p}, x, cache=cache, layer=1)
    )
    for x in jnp.split(self.x, (1, 5), axis=1):
      y, cache = part(self.params, x, cache)
      out.append(y)
    np.testing.assert_allclose(
      np.concatenate(out, 1), self.whole, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(cache.state[0], 0)
    self.assertGreater(np.abs(cache.state[1]).max(), 0)

  def test_is_causal(self):
    after, _ = self.call(self.params, self.x.at[:, 9].add(1))
    moved = np.asarray(after != self.whole).any((0, 2))
    np.testing.assert_array_equal(moved, np.arange(21) >= 9)

  def test_published_initial_values(self):
    big = mamba2._log_a(jax.random.key(0), (4000,))
    self.assertBetween(float(big.min()), 0, 0.05)
    self.assertBetween(float(big.max()), 2.7, np.log(16))
    start = np.log1p(np.exp(mamba2._bias(jax.random.key(0), (4000,))))
    self.assertBetween(start.min(), 9.9e-4, 1.1e-3)
    self.assertBetween(start.max(), 0.09, 0.101)
    self.assertAlmostEqual(np.median(start), 0.01, delta=1e-3)


if __name__ == "__main__":
  absltest.main()
