"""Bits without a codebook: fixtures, round trips, entropies, gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.nn.quantize import bits
from ar_jax.nn.quantize.bits import BSQ, FSQ, LFQ, Bernoulli

RNG = np.random.default_rng(0)


def codes_of(k: int) -> np.ndarray:
  """f32[2^k, k]: all of -1 and 1."""
  return np.array(list(itertools.product((-1.0, 1.0), repeat=k)))


def softmax(x: np.ndarray) -> np.ndarray:
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
  return -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0).sum(-1)


class PackingTest(parameterized.TestCase):
  def test_there_and_back_for_every_split(self):
    given = RNG.integers(0, 2, (3, 5, 24))
    for t in (1, 2, 3, 4, 6, 8, 12, 24):
      packed = bits.pack(jnp.asarray(given), t)
      self.assertEqual(packed.shape, (3, 5, t))
      self.assertLess(int(packed.max()), 2 ** (24 // t))
      np.testing.assert_array_equal(bits.unpack(packed, 24 // t), given)

  def test_the_first_bit_is_the_largest(self):
    given = jnp.array([[1, 0, 0, 1, 1, 0]])
    self.assertEqual(bits.pack(given, 1).tolist(), [[38]])
    self.assertEqual(bits.pack(given, 2).tolist(), [[4, 6]])

  def test_wrong_splits(self):
    with self.assertRaisesRegex(UserError, "8 bits do not fall into 3 codes"):
      bits.pack(jnp.zeros((1, 8)), 3)
    with self.assertRaisesRegex(UserError, "no 32-bit integer"):
      bits.pack(jnp.zeros((1, 36)), 1)


class FSQTest(parameterized.TestCase):
  @parameterized.parameters(
    ((0, 0, 0, 0), (0, 0, 0, 0), 500),
    ((9, 9, 9, 9), (0.75, 1, 1, 1), 999),
    ((-9, -9, -9, -9), (-1, -1, -1, -1), 0),
    ((0.3, -0.4, 1, -2), (0.25, -0.5, 1, -1), 173),
  )
  def test_fixtures(self, z, code, index):
    q = FSQ((8, 5, 5, 5))
    got, losses, found = q(jnp.array([z]))
    np.testing.assert_allclose(got[0], code, atol=1e-6)
    self.assertEqual((found.tolist(), losses), ([index], {}))
    np.testing.assert_array_equal(q.embed(found)[0], code)

  @parameterized.product(
    bound=bits.BOUNDS, levels=((8, 5, 5, 5), (8, 8, 8, 5, 5, 5))
  )
  def test_every_index_is_a_code_of_its_own(self, bound, levels):
    q = FSQ(levels, bound)
    every = jnp.arange(q.vocab)
    codes = np.asarray(q.embed(every))
    self.assertLen(np.unique(codes, axis=0), q.vocab)
    # Latents that are bounded to just these codes come back.
    half = np.asarray(levels) // 2
    strength = (np.asarray(levels) - 1) * (1 + 1e-3) / 2
    if bound == "tan":
      strength = (np.asarray(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(np.asarray(levels) % 2 == 0, 0.5, 0)
    shift = (np.arctanh if bound == "atanh" else np.tan)(offset / strength)
    inside = np.clip((codes * half + offset) / strength, -0.9999, 0.9999)
    z = jnp.asarray(np.arctanh(inside) - shift, jnp.float32)
    np.testing.assert_array_equal(q.encode(z), every)

  def test_the_two_bounds_differ(self):
    z = jnp.asarray(RNG.normal(size=(64, 2)), jnp.float32)
    one, other = (FSQ((8, 8), b).bounded(z) for b in bits.BOUNDS)
    self.assertGreater(float(jnp.abs(one - other).max()), 1e-3)
    want = np.tanh(np.asarray(z) + np.tan(0.5 / 3.4965)) * 3.4965 - 0.5
    np.testing.assert_allclose(other, want, atol=1e-5)

  def test_gradient_is_that_of_the_bounded_latent(self):
    q, z = FSQ((8, 5)), jnp.array([[0.3, -0.4]])
    jacobian = jax.jacobian(lambda z: q(z)[0][0])(z)[:, 0]
    want = jax.jacobian(lambda z: q.bounded(z)[0])(z)[:, 0]
    np.testing.assert_allclose(jacobian, want / np.array([[4], [2]]), rtol=1e-6)

  def test_wrong_values(self):
    with self.assertRaisesRegex(UserError, "bound='sin'"):
      FSQ((8,), "sin")
    with self.assertRaisesRegex(UserError, "at least 2"):
      FSQ((8, 1))


class SignsTest(parameterized.TestCase):
  @parameterized.parameters(LFQ(), BSQ())
  def test_round_trip_and_gradient(self, q):
    z = jnp.asarray(RNG.normal(size=(4, 3, 6)), jnp.float32)
    code, losses, found = q(z)
    np.testing.assert_allclose(q.embed(found), code, atol=1e-6)
    np.testing.assert_array_equal(q.encode(q.embed(found)), found)
    self.assertEqual({x.shape for x in losses.values()}, {(4,)})
    weight = jnp.asarray(RNG.normal(size=z.shape), jnp.float32)
    grad = jax.grad(lambda z: jnp.sum(q(z)[0] * weight))(z)
    if isinstance(q, LFQ):
      np.testing.assert_allclose(grad, weight, rtol=1e-6)
    else:  # Through the projection to the sphere: orthogonal to the latent.
      np.testing.assert_allclose(jnp.sum(grad * z, -1), 0, atol=1e-4)
      self.assertGreater(float(jnp.abs(grad).max()), 0.01)

  def test_zero_is_the_bit_zero(self):
    for q in (LFQ(), BSQ()):
      code, _, found = q(jnp.zeros((1, 4)))
      self.assertEqual(found.tolist(), [[0, 0, 0, 0]])
      self.assertLess(float(code.max()), 0)

  def test_all_codes_of_ten_bits_are_different(self):
    q = LFQ()
    every = bits.unpack(jnp.arange(1024)[:, None], 10)
    self.assertLen(np.unique(np.asarray(q.embed(every)), axis=0), 1024)
    packed = bits.pack(q.encode(q.embed(every)), 1)
    np.testing.assert_array_equal(packed[:, 0], np.arange(1024))

  def test_entropies_of_bsq_by_brute_force(self):
    k, tau = 8, 3.0
    z = RNG.normal(size=(5, 4, k))
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    p = softmax(2 * tau * u @ (codes_of(k) / np.sqrt(k)).T)
    logits = BSQ(tau=tau).logits(jnp.asarray(u))
    soft, own = jax.nn.sigmoid(logits), bits.bit_entropy(logits).sum(-1)
    np.testing.assert_allclose(own, entropy(p), atol=1e-5)
    exact = entropy(p.reshape(-1, 2**k).mean(0))
    bounds = [float(bits.mean_entropy(soft, g)) for g in (8, 4, 2, 1)]
    # 1e-5 stands beside every probability in the logarithm.
    np.testing.assert_allclose(bounds[0], exact, atol=4e-3)
    for finer, coarser in itertools.pairwise(bounds):
      self.assertLessEqual(finer, coarser + 1e-4)
    loss = BSQ(tau=tau, own=0.5, even=2.0, zeta=3.0)(jnp.asarray(z))[1]
    want = 3.0 * (0.5 * entropy(p).mean(1) - 2.0 * bounds[-1]) / tau
    np.testing.assert_allclose(loss["entropy"], want, rtol=1e-4)

  def test_error_of_bsq_is_bounded(self):
    z = RNG.normal(size=(500, 18))
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    error = np.linalg.norm(u - BSQ()(jnp.asarray(z))[0], axis=-1)
    self.assertLess(error.max(), np.sqrt(2))

  def test_losses_of_lfq_by_brute_force(self):
    z = 0.02 * RNG.normal(size=(3, 5, 6))
    p = softmax(2 * z @ codes_of(6).T / 0.01)
    want = entropy(p).mean(1) - entropy(p.reshape(-1, 64).mean(0))
    losses = LFQ()(jnp.asarray(z, jnp.float32))[1]
    np.testing.assert_allclose(losses["entropy"], want, atol=2e-3)
    commit = np.square(z - np.sign(z)).mean((1, 2))
    np.testing.assert_allclose(losses["commit_loss"], commit, rtol=1e-5)

  @parameterized.parameters(LFQ(), BSQ(tau=100.0))
  def test_sure_bits_have_a_finite_gradient(self, q):
    """A probability of 0 or 1 in float32: the entropy is 0, and so is its
    gradient."""
    z = jnp.asarray([[[3.0, -3.0, 0.5, -2.0]], [[1.0, 2.0, -0.5, -9.0]]])
    loss = lambda z: jnp.sum(q(z)[1]["entropy"])
    self.assertTrue(np.isfinite(loss(z)))
    np.testing.assert_allclose(jax.grad(loss)(z), 0, atol=1e-3)
    np.testing.assert_allclose(
      bits.bit_entropy(jnp.asarray([-1e4, -400.0, 400.0, 1e4])), 0, atol=1e-6
    )

  def test_groups_that_do_not_fit(self):
    with self.assertRaisesRegex(UserError, "groups of 3 do not divide 8 bits"):
      bits.mean_entropy(jnp.full((2, 8), 0.5), 3)


class BernoulliTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.module = Bernoulli(6, 5)
    cls.z = jnp.asarray(RNG.normal(size=(2, 3, 5)), jnp.float32)
    cls.bound = cls.module.bind(cls.module.init(jax.random.key(0), cls.z))

  def test_gradient_by_the_probability_is_the_table(self):
    p = self.bound.probability(self.z)[0, 0]
    through = lambda p: self.bound.embed(
      p + jax.lax.stop_gradient(self.bound.bits_of(p) - p)
    )
    np.testing.assert_allclose(
      jax.jacobian(through)(p), self.bound.table.T, rtol=1e-6
    )
    # So the whole quantiser has it, too: by the chain rule of the sigmoid.
    got = jax.jacobian(lambda z: self.bound(z[None])[0][0])(self.z[0, 0])
    kernel = self.bound.proj.variables["params"]["kernel"]
    want = self.bound.table.T @ ((p * (1 - p))[:, None] * kernel.T)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)

  def test_without_keys_the_likelier_bits_and_idempotent(self):
    p = self.bound.probability(self.z)
    code, losses, found = self.bound(self.z)
    np.testing.assert_array_equal(found, p > 0.5)
    np.testing.assert_array_equal(
      self.bound.bits_of(found.astype(jnp.float32)), found
    )
    np.testing.assert_allclose(code, self.bound.embed(found), atol=1e-6)
    np.testing.assert_allclose(
      losses["uncertainty"], (p * (1 - p)).mean((1, 2)), rtol=1e-6
    )

  def test_drawn_bits_have_their_probabilities(self):
    p = jnp.broadcast_to(jnp.linspace(0.05, 0.95, 6), (4000, 6))
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = self.bound.bits_of(p, keys)
    np.testing.assert_allclose(drawn.mean(0), p[0], atol=0.03)
    alone = self.bound.bits_of(p[7:8], keys[7:8])
    np.testing.assert_array_equal(drawn[7:8], alone)


if __name__ == "__main__":
  absltest.main()
