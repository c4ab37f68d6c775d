"""Errors of skeletons, by hand."""

import numpy as np
from absl.testing import absltest

from ar_jax import data, evals
from ar_jax.core.errors import UserError
from ar_jax.evals.science import skeletons
from tests.evals import fakes

LINE = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
ABOVE = np.array([0, 0, 1])


class SkeletonsTest(absltest.TestCase):
  def test_the_truth_has_no_error(self):
    order = np.array([2, 0, 1])  # joints in another order
    parent = np.array([2, 1, 1])
    found = skeletons.errors(LINE[order], parent, LINE, ABOVE)
    for name, value in found.items():
      exact = name in ("parent_accuracy", "precision", "recall", "iou")
      self.assertAlmostEqual(value, float(exact), msg=name)

  def test_by_hand(self):
    # Half of a unit beside it, of two joints of the three.
    found = skeletons.errors(LINE[:2] + [0, 0.5, 0], ABOVE[:2], LINE, ABOVE)
    third = np.hypot(1, 0.5)
    self.assertAlmostEqual(found["chamfer_j2j"], (0.5 + (1 + third) / 3) / 2)
    self.assertAlmostEqual(found["chamfer_j2b"], (0.5 + (1 + third) / 3) / 2)
    self.assertEqual(found["count_error"], 1)
    self.assertAlmostEqual(found["parent_accuracy"], 0.5)
    self.assertEqual(found["iou"], 0)
    near = skeletons.errors(LINE[:2], ABOVE[:2], LINE, ABOVE)
    self.assertAlmostEqual(near["iou"], 2 / 3)
    self.assertEqual((near["precision"], round(near["recall"], 3)), (1, 0.667))
    # Bones are near where joints are not.
    middle = np.array([[0.0, 0, 0], [0.5, 0, 0], [2, 0, 0]])
    moved = skeletons.errors(middle, ABOVE, LINE, ABOVE)
    self.assertAlmostEqual(moved["chamfer_j2b"], 0)
    self.assertGreater(moved["chamfer_j2j"], 0.1)
    # One joint alone is a bone without length.
    alone = skeletons.errors(LINE[:1], ABOVE[:1], LINE, ABOVE)
    self.assertTrue(np.isfinite(list(alone.values())).all())
    # A chain in place of a fork has the wrong parents.
    fork = skeletons.errors(LINE, np.array([0, 0, 0]), LINE, ABOVE)
    self.assertAlmostEqual(fork["parent_accuracy"], 0.5)

  def test_evaluator(self):
    creatures = data.load("creatures", points=8, count=64)
    made = ("joints", "parent", "count")
    drawn = {
      k: np.stack([creatures.test[i][k] for i in range(8)]) for k in made
    }

    class Known:
      needs, makes = ("points",), made

    def draw(system, variables, cond, key, **options):
      points = np.stack([creatures.test[i]["points"] for i in range(8)])
      same = (cond["points"][:, None] == points[None]).all((2, 3))
      return {k: v[same.argmax(1)] for k, v in drawn.items()}

    run = evals.build("skeletons", creatures, draw=draw)
    found = run(Known(), {}, (), None)
    self.assertEqual(found["chamfer_j2j"], 0)
    self.assertEqual(found["parent_accuracy"], 1)
    self.assertGreater(found["chamfer_j2j_baseline"], 0.1)
    with self.assertRaisesRegex(UserError, "have no joints"):
      evals.build("skeletons", data.load("fake", size=4))
    with self.assertRaisesRegex(UserError, "makes"):
      evals.check_system("skeletons", {}, fakes.Fake())


if __name__ == "__main__":
  absltest.main()
