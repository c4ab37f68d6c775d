"""Creatures by rule, and trees as sequences."""

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.domains import skeletons
from ar_jax.core.errors import UserError
from ar_jax.data.science import creatures


class CreaturesTest(absltest.TestCase):
  def test_examples(self):
    found = data.load("creatures", count=64, points=100)
    self.assertLen(found.test, 8)
    counts = set()
    for i in range(64):
      x = found.train[i]
      n, parent = int(x["count"]), x["parent"]
      counts.add(n)
      self.assertBetween(n, 4, 12)
      self.assertEqual(parent[0], 0)
      self.assertTrue((parent[1:n] < np.arange(1, n)).all())
      np.testing.assert_array_equal(x["joints"][n:], 0)
      place, normal = x["points"][:, :3], x["points"][:, 3:]
      self.assertAlmostEqual(np.abs(place).max(), 1.0, delta=1e-5)
      np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
      np.testing.assert_allclose(x["skin"].sum(1), 1, atol=1e-5)
      np.testing.assert_array_equal(x["skin"][:, n:], 0)
      # No leaf moves anything, no bone ends above itself.
      leaves = np.setdiff1d(np.arange(n), parent[1:n])
      np.testing.assert_array_equal(x["skin"][:, leaves], 0)
      found.forms["joints"].check(x["joints"][None])
    self.assertGreater(len(counts), 4)
    again = data.load("creatures", count=64, points=100)
    np.testing.assert_array_equal(
      found.train[9]["points"], again.train[9]["points"]
    )

  def test_points_lie_on_the_surface(self):
    rng = np.random.default_rng(0)
    for _ in range(5):
      places, parent = creatures.tree(rng)
      radius = rng.uniform(0.04, 0.1, len(parent))
      made = creatures.skin_points(places, parent, radius, 200, rng)
      ends = np.arange(1, len(parent))
      far = skeletons.bone_distances(
        made[:, :3], places[parent[ends]], places[ends]
      )
      over = (far - radius[None, ends]).min(1)
      np.testing.assert_allclose(over, 0, atol=1e-6)
      # A step along the normal leads outwards.
      out = skeletons.bone_distances(
        made[:, :3] + 1e-3 * made[:, 3:], places[parent[ends]], places[ends]
      )
      own = np.argmin(far - radius[None, ends], 1)
      rows = np.arange(200)
      self.assertTrue((out[rows, own] > far[rows, own]).all())

  def test_training_shuffles_siblings_and_turns(self):
    found = data.load("creatures", count=64, points=50)
    still = data.load("creatures", count=64, points=50, turn=0.0)
    rng = np.random.default_rng(0)
    plain, orders = found.train[3], set()
    for _ in range(12):
      x = found.train.draw(3, rng)
      n = int(x["count"])
      self.assertEqual(n, plain["count"])
      self.assertTrue((x["parent"][1:n] < np.arange(1, n)).all())
      orders.add(still.train.draw(3, rng)["joints"].tobytes())

      def length(x, n=n):
        bones = x["joints"] - x["joints"][x["parent"]]
        return np.sort(np.linalg.norm(bones[1:n], axis=1))

      # Bones keep their lengths but for the scale of the whole.
      ratio = length(x) / length(plain)
      np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    self.assertGreater(len(orders), 1)

  def test_there_and_back(self):
    """Tree -> breadth-first, however siblings are shuffled -> tree."""
    rng = np.random.default_rng(1)
    for _ in range(20):
      _, parent = creatures.tree(rng)
      for shuffled in (None, rng):
        order = skeletons.breadth_first(parent, shuffled)
        found = skeletons.reordered(parent, order)
        self.assertTrue((found[1:] < np.arange(1, len(found))).all())
        depth = [0]
        for above in found[1:]:
          depth.append(depth[above] + 1)
        self.assertEqual(depth, sorted(depth))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        np.testing.assert_array_equal(skeletons.reordered(found, back), parent)

  def test_mistakes(self):
    for parent, message in (
      ([0, 1], "one root, this one has 2"),
      ([0, 5], "its parent 5 is no joint"),
      ([0, 2, 1], "go round in a circle"),
    ):
      with self.assertRaisesRegex(UserError, message):
        skeletons.breadth_first(parent)
    with self.assertRaisesRegex(UserError, "joints=8 must be at least 12"):
      data.load("creatures", joints=8)


if __name__ == "__main__":
  absltest.main()
