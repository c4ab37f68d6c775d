"""Orders, masks and counts of plans."""

import numpy as np
from absl.testing import absltest

from ar_jax.core import plan
from ar_jax.core.system import UserError

VAR_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


class PlanTest(absltest.TestCase):
  def test_score_pairs_of_var_and_hmar(self):
    block_causal = plan.scales(VAR_256)
    self.assertLen(block_causal, 680)
    self.assertEqual(block_causal.pairs(), 286_434)
    self.assertEqual(plan.scales(VAR_256, plan.within).pairs(), 110_468)

  def test_scales_are_block_causal_in_raster_order(self):
    p = plan.scales((1, 2, 3))
    step = np.repeat([0, 1, 2], [1, 4, 9])
    np.testing.assert_array_equal(p.step_of(), step)
    np.testing.assert_array_equal(p.mask(), step[:, None] >= step[None, :])
    self.assertEqual([p.span(s) for s in range(3)],
                     [slice(0, 1), slice(1, 5), slice(5, 14)])  # fmt: skip
    np.testing.assert_array_equal(p["row"][5:], np.arange(9) // 3)
    np.testing.assert_array_equal(p["col"][5:], np.arange(9) % 3)
    self.assertEqual(p.steps, 3)

  def test_raster_is_the_lower_triangle(self):
    p = plan.raster(2, 3)
    np.testing.assert_array_equal(p.mask(), np.tri(6, dtype=bool))
    self.assertEqual(p.steps, 6)

  def test_diagonals(self):
    p = plan.diagonals(2, 3)
    self.assertEqual(p.sizes, (1, 2, 2, 1))
    np.testing.assert_array_equal(p["row"] + p["col"], p["step"])
    self.assertLen(np.unique(3 * p["row"] + p["col"]), 6)

  def test_blocks(self):
    self.assertEqual(plan.blocks(10, 4).sizes, (4, 4, 2))
    self.assertEqual(plan.blocks(8, 4).sizes, (4, 4))

  def test_own_columns_and_rule(self):
    p = plan.plan((2, 2), _same_part, part=np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(p.mask()[0], [True, False, True, False])
    self.assertTrue(p.visible(3, 1))
    self.assertFalse(p.visible(3, 0))

  def test_is_a_value(self):
    a, b = plan.scales((1, 2)), plan.scales((1, 2))
    self.assertEqual(a, b)
    self.assertEqual(hash(a), hash(b))
    self.assertNotEqual(a, plan.scales((1, 2), plan.within))
    self.assertNotEqual(a, plan.blocks(5, 4))
    with self.assertRaises(ValueError):
      a["row"][0] = 1

  def test_bad_sizes(self):
    for sizes in ((), (1, 0)):
      with self.assertRaises(UserError):
        plan.plan(sizes)


def _same_part(q, k):
  return q["part"] == k["part"]


if __name__ == "__main__":
  absltest.main()
