"""Bits of residual maps: against direct formulas, and what they are fitted to.

What the official quantiser computes is in tests/convert/infinity_test.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.core.signals.resize import matrix
from ar_jax.nn.quantize.scaled_bits import ScaledBits, strengths
from ar_jax.tokenizers import patch_bits

KEYS = jax.random.split(jax.random.key(0), 2)


def resized(x, size, method):
  """By the matrices of both axes, in float64."""
  rows = matrix(x.shape[1], size[0], method).astype(np.float64)
  cols = matrix(x.shape[2], size[1], method).astype(np.float64)
  return np.einsum("iy,jx,byxc->bijc", rows, cols, x)


class ScaledBitsTest(parameterized.TestCase):
  def test_codes_of_bits(self):
    maps = ScaledBits(8, ((1, 1),))
    bits = np.random.default_rng(0).integers(2, size=(2, 3, 5, 8))
    code = maps.code_of(jnp.asarray(bits))
    np.testing.assert_allclose(np.linalg.norm(code, axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(code > 0, bits)

  def test_folding(self):
    maps = ScaledBits(3, ((1, 1), (2, 3)), fold=True)
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    units = maps.folded(jnp.asarray(x))
    self.assertEqual(units.shape, (2, 6, 12))
    for bit in range(3):
      for dy, dx in np.ndindex(2, 2):
        own = x[:, dy::2, dx::2, bit].reshape(2, 6)
        np.testing.assert_array_equal(units[..., 4 * bit + 2 * dy + dx], own)
    np.testing.assert_array_equal(maps.unfolded(units, 1), x)

  @parameterized.parameters(False, True)
  def test_wrong_bits_are_repaired(self, fold):
    """Targets count from the sum as it is: a direct formula, map by map."""
    shapes = ((1, 1), (2, 1), (3, 2))
    maps = ScaledBits(4, shapes, fold)
    f = np.random.default_rng(1).normal(size=(2, *maps.grids[-1], 4))

    @jax.jit
    def every(f, strength):
      flips = maps.flips(KEYS, strength, maps=2)
      none = maps.code(f, flips=[jnp.zeros_like(x) for x in flips])
      return flips, maps.code(f, flips=flips), maps.code(f), none

    flips, wrong, plain, none = every(f, jnp.full(3, 0.3))
    self.assertLen(flips, 2)
    share = np.mean(np.concatenate([np.ravel(x) for x in flips]))
    self.assertBetween(share, 0.05, 0.6)
    total = np.zeros_like(f)
    for k, own in enumerate(maps.split(wrong.units)):
      seen = resized(total, maps.grids[k], "bilinear")
      own_input = maps.split(wrong.inputs)[k]
      np.testing.assert_allclose(maps.unfolded(own_input, k), seen, atol=1e-5)
      rest = resized(f - total, maps.grids[k], "area")
      bits = np.asarray(maps.unfolded(own, k))
      np.testing.assert_array_equal(bits, rest > 0)
      if k < 2:
        bits = np.where(flips[k], 1 - bits, bits)
      total += resized(bits - 0.5, maps.grids[-1], "bilinear")  # 1 / sqrt(4)
    np.testing.assert_allclose(wrong.sums[-1], total, atol=1e-5)
    # Without wrong bits it is teacher forcing.
    jax.tree.map(np.testing.assert_array_equal, none, plain)
    np.testing.assert_allclose(maps.embed(plain.units), plain.inputs, atol=1e-6)

  def test_given_maps_are_added_whatever_the_latent_is(self):
    maps = ScaledBits(4, ((1, 1), (2, 2)))
    f = jnp.ones((1, 2, 2, 4))
    given = jnp.zeros((1, 1, 1, 4), jnp.int32)
    coded = maps.code(f, given=(given,))
    np.testing.assert_array_equal(coded.units, [[[0] * 4] + [[1] * 4] * 4])
    np.testing.assert_allclose(coded.inputs[:, 1:], -0.5)

  def test_strengths(self):
    draw = jax.vmap(lambda key: strengths(key, 4, 0.3))
    found = np.asarray(draw(jax.random.split(jax.random.key(1), 200)))
    self.assertEqual(found.shape, (200, 4))
    np.testing.assert_allclose(found * 100, np.round(found * 100), atol=1e-4)
    self.assertEqual((found.min(), np.round(found.max(), 2)), (0.0, 0.3))
    self.assertLen(np.unique(np.round(found, 2)), 31)

  def test_unknown_inputs(self):
    with self.assertRaisesRegex(UserError, "inputs='nearest'"):
      ScaledBits(4, ((1, 1),), inputs="nearest")


class FittedTest(absltest.TestCase):
  def test_every_map_brings_the_latent_nearer(self):
    source = data.load("digits", size=16, channels=1).train
    module = patch_bits.build(bits=8, patch=4, scales=(1, 2, 4)).tokenizer
    variables = {"params": {"numbers": patch_bits.fit(module, source, 0)}}
    again = patch_bits.fit(module, source, 0)
    jax.tree.map(
      np.testing.assert_array_equal, variables["params"]["numbers"], again
    )
    image = np.stack([source[i]["image"] for i in range(200)])
    x = jnp.asarray(image / 127.5 - 1, jnp.float32)

    @jax.jit
    def errors(variables, x):
      m = module.bind(variables)
      sums = m.code(m.latent(x)).sums
      images = [m.decode_latent(s) for s in (m.start(len(x)), *sums)]
      return jnp.stack([jnp.mean(jnp.square(x - y)) for y in images])

    found = errors(variables, x)
    # An image begins as the mean one, of which the first map knows no better.
    self.assertTrue((np.diff(found)[1:] < 0).all(), found)
    self.assertLess(found[-1], 0.5 * found[0])

  def test_every_map_brings_a_large_latent_nearer(self):
    maps = patch_bits.build(bits=8, scales=(1, 2, 3, 4)).tokenizer.maps
    bits = jax.random.randint(jax.random.key(0), (20, 30, 8), 0, 2)
    f = 2 * maps.walk(bits)[-1]
    sums = (maps.start(20), *maps.code(f).sums)
    errors = [float(jnp.square(f - s).mean()) for s in sums]
    self.assertTrue((np.diff(errors) < 0).all(), errors)

  def test_sizes(self):
    with self.assertRaisesRegex(UserError, r"bits=17: must be in 1\.\.16"):
      patch_bits.build(bits=17, patch=4)
    for scales in ((2, 4), (1, (2, 3), (3, 2)), ()):
      with self.assertRaisesRegex(UserError, "must begin with 1"):
        patch_bits.build(scales=scales)
    module = patch_bits.build(scales=(1, (2, 3))).tokenizer
    self.assertEqual(module.sides, (8, 12))
    with self.assertRaisesRegex(UserError, "image 8x8x1: .* it takes 8x12x1"):
      module.check(np.zeros((1, 8, 8, 1)))


if __name__ == "__main__":
  absltest.main()
