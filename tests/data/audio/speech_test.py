"""Spoken texts, by a program that stands in for the synthesiser."""

import os
import pathlib
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.audio import speech

# 0.05 s at 8 kHz for each word, of a level that its digit says; the sizes in
# the head say nothing, as those of a stream.
PROGRAM = """#!{python}
import struct, sys
voice, words = sys.argv[2], sys.argv[-1].split()
if voice == "none":
  sys.exit("no such voice")
sound = b"".join(struct.pack("<h", 1000 + 2000 * int(w)) * 400 for w in words)
head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 2**31 - 1, b"WAVE", b"fmt ",
                   16, 1, 1, 8000, 16000, 2, 16, b"data", 2**31 - 1)
sys.stdout.buffer.write(head + sound)
"""
SMALL = dict(length=8, rate=8000, seconds=0.5, voices=("a", "b"))


class SpeechTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.program = root / "espeak-ng"
    self.program.write_text(PROGRAM.format(python=sys.executable))
    self.program.chmod(0o755)
    self.enterContext(
      mock.patch.dict(os.environ, {"AR_JAX_CACHE": str(root / "cache")})
    )

  def load(self, **options):
    return data.load("speech", path=str(self.program), **SMALL | options)

  def test_the_set_and_its_forms(self):
    found = self.load()
    self.assertEqual((len(found.train), len(found.test)), (8, 1))
    self.assertEqual(found.class_names, ("a", "b"))
    texts = set()
    for part in (found.train, found.test):
      for i in range(len(part)):
        example = part[i]
        text = found.forms["text"].read(example["text"])
        texts.add(text)
        self.assertRegex(text, r"^\d{3,6}$")
        self.assertEqual(int(example["audio_length"]), 400 * len(text))
        sound = example["audio"]
        self.assertEqual((sound.shape, sound.dtype), ((4000,), np.float32))
        found.forms["audio"].check(sound[None])
        np.testing.assert_array_equal(sound[400 * len(text) :], 0)
        levels = sound[: 400 * len(text)].reshape(-1, 400).mean(1) * 32_768
        digits = np.round((levels - 1000) / 2000).astype(int)
        self.assertEqual("".join(map(str, digits)), text)
    self.assertLen(texts, 9)

  def test_it_is_spoken_once(self):
    before = self.load()
    self.program.unlink()
    after = self.load()
    np.testing.assert_array_equal(
      before.train[3]["audio"], after.train[3]["audio"]
    )
    self.assertEqual(before.digest, after.digest)
    with self.assertRaisesRegex(UserError, "cannot be run"):
      self.load(least=2)

  @parameterized.parameters(
    (dict(texts="x"), "choose 'digits' or 'words'"),
    (dict(least=9), "at most as many"),
    (dict(voices=("none",)), "does not speak as 'none'"),
    (dict(seconds=0.1), "make them more"),
  )
  def test_refused(self, options, says):
    with self.assertRaisesRegex(UserError, says):
      self.load(**options)

  def test_without_the_program(self):
    with mock.patch.object(speech.shutil, "which", lambda name: None):
      with self.assertRaisesRegex(UserError, "apt-get install espeak-ng"):
        data.load("speech", **SMALL)


if __name__ == "__main__":
  absltest.main()
