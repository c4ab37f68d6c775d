"""Speech of known words, by a synthesiser.

N samples, P symbols of a text.
"""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import string
import subprocess
import tempfile
import zipfile

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Audio, Text
from ar_jax.data import digests, notes
from ar_jax.data.audio import wav
from ar_jax.data.dataset import Arrays, Dataset
from ar_jax.data.text import corpora

PROGRAM = "espeak-ng"
VOICES = (
  "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan",
  "en-gb-x-gbcwmd",
)  # fmt: skip
TEXTS = ("digits", "words")
_VERSION = 1  # of what is stored
_SPEEDS, _PITCHES = (150, 210), (30, 70)  # words a minute, espeak's own unit


def speech(
  *,
  texts: str = "digits",
  least: int = 3,
  most: int = 6,
  rate: int = 8000,
  seconds: float = 3.0,
  voices: tuple[str, ...] = VOICES,
  noise: tuple[float, float] = (15.0, 25.0),
  length: int = 2500,
  path: str = "",
) -> Dataset:
  """Spoken strings of digits, or English words, in several voices.

  From: the Debian package `espeak-ng`; `wamerican` for words.
  Command: --config.data.name=speech
  Fields: audio, audio_length, text i32[most + 1], label (the voice).

  Every text is spoken once, by a voice, at a speed and a pitch drawn for it,
  and has white noise of its own. What is spoken is kept under ~/.cache/ar_jax,
  or where AR_JAX_CACHE says; the first time takes about 50 ms a text.

  Args:
    texts: "digits", strings of which each is said by itself; or "words", one
      to three English words, letter by letter in the text.
    least: symbols of a text.
    most: symbols of a text; with "words" of all of them and the spaces.
    rate: of the samples, in Hz.
    seconds: of an example: `audio` is f32[seconds * rate], zeros behind the
      end. What takes longer is spoken again, faster.
    voices: of espeak-ng.
    noise: of an example, in dB below its power, drawn between these two.
    length: texts for training; an eighth of it for test.
    path: of the program, if it is not on the path.

  Raises:
    UserError: the program or a voice is not there, or an option is out of
      range.
  """
  if texts not in TEXTS:
    raise UserError(f"data.texts={texts!r}: choose 'digits' or 'words'")
  size = round(seconds * rate)
  if not 1 <= least <= most or length < 2 or size < 1 or not voices:
    raise UserError(
      f"data.least={least}, most={most}, length={length}, seconds={seconds}: "
      "texts have 1 symbol at least, and at most as many as the second says; "
      "the others must be positive"
    )
  voices = tuple(voices)
  made_of = (texts, least, most, rate, size, voices, tuple(noise), length)
  symbols = string.digits if texts == "digits" else f" {string.ascii_lowercase}"
  form = Text(("", *symbols))
  counts = {"train": length, "test": max(length // 8, 1)}
  lines, source = _lines(texts, least, most, sum(counts.values()))
  digest = digests.fingerprint(_VERSION, made_of, source)
  home = os.environ.get("AR_JAX_CACHE") or "~/.cache/ar_jax"
  file = pathlib.Path(home).expanduser() / "speech" / f"{digest}.npz"
  found = _kept(file)
  if found is None:
    found = _spoken(lines, texts, size, rate, voices, noise, path)
    _keep(file, found)
  fields = {
    "audio": found["audio"],
    "audio_length": found["count"],
    "text": np.stack([form.ids(line, most + 1) for line in lines]),
    "label": found["voice"],
  }

  def part(rows: slice) -> Arrays:
    return Arrays(
      {k: v[rows] for k, v in fields.items()},
      {"audio": lambda x: x.astype(np.float32) / 32_768},
      num_classes=len(voices),
      where="speech",
    )

  return Dataset(
    "speech",
    part(slice(0, length)),
    part(slice(length, None)),
    len(voices),
    voices,
    digest,
    forms={"audio": Audio(rate), "text": form},
  )


def _lines(texts: str, least: int, most: int, n: int) -> tuple[list[str], str]:
  """(so many different texts where there are so many, and what they are of)."""
  rng = np.random.default_rng(0)
  if texts == "digits":
    draw = lambda: "".join(
      rng.choice([*string.digits], rng.integers(least, most + 1))
    )
    source = "digits"
  else:
    corpus = corpora.read("wordlist")
    words = [w for w in corpus.texts if w.isascii() and w.isalpha()]
    words = [w for w in words if w.islower() and len(w) <= most]
    if not words:
      raise UserError(f"data.most={most}: no word is so short")
    source = corpus.digest

    def draw() -> str:
      while True:
        line = " ".join(rng.choice(words, rng.integers(1, 4)))
        if least <= len(line) <= most:
          return line

  found: dict[str, None] = {}
  for _ in range(20 * n):
    found[draw()] = None
    if len(found) == n:
      break
  lines = list(found)
  while len(lines) < n:
    lines.append(draw())
  return lines, source


def _spoken(
  lines, texts, size, rate, voices, noise, path
) -> dict[str, np.ndarray]:
  """audio i16[n, N], count i32[n] and voice i32[n] of some texts."""
  program = path or shutil.which(PROGRAM)
  if program is None:
    raise UserError(
      f"speech: the program {PROGRAM} is not here; apt-get install {PROGRAM}, "
      "or take data.name=chirps, which needs none"
    )
  notes.once(f"speech: {len(lines):,} texts are spoken, once and for all")
  audio = np.zeros((len(lines), size), np.int16)
  count, voice = (np.zeros(len(lines), np.int32) for _ in range(2))
  for i, line in enumerate(lines):
    rng = np.random.default_rng((1, i))
    voice[i] = rng.integers(len(voices))
    speed, pitch = rng.integers(*_SPEEDS), rng.integers(*_PITCHES)
    said = " ".join(line) if texts == "digits" else line
    while True:
      sound = _say(program, voices[voice[i]], int(speed), int(pitch), said)
      sound = wav.resampled(*sound, rate)
      if len(sound) <= size:
        break
      if speed >= 450:
        raise UserError(
          f"data.seconds={size / rate:g}: {line!r} takes "
          f"{len(sound) / rate:.1f} s; make them more"
        )
      speed *= 1.2
    power = np.sqrt(np.mean(np.square(sound)))
    level = power * 10 ** (-rng.uniform(*noise) / 20)
    sound = sound + level * rng.standard_normal(len(sound))
    count[i] = len(sound)
    whole = np.clip(np.round(32_768 * sound), -32_768, 32_767)
    audio[i, : len(sound)] = whole.astype(np.int16)
  return {"audio": audio, "count": count, "voice": voice}


def _say(
  program: str, voice: str, speed: int, pitch: int, text: str
) -> tuple[np.ndarray, int]:
  """(f32[n] in [-1, 1], samples a second) of a text."""
  command = [program, "-v", voice, "-s", str(speed), "-p", str(pitch)]
  try:
    done = subprocess.run(
      [*command, "--stdout", text], capture_output=True,
      stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
  except OSError as e:
    raise UserError(f"{program}: cannot be run ({e.strerror})") from e
  raw = done.stdout
  if done.returncode or raw[:4] != b"RIFF":
    why = done.stderr.decode(errors="replace").split("\n")[0]
    raise UserError(
      f"data.voices: {PROGRAM} does not speak as {voice!r} ({why}); "
      f"{PROGRAM} --voices=en lists those that it has"
    )
  # It streams, so the sizes in the head say nothing.
  rate = int.from_bytes(raw[24:28], "little")
  start = raw.index(b"data") + 8
  body = raw[start : start + (len(raw) - start) // 2 * 2]
  return wav.decoded(body, 2).astype(np.float32), rate


def _kept(file: pathlib.Path) -> dict[str, np.ndarray] | None:
  """What was spoken before; None if nothing was, or it is damaged."""
  try:
    with np.load(file) as stored:
      return {name: stored[name] for name in ("audio", "count", "voice")}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None


def _keep(file: pathlib.Path, found: dict[str, np.ndarray]) -> None:
  made = io.BytesIO()
  np.savez_compressed(made, **found)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as f:
      f.write(made.getvalue())
    os.replace(f.name, file)
  except OSError:  # a full or read-only disk costs time, not the run
    pass
