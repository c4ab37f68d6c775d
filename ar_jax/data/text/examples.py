"""A data set of texts: what an example is, and which vocabulary reads it.

N ids of an example, m ids of a chunk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Text
from ar_jax.data import notes
from ar_jax.data.dataset import Dataset
from ar_jax.data.text import retrieval, vocabulary
from ar_jax.data.text.windows import Windows

EXAMPLES = ("windows", "lines", "texts")


@dataclasses.dataclass(frozen=True)
class Layout:
  """How texts become examples.

  Attributes:
    unit: one of `vocabulary.UNITS`.
    length: N, of an example.
    examples: "windows", "lines" or "texts".
    stride: of windows; 0 is N.
    vocab: ids at most; 0 for as many as it takes.
    lower: whether capitals are made small letters.
    chunk: m; windows begin at multiples of it.
    neighbours: how many are retrieved for every chunk.
  """

  unit: str = "characters"
  length: int = 128
  examples: str = "windows"
  stride: int = 0
  vocab: int = 0
  lower: bool = False
  chunk: int = 1
  neighbours: int = 0

  def __post_init__(self):
    check_choice("data.unit", self.unit, vocabulary.UNITS)
    check_choice("data.examples", self.examples, EXAMPLES)
    for name, least in (("length", 1), ("stride", 0), ("neighbours", 0)):
      if getattr(self, name) < least:
        raise UserError(
          f"data.{name}={getattr(self, name)}: must be at least {least}"
        )
    if self.chunk < 1 or self.length % self.chunk or self.stride % self.chunk:
      raise UserError(
        f"data.chunk={self.chunk}: length={self.length} and "
        f"stride={self.stride} must be multiples of it"
      )
    if self.neighbours and self.examples == "lines":
      raise UserError(
        "data.neighbours: of the chunks of windows or texts, not of lines"
      )


def dataset(
  name: str,
  train: Sequence[str],
  test: Sequence[str],
  layout: Layout,
  *,
  digest: str,
  said: Sequence[str] = (),
) -> Dataset:
  """The data set of some texts; tells in one line what it is of.

  Args:
    name: of the set.
    train, test: the texts of its parts.
    layout: of its examples.
    digest: of the files that they come from.
    said: what else the line is to tell.

  Raises:
    UserError: a part holds no symbol.
  """
  parts = {"training": list(train), "test": list(test)}
  for part, texts in parts.items():
    if layout.lower:
      texts = [text.lower() for text in texts]
    if layout.examples == "lines":
      lines = (line.strip() for text in texts for line in text.split("\n"))
      texts = [line for line in lines if line]
    parts[part] = texts
  form = vocabulary.vocabulary(parts["training"], layout.unit, layout.vocab)
  encode = vocabulary.encoder(form)
  ids = {
    part: [found for text in texts if len(found := encode(text))]
    for part, texts in parts.items()
  }
  for part, found in ids.items():
    if not found:
      raise UserError(
        f"{name}: its {part} part holds no text; give it more, or take "
        "shorter examples (data.examples='windows', data.length)"
      )
  _tell(name, ids, form, layout, said)
  step = layout.chunk
  make = lambda texts: Windows(
    texts,
    layout.length,
    layout.stride or layout.length,
    stop=form.stop,
    step=step,
    whole=layout.examples != "windows",
  )
  sources = make(ids["training"]), make(ids["test"])
  forms = {"text": form}
  if layout.neighbours:
    retrieval.beside(*sources, form, layout.chunk, layout.neighbours)
  return Dataset(name, *sources, forms=forms, digest=digest)


def _tell(
  name: str,
  ids: dict[str, list[np.ndarray]],
  form: Text,
  layout: Layout,
  said: Sequence[str],
) -> None:
  """One line: how much there is, and what is cut, filled up or unknown."""
  length, texts = layout.length, [*ids["training"], *ids["test"]]
  amount = [sum(map(len, part)) for part in ids.values()]
  what = [
    f"{name}: {amount[0]:,} + {amount[1]:,} {layout.unit} in "
    f"{len(ids['training']):,} + {len(ids['test']):,} "
    f"{'lines' if layout.examples == 'lines' else 'texts'}",
    f"{form.vocab:,} ids",
  ]
  if form.symbols:
    for part, found in ids.items():
      unknown = sum(int((x == vocabulary.UNKNOWN).sum()) for x in found)
      if unknown:
        total = sum(map(len, found))
        what.append(f"{unknown / total:.2%} of the {part} part unknown")
  short = sum(len(x) < length for x in texts)
  if short:
    what.append(f"{short:,} shorter than length={length} are filled up")
  if layout.examples != "windows":
    long = sum(len(x) > length for x in texts)
    if long:
      what.append(f"{long:,} longer than length={length} are cut")
  line = "; ".join([*what, *said])
  notes.once(line)
