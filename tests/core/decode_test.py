"""Loops over steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core import decode, plan


def draw(carry, s, keys):
  """Counts steps and draws from the keys alone."""
  return carry + s, jax.vmap(jax.random.bits)(keys)


class DecodeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.keys = jax.random.split(jax.random.key(0), 3)

  def test_scan_traces_once_and_stacks_behind_the_batch(self):
    step = chex.assert_max_traces(draw, n=1)
    carry, units = decode.scan_steps(step, 0, 5, self.keys)
    self.assertEqual(carry, 10)
    self.assertEqual(units.shape, (3, 5))
    self.assertLen(np.unique(units), 15)

  def test_unrolled_equals_scanned(self):
    def wide(carry, s, keys):
      carry, units = draw(carry, s, keys)
      return carry, units[:, None]

    carry, units = decode.unroll_steps(wide, 0, plan.raster(1, 5), self.keys)
    np.testing.assert_array_equal(
      units, decode.scan_steps(draw, 0, 5, self.keys)[1]
    )
    self.assertEqual(carry, 10)

  def test_unrolled_steps_have_their_own_sizes(self):
    p = plan.scales((1, 2, 3))
    step = lambda carry, s, keys: (carry, jnp.full((3, p.sizes[s]), s))
    _, units = decode.unroll_steps(step, None, p, self.keys)
    np.testing.assert_array_equal(units[1], p.step_of())


if __name__ == "__main__":
  absltest.main()
