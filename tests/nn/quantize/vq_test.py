"""Vector quantisation: the pieces, one codebook, many scales."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import ops
from ar_jax.core import prng
from ar_jax.nn.quantize import residual, vq


class NearestCodeTest(parameterized.TestCase):
  # 300 codes in blocks of 256: enough tokens force a scan with padding.
  @parameterized.parameters((7, 300), (2**18, 300), (5, 1))
  def test_is_the_argmin(self, tokens, vocab):
    keys = jax.random.split(jax.random.key(0), 2)
    z = jax.random.normal(keys[0], (tokens, 3))
    codebook = jax.random.normal(keys[1], (vocab, 3))
    index = jax.jit(ops.nearest_code)(z, codebook)
    some = np.arange(0, tokens, max(1, tokens // 500))
    distance = np.square(np.asarray(z)[some, None] - codebook[None]).sum(-1)
    np.testing.assert_array_equal(index[some], distance.argmin(1))

  @parameterized.parameters(1, 2**18)
  def test_lowest_index_where_codes_tie(self, tokens):
    codebook = jnp.ones((600, 2)).at[0].set(9.0)
    z = jnp.ones((tokens, 2))
    np.testing.assert_array_equal(ops.nearest_code(z, codebook), 1)

  def test_named_implementation_must_exist(self):
    with self.assertRaisesRegex(NotImplementedError, "pallas"):
      ops.nearest_code(jnp.ones((1, 2)), jnp.ones((3, 2)), impl="pallas")


class PiecesTest(absltest.TestCase):
  def test_straight_through(self):
    z, e = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    value, back = jax.vjp(vq.straight_through, z, e)
    np.testing.assert_allclose(value, e)
    to_z, to_e = back(jnp.ones(2))
    np.testing.assert_array_equal(to_z, 1)
    np.testing.assert_array_equal(to_e, 0)

  def test_who_moves(self):
    z, e = jnp.ones((2, 3)), jnp.zeros((2, 3))
    grad = lambda f: jax.grad(lambda z, e: f(z, e).sum(), (0, 1))(z, e)
    np.testing.assert_array_equal(grad(vq.codebook_loss)[0], 0)
    np.testing.assert_array_equal(grad(vq.commitment)[1], 0)
    np.testing.assert_allclose(vq.commitment(z, e, 0.25), 0.25)

  def test_usage(self):
    health = vq.usage(vq.code_counts(jnp.array([[0, 1, 1, 0]]), 4))
    self.assertAlmostEqual(float(health["used"]), 0.5)
    self.assertAlmostEqual(float(health["perplexity"]), 2.0, places=5)

  def test_unit_of_zero_is_zero(self):
    np.testing.assert_array_equal(vq.unit(jnp.zeros((1, 3))), 0)
    gradient = jax.grad(lambda z: vq.unit(z).sum())(jnp.zeros((1, 3)))
    self.assertTrue(np.isfinite(gradient).all())

  def test_which_phi(self):
    self.assertEqual(
      residual.phi_of_scales(10, 4), (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)
    )
    self.assertEqual(residual.phi_of_scales(1, 4), (0,))


class MultiScaleTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.module = residual.MultiScaleResidual(64, 4, (1, 2, 3, 5), spread=0.5)
    keys = jax.random.split(prng.key(1), 2)
    cls.f = jax.random.normal(keys[0], (3, 5, 5, 4))
    cls.variables = jax.jit(cls.module.init)(keys[1], cls.f)

  def apply(self, *args, method=None):
    return jax.jit(lambda v, *a: self.module.apply(v, *a, method=method))(
      self.variables, *args
    )

  def test_units_restore_the_sums(self):
    units, sums = self.apply(self.f, method="encode")
    for ours, theirs in zip(
      self.apply(units, method="walk"), sums, strict=True
    ):
      np.testing.assert_allclose(ours, theirs, atol=1e-5)

  def test_training_pass(self):
    fhat, losses, units = self.apply(self.f)
    _, sums = self.apply(self.f, method="encode")
    np.testing.assert_allclose(fhat, sums[-1], atol=1e-5)
    self.assertEqual(units.shape, (3, self.module.length))
    errors = [np.square(s - self.f).mean((1, 2, 3)) for s in sums]
    np.testing.assert_allclose(
      losses["codebook_loss"], np.mean(errors, 0), rtol=1e-5
    )
    np.testing.assert_allclose(
      losses["commit_loss"], 0.25 * np.mean(errors, 0), rtol=1e-5
    )

  def test_gradients(self):
    def total(variables, f, which):
      return self.module.apply(variables, f)[1][which].sum()

    grad = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)
    params, f = grad(self.variables, self.f, "commit_loss")
    self.assertTrue(all((g == 0).all() for g in jax.tree.leaves(params)))
    self.assertGreater(jnp.abs(f).max(), 0)
    params, f = grad(self.variables, self.f, "codebook_loss")
    np.testing.assert_array_equal(f, 0)
    for g in jax.tree.leaves(params):
      self.assertGreater(jnp.abs(g).max(), 0)

  def test_quantises_the_area_mean_of_the_rest(self):
    # The 1 x 1 map codes the mean of the latent.
    units, _ = self.apply(self.f, method="encode")
    codebook = self.variables["params"]["codebook"]
    expected = ops.nearest_code(self.f.mean((1, 2)), codebook)
    np.testing.assert_array_equal(units[:, 0], expected)


class VectorQuantizerTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.z = 2 * jax.random.normal(jax.random.key(0), (2, 3, 3, 4))

  def quantizer(self, **kwargs):
    net = vq.VectorQuantizer(16, 4, **kwargs)
    init = jax.jit(net.init)(prng.key(1), self.z)
    return net, init, jax.jit(net.apply)(init, self.z)

  def test_on_the_sphere(self):
    net, variables, (codes, losses, ids) = self.quantizer()
    stored = np.asarray(variables["params"]["codebook"])
    np.testing.assert_allclose(np.linalg.norm(stored, axis=-1), 1, rtol=1e-5)
    z = np.asarray(self.z)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    nearest = np.einsum("bhwc,vc->bhwv", z, stored).argmax(-1)
    np.testing.assert_array_equal(ids, nearest)
    np.testing.assert_allclose(codes, stored[nearest], atol=1e-5)
    error = np.square(z - stored[nearest]).mean((1, 2, 3))
    np.testing.assert_allclose(losses["codebook_loss"], error, rtol=1e-5)
    np.testing.assert_allclose(losses["commit_loss"], 0.25 * error, rtol=1e-5)
    again = net.apply(variables, self.z, method="encode")
    np.testing.assert_array_equal(again, ids)

  def test_plain(self):
    _, variables, (codes, losses, ids) = self.quantizer(sphere=False)
    codebook = np.asarray(variables["params"]["codebook"])
    far = np.square(np.asarray(self.z)[..., None, :] - codebook).sum(-1)
    np.testing.assert_array_equal(ids, far.argmin(-1))
    np.testing.assert_allclose(codes, codebook[ids], atol=1e-5)
    self.assertEqual(losses.keys(), {"codebook_loss", "commit_loss"})

  def test_entropy(self):
    codebook = jnp.eye(4)
    # Sure of each code and even over all; sure of one; sure of none.
    value = lambda z, t=0.01: float(vq.entropy_loss(z, codebook, t))
    self.assertAlmostEqual(value(codebook), -np.log(4), places=3)
    self.assertAlmostEqual(value(codebook[:1]), 0, places=3)
    self.assertAlmostEqual(value(jnp.zeros((3, 4))), 0, places=3)
    z = np.asarray(self.z).reshape(-1, 4)
    logits = -np.square(z[:, None] - np.eye(4)).sum(-1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = lambda p: -(p * np.log(p)).sum(-1)
    want = entropy(p).mean() - entropy(p.mean(0))
    self.assertAlmostEqual(value(jnp.asarray(z), 1.0), want, places=4)
    _, _, (_, losses, _) = self.quantizer(entropy=0.5)
    self.assertEqual(losses["entropy"].shape, (2,))


if __name__ == "__main__":
  absltest.main()
