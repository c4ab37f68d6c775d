"""A part of the training split."""

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.system import UserError


class ShareTest(absltest.TestCase):
  def test_the_first_examples(self):
    whole = data.load("digits", size=8, channels=1)
    half = data.load("digits", size=8, channels=1, share=0.5)
    self.assertLen(half.train, round(len(whole.train) / 2))
    self.assertLen(half.test, len(whole.test))
    last = len(half.train) - 1
    for name in ("image", "label"):
      np.testing.assert_array_equal(
        half.train[last][name], whole.train[last][name]
      )
    if hasattr(half.train, "labels"):
      self.assertLen(half.train.labels(), len(half.train))
    self.assertNotEqual(half.digest, whole.digest)
    rows = data.batch_at(half.train, 0, batch=len(half.train), seed=0)
    self.assertLess(rows["index"].max(), len(half.train))

  def test_what_is_no_share(self):
    for share in (0.0, 1.5):
      with self.assertRaisesRegex(UserError, "data.share"):
        data.load("fake", size=8, share=share)


if __name__ == "__main__":
  absltest.main()
