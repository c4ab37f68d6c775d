"""Edit distances, by hand and against the table that defines them."""

import importlib.util
import unittest

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.evals.text import distance


def by_table(a, b):
  """Wagner and Fischer 1974."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    last, row = row, [i]
    for j, y in enumerate(b, 1):
      row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
  return row[-1]


def cases():
  rng = np.random.default_rng(0)
  for _ in range(300):
    n, m = rng.integers(0, 12, 2)
    letters = rng.integers(2, 5)
    yield [rng.integers(letters, size=k).tolist() for k in (n, m)]
  for n, m in ((200, 170), (65, 64), (64, 63), (1, 300)):
    yield [rng.integers(3, size=k).tolist() for k in (n, m)]


class DistanceTest(parameterized.TestCase):
  @parameterized.parameters(
    ("kitten", "sitting", 3),
    ("", "abc", 3),
    ("abc", "", 3),
    ("", "", 0),
    ("flaw", "lawn", 2),
    ("same", "same", 0),
    ("Grüße", "Grusse", 3),
  )
  def test_by_hand(self, a, b, want):
    self.assertEqual(distance.own(a, b), want)
    self.assertEqual(distance.edit_distance(a, b), want)

  def test_words(self):
    a, b = "the cat sat".split(), "the bat sat down".split()
    self.assertEqual(distance.own(a, b), 2)
    self.assertEqual(distance.edit_distance(a, b), 2)

  def test_is_that_of_the_table(self):
    for a, b in cases():
      self.assertEqual(distance.own(a, b), by_table(a, b), f"{a} {b}")

  @unittest.skipUnless(importlib.util.find_spec("rapidfuzz"), "no rapidfuzz")
  def test_is_that_of_rapidfuzz(self):
    for a, b in cases():
      self.assertEqual(distance.own(a, b), distance.edit_distance(a, b))


if __name__ == "__main__":
  absltest.main()
