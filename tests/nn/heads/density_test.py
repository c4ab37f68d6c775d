"""Heads whose density is known: against sums and integrals."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special, stats

from ar_jax.core.errors import UserError
from ar_jax.nn.heads.density import Logistics, Mixture
from tests import laws

H = jax.random.normal(jax.random.key(0), (1, 1, 8))


def made(head, stddev=0.5):
  """Its variables, far from where they begin."""
  shape = head.init(jax.random.key(1), H, jnp.zeros((1, 1, head.channels)),
                    method="nll")  # fmt: skip
  draw = np.random.default_rng(0)
  return jax.tree.map(lambda x: stddev * draw.normal(size=x.shape), shape)


class MixtureTest(absltest.TestCase):
  def test_density_is_that_of_scipy_and_of_the_draws(self):
    head = Mixture(2, components=3, least=0.05)
    bound = head.bind(made(head))
    law = bound.law(H, temperature=0.7)
    weight, mean, std = (
      np.asarray(x, np.float64)[0, 0]
      for x in (jnp.exp(law.logits), law.mean, jnp.exp(law.log_std))
    )
    x = np.random.default_rng(1).normal(size=(5, 2))
    each = stats.norm.logpdf(x[:, None], mean, std).sum(-1)
    wanted = special.logsumexp(each, axis=1, b=weight)
    got = law.log_prob(jnp.asarray(x, jnp.float32)[:, None])[:, 0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    self.assertGreater(std.min(), 0.05 * 0.7)
    n = 50_000
    keys = jax.random.split(jax.random.key(2), n)
    h = jnp.broadcast_to(H, (n, 1, 8))
    draws = jax.jit(lambda h: bound.draw(h, keys, temperature=0.7))(h)[:, 0]
    cdf = laws.mixture_cdf(weight, mean, std)
    self.assertGreater(laws.kolmogorov(draws, cdf), 1e-4)
    plain = bound.law(H)
    nll = bound.nll(H, jnp.zeros((1, 1, 2)))
    np.testing.assert_allclose(nll, -plain.log_prob(jnp.zeros((1, 1, 2))))

  def test_guidance_is_of_the_numbers(self):
    head = Mixture(2, components=3)
    bound = head.bind(made(head))
    null = -H
    guided = bound.law(H, h_null=null, scale=2.0)
    np.testing.assert_allclose(
      guided.mean, 2 * bound.law(H).mean - bound.law(null).mean, rtol=1e-5
    )
    off = bound.law(H, h_null=null, scale=1.0)
    np.testing.assert_array_equal(off.mean, bound.law(H).mean)


class LogisticsTest(parameterized.TestCase):
  @parameterized.parameters((1, 5), (2, 4))
  def test_masses_sum_to_one_and_are_those_of_the_draws(self, channels, levels):
    head = Logistics(channels, components=3, levels=levels)
    bound = head.bind(made(head))
    every = laws.sequences(levels, channels)
    value = jnp.asarray(2 * every / (levels - 1) - 1, jnp.float32)
    mass = np.exp(bound.law(H).log_prob(value[:, None])[:, 0])
    self.assertAlmostEqual(mass.sum(), 1, places=5)
    n = 50_000
    keys = jax.random.split(jax.random.key(3), n)
    h = jnp.broadcast_to(H, (n, 1, 8))
    draws = jax.jit(lambda h: bound.draw(h, keys))(h)[:, 0]
    ids = np.round((np.asarray(draws) + 1) * (levels - 1) / 2).astype(int)
    self.assertGreater(laws.chi_square(ids, mass, levels), 1e-4)
    wrong = np.full(len(mass), 1 / len(mass))
    self.assertLess(laws.chi_square(ids, wrong, levels), 1e-6)

  def test_published_numbers(self):
    """PixelCNN++: 100 of a position, half a bin of 1/255, and the density
    where the mass of a bin is lost."""
    head = Logistics(3, components=10)
    self.assertEqual(head.numbers, 100)
    one = Logistics(1, components=1)
    bias = jnp.array([0.0, 0.2, -3.0])  # weight, mean, log scale
    flat = {"linear": {"kernel": jnp.zeros((8, 3)), "bias": bias}}
    x = 2 * np.arange(256) / 255 - 1
    cdf = lambda v: special.expit((v - 0.2) * np.exp(3.0))
    wanted = cdf(x + 1 / 255) - cdf(x - 1 / 255)
    wanted[0], wanted[-1] = cdf(x[0] + 1 / 255), 1 - cdf(x[-1] - 1 / 255)
    got = jnp.exp(-one.apply({"params": flat}, H, jnp.asarray(
      x[:, None, None], jnp.float32), method="nll"))[:, 0]  # fmt: skip
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-7)
    far = flat["linear"] | {"bias": bias.at[1].set(-8.0)}
    lost = one.apply({"params": {"linear": far}}, H, jnp.zeros((1, 1, 1)),
                     method="nll")  # fmt: skip
    z = 8 * np.exp(3.0)
    np.testing.assert_allclose(lost[0, 0], z - 3 + np.log(127.5), rtol=1e-5)

  def test_channels_by_the_chain_rule(self):
    head = Logistics(3, components=4)
    law = head.bind(made(head, 1.0)).law(H)
    values = 2 * np.random.default_rng(0).integers(256, size=(6, 1, 3)) / 255
    value = jnp.asarray(values - 1, jnp.float32)
    both = jax.jit(lambda x: (law.by_channel(x), law.log_prob(x)))
    each, whole = map(np.asarray, both(value))
    self.assertEqual(each.shape, (6, 1, 3, 256))
    np.testing.assert_allclose(np.exp(each).sum(-1), 1, atol=1e-4)
    level = np.round(values / 2 * 255).astype(int)[..., None]
    own = np.take_along_axis(each, level, -1).sum((-1, -2))
    np.testing.assert_allclose(own, whole, rtol=1e-4)
    # A channel knows of those before it, and of no other.
    np.testing.assert_array_equal(both(value.at[..., 2].set(0.0))[0], each)
    moved = np.abs(both(value.at[..., 0].set(0.9))[0] - each)
    self.assertGreater(moved[..., 1:, :].max(), 1e-3)

  def test_levels(self):
    head = Logistics(1, levels=1)
    with self.assertRaisesRegex(UserError, "levels=1"):
      made(head)


if __name__ == "__main__":
  absltest.main()
