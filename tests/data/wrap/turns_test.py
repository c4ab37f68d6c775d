"""Examples in turns, raw and stored."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data import dataset
from ar_jax.data.wrap import cache, turns


def rows(n):
  return [{"text": np.int32([i]), "label": np.int32(i % 2)} for i in range(n)]


class TurnsTest(absltest.TestCase):
  def test_an_example_comes_so_often_in_a_row(self):
    source = turns.Turns(rows(3), 2)
    self.assertLen(source, 6)
    found = [
      (int(x["text"][0]), int(x["turn"]))
      for x in map(source.__getitem__, range(6))
    ]
    self.assertEqual(found, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)])
    batches = data.batches(source, batch=1, seed=3, order="given")
    found = [next(batches) for _ in range(7)]
    found = [(int(x["text"][0, 0]), int(x["turn"][0])) for x in found]
    self.assertEqual(found[:3] + found[6:], [(0, 0), (0, 1), (1, 0), (0, 0)])

  def test_labels(self):
    source = turns.Turns(
      dataset.Arrays({"label": np.int32([1, 0])}, num_classes=2, where="x"), 3
    )
    self.assertEqual(source.labels().tolist(), [1, 1, 1, 0, 0, 0])
    self.assertEqual([source.label(i) for i in (2, 3)], [1, 0])

  def test_what_is_stored_is_stored_once(self):
    source = turns.Turns(rows(3), 4)
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / "units"
      same = lambda batch: batch
      each = turns.alone(source)
      cache.write(path, each, same, batch=2, seed=0, digest="x")
      stored = turns.around(cache.read(path), source)
      self.assertLen(stored.source, 3)
      for i in (0, 5, 11):
        for one in (stored[i], stored.draw(i, np.random.default_rng(0))):
          self.assertEqual(int(one["text"][0]), i // 4)
          self.assertEqual(int(one["turn"]), i % 4)
    self.assertIs(turns.alone(each), each)
    self.assertIs(turns.around(each, each), each)

  def test_as_an_option_of_any_set(self):
    found = data.load("markov_text", length=4, count=8, turns=3, order="given")
    self.assertEqual((len(found.train), len(found.test)), (24, 1))
    self.assertEqual(int(found.test[0]["turn"]), 0)
    with self.assertRaisesRegex(UserError, "data.turns=-1"):
      data.load("markov_text", length=4, count=8, turns=-1)


if __name__ == "__main__":
  absltest.main()
