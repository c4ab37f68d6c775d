"""The made speech says what its text says, whoever speaks."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError


class ChirpsTest(parameterized.TestCase):
  def test_the_set_and_its_forms(self):
    found = data.load("chirps", length=40, speakers=3)
    self.assertEqual((len(found.train), len(found.test)), (40, 5))
    self.assertEqual(found.num_classes, 3)
    self.assertEqual(found.forms["text"].vocab, 9)
    for part in (found.train, found.test):
      rows = [part[i] for i in range(len(part))]
      audio = np.stack([r["audio"] for r in rows])
      text = np.stack([r["text"] for r in rows])
      self.assertEqual((audio.shape[1], audio.dtype), (2400, np.float32))
      found.forms["audio"].check(audio)
      found.forms["text"].check(text)
      self.assertBetween((text > 0).sum(1).min(), 3, 6)
      self.assertEqual(part.labels().tolist(), [int(r["label"]) for r in rows])
      np.testing.assert_array_equal(part[3]["audio"], audio[3])
    self.assertFalse(np.array_equal(found.train[0]["audio"],
                                    found.test[0]["audio"]))  # fmt: skip
    text = found.forms["text"].read(found.train[5]["text"])
    self.assertRegex(text, "^[a-h]{3,6}$")
    ids = found.forms["text"].ids(text, 6)
    np.testing.assert_array_equal(ids, found.train[5]["text"])

  def test_letters_and_speakers_are_heard(self):
    """A letter's loudest frequency at its start and its end, over the pitch,
    is that of its rule, and no two letters share both."""
    found = data.load("chirps", noise=0.0, length=60, shortest=1, longest=1)
    heard = {}
    for i in range(60):
      example = found.train[i]
      sound = example["audio"]
      sound = sound[: np.flatnonzero(np.abs(sound) > 1e-6)[-1]]
      ends = []
      for part in (sound[:120], sound[-120:]):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 4096))
        ends.append(spectrum.argmax() / 4096)
      letter, speaker = int(example["text"][0]), int(example["label"])
      heard.setdefault(letter, []).append(
        np.log(ends) - speaker * np.log(2) / 3
      )
    self.assertGreater(len(heard), 5)
    centers = {k: np.mean(v, 0) for k, v in heard.items()}
    for letter, own in heard.items():
      self.assertLess(np.abs(np.asarray(own) - centers[letter]).max(), 0.25)
      for other, center in centers.items():
        if other != letter:
          self.assertGreater(np.abs(center - centers[letter]).max(), 0.3)

  @parameterized.parameters(
    (dict(symbols=27), "symbols=27: must be from 1 to 26"),
    (dict(shortest=7), "shortest=7: must be from 0 to 6"),
    (dict(each=3), "each=3: must be from 16"),
    (dict(longest=0), "longest=0: must be from 1"),
    (dict(noise=-1.0), "noise=-1.0: must be from"),
    (dict(size=16), "size: no option of 'chirps'"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      data.load("chirps", **options)


if __name__ == "__main__":
  absltest.main()
