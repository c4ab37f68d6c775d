"""The words of a corpus, letter by letter, as often as they come."""

from __future__ import annotations

import re

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data import notes
from ar_jax.data.dataset import Arrays, Dataset, split_by_seed
from ar_jax.data.text import corpora

_HELD_OUT = 0.1


def spelled(
  *, corpus: str = "kjv", path: str = "", least: int = 3, most: int = 9
) -> Dataset:
  """Words of a corpus, letter by letter: a word is an example.

  From: the Debian packages `bible-kjv` and `bible-kjv-text` (kjv),
  `manpages-dev` (manpages) or `wamerican` (wordlist).
  Command: --config.data.name=spelled --config.data.corpus=kjv
  Fields: text, i32[most + 1].

  Words are drawn as often as the corpus has them, in small letters; id 0 ends
  each. A tenth of the texts, drawn once and for all, is held out, not of the
  words: the vocabulary of a corpus is what a model is to learn.

  Args:
    corpus: "kjv", "manpages" or "wordlist".
    path: as in `chars`.
    least: letters of a word; shorter ones are left out.
    most: letters of a word; longer ones are left out, and so are words with
      anything but the letters a to z.

  Raises:
    UserError: the corpus is unknown, not installed, or not what it should be;
      or nothing of it is left.
  """
  if not 1 <= least <= most:
    raise UserError(
      f"data.least={least}, data.most={most}: a word has at least one letter, "
      "and at most as many as the second says"
    )
  found = corpora.read(corpus, path)
  n = len(found.texts)
  word = re.compile(rf"(?<![^\W_])[a-z]{{{least},{most}}}(?![^\W_])")
  words = [word.findall(text.lower()) for text in found.texts]
  held = min(max(1, round(_HELD_OUT * n)), n - 1)
  parts = [
    [w for i in rows for w in words[i]] for rows in split_by_seed(n, held)
  ]
  if not all(parts):
    raise UserError(
      f"{path or corpus}: no word of {least} to {most} letters in its "
      f"{'training' if not parts[0] else 'held-out'} part of {n} texts"
    )
  kinds = len({*parts[0], *parts[1]})
  notes.once(
    f"spelled {corpus}: {len(parts[0]):,} + {len(parts[1]):,} words of {least} "
    f"to {most} letters, {kinds:,} different ones"
  )
  form = Text(("", *map(chr, range(ord("a"), ord("z") + 1))), stop=0)
  train, test = (
    Arrays({"text": spell(part, most + 1)}, where="spelled") for part in parts
  )
  return Dataset(
    f"spelled of {corpus}",
    train,
    test,
    forms={"text": form},
    digest=found.digest,
  )


def spell(words: list[str], length: int) -> np.ndarray:
  """i32[words, length]: a is 1, b is 2, and so on; filled up with 0."""
  rows = np.asarray([w.encode().ljust(length, b"\0") for w in words])
  rows = np.frombuffer(rows.tobytes(), np.uint8)
  # numpy drops zeros at the end of bytes, but not of their buffer.
  rows = rows.reshape(len(words), -1)[:, :length].astype(np.int32)
  return np.where(rows > 0, rows - (ord("a") - 1), 0).astype(np.int32)
