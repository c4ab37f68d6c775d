"""The discriminator, its losses and the adaptive weight."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core import prng
from ar_jax.core.system import UserError
from ar_jax.nn.losses import adversary
from ar_jax.nn.losses.adversary import Adversary, PatchGAN


class PatchGANTest(parameterized.TestCase):
  @parameterized.parameters(("group",), ("batch",))
  def test_published_size(self, norm):
    module = PatchGAN(norm=norm)
    image = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    logits, variables = jax.eval_shape(
      module.init_with_output, jax.random.key(0), image
    )
    self.assertEqual(logits.shape, (2, 30, 30))
    count = sum(x.size for x in jax.tree.leaves(variables))
    self.assertEqual(count, 2_765_633)

  @parameterized.parameters(("group", True), ("batch", False))
  def test_group_norm_judges_each_image_by_itself(self, norm, alone):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    module = PatchGAN(width=4, layers=1, norm=norm)
    variables = jax.jit(module.init)(prng.key(1), x)
    run = jax.jit(module.apply)
    gap = jnp.abs(run(variables, x)[:1] - run(variables, x[:1])).max()
    self.assertEqual(bool(gap < 1e-6), alone)

  def test_too_small_images(self):
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    with self.assertRaisesRegex(UserError, "3 layers needs images of 24"):
      jax.eval_shape(PatchGAN().init, jax.random.key(0), image)


class LossesTest(absltest.TestCase):
  def test_of_a_discriminator_that_knows_nothing(self):
    zero = jnp.zeros((2, 3, 3))
    ones = np.ones(2)
    np.testing.assert_allclose(adversary.discriminator_loss(zero, zero), ones)
    np.testing.assert_allclose(adversary.generator_loss(zero), 0 * ones)
    np.testing.assert_allclose(
      adversary.discriminator_loss(zero, zero, "vanilla"), np.log(2) * ones
    )
    np.testing.assert_allclose(
      adversary.generator_loss(zero, "non_saturating"), np.log(2) * ones
    )

  def test_a_sure_one_pays_nothing(self):
    loss = adversary.discriminator_loss(
      jnp.full((1, 4), 2.0), -jnp.ones((1, 4))
    )
    np.testing.assert_array_equal(loss, 0)

  def test_lecam(self):
    averages = {"real": jnp.array(1.0), "fake": jnp.array(-1.0)}
    loss = adversary.lecam(jnp.full((2, 2), 2.0), jnp.zeros((2, 2)), averages)
    self.assertEqual(float(loss), 9.0 + 1.0)

  def test_unknown_kinds(self):
    with self.assertRaisesRegex(UserError, "judge='lsgan'.*hinge"):
      Adversary(PatchGAN(), judge="lsgan")


class AdaptiveWeightTest(absltest.TestCase):
  def test_is_the_ratio_of_norms(self):
    feature = jax.random.normal(jax.random.key(0), (4, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 2))
    nll = lambda image: jnp.square(image).sum()
    gan = lambda image: 0.1 * image.sum()
    weight = adversary.adaptive_weight(lambda w: feature @ w, kernel, nll, gan)
    norm = lambda loss: jnp.linalg.norm(
      jax.grad(lambda w: loss(feature @ w))(kernel)
    )
    self.assertAlmostEqual(
      float(weight), float(norm(nll) / (norm(gan) + 1e-4)), places=4
    )


if __name__ == "__main__":
  absltest.main()
