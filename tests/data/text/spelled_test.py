"""Words of a corpus, letter by letter."""

import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.errors import UserError


class SpelledTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.file = root / "verses"
    self.file.write_text(
      "".join(
        f"Ge{c}:1 The ark, (it was) gopher-wood; Noah's a1b naïve "
        "wildernesses.\n"
        for c in range(1, 21)
      )
    )

  def load(self, **options):
    return data.load("spelled", path=str(self.file), **options)

  def test_words_as_often_as_they_come(self):
    found = self.load(least=3, most=6)
    read = found.forms["text"].read
    self.assertLen(found.train, 18 * 6)
    self.assertLen(found.test, 2 * 6)
    first = [read(found.train[i]["text"]) for i in range(6)]
    self.assertEqual(first, ["the", "ark", "was", "gopher", "wood", "noah"])
    ark = found.train[1]["text"]
    np.testing.assert_array_equal(ark, [1, 18, 11, 0, 0, 0, 0])
    self.assertEqual(ark.dtype, np.int32)
    found.forms["text"].check(ark[None])

  def test_mistakes(self):
    with self.assertRaisesRegex(UserError, "least=5, data.most=4"):
      self.load(least=5, most=4)
    with self.assertRaisesRegex(UserError, "no word of 20 to 30 letters"):
      self.load(least=20, most=30)


if __name__ == "__main__":
  absltest.main()
