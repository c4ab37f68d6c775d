"""The user's own pictures of words, with what is written in them."""

from __future__ import annotations

import pathlib
import re

from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example
from ar_jax.data.folders import labelled, parts
from ar_jax.data.images import reader, scan, transforms
from ar_jax.data.text import reading

LABELS = ("labels.tsv", "labels.csv", "labels.txt", "gt.txt")
# Names of files: 12_WORD_345.jpg (MJSynth), WORD_12.png, WORD.png.
_NAMES = (re.compile(r"\d+_(.+)_\d+"), re.compile(r"(.+?)_\d+"))


def word_images(
  *,
  path: str = "",
  height: int = 32,
  width: int = 100,
  channels: int = 3,
  most: int = 25,
  symbols: str = "",
  lower: bool = False,
  test_fraction: float = 0.1,
  skip_bad: bool = False,
) -> Dataset:
  """Your own pictures of words or short lines, with their texts.

  From: any folder; `path/NAME.png`, in sub-folders too, or with `path/train/`
  and `path/test/` above.
  Command: --config.data.name=word_images --config.data.path=DIR
  Fields: image, text, i32[most + 1].

  What is written stands in a file `labels.tsv`, `labels.csv`, `labels.txt` or
  `gt.txt` beside the pictures, a line each, `NAME.png`, a tab (or bar, comma,
  space) and the text; where there is none in `NAME.txt`; or it is the name:
  `hello.png`, `hello_12.png`, or `3_hello_77.jpg`. Pictures are brought to H x
  W whatever their proportions. The alphabet is that of the training part, in
  the order of its code points; id 0 ends a text.

  Args:
    path: the folder.
    height: H.
    width: W.
    channels: 1 or 3.
    most: letters of a text; longer ones are left out.
    symbols: the alphabet, in place of the one that is found; texts with other
      letters are left out.
    lower: makes small letters of capitals.
    test_fraction: the part held out where there is no test folder, 0 to 1.
    skip_bad: leave out pictures that cannot be read, in place of an error.

  Raises:
    UserError: no such folder, no pictures, pictures without a text, or some
      that cannot be read.
  """
  for side in (height, width):
    transforms.check_size(side, channels)
  if most < 1:
    raise UserError(f"data.most={most}: must be at least 1")
  root = parts.root(path, test_fraction, "pictures of words")
  tree = scan.pictures(root)
  good, _, said = scan.check(root, tree.files, skip=skip_bad)
  texts, from_where = _texts(root, tree, good)
  if lower:
    texts = {k: v.lower() for k, v in texts.items()}
  texts, more = _fitting(texts, most, symbols)
  found = parts.divided(root, tree, texts, 1, test_fraction)
  train, test = ([e for e, _ in part] for part in (found.train, found.test))
  letters = symbols or "".join(
    sorted({x for e in train for x in texts[e.parts]})
  )
  test = [e for e in test if set(texts[e.parts]) <= set(letters)]
  lost = len(found.test) - len(test)
  if lost:
    more.append(f"{lost} for test have letters that training lacks")
  if not test:
    raise UserError(f"{root}: no picture for test whose text can be spelled")
  of = {*LABELS} if "labels" in from_where else set()
  tree.others = [
    e for e in tree.others
    if e.parts[-1].lower() not in of and e.kind != ".txt"
  ]  # fmt: skip
  more.append(f"{len(letters)} letters: {letters[:40]}")
  parts.tell("word_images", root, tree, found, [from_where, *said, *more])
  form = forms.Text(("", *letters))
  part = lambda entries: WordImages(
    [(e.path, texts[e.parts]) for e in entries], (height, width), channels,
    form, most + 1,
  )  # fmt: skip
  digest = digests.of_stats(
    ("/".join((side, *e.parts)), e.size, e.changed)
    for side, entries in (("train", train), ("test", test))
    for e in entries
  )
  return Dataset(
    "word_images",
    part(train),
    part(test),
    digest=digests.fingerprint(digest, sorted(texts.values()), letters),
    forms={"image": forms.Image(), "text": form},
  )


def _texts(root, tree, good) -> tuple[dict[tuple[str, ...], str], str]:
  """(path of a picture -> its text, where the texts are from)."""
  files = [e for e in tree.others if e.parts[-1].lower() in LABELS]
  found = labelled.listed(files)
  if files:
    lacking = [e.name for e in good if e.parts not in found]
    if lacking:
      raise UserError(
        f"{root}: {len(lacking)} pictures have no line in "
        f"{notes.listed(e.name for e in files)}: {notes.listed(lacking)}; add "
        "them, or move the pictures away"
      )
    return {e.parts: found[e.parts] for e in good}, "labels from files"
  beside = {e.stem: e for e in tree.others if e.kind == ".txt"}
  for e in good:
    its = beside.get(e.stem)
    if its is not None:
      found[e.parts] = " ".join(reading.read(pathlib.Path(its.path)).split())
    else:
      found[e.parts] = named(e.stem[-1])
  return found, "texts by .txt beside" if beside else "texts by file names"


def named(stem: str) -> str:
  """The text that the name of a file says."""
  for pattern in _NAMES:
    match = pattern.fullmatch(stem)
    if match:
      return match[1]
  return stem


def _fitting(texts, most: int, symbols: str):
  """(texts that can be spelled, what to tell of the others)."""
  said = []
  for why, fits in (
    ("without a text", lambda t: bool(t)),
    (f"of more than {most} letters", lambda t: len(t) <= most),
    ("with other letters", lambda t: not symbols or set(t) <= set(symbols)),
  ):
    kept = {k: v for k, v in texts.items() if fits(v)}
    if len(kept) < len(texts):
      said.append(f"{len(texts) - len(kept)} {why} left out")
    texts = kept
  return texts, said


class WordImages:
  """Decodes on access."""

  def __init__(self, files, size, channels, form, length):
    self._files, self._size, self._channels = files, size, channels
    self._form, self._length = form, length

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, i: int) -> Example:
    path, text = self._files[i]
    picture = reader.open_image(path, self._channels)
    return {
      "image": transforms.stretched(picture, *self._size),
      "text": self._form.ids(text, self._length),
    }
