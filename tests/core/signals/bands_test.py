"""Bands of frequency, and the quantiser that codes one more each step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import ops
from ar_jax.core.errors import UserError
from ar_jax.core.signals import bands
from ar_jax.core.system import build
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.tokenizers.multiscale_vq import SCALES

TINY = (1, 2, 4, 8)


class BandsTest(parameterized.TestCase):
  @parameterized.parameters(
    (SCALES[256], "area_radial", (1, 0, 0, 0, 0, 8, 12, 40, 88, 107)),
    (SCALES[256], "nyquist", (1, 0, 8, 0, 16, 0, 24, 32, 88, 87)),
    (TINY, "area_radial", (1, 0, 4, 59)),
    (TINY, "nyquist", (1, 0, 8, 55)),
  )
  def test_a_partition(self, sides, rule, want):
    self.assertEqual(bands.bins(sides, rule), want)
    low = bands.low(sides, rule)
    self.assertTrue((low[1:] >= low[:-1]).all())  # each holds the one before
    self.assertTrue(low[-1].all())
    # The same at the opposite frequency, so that what passes is real.
    at = -np.arange(sides[-1])
    np.testing.assert_array_equal(low, low[:, at][:, :, at])

  def test_unknown_rule(self):
    with self.assertRaisesRegex(UserError, "area_radial"):
      build("frequency_vq", bands="octaves")

  def test_what_passes(self):
    f = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    low = bands.low(TINY, "nyquist")
    spectrum = np.fft.fft2(f.astype(float), axes=(1, 2))
    for mask in low:
      exact = np.fft.ifft2(spectrum * mask[None, :, :, None], axes=(1, 2))
      self.assertLess(np.abs(exact.imag).max(), 1e-12)
      np.testing.assert_allclose(bands.passed(f, mask), exact.real, atol=1e-5)
    np.testing.assert_allclose(bands.passed(f, low[-1]), f, atol=1e-5)
    mean = np.broadcast_to(f.mean((1, 2), keepdims=True), f.shape)
    np.testing.assert_allclose(bands.passed(f, low[0]), mean, atol=1e-5)


class QuantizerTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.plain = MultiScaleResidual(32, 4, TINY)
    draw = np.random.default_rng(1)
    cls.f = jnp.asarray(draw.normal(size=(3, 8, 8, 4)), jnp.float32)
    shapes = {
      "codebook": (32, 4), "phi_kernel": (4, 3, 3, 4, 4), "phi_bias": (4, 4),
    }  # fmt: skip
    cls.params = {
      k: jnp.asarray(0.3 * draw.normal(size=s), jnp.float32)
      for k, s in shapes.items()
    }

  def net(self, rule):
    return self.plain.clone(bands=rule).bind({"params": self.params})

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def encode(self, rule):
    return self.net(rule).encode(self.f)

  @parameterized.parameters("area_radial", "nyquist")
  def test_equals_the_rest_and_the_next_band(self, rule):
    """R_k = R_{k-1} + f_k - up(v_k), as the paper writes it."""
    net, low = self.net(rule), bands.low(TINY, rule)
    rest, units = jnp.zeros_like(self.f), []
    passed = np.zeros_like(self.f)
    for k, mask in enumerate(low):
      band = np.array(bands.passed(self.f, mask)) - passed
      passed = passed + band
      ids = ops.nearest_code(net.down(rest + band, k), net.codebook())
      h = net.add(jnp.zeros_like(self.f), k, net.codebook()[ids])
      rest = rest + band - h
      units.append(ids)
    got, sums = self.encode(rule)
    np.testing.assert_array_equal(np.concatenate(units, 1), got)
    np.testing.assert_allclose(self.f - rest, sums[-1], atol=1e-5)

  def test_all_frequencies_at_once_are_var(self):
    everything = np.ones((4, 8, 8), bool)
    rules = bands.RULES | {"all": lambda *_: everything.copy()}
    bands.RULES["all"] = rules["all"]
    self.addCleanup(bands.RULES.pop, "all")
    units, sums = self.encode("all")
    want, plain = self.encode(None)
    np.testing.assert_array_equal(units, want)
    np.testing.assert_allclose(sums[-1], plain[-1], atol=1e-5)
    self.assertTrue((self.encode("nyquist")[0] != want).any())

  def test_coarse_sums_are_taught_low_frequencies(self):
    net, low = self.net("nyquist"), bands.low(TINY, "nyquist")
    _, losses, _ = jax.jit(net.__call__)(self.f)
    _, sums = self.encode("nyquist")
    errors = [
      np.square(bands.passed(self.f, mask) - s).mean((1, 2, 3))
      for mask, s in zip(low, sums, strict=True)
    ]
    np.testing.assert_allclose(
      losses["codebook_loss"], np.mean(errors, 0), rtol=1e-4
    )


if __name__ == "__main__":
  absltest.main()
