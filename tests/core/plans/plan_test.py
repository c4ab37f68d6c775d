"""Orders, masks and counts of plans."""

import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers, plan
from ar_jax.core.system import UserError

VAR_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


class PlanTest(absltest.TestCase):
  def test_score_pairs_of_var_and_hmar(self):
    block_causal = makers.scales(VAR_256)
    self.assertLen(block_causal, 680)
    self.assertEqual(block_causal.pairs(), 286_434)
    self.assertEqual(makers.scales(VAR_256, plan.within).pairs(), 110_468)

  def test_scales_are_block_causal_in_raster_order(self):
    p = makers.scales((1, 2, 3))
    step = np.repeat([0, 1, 2], [1, 4, 9])
    np.testing.assert_array_equal(p.step_of(), step)
    np.testing.assert_array_equal(p.mask(), step[:, None] >= step[None, :])
    self.assertEqual([p.span(s) for s in range(3)],
                     [slice(0, 1), slice(1, 5), slice(5, 14)])  # fmt: skip
    np.testing.assert_array_equal(p["row"][5:], np.arange(9) // 3)
    np.testing.assert_array_equal(p["col"][5:], np.arange(9) % 3)
    self.assertEqual(p.steps, 3)

  def test_raster_is_the_lower_triangle(self):
    p = makers.raster(2, 3)
    np.testing.assert_array_equal(p.mask(), np.tri(6, dtype=bool))
    self.assertEqual(p.steps, 6)

  def test_regions(self):
    p = makers.regions(2, 4, 2)
    self.assertEqual(p.sizes, (4, 4))
    np.testing.assert_array_equal(p["row"], [0, 0, 1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(p["col"], [0, 2, 0, 2, 1, 3, 1, 3])
    with self.assertRaisesRegex(UserError, "do not divide"):
      makers.regions(3, 4, 2)

  def test_diagonals(self):
    p = makers.diagonals(2, 3)
    self.assertEqual(p.sizes, (1, 2, 2, 1))
    np.testing.assert_array_equal(p["row"] + p["col"], p["step"])
    self.assertLen(np.unique(3 * p["row"] + p["col"]), 6)

  def test_blocks(self):
    self.assertEqual(makers.blocks(10, 4).sizes, (4, 4, 2))
    self.assertEqual(makers.blocks(8, 4).sizes, (4, 4))

  def test_prefixed(self):
    step = np.array([0, 0, 1, 2, 2, 3])
    p = makers.prefixed(makers.diagonals(2, 2), 2)
    np.testing.assert_array_equal(p.step_of(), step)
    np.testing.assert_array_equal(p.mask(), step[:, None] >= step[None, :])
    np.testing.assert_array_equal(p["row"], [0, 0, 0, 0, 1, 1])
    one_by_one = makers.prefixed(makers.diagonals(2, 2), 2, each=True)
    self.assertEqual(one_by_one.sizes, (1, 1, 1, 2, 1))
    with self.assertRaisesRegex(UserError, "within"):
      makers.prefixed(makers.blocks(4, 2, plan.within), 2)

  def test_sliding(self):
    want = np.tri(7, dtype=bool) & ~np.tri(7, k=-3, dtype=bool)
    np.testing.assert_array_equal(makers.sliding(7, 3).mask(), want)

  def test_noisy_clean(self):
    block = np.arange(6) // 2
    earlier = block[:, None] > block[None, :]
    own = block[:, None] == block[None, :]
    want = np.block([[own, earlier], [np.zeros_like(own), own | earlier]])
    p = makers.noisy_clean(makers.blocks(6, 2))
    np.testing.assert_array_equal(p.mask(), want)
    np.testing.assert_array_equal(p["position"], np.tile(np.arange(6), 2))

  def test_tree(self):
    parents = (-1, 0, 0, 1, 2, 1, -1, 6)
    want = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
      while parent >= 0:
        want[node, parent] = True
        parent = parents[parent]
    p = makers.tree(parents)
    np.testing.assert_array_equal(p.mask(), want)
    np.testing.assert_array_equal(p["depth"], want.sum(1) - 1)
    with self.assertRaisesRegex(UserError, "before its node"):
      makers.tree((-1, 2, 0))

  def test_own_columns_and_rule(self):
    p = plan.plan((2, 2), _same_part, part=np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(p.mask()[0], [True, False, True, False])
    self.assertTrue(p.visible(3, 1))
    self.assertFalse(p.visible(3, 0))

  def test_is_a_value(self):
    a, b = makers.scales((1, 2)), makers.scales((1, 2))
    self.assertEqual(a, b)
    self.assertEqual(hash(a), hash(b))
    self.assertNotEqual(a, makers.scales((1, 2), plan.within))
    self.assertNotEqual(a, makers.blocks(5, 4))
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
