"""Recordings as people have them: read right, or refused in a line."""

import logging
import pathlib
import struct
import tempfile
import wave

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.audio import wav


def _tone(count=800, rate=8000, frequency=200.0):
  return 0.5 * np.sin(2 * np.pi * frequency * np.arange(count) / rate)


def _pcm(sound, width):
  top = 2 ** (8 * width - 1)
  numbers = np.round(np.asarray(sound) * (top - 1)).astype(np.int64)
  if width == 1:
    return (numbers + 128).astype(np.uint8).tobytes()
  wide = numbers.astype("<i8")[..., None].view(np.uint8)
  return wide.reshape(*numbers.shape, 8)[..., :width].tobytes()


def _save(path, sound=None, width=2, rate=8000, channels=1):
  path.parent.mkdir(parents=True, exist_ok=True)
  sound = _tone() if sound is None else sound
  with wave.open(str(path), "wb") as f:
    f.setnchannels(channels)
    f.setsampwidth(width)
    f.setframerate(rate)
    f.writeframes(_pcm(sound, width))


def _save_raw(path, kind, align, bits, raw, size=None, extra=b"", rate=8000):
  """A file with a head that `wave` does not write."""
  head = struct.pack("<HHIIHH", kind, 1, rate, rate * align, align, bits)
  head += extra
  chunk = b"fmt " + struct.pack("<I", len(head)) + head
  chunk += b"LIST" + struct.pack("<I", 3) + b"abc\0"  # odd, so padded
  chunk += b"data" + struct.pack("<I", len(raw) if size is None else size) + raw
  path.write_bytes(
    b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WAVE" + chunk
  )


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    notes._told.clear()


class WavTest(Case):
  @parameterized.parameters((1, 0.01), (2, 1e-4), (3, 1e-6), (4, 1e-6))
  def test_every_width_of_pcm(self, width, off):
    file = self.root / "a.wav"
    _save(file, width=width)
    head = wav.head(str(file))
    self.assertEqual((head.rate, head.count, head.width), (8000, 800, width))
    sound = wav.read(str(file), head, 100, 50)
    self.assertEqual(sound.dtype, np.float32)
    np.testing.assert_allclose(sound, _tone()[100:150], atol=off)
    self.assertLen(wav.read(str(file), head, 790, 50), 10)

  def test_channels_are_averaged(self):
    file = self.root / "a.wav"
    both = np.stack([_tone(), np.zeros(800)], 1)
    _save(file, both, channels=2)
    head = wav.head(str(file))
    np.testing.assert_allclose(
      wav.read(str(file), head, 0, 800), _tone() / 2, atol=1e-4
    )

  def test_heads_that_other_programs_write(self):
    """Extensible 24 bits, floats, streams of unknown length."""
    tone, file = _tone(), self.root / "a.wav"
    guid = struct.pack("<HHIHH", 22, 24, 4, 1, 0) + bytes(12)
    for make in (
      lambda: _save_raw(file, 0xFFFE, 3, 24, _pcm(tone, 3), extra=guid),
      lambda: _save_raw(file, 3, 4, 32, tone.astype("<f4").tobytes()),
      lambda: _save_raw(file, 3, 8, 64, tone.astype("<f8").tobytes()),
      lambda: _save_raw(file, 1, 2, 16, _pcm(tone, 2), size=0xFFFFFFFF),
    ):
      make()
      head = wav.head(str(file))
      self.assertEqual(head.count, 800)
      np.testing.assert_allclose(
        wav.read(str(file), head, 0, 800), tone, atol=1e-4
      )

  def test_resampling_keeps_the_tone_and_drops_what_is_too_high(self):
    low = wav.resampled(
      _tone(4410, 44100, 300.0).astype(np.float32), 44100, 8000
    )
    self.assertLen(low, wav.samples(4410, 44100, 8000))
    inner = slice(100, 700)
    np.testing.assert_allclose(
      low[inner], _tone(800, 8000, 300.0)[inner], atol=0.01
    )
    high = _tone(4410, 44100, 9000.0).astype(np.float32)
    self.assertLess(np.abs(wav.resampled(high, 44100, 8000)[inner]).max(), 0.01)

  def test_what_cannot_be_read(self):
    file = self.root / "a.wav"
    _save(file)
    whole = file.read_bytes()
    nan = np.array([0.1, np.nan], "<f4").tobytes()
    for raw, message in (
      (b"", "cut short in its head"),
      (b"ID3 this is an mp3 file", "no WAV file"),
      (whole[:30], "cut short in its head"),
      (whole[:-100], "cut short: 1600 bytes of sound, 1500 are left"),
      (whole[:44].replace(b"\x40\x06\0\0", bytes(4)), "no sound in it"),
      (whole.replace(b"\x10\0\0\0\1\0", b"\x10\0\0\0\2\0"), "compressed"),
      (whole.replace(b"fmt ", b"fmtx"), "before its format"),
      (nan, "NaN"),
      (whole[:22] + bytes(2) + whole[24:], "0 channels"),
    ):
      with self.subTest(message):
        file.write_bytes(raw)
        if raw is nan:
          _save_raw(file, 3, 4, 32, raw)
        with self.assertRaisesRegex(wav.Unreadable, message):
          wav.head(str(file))


class FolderTest(Case):
  def load(self, **options):
    options = dict(rate=8000, length=1000) | options
    return data.load("audio_folder", path=str(self.root), **options)

  def log_of(self, **options):
    with self.assertLogs(logging.getLogger("ar_jax"), "INFO") as logs:
      found = self.load(**options)
    self.assertLen(logs.records, 1)
    self.assertNotIn("\n", logs.records[0].getMessage())
    return logs.records[0].getMessage(), found

  def refused(self, message, **options):
    with self.assertRaisesRegex(UserError, message) as caught:
      self.load(**options)
    self.assertNotIn("\n", str(caught.exception))

  def test_classes_padding_and_rates(self):
    for k, name in enumerate(("a", "b")):
      for i in range(3):
        tone = _tone(800, 8000, 200 * (1 + k))
        _save(self.root / name / f"{i}.wav", tone)
      tone = _tone(4410, 44100, 200 * (1 + k))
      _save(self.root / name / "high.WAV", tone, rate=44100)
    (self.root / "a" / "x.mp3").write_bytes(b"x")
    line, found = self.log_of()
    self.assertIn("audio_folder: 7 + 1 recordings, 2 classes: a, b", line)
    self.assertIn("skipped 1 .mp3", line)
    self.assertEqual(found.forms, {"audio": forms.Audio(8000)})
    for part in (found.train, found.test):
      for i in range(len(part)):
        example = part[i]
        self.assertEqual(sorted(example), ["audio", "audio_length", "label"])
        self.assertEqual(example["audio_length"], 800)
        self.assertEqual(example["audio"].dtype, np.float32)
        self.assertFalse(example["audio"][800:].any())
        spectrum = np.abs(np.fft.rfft(example["audio"][:800]))
        heard = 10 * spectrum.argmax()
        self.assertEqual(heard, 200 * (1 + example["label"]))
        found.forms["audio"].check(example["audio"][None])

  def test_long_recordings(self):
    ramp = np.arange(3000) / 6000
    for name in "ab":
      _save(self.root / f"{name}.wav", ramp)
    line, found = self.log_of(length=100, crop="random")
    self.assertIn("2 longer than 0.0125 s are cut", line)
    source = found.train
    np.testing.assert_allclose(source[0]["audio"], ramp[:100], atol=1e-4)
    drawn = [source.draw(0, np.random.default_rng(i)) for i in range(20)]
    self.assertGreater(len({float(d["audio"][0]) for d in drawn}), 10)
    for d in drawn:
      np.testing.assert_allclose(np.diff(d["audio"]), 1 / 6000, atol=1e-4)
    batch = data.batch_at(source, 4, batch=3, seed=0)
    rest = next(data.batches(source, batch=3, seed=0, start=4, workers=2))
    np.testing.assert_array_equal(batch["audio"], rest["audio"])
    fixed = self.load(length=100).train
    np.testing.assert_array_equal(
      fixed.draw(0, np.random.default_rng(1))["audio"], source[0]["audio"]
    )

  def test_texts_beside(self):
    for i in range(3):
      _save(self.root / f"{i}.wav")
      (self.root / f"{i}.txt").write_text(f" naïve {i}\n", "utf-8")
    line, _ = self.log_of()
    self.assertIn("3 texts beside them are not read", line)
    line, found = self.log_of(text=7)
    self.assertIn("3 texts longer than 7 bytes are cut", line)
    self.assertNotIn(".txt", line)
    found = self.load(text=12)
    self.assertEqual(found.forms["text"], forms.Text())
    text = found.train[0]["text"]
    self.assertEqual((text.shape, text.dtype), ((12,), np.int32))
    self.assertRegex(found.forms["text"].read(text), r"^naïve \d$")
    before = found.digest
    (self.root / "0.txt").write_text("other")
    self.assertNotEqual(self.load(text=12).digest, before)
    (self.root / "1.txt").write_bytes(b"\xff\xfe\xff")
    (self.root / "2.txt").unlink()
    self.refused(
      "of 3 recordings 2 .* 1.wav .its .txt is not UTF-8., 2.wav .no .txt",
      text=12,
    )
    self.refused("a text belongs to all of a recording", text=9, crop="random")

  def test_damaged_files(self):
    for i in range(4):
      _save(self.root / f"{i}.wav")
    file = self.root / "1.wav"
    file.write_bytes(file.read_bytes()[:-7])
    (self.root / "2.wav").write_bytes(b"")
    self.refused(
      r"of 4 recordings 2 cannot be read: 1.wav \(cut.*skip_bad=True"
    )
    line, found = self.log_of(skip_bad=True)
    self.assertIn("2 cannot be read: 1.wav", line)
    self.assertEqual(len(found.train) + len(found.test), 2)
    for name in "03":
      (self.root / f"{name}.wav").write_bytes(b"RIFF")
    with self.assertRaisesRegex(UserError, r"\d.wav: cannot be read as a rec"):
      found.train[0]

  def test_characters_and_a_list_of_transcripts(self):
    for i in range(4):
      _save(self.root / "wavs" / f"{i}.wav")
    transcripts = "".join(f"wavs/{i}.wav\tAb {'ba'[i % 2]}\n" for i in range(3))
    (self.root / "transcripts.tsv").write_text(transcripts)
    (self.root / "wavs" / "3.txt").write_text("a bb")
    line, found = self.log_of(text=5, unit="characters", lower=True, classes=1)
    self.assertNotIn("skipped", line)
    form = found.forms["text"]
    self.assertEqual(form.symbols[2:], (" ", "a", "b"))
    texts = [
      form.read(part[i]["text"])
      for part in (found.train, found.test)
      for i in range(len(part))
    ]
    self.assertCountEqual(texts, ["ab b", "ab a", "ab b", "a bb"])
    line, _ = self.log_of(text=3, unit="characters", classes=1)
    self.assertIn("4 texts longer than 3 characters are cut", line)
    (self.root / "transcripts.tsv").write_text("wavs/0.wav")
    self.refused("line 1 has no tab", text=3, classes=1)
    (self.root / "transcripts.tsv").write_text("wavs/0 a\nwavs/0\tb\n")
    self.refused("line 2: wavs/0 has another text", text=3, classes=1)
    (self.root / "transcripts.tsv").write_text("wavs/0.wav\ta\n")
    (self.root / "wavs/transcripts.tsv").write_text("0.mp3\tb\n")
    self.refused("line 1: wavs/0 has another text", text=3, classes=1)
    self.refused("unit='x': choose one of", unit="x")

  @parameterized.parameters(
    ('0.wav\tsay "a", b', 'say "a", b'),
    ("0, word", "word"),
    ('0.wav,"a ""b"", c"', 'a "b", c'),
    ('0.wav, "a \\"b\\""', 'a "b"'),
    ('"0.wav","a, b"', "a, b"),
    ("0|Mr. 2, b|mister two, b", "mister two, b"),
    ("0 go do", "go do"),
  )
  def test_lines_of_transcripts(self, line, text):
    for i in range(2):
      _save(self.root / f"{i}.wav")
    (self.root / "1.txt").write_text("x")
    (self.root / "transcripts.csv").write_text(f"{line}\n")
    _, found = self.log_of(text=20, classes=1)
    form = found.forms["text"]
    rows = [found.train[0], found.test[0]]
    self.assertCountEqual([form.read(x["text"]) for x in rows], [text, "x"])

  def test_dots_in_names_of_a_list_are_no_endings(self):
    for name in ("a", "a.1", "a.2"):
      _save(self.root / f"{name}.wav")
    lines = "a\tx\na.1\ty\na.2.WAV\tz\n"
    (self.root / "transcripts.tsv").write_text(lines)
    _, found = self.log_of(text=20, classes=1)
    form = found.forms["text"]
    rows = [p[i] for p in (found.train, found.test) for i in range(len(p))]
    self.assertCountEqual([form.read(x["text"]) for x in rows], ["x", "y", "z"])

  def test_an_empty_line_of_a_list_leaves_the_text_beside(self):
    for i in range(2):
      _save(self.root / f"{i}.wav")
      (self.root / f"{i}.txt").write_text("x")
    (self.root / "transcripts.tsv").write_text("0.wav\t\n")
    _, found = self.log_of(text=20, classes=1)
    self.assertEqual(found.forms["text"].read(found.train[0]["text"]), "x")

  def test_mistakes(self):
    self.refused("no recordings in class.*put .wav, .wave files")
    (self.root / "a.flac").write_bytes(b"x")
    self.refused("there are 1 .flac")
    _save(self.root / "a.wav")
    self.refused("one recording cannot be split")
    self.refused("rate=0: must be from 1", rate=0)
    self.refused("length=0: must be from 1", length=0)
    self.refused("crop='middle': choose one of", crop="middle")
    self.refused("did you mean length", lenght=3)
    with self.assertRaisesRegex(UserError, "no such folder"):
      data.load("audio_folder", path="/no/such")


if __name__ == "__main__":
  absltest.main()
