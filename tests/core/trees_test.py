"""Trees taken apart by patterns, and put together."""

from absl.testing import absltest

from ar_jax.core import trees
from ar_jax.core.errors import UserError

TREE = {
  "head": {"kernel": 1, "bias": 2},
  "body": {"layer_0": {"kernel": 3, "bias": 4}, "layer_1": {"kernel": 5}},
  "scale": 6,
}


class TreesTest(absltest.TestCase):
  def test_a_pattern_names_leaves_or_what_holds_them(self):
    self.assertEqual(trees.select(TREE, "scale"), {"scale": 6})
    self.assertEqual(trees.select(TREE, "head"), {"head": TREE["head"]})
    self.assertEqual(
      trees.select(TREE, ["*/bias", "body/layer_[1-9]"]),
      {
        "head": {"bias": 2},
        "body": {"layer_0": {"bias": 4}, "layer_1": {"kernel": 5}},
      },
    )
    # The whole of a path, not a part of it.
    with self.assertRaises(UserError):
      trees.select(TREE, "layer_1")

  def test_parts_are_the_whole(self):
    for patterns in ("head", "*/kernel", ("scale", "body/*"), "*"):
      chosen, rest = trees.split(TREE, patterns)
      self.assertEqual(trees.merge(chosen, rest), TREE)
      self.assertFalse(set(trees.paths(chosen)) & set(trees.paths(rest)))
    self.assertEqual(trees.split(TREE, "*")[1], {})

  def test_of_two_leaves_the_second_counts(self):
    merged = trees.merge(TREE, {"head": {"bias": 7, "gate": 8}})
    self.assertEqual(merged["head"], {"kernel": 1, "bias": 7, "gate": 8})
    self.assertEqual(TREE["head"], {"kernel": 1, "bias": 2})
    for other in ({"head": 1}, {"scale": {"x": 1}}):
      with self.assertRaisesRegex(UserError, "an array in one tree"):
        trees.merge(TREE, other)

  def test_a_pattern_without_a_name_tells_the_nearest(self):
    with self.assertRaisesRegex(
      UserError,
      "frozen: no part is named 'body/layer_2'; did you mean body/layer_"
      ".*there are head, body, scale",
    ):
      trees.split(TREE, ["head", "body/layer_2"], "frozen")


if __name__ == "__main__":
  absltest.main()
