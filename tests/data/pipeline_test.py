"""The stream is a pure function of (seed, step), however it is read."""

import collections
import itertools

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.system import UserError
from ar_jax.data.images import transforms


def _source(length=20, size=8):
  return data.load("fake", size=size, channels=1, length=length).train


def _take(iterator, n):
  return list(itertools.islice(iterator, n))


class _Numbers:
  """A source that says which example it gave."""

  def __init__(self, n):
    self._n = n

  def __len__(self):
    return self._n

  def __getitem__(self, i):
    return {"label": np.int32(i)}


class PipelineTest(parameterized.TestCase):
  def assert_same(self, ours, theirs):
    self.assertLen(ours, len(theirs))
    for a, b in zip(ours, theirs, strict=True):
      self.assertEqual(sorted(a), sorted(b))
      for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)

  def test_batch_has_the_agreed_fields(self):
    b = next(data.batches(_source(), batch=6, seed=0))
    self.assertEqual(b["image"].shape, (6, 8, 8, 1))
    self.assertEqual(b["image"].dtype, np.uint8)
    self.assertEqual(b["label"].dtype, np.int32)
    self.assertEqual(b["index"].dtype, np.int32)

  @parameterized.parameters(
    dict(workers=0, prefetch=0),
    dict(workers=0, prefetch=3),
    dict(workers=4, prefetch=2),
  )
  def test_resuming_skips_nothing(self, workers, prefetch):
    augment = transforms.augmentation("flip", "shift")
    options = dict(batch=6, seed=3, augment=augment)
    whole = _take(data.batches(_source(), **options), 9)
    rest = data.batches(
      _source(), start=4, workers=workers, prefetch=prefetch, **options
    )
    self.assert_same(whole[4:], _take(rest, 5))
    at = [data.batch_at(_source(), s, **options) for s in range(9)]
    self.assert_same(whole, at)

  def test_each_epoch_holds_every_example_once_in_a_new_order(self):
    drawn = _take(data.batches(_Numbers(12), batch=4, seed=0), 9)
    labels = np.concatenate([b["label"] for b in drawn]).reshape(3, 12)
    np.testing.assert_array_equal(np.sort(labels), [list(range(12))] * 3)
    self.assertLen({tuple(epoch) for epoch in labels}, 3)

  def test_the_given_order_is_kept(self):
    options = dict(batch=4, seed=0, order="given")
    drawn = _take(data.batches(_Numbers(10), **options), 5)
    labels = np.concatenate([b["label"] for b in drawn])
    np.testing.assert_array_equal(labels, [*range(10), *range(10)])
    rest = _take(data.batches(_Numbers(10), start=3, **options), 2)
    self.assert_same(drawn[3:], rest)
    with self.assertRaisesRegex(UserError, "'sorted': must be 'shuffled' or"):
      data.batch_at(_Numbers(3), 0, batch=1, seed=0, order="sorted")

  def test_neighbouring_seeds_are_not_an_epoch_apart(self):
    one = np.concatenate(
      [data.batch_at(_Numbers(12), 1, batch=12, seed=0)["label"]]
    )
    two = data.batch_at(_Numbers(12), 0, batch=12, seed=1)["label"]
    self.assertNotEqual(list(one), list(two))

  def test_augmentation_depends_on_seed_and_index_only(self):
    augment = transforms.augmentation("flip", "shift")
    for seed in (0, 1):
      wide = data.batch_at(_source(), 1, batch=8, seed=seed, augment=augment)
      narrow = [
        data.batch_at(_source(), s, batch=4, seed=seed, augment=augment)
        for s in (2, 3)
      ]
      joined = {k: np.concatenate([n[k] for n in narrow]) for k in wide}
      self.assert_same([wide], [joined])
    plain = data.batch_at(_source(), 1, batch=8, seed=1)
    self.assertFalse(np.array_equal(wide["image"], plain["image"]))

  def test_processes_share_out_the_batch(self):
    options = dict(batch=8, seed=1, augment=transforms.augmentation("flip"))
    whole = _take(data.batches(_source(), **options), 3)
    parts = [
      _take(data.batches(_source(), rows=rows, **options), 3)
      for rows in ((0, 1, 2), (3,), (4, 5, 6, 7))
    ]
    joined = [
      {k: np.concatenate([part[step][k] for part in parts]) for k in batch}
      for step, batch in enumerate(whole)
    ]
    self.assert_same(whole, joined)

  @parameterized.parameters(1, 2)
  def test_epoch_reads_all_once_and_marks_padding(self, count):
    seen = collections.Counter()
    for p in range(count):
      rows = range(p * 4 // count, (p + 1) * 4 // count)
      passed = list(data.epoch(_Numbers(10), batch=4, rows=rows))
      self.assertLen(passed, 3)
      for b in passed:
        self.assertLen(b["mask"], 4 // count)
        self.assertEqual(b["mask"].dtype, np.float32)
        real = b["mask"] == 1
        np.testing.assert_array_equal(b["label"][real], b["index"][real])
        seen.update(b["index"][real].tolist())
        self.assertTrue((b["index"][~real] >= 10).all())
    self.assertEqual(seen, collections.Counter(range(10)))

  def test_index_wraps_before_it_overflows(self):
    b = data.batch_at(_Numbers(7), 2**31 - 1, batch=2, seed=0)
    np.testing.assert_array_equal(b["index"], [2**31 - 2, 2**31 - 1])
    b = data.batch_at(_Numbers(7), 2**30, batch=2, seed=0)
    np.testing.assert_array_equal(b["index"], [0, 1])

  def test_errors_are_for_the_user(self):
    with self.assertRaisesRegex(UserError, "batch=0: must be at least 1"):
      data.batch_at(_source(), 0, batch=0, seed=0)
    with self.assertRaisesRegex(UserError, "no example"):
      data.batches([], batch=2, seed=0)

  def test_an_error_in_a_worker_reaches_the_caller(self):
    def broken(example, rng):
      raise UserError("file.png: cannot be read")

    read = data.batches(_source(), batch=2, seed=0, augment=broken, workers=2)
    with self.assertRaisesRegex(UserError, "file.png"):
      next(read)


if __name__ == "__main__":
  absltest.main()
