"""Others beside an example: distinct, of its class, never itself."""

import itertools
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.wrap import cache, peers


def _rows(n, classes=3, start=0):
  return [
    {"series": np.full((2, 1), start + i), "label": np.int32(i % classes)}
    for i in range(n)
  ]


def _numbers(x):
  return np.asarray(x)[..., 0, 0]


class PeersTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_others_are_distinct_and_of_the_class(self, same_class):
    source = peers.Peers(_rows(12), 3, same_class=same_class)
    rng = np.random.default_rng(0)
    seen = set()
    for i in range(12):
      for one in (source[i], source.draw(i, rng), source.draw(i, rng)):
        others = _numbers(one["peer_series"]).tolist()
        self.assertLen({i, *others}, 4)
        if same_class:
          self.assertEqual(set(one["peer_label"].tolist()), {i % 3})
        seen.add(tuple(others))
      np.testing.assert_array_equal(
        source[i]["peer_series"], source[i]["peer_series"]
      )
    self.assertGreater(len(seen), 20)

  def test_without_draw_the_next_ones_are_taken(self):
    source = peers.Peers(_rows(12), 2)
    self.assertEqual(_numbers(source[4]["peer_series"]).tolist(), [7, 10])
    self.assertEqual(_numbers(source[10]["peer_series"]).tolist(), [1, 4])
    source = peers.Peers(_rows(12), 2, same_class=False)
    self.assertEqual(_numbers(source[11]["peer_series"]).tolist(), [0, 1])

  def test_every_other_comes_as_often(self):
    source, rng = peers.Peers(_rows(12), 1), np.random.default_rng(0)
    others = [source.draw(4, rng)["peer_series"] for _ in range(600)]
    drawn = [_numbers(other)[0] for other in others]
    values, counts = np.unique(drawn, return_counts=True)
    self.assertEqual(values.tolist(), [1, 7, 10])
    self.assertBetween(counts.min(), 150, 200)

  def test_those_of_the_test_part_are_training_examples(self):
    parts = data.Dataset("x", _rows(12), _rows(6, start=100), 3, digest="d")
    found = peers.add(parts, 2)
    rng = np.random.default_rng(0)
    for i in range(6):
      for one in (found.test[i], found.test.draw(i, rng)):
        self.assertEqual(_numbers(one["series"]), 100 + i)
        self.assertLess(one["peer_series"].max(), 12)
        self.assertEqual(set(one["peer_label"].tolist()), {i % 3})
    digests = {parts.digest, found.digest, peers.add(parts, 3).digest}
    self.assertLen(digests, 3)

  def test_a_batch_depends_on_its_position_only(self):
    source = data.load(
      "fake", size=4, length=40, num_classes=3, peers=2, derive={"edges": {}}
    ).train
    stream = data.batches(source, batch=4, seed=3)
    batch = list(itertools.islice(stream, 6))[-1]
    self.assertEqual(batch["peer_image"].shape, (4, 2, 4, 4, 3))
    self.assertEqual(batch["peer_edges"].shape, (4, 2, 4, 4, 1))
    rest = next(data.batches(source, batch=4, seed=3, start=5, workers=2))
    parts = [
      data.batch_at(source, 5, batch=4, seed=3, rows=rows)
      for rows in ((0, 1), (2, 3))
    ]
    for name in batch:
      np.testing.assert_array_equal(batch[name], rest[name])
      joined = np.concatenate([p[name] for p in parts])
      np.testing.assert_array_equal(batch[name], joined)

  def test_they_stand_beside_stored_units(self):
    """The cache holds each example once; peers are of its rows."""
    dataset = data.load("fake", size=4, length=12, num_classes=3, peers=2)
    encode = lambda b: {"units": b["index"][:, None], "label": b["label"]}
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "units")
      alone = peers.alone(dataset.train)
      cache.write(path, alone, encode, batch=5, seed=0, digest="")
      stored = peers.around(cache.read(path), dataset.train)
      batch = data.batch_at(stored, 1, batch=4, seed=0)
      with self.assertRaisesRegex(UserError, "12 stored examples in the place"):
        other = data.load("fake", size=4, length=9, peers=1).train
        peers.around(cache.read(path), other)
    self.assertEqual(batch["peer_units"].shape, (4, 2, 1))
    np.testing.assert_array_equal(
      batch["peer_units"][..., 0] % 3, np.tile(batch["label"][:, None], (1, 2))
    )
    self.assertTrue((batch["peer_units"] != batch["units"][:, None]).all())
    plain = cache.read  # a source without peers stays as it is
    self.assertIs(peers.around(plain, alone), plain)

  def test_mistakes(self):
    with self.assertRaisesRegex(UserError, "peers=-1: must be at least 1"):
      data.load("fake", size=4, peers=-1)
    for source, message in (
      (peers.Peers(_rows(12), 4), "class 0 has 3 other"),
      (peers.Peers(_rows(3), 3, same_class=False), "the data has 2 other"),
      (peers.Peers(_rows(3), 1, pool=_rows(2)[1:]), "class 0 has 0 other"),
      (peers.Peers([{"text": np.zeros(2)}] * 3, 1), "no label, only text"),
    ):
      with self.subTest(message):
        with self.assertRaisesRegex(UserError, message):
          source[0]
        with self.assertRaisesRegex(UserError, message):
          source.draw(0, np.random.default_rng(0))


if __name__ == "__main__":
  absltest.main()
