"""The user's own recordings: WAV files, with their texts beside them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Audio
from ar_jax.data import digests, notes
from ar_jax.data.audio import wav
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.folders import labelled, parts, walk
from ar_jax.data.text import vocabulary

_ENDINGS = (".wav", ".wave")
# What the name in a list may end with: the file may have been another before.
_SOUNDS = (*_ENDINGS, ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aiff", ".sph")
_CROPS = ("start", "random")
_UNITS = ("bytes", "characters")
_LISTS = ("transcripts.tsv", "transcripts.csv", "transcripts.txt")


@dataclasses.dataclass(frozen=True)
class Recording:
  """A file that can be read, with its text if that is asked for."""

  entry: walk.Entry
  head: wav.Head
  text: str = ""


def folder(
  *,
  path: str = "",
  rate: int = 16_000,
  length: int = 16_000,
  text: int = 0,
  crop: str = "start",
  classes: int | None = None,
  test_fraction: float = 0.1,
  skip_bad: bool = False,
  unit: str = "bytes",
  lower: bool = False,
) -> Dataset:
  """Your own recordings: WAV files, a sub-folder per class.

  From: any folder; `path/CLASS/*.wav`, with `path/train/` and `path/test/`
  above, if you like, and without CLASS for recordings of one class. The text
  of `a.wav` is `a.txt` beside it, or in the `transcripts.tsv` (`.csv`, `.txt`)
  of its folder or of one above it, a line each: `a.wav` or `a`, a tab (or bar,
  comma, space) and the text; LJ Speech's `metadata.csv` is such a file, if it
  is called `wavs/transcripts.csv`.
  Command: --config.data.name=audio_folder --config.data.path=DIR
  Fields: audio, audio_length, label, with `text` > 0 also text.

  PCM of 8, 16, 24 or 32 bits, floats, and any rate are read; channels are
  averaged, and what is of another rate is resampled. Other files (`.mp3`,
  `.flac`) are not read; `ffmpeg -i a.mp3 a.wav` makes one that is. One line
  says what was found and what was left out.

  Args:
    path: the folder.
    rate: of the examples, in Hz.
    length: of the examples, in samples of this rate: `audio` is f32[length].
      What is longer is cut, what is shorter has zeros behind it; `audio_length`
      says how many samples are of the recording.
    text: if positive, adds the field `text`, i32[text]: ids of its symbols, cut
      or filled up with zeros. Then every recording needs a text.
    crop: what is taken of longer recordings: the "start", or "random" places
      in training, which fits no text.
    classes: 1 takes all recordings as one class; another number is checked
      against the sub-folders.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    skip_bad: leave out recordings that cannot be read or lack a text, in place
      of an error.
    unit: of texts: UTF-8 "bytes"; or "characters", those of the training part,
      where id 1 is all others.
    lower: makes small letters of capitals.

  Raises:
    UserError: no such folder, no recordings, some that cannot be read, or
      classes that do not fit.
  """
  for name, value in (("rate", rate), ("length", length)):
    if not 1 <= value <= 2**31:
      raise UserError(f"data.{name}={value}: must be from 1 to {2**31}")
  check_choice("data.crop", crop, _CROPS)
  if crop == "random" and text > 0:
    raise UserError(
      "data.crop='random': a text belongs to all of a recording; set "
      "data.crop=start, or data.text=0"
    )
  check_choice("data.unit", unit, _UNITS)
  root = parts.root(path, test_fraction, "one sub-folder of .wav per class")
  tree = walk.walk(root, _ENDINGS, "recording")
  good, said = _readable(root, tree, text, skip_bad, unit == "bytes")
  if lower:
    good = {
      k: dataclasses.replace(r, text=r.text.lower()) for k, r in good.items()
    }
  found = parts.divided(root, tree, good, classes, test_fraction)
  longer = sum(r.head.at(rate) > length for r in good.values())
  if longer:
    said.append(f"{longer} longer than {length / rate:g} s are cut")
  parts.tell("audio_folder", root, tree, found, said)
  of_train = [good[e.parts].text for e, _ in found.train]
  form = vocabulary.vocabulary(of_train, unit)
  ids = vocabulary.encoder(form)
  part = lambda chosen: Recordings(
    [(good[e.parts], k) for e, k in chosen], rate, length, text, crop, ids
  )
  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, chosen in (("train", found.train), ("test", found.test))
    for e, _ in chosen
  )
  forms = {"audio": Audio(rate)} | ({"text": form} if text > 0 else {})
  texts = [good[e.parts].text for e, _ in (*found.train, *found.test)]
  return Dataset(
    "audio_folder",
    part(found.train),
    part(found.test),
    len(found.names),
    found.names,
    digests.fingerprint(digest, texts),
    forms=forms,
  )


def _readable(
  root: pathlib.Path, tree: walk.Tree, text: int, skip: bool, of_bytes: bool
) -> tuple[dict[tuple[str, ...], Recording], list[str]]:
  """(path -> what can be read, what to tell of the others)."""
  lists = [e for e in tree.others if e.parts[-1].lower() in _LISTS]
  transcripts = labelled.listed(lists if text > 0 else (), _SOUNDS)
  beside = {
    e.stem: e for e in tree.others if e.kind == ".txt" and e not in lists
  }
  good, bad, cut, spoken = {}, [], 0, 0
  for e in tree.files:
    its = beside.get(e.stem)
    spoken += its is not None
    try:
      head = wav.head(e.path)
      words = transcripts.get(e.stem, "")
      if text > 0 and not words:
        words = _text(its)
    except wav.Unreadable as error:
      bad.append(f"{e.name} ({error})")
      continue
    cut += len(words.encode() if of_bytes else words) > text > 0
    good[e.parts] = Recording(e, head, words)
  said = []
  if bad:
    said.append(f"{len(bad)} cannot be read: {notes.listed(bad)}")
    if not skip:
      raise UserError(
        f"{root}: of {len(tree.files)} recordings {said[0]}; mend or remove "
        "them, or leave them out with data.skip_bad=True"
      )
  if cut:
    what = "bytes" if of_bytes else "characters"
    said.append(f"{cut} texts longer than {text} {what} are cut")
  if spoken and not text:
    said.append(f"{spoken} texts beside them are not read, data.text is 0")
  elif text:
    used = {id(beside.get(r.entry.stem)) for r in good.values()}
    used |= {id(e) for e in lists}
    tree.others = [e for e in tree.others if id(e) not in used]
  return good, said


def _text(entry: walk.Entry | None) -> str:
  if entry is None:
    raise wav.Unreadable("no .txt beside it")
  try:
    return pathlib.Path(entry.path).read_text("utf-8-sig").strip()
  except UnicodeDecodeError as e:
    raise wav.Unreadable("its .txt is not UTF-8") from e
  except OSError as e:
    raise wav.Unreadable(f"its .txt: {e.strerror}") from e


class Recordings:
  """Decodes on access, and no more than is needed of it."""

  def __init__(
    self,
    recordings: Sequence[tuple[Recording, int]],
    rate: int,
    length: int,
    text: int,
    crop: str,
    ids: Callable[[str], np.ndarray],
  ):
    self._recordings, self._rate, self._length = recordings, rate, length
    self._text, self._crop, self._ids = text, crop, ids

  def __len__(self) -> int:
    return len(self._recordings)

  def label(self, i: int) -> int:
    return self._recordings[i][1]

  def labels(self) -> np.ndarray:
    return np.asarray([k for _, k in self._recordings], np.int32)

  def __getitem__(self, i: int) -> Example:
    return self._at(i, 0)

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    if self._crop != "random":
      return self[i]
    head = self._recordings[i][0].head
    room = head.count - wav.samples(self._length, self._rate, head.rate)
    return self._at(i, int(rng.integers(max(room, 0) + 1)))

  def _at(self, i: int, start: int) -> Example:
    recording, label = self._recordings[i]
    head = recording.head
    count = wav.samples(self._length, self._rate, head.rate)
    try:
      sound = wav.read(recording.entry.path, head, start, count)
    except wav.Unreadable as e:
      raise UserError(
        f"{notes.printable(recording.entry.path)}: cannot be read as a "
        f"recording ({e}); remove it or replace it"
      ) from e
    sound = wav.resampled(sound, head.rate, self._rate)[: self._length]
    audio = np.zeros(self._length, np.float32)
    audio[: len(sound)] = sound
    example = {
      "audio": audio,
      "audio_length": np.int32(len(sound)),
      "label": np.int32(label),
    }
    if self._text > 0:
      found = self._ids(recording.text)[: self._text]
      example["text"] = np.pad(found, (0, self._text - len(found)))
    return example
