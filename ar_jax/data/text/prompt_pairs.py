"""Pairs of prompts: one with a concept, and one without it.

A language model writes them when it is asked as `REQUEST` says; what it answers
is a file for `prompt_pairs`.
"""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Image, Text
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Arrays, Dataset
from ar_jax.data.text import prompts as texts

REQUEST = """Write a data set of prompts for a model that draws images.
The concept is: {concept}. Answer with a JSON list of {count} objects, each of
  original_prompt   a sentence that describes a picture of the concept
  modified_prompt   the same sentence with something else in its place, of
                    another kind but as likely there, and no trace of it
  concept           {concept}
  replaced          what stands in its place
Vary place, light, style and point of view from one object to the next, and
change nothing but the concept within one. Answer with the list alone."""

# Names of the two prompts in files, the first two in ours.
_KEYS = (
  ("original_prompt", "modified_prompt"),
  ("unsafe_prompt", "safe_prompt"),
)
_SUFFIXES = (".json", ".csv", ".npz")


def prompt_pairs(
  *,
  path: str = "",
  concept: str = "seven",
  templates: Sequence[str] = texts.TEMPLATES,
  words: Sequence[str] = texts.NUMBERS,
  unit: str = "words",
  length: int = 0,
  count: int = 40,
  seed: int = 0,
) -> Dataset:
  """Pairs of prompts, with a concept and without it.

  From: a rule, or your own file.
  Command: --config.data.name=prompt_pairs --config.data.path=FILE
  Fields: text, safe_text, concept.

  A file is a JSON list of objects, or a CSV table, with `original_prompt` and
  `modified_prompt` (or `unsafe_prompt` and `safe_prompt`) and perhaps
  `concept`; or ids that another tokenizer made: an .npz of `original` and
  `modified`, i32[N, P] both, filled up with -1. Of a file the last tenth is
  the test part. Without a file every template is a pair, with the concept and
  with each of the other words; those that are not for training are for test.

  Args:
    path: of the file; none by default.
    concept: the word of the concept; its number among `words` is the field
      `concept`, -1 where it is none of them.
    templates: of the prompts, with {} for the word. They and `words` are the
      vocabulary, which must be that of the model.
    words: what the templates may name, class by class.
    unit: "words" of this vocabulary, or "bytes" of UTF-8.
    length: of a prompt; by default that of the longest.
    count: pairs for training, of those by templates.
    seed: of their choice.

  Raises:
    UserError: the file is missing or not as described, a word is unknown, or
      there are too few pairs.
  """
  words, where = tuple(words), "data.prompt_pairs"
  form, longest = texts.vocabulary(templates, words, where)
  check_choice("data.unit", unit, ("words", "bytes"))
  form = form if unit == "words" else Text()
  number = {word: i for i, word in enumerate(words)}
  digest = "rule 1"
  if not path:
    if concept not in number:
      raise UserError(
        f"data.concept={concept!r}: must be one of {', '.join(words)}"
      )
    own = texts.every(templates, words, where)
    pairs = [
      (one, other, number[concept])
      for word in words
      if word != concept
      for one, other in zip(own[concept], own[word], strict=True)
    ]
    order = np.random.default_rng(seed).permutation(len(pairs))
    pairs = [pairs[i] for i in order]
    if not 1 <= count < len(pairs):
      raise UserError(
        f"data.count={count}: the templates make {len(pairs)} pairs, of which "
        f"1 to {len(pairs) - 1} may be for training"
      )
  else:
    file = pathlib.Path(path).expanduser()
    found = _read(file)
    digest = digests.of_files(file.parent, [file])
    if isinstance(found, Mapping):  # ids
      return _dataset(*_ids(file, found, number.get(concept, -1)), {}, digest)
    pairs = [
      (*_prompts(file, i, row), number.get(row.get("concept") or concept, -1))
      for i, row in enumerate(found)
    ]
    count = _for_training(file, len(pairs))
    notes.once(
      f"{file.name}: {count} + {len(pairs) - count} pairs of prompts for "
      "training and test"
    )
  size = length or longest
  if unit == "bytes" or path:
    parts = (lambda x: x.split()) if unit == "words" else str.encode
    most = max(len(parts(x)) for pair in pairs for x in pair[:2])
    size = length or max(longest, most)
  rows = []
  for i, (one, other, which) in enumerate(pairs):
    try:
      ids = [form.ids(" ".join(x.split()), size) for x in (one, other)]
    except UserError as e:
      before = f"{path}, pair {i + 1}: " if path else ""
      raise UserError(f"{before}{e}") from e
    rows.append((*ids, np.int32(which)))
  columns = map(np.stack, zip(*rows, strict=True))
  fields = dict(zip(("text", "safe_text", "concept"), columns, strict=True))
  return _dataset(fields, count, {"text": form, "safe_text": form}, digest)


def _dataset(fields, count: int, forms, digest: str) -> Dataset:
  part = lambda rows: Arrays(
    {k: v[rows] for k, v in fields.items()}, where="prompt_pairs"
  )
  train, test = part(slice(count)), part(slice(count, None))
  forms = {"image": Image(), **forms}  # of what is drawn from prompts
  return Dataset("prompt_pairs", train, test, digest=digest, forms=forms)


def _for_training(file: pathlib.Path, count: int) -> int:
  if count < 2:
    raise UserError(f"{file}: {count} pairs; there must be at least 2")
  return count - max(1, count // 10)


def _read(file: pathlib.Path) -> Any:
  """Rows of a file, or the arrays of one of ids."""
  if file.suffix not in _SUFFIXES:
    raise UserError(
      f"{file}: pairs of prompts are {', '.join(_SUFFIXES)}, see docs/data.md"
    )
  try:
    if file.suffix == ".npz":
      with np.load(file) as arrays:
        return dict(arrays)
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
      # A quote that is never closed would swallow the pairs behind it.
      return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    found = json.loads(text)
  except OSError as e:
    raise UserError(f"{file}: cannot be read ({e.strerror or e})") from e
  except (ValueError, EOFError, csv.Error) as e:
    raise UserError(
      f"{file}: damaged, no {file.suffix[1:].upper()} ({e}); write it anew"
    ) from e
  if not isinstance(found, list) or not found:
    raise UserError(
      f"{file}: must be a list of pairs, [{{'original_prompt': ..., "
      "'modified_prompt': ...}, ...]"
    )
  return found


def _prompts(file: pathlib.Path, i: int, row: Any) -> tuple[str, str]:
  """The prompts of a row, under one of two pairs of names."""
  for names in _KEYS:
    pair = [row.get(n) if isinstance(row, Mapping) else None for n in names]
    if all(isinstance(x, str) and x.strip() for x in pair):
      return tuple(pair)
  raise UserError(
    f"{file}, pair {i + 1}: must have the texts {' and '.join(_KEYS[0])}, or "
    f"{' and '.join(_KEYS[1])}"
  )


def _ids(
  file: pathlib.Path, found: Mapping[str, np.ndarray], number: int
) -> tuple[dict[str, np.ndarray], int]:
  """The fields of given ids, and how many are for training."""
  one, other = found.get("original"), found.get("modified")
  good = all(
    x is not None and x.ndim == 2 and np.issubdtype(x.dtype, np.integer)
    for x in (one, other)
  )
  if not good or one.shape != other.shape:
    raise UserError(
      f"{file}: must hold the ids 'original' and 'modified', integers of one "
      "shape [pairs, positions], filled up with -1"
    )
  which = np.full(len(one), number, np.int32)
  fields = {"text": one, "safe_text": other, "concept": which}
  fields = {k: v.astype(np.int32) for k, v in fields.items()}
  return fields, _for_training(file, len(one))
