"""The convolutional body: published sizes, padding, translation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core import prng
from ar_jax.nn.layers import conv2d
from ar_jax.nn.layers.conv2d import Decoder, Encoder


def millions(module, shape) -> float:
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  return sum(math.prod(p.shape) for p in jax.tree.leaves(variables)) / 1e6


class PublishedSizesTest(parameterized.TestCase):
  """Encoder + decoder + what the named models have around the code."""

  @parameterized.named_parameters(
    # 1x1 convolutions 256 -> 8 -> 256 and 16384 codes of 8.
    (
      "llamagen_vq16",
      dict(ch=128, mult=(1, 1, 2, 2, 4), blocks=2),
      dict(attention=(4,), z=256),
      dict(attention=(4,)),
      256,
      (256 * 8 + 8) + (8 * 256 + 256) + 16384 * 8,
      71.88,
    ),
    (
      "llamagen_vq8",
      dict(ch=128, mult=(1, 2, 2, 4), blocks=2),
      dict(attention=(3,), z=256),
      dict(attention=(3,)),
      256,
      (256 * 8 + 8) + (8 * 256 + 256) + 16384 * 8,
      70.11,
    ),
    # 1x1 convolutions of the moments and of the latent.
    (
      "mar_kl16",
      dict(ch=128, mult=(1, 1, 2, 2, 4), blocks=2),
      dict(attention=(4,), z=32),
      dict(attention=()),
      16,
      (32 * 32 + 32) + (16 * 16 + 16),
      66.46,
    ),
    (
      "ldm_kl_f8",
      dict(ch=128, mult=(1, 2, 4, 4), blocks=2),
      dict(z=8),
      dict(),
      4,
      0,
      83.65,
    ),
  )
  def test_parameters(self, body, encoder, decoder, z, around, expected):
    count = millions(Encoder(**body, **encoder), (1, 64, 64, 3))
    count += millions(Decoder(**body, **decoder), (1, 4, 4, z))
    self.assertAlmostEqual(count + around / 1e6, expected, delta=0.006)


class ShapesTest(parameterized.TestCase):
  @parameterized.parameters((256,), (512,))
  def test_odd_multiples_at_both_sizes(self, size):
    body = dict(ch=24, mult=(1, 3, 5), blocks=1, attention=(2,))
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    z, _ = jax.eval_shape(
      Encoder(z=7, **body).init_with_output, jax.random.key(0), x
    )
    self.assertEqual(z.shape, (1, size // 4, size // 4, 7))
    (image, _), _ = jax.eval_shape(
      Decoder(**body).init_with_output, jax.random.key(0), z
    )
    self.assertEqual(image.shape, x.shape)

  @parameterized.parameters((160, 32), (640, 32), (16, 16), (24, 8))
  def test_groups(self, channels, groups):
    self.assertEqual(conv2d.norm(channels, "norm").num_groups, groups)


class LayersTest(absltest.TestCase):
  def test_downsample_pads_at_the_end(self):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0).at[2, 2].set(100.0)
    params = {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}
    y = conv2d.Downsample().apply({"params": params}, x)
    # The last tap falls on the row and column of zeros, the first never does.
    np.testing.assert_array_equal(y[0, ..., 0], [[0 + 100 * 10, 2], [8, 10]])

  def test_upsample_repeats_then_convolves(self):
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    params = {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}
    y = conv2d.Upsample().apply({"params": params}, x)
    np.testing.assert_array_equal(
      y[0, ..., 0], np.kron([[0, 1], [2, 3]], np.ones((2, 2)))
    )

  def test_one_stride_of_translation(self):
    # Group norms see the whole image, so the rest of it must be the same
    # before and after: a constant that keeps the patch, with all that it
    # touches (7 latents), clear of what the borders touch.
    encoder = Encoder(ch=4, mult=(1, 2), blocks=1, z=3, mid_attention=False)
    patch = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    # Stripes as wide as half a stride are the same after it, and keep the norms
    # from enlarging what rounding tells of a place, as an empty canvas would.
    stripes = jnp.array([8.0, -8.0])[jnp.arange(80) % 2]
    canvas = jnp.broadcast_to(stripes[None, :, None, None], (1, 80, 80, 1))
    here = canvas.at[:, 38:42, 38:42].set(patch)
    there = canvas.at[:, 40:44, 38:42].set(patch)
    key = prng.key(1)
    variables = jax.jit(encoder.init)(key, here)
    run = jax.jit(encoder.apply)
    z, moved = run(variables, here), run(variables, there)
    np.testing.assert_allclose(moved[:, 10:31], z[:, 9:30], atol=1e-5)
    self.assertGreater(float(jnp.abs(z[:, 10:31] - z[:, 9:30]).max()), 0.1)


if __name__ == "__main__":
  absltest.main()
