"""Instructions: each has one exact result, and what it must not touch."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.wrap import edits


class EditsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.image = rng.integers(1, 255, (16, 16, 1)).astype(np.uint8)

  def test_fields(self):
    options = dict(size=16, channels=1, length=60)
    found = data.load("fake", **options, derive={"edits": {}})
    plain = data.load("fake", **options)
    form, seen = found.forms["text"], set()
    for i in range(50):
      one = found.train[i]
      text = form.read(one["text"])
      seen.add(text)
      np.testing.assert_array_equal(one["source"], plain.train[i]["image"])
      want = edits.CHANGES[text](one["source"])
      np.testing.assert_array_equal(one["image"], want)
      same = one["same"].astype(bool)
      self.assertEqual(same.any(), text in edits.LOCAL)
      np.testing.assert_array_equal(one["image"][same], one["source"][same])
    self.assertGreater(len(seen), 10)
    self.assertEqual(found.train[0]["text"].shape, (4,))
    self.assertLessEqual(form.vocab, 41)

  def test_results(self):
    x, change = self.image, edits.CHANGES
    # What undoes itself.
    for name in ("invert", "flip left right", "flip upside down"):
      once = change[name](x)
      self.assertFalse(np.array_equal(once, x))
      np.testing.assert_array_equal(change[name](once), x)
    np.testing.assert_array_equal(change["flip left right"](x)[3, 1], x[3, 14])
    np.testing.assert_array_equal(change["shift up"](x)[:14], x[2:])
    self.assertFalse(change["shift up"](x)[14:].any())
    np.testing.assert_array_equal(change["shift right"](x)[:, 2:], x[:, :14])
    self.assertFalse(change["erase left half"](x)[:, :8].any())
    np.testing.assert_array_equal(change["erase left half"](x)[:, 8:], x[:, 8:])
    np.testing.assert_array_equal(
      change["invert bottom half"](x)[8:], 255 - x[8:]
    )
    self.assertEqual(change["thicken"](x)[5, 5], x[4:7, 4:7].max())
    self.assertEqual(change["thin"](x)[0, 5], x[:2, 4:7].min())

  @parameterized.parameters(*edits.LOCAL)
  def test_half_of_it_stays(self, text):
    same = edits.untouched(text, 16, 16)
    self.assertEqual(same.sum(), 128)
    changed = edits.CHANGES[text](self.image) != self.image
    np.testing.assert_array_equal(changed[..., 0], same == 0)

  def test_mistakes(self):
    for options, message in (
      ({"instructions": ("erase",)}, "choose of invert, flip left right"),
      ({"instructions": ()}, "choose of"),
      ({"length": 2}, "longest instruction has 3 words"),
      ({"field": "label"}, "not the pixels of an image"),
    ):
      with self.assertRaisesRegex(UserError, message):
        data.load("fake", size=16, length=20, derive={"edits": options})


if __name__ == "__main__":
  absltest.main()
