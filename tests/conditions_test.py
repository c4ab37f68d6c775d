"""What is asked for does not depend on how much of it is asked for."""

import dataclasses
import importlib

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import conditions
from ar_jax import data as sets
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.data import Dataset
from tests.evals import fakes


def labels_of(classes, n, law="balanced", train=()):
  data = Dataset("x", list(train), [], classes, ("",) * classes)
  return conditions.draw_labels(data, n, law)


class ConditionsTest(parameterized.TestCase):
  @parameterized.product(classes=(1, 2, 3, 7, 10, 100, 1000), n=(1, 64, 999))
  def test_the_class_of_a_sample_is_a_function_of_its_number(self, classes, n):
    train = [{"label": np.int32(i % classes)} for i in range(50)]
    for law in conditions.LAWS:
      some, more = (labels_of(classes, k, law, train) for k in (n, 2000))
      np.testing.assert_array_equal(some, more[:n])

  @parameterized.parameters(1, 2, 3, 4, 10, 37, 100, 1000)
  def test_any_stretch_has_all_classes_in_their_shares(self, classes):
    label = labels_of(classes, 3 * classes + 5)
    for start in (0, 5):
      part = label[start : start + 2 * classes]
      np.testing.assert_array_equal(np.bincount(part), [2] * classes)

  def test_a_few_of_many_classes_are_spread(self):
    label = np.sort(labels_of(1000, 64))
    gaps = np.diff(np.append(label, label[0] + 1000))
    self.assertLess(gaps.max(), 3 * 1000 / 64)
    self.assertGreater(gaps.min(), 1000 / 64 / 3)

  def test_laws(self):
    train = [{"label": np.int32(i == 0)} for i in range(10)]
    self.assertAlmostEqual(labels_of(2, 4000, "data", train).mean(), 0.1, 1)
    self.assertAlmostEqual(labels_of(2, 4000, "uniform").mean(), 0.5, 1)
    with self.assertRaisesRegex(UserError, "labels='even': choose one of"):
      labels_of(2, 4, "even")

  def test_the_law_of_an_evaluation_follows_uneven_data(self):
    for counts, want in (((10, 6), "balanced"), ((10, 4), "data")):
      label = np.repeat([0, 1], counts)
      train = [{"label": k} for k in label]
      data = Dataset("x", train, [], 2, ("a", "b"))
      self.assertEqual(conditions.law_of(data, ""), want)
      self.assertEqual(conditions.law_of(data, "uniform"), "uniform")

  def test_labels_by_name_of_the_user(self):
    data = fakes.patterns()
    made = lambda n, *labels: conditions.conditions(
      fakes.Fake(), data, n, labels=labels
    )["label"].tolist()
    self.assertEqual(made(5, 3, 1), [3, 1, 3, 1, 3])
    for wrong in ((4,), (-1,), (1.5,)):
      with self.assertRaisesRegex(UserError, "classes 0 to 3"):
        made(2, *wrong)

  def test_test_examples_are_random_and_do_not_repeat(self):
    data = fakes.patterns()
    made = lambda n: conditions.conditions(fakes.Coarse(), data, n)["image"]
    images = made(32)
    self.assertLen({x.tobytes() for x in images}, 32)
    in_order = np.stack([e["image"] for e in data.test])
    self.assertFalse((images == in_order).all())
    np.testing.assert_array_equal(made(40)[32:], images[:8])
    np.testing.assert_array_equal(made(5), images[:5])

  def test_a_grid_has_a_class_a_row(self):
    label = labels_of(10, 64)
    chosen, columns = conditions.by_class(label, 8)
    self.assertEqual(columns, 6)
    rows = label[chosen].reshape(-1, 6)
    np.testing.assert_array_equal(rows, np.arange(8)[:, None] + 0 * rows)
    # One of each: as many as fit, the classes in order.
    label = labels_of(1000, 64)
    chosen, columns = conditions.by_class(label, 8)
    self.assertEqual((len(chosen), columns), (64, 8))
    np.testing.assert_array_equal(label[chosen], np.sort(label))

  def test_a_system_that_reads_texts_is_asked_by_one(self):
    config = importlib.import_module("configs.janus").get_config("smoke")
    system = build(config.system, **config.model.to_dict())
    data = sets.load(**config.data)
    found = conditions.prompted(system, data, 3, "a seven")
    self.assertEqual(found.keys(), {"text"})
    self.assertEqual(found["text"].shape[0], 3)
    for row in found["text"]:
      self.assertEqual(data.forms["text"].read(row), "a seven")
    for text, said in (
      ("a sevn", "sample.prompt='a sevn': .*'sevn' is not among"),
      ("a " * 9 + "a", "there is room for 6"),
    ):
      with self.assertRaisesRegex(UserError, said):
        conditions.prompted(system, data, 1, text)
    # Of several, each in turn.
    several = ["a seven", "three"]
    turns = conditions.prompted(system, data, 3, several)["text"]
    read = [data.forms["text"].read(row) for row in turns]
    self.assertEqual(read, ["a seven", "three", "a seven"])
    with self.assertRaisesRegex(UserError, "there is room for 6"):
      conditions.prompted(system, data, 1, ["three", "a " * 9 + "a"])
    features = [{"text": np.zeros((3, 2), np.float32)}]
    data = dataclasses.replace(data, test=features)
    with self.assertRaisesRegex(UserError, "another encoder made"):
      conditions.prompted(system, data, 1, "a seven")
    ids = [{"text": np.zeros(3, np.int32)}]  # of whatever tokenizer
    data = dataclasses.replace(data, test=ids, forms={})
    with self.assertRaisesRegex(UserError, "another encoder made"):
      conditions.prompted(system, data, 1, "a seven")

  def test_bytes_are_asked_for_as_they_are(self):
    config = importlib.import_module("configs.llamagen_text").get_config(
      "smoke"
    )
    system = build(config.system, **config.model.to_dict())
    found = conditions.prompted(system, sets.load(**config.data), 2, "class 1")
    self.assertEqual(bytes(found["text"][1].tolist()), b"class 1\0")
    with self.assertRaisesRegex(UserError, "reads label, makes image"):
      conditions.prompted(fakes.Fake(), fakes.patterns(), 1, "a seven")


if __name__ == "__main__":
  absltest.main()
