"""Rotations of a grid against complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers
from ar_jax.core.system import UserError
from ar_jax.nn.layers import positions

RASTER = makers.raster(2, 3)


def table(prefix_rope="zero", features=8, prefix=2):
  return positions.rope_grid(
    RASTER, features, prefix=prefix, prefix_rope=prefix_rope
  )


class RotationTest(absltest.TestCase):
  def test_equals_complex_products(self):
    x = jax.random.normal(jax.random.key(0), (2, 8, 3, 8))
    got = np.asarray(positions.rotate(x, table()))
    pairs = np.asarray(x[..., 0::2]) + 1j * np.asarray(x[..., 1::2])
    for slot, (row, col) in enumerate(
      [(r, c) for r in (0, 1) for c in (0, 1, 2)]
    ):
      # Two frequencies, 1 and 10000^(-1/2); rows first.
      angle = np.array([row, row / 100, col, col / 100])
      want = pairs[:, 2 + slot] * np.exp(1j * angle)
      np.testing.assert_allclose(
        got[:, 2 + slot, :, 0::2], want.real, atol=1e-5
      )
      np.testing.assert_allclose(
        got[:, 2 + slot, :, 1::2], want.imag, atol=1e-5
      )
    np.testing.assert_array_equal(got[:, :2], 0)

  def test_the_first_slot_is_not_turned(self):
    x = jax.random.normal(jax.random.key(0), (1, 8, 1, 8))
    got = positions.rotate(x, table("identity"))
    np.testing.assert_array_equal(got[:, :3], x[:, :3])

  def test_places_by_example(self):
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))
    turns = jnp.asarray(table())
    both = positions.rotate(x, turns[jnp.array([[3], [6]])])
    for i, place in enumerate((3, 6)):
      alone = positions.rotate(x[i : i + 1], turns[place : place + 1])
      np.testing.assert_array_equal(both[i : i + 1], alone)

  def test_a_line(self):
    line = lambda prefix_rope, **slots: positions.rope(
      makers.blocks(3, 1), 4, prefix=2, prefix_rope=prefix_rope, **slots
    )
    # Two frequencies, 1 and 10000^(-1/2).
    at = lambda places: np.outer(places, [1, 0.01])
    turned = lambda places: np.stack([np.cos(at(places)), np.sin(at(places))],
                                     -1)  # fmt: skip
    for name, places in (("line", [-2, -1, 0, 1, 2]),
                         ("identity", [0, 0, 0, 1, 2])):  # fmt: skip
      np.testing.assert_allclose(line(name), turned(places), atol=1e-6)
    np.testing.assert_array_equal(line("zero")[:2], 0)
    got = line("zero", slots=(-1, 2))
    np.testing.assert_array_equal(got[0], 0)
    np.testing.assert_allclose(got[1:], turned([2, 0, 1, 2]), atol=1e-6)
    with self.assertRaisesRegex(UserError, "place of unit 3: there are 3"):
      line("zero", slots=(3,))
    with self.assertRaisesRegex(UserError, "lie on a grid"):
      positions.rope(RASTER, 8, prefix=1, prefix_rope="line")
    with self.assertRaisesRegex(UserError, "zero, identity, line"):
      line("off")

  def test_mistakes(self):
    with self.assertRaisesRegex(UserError, "prefix_rope='none'"):
      table("none")
    with self.assertRaisesRegex(UserError, "heads of 6 features"):
      table(features=6)


if __name__ == "__main__":
  absltest.main()
