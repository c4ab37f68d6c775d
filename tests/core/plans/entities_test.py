"""Orders of the entities of a map."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.plans import makers
from ar_jax.core.plans.entities import (
  ENTITIES,
  cells,
  entities,
  scales,
  subsamples,
)
from ar_jax.core.system import UserError


class EntitiesTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 4, 8, 16)
  def test_cells_there_and_back(self, side):
    p = cells(16, 16, side)
    self.assertEqual(p.sizes, (side * side,) * (16 // side) ** 2)
    raster = 16 * p["row"] + p["col"]
    units = np.arange(256)[::-1]
    np.testing.assert_array_equal(units[raster][np.argsort(raster)], units)
    # As the published code has it: (cell row, cell col, row, col).
    grid = np.arange(256).reshape(16 // side, side, 16 // side, side)
    np.testing.assert_array_equal(raster, grid.swapaxes(1, 2).ravel())

  def test_ends(self):
    np.testing.assert_array_equal(cells(4, 4, 1).mask(), np.tri(16, dtype=bool))
    self.assertTrue(cells(4, 4, 4).mask().all())
    for name in ("row", "col"):
      np.testing.assert_array_equal(
        cells(3, 4, 1)[name], makers.raster(3, 4)[name]
      )

  def test_subsamples(self):
    p = subsamples(4, 4, 2)
    self.assertEqual(p.sizes, (4,) * 4)
    for s in range(4):
      at = p.span(s)
      self.assertEqual(set(p["row"][at] % 2), {s // 2})
      self.assertEqual(set(p["col"][at] % 2), {s % 2})
    np.testing.assert_array_equal(p["row"][:4], [0, 0, 2, 2])
    np.testing.assert_array_equal(p["col"][:4], [0, 2, 0, 2])

  def test_scales_lie_on_the_map(self):
    p = scales(4, (1, 2, 4))
    self.assertEqual(p.sizes, (1, 4, 16))
    np.testing.assert_array_equal(p["row"][:5], [0, 0, 0, 2, 2])
    np.testing.assert_array_equal(p["col"][:5], [0, 0, 2, 0, 2])

  def test_kinds(self):
    part = {"cell": 2, "subsample": 2, "scale": (1, 2, 4)}
    steps = {k: entities(k, (4, 4), part.get(k, 0)).steps for k in ENTITIES}
    want = dict(token=16, cell=4, subsample=4, scale=3, image=1)
    self.assertEqual(steps, want)

  @parameterized.parameters(
    ("cells", 2, "entity='cells'"),
    ("cell", 3, "parts of 3"),
    ("subsample", 0, "parts of 0"),
    ("scale", (1, 3, 4), "divide the side 4"),
    ("scale", (1, 2), "the last must"),
  )
  def test_what_does_not_fit(self, kind, part, message):
    with self.assertRaisesRegex(UserError, message):
      entities(kind, (4, 4), part)


if __name__ == "__main__":
  absltest.main()
