"""Shortcuts without parameters undo each other; what is carried is what lies
before."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.nn.layers import conv1d


class Conv1dTest(parameterized.TestCase):
  @parameterized.parameters((4, 3, 12), (4, 4, 8), (2, 4, 2), (4, 2, 1))
  def test_shortcuts(self, r, wide, narrow):
    x = np.random.default_rng(0).normal(size=(2, 8 * r, wide))
    x = x.astype(np.float32)
    down = lambda x: conv1d.averaged(x, r, narrow)
    up = lambda x: conv1d.repeated(x, r, wide)
    short = down(x)
    self.assertEqual(short.shape, (2, 8, narrow))
    once = up(short)
    # Applied twice it is what it is once; without averages it is nothing.
    np.testing.assert_allclose(up(down(once)), once, atol=1e-6)
    np.testing.assert_allclose(down(once), short, atol=1e-6)
    if r * wide == narrow:
      np.testing.assert_array_equal(once, x)
    constant = np.full((1, 4 * r, wide), 0.7, np.float32)
    np.testing.assert_allclose(up(down(constant)), constant, atol=1e-6)

  def test_neighbours_are_averaged(self):
    x = np.arange(8.0)[None, :, None]
    np.testing.assert_array_equal(
      conv1d.averaged(x, 4, 2)[0], [[0.5, 2.5], [4.5, 6.5]]
    )

  def test_sizes(self):
    with self.assertRaisesRegex(UserError, "a stride of 2 from 3 to 4"):
      conv1d.check_shortcut(2, 3, 4)

  def test_snake(self):
    x = np.linspace(-2, 2, 9, dtype=np.float32)[None, :, None]
    params = {"params": {"alpha": np.full(1, 1.7, np.float32)}}
    own = conv1d.Snake().apply(params, x)
    np.testing.assert_allclose(own, x + np.sin(1.7 * x) ** 2 / 1.7, atol=1e-6)

  def test_a_transposed_convolution(self):
    """`Up` is one of stride r and 2 r samples, of which no output sees a later
    input."""
    r, x = 3, np.random.default_rng(0).normal(size=(1, 5, 2))
    layer = conv1d.Conv1d(r * 4, 2)
    kernel = np.random.default_rng(1).normal(size=(2, 2, r * 4))
    params = {"params": {"conv": {"kernel": kernel, "bias": np.zeros(r * 4)}}}
    y = layer.apply(params, jnp.asarray(x), conv1d.Carry())
    own = conv1d.to_time(y, r)
    # kernel[1] belongs to the input of now, kernel[0] to the one before.
    taps = kernel.reshape(2, 2, 4, r)[::-1]
    taps = np.moveaxis(taps, -1, 1).reshape(2 * r, 2, 4)
    true = np.zeros((1, 6 * r, 4))
    for i in range(5):
      true[0, i * r : (i + 2) * r] += np.einsum("c,tcd->td", x[0, i], taps)
    np.testing.assert_allclose(own, true[:, : 5 * r], atol=1e-5)

  def test_pieces(self):
    x = jax.random.normal(jax.random.key(0), (2, 12, 3))
    layer = conv1d.ResidualUnit(3, 3)

    @jax.jit
    def made(key):
      variables = layer.init(key, x)
      whole = layer.apply(variables, x, conv1d.Carry())
      carry, parts = conv1d.Carry(), []
      for piece in jnp.split(x, (1, 5), axis=1):
        parts.append(layer.apply(variables, piece, carry))
        carry = conv1d.Carry(carry.after)
      return whole, jnp.concatenate(parts, 1), layer.apply(variables, x)

    whole, pieces, ahead = jax.device_get(made(jax.random.key(1)))
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    self.assertGreater(np.abs(ahead - whole).max(), 1e-3)


if __name__ == "__main__":
  absltest.main()
