"""The rule `questions`: a question about two images of numbers, and its answer.

An example shows the one, its first peer the other, so the set needs
`peers=1`, and `same_class=False` for others than doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data.dataset import Example
from ar_jax.data.wrap.derived import Rule, field_of

# Kind -> the question, and its answer about the numbers a and b.
KINDS: dict[str, tuple[str, Callable[[int, int], str]]] = {
  "sum": ("what is the sum ?", lambda a, b: str(a + b)),
  "larger": ("which is larger ?", lambda a, b: str(max(a, b))),
  "difference": ("how far apart ?", lambda a, b: str(abs(a - b))),
  "equal": ("are both the same ?", lambda a, b: "yes" if a == b else "no"),
}
WORDS = 5  # of the longest question
SYMBOLS = (
  "",
  *sorted({word for text, _ in KINDS.values() for word in text.split()}),
  *map(str, range(19)),
  "no",
  "yes",
)
ANSWER = 2  # a word, and the end


def questions(
  *, kinds: Sequence[str] = tuple(KINDS), classes: int = 10
) -> Rule:
  """Adds `question` i32[5] and `text` i32[2], the answer: ids of words. The
  kind is drawn anew each time.

  Args:
    kinds: of "sum", "larger", "difference" and "equal".
    classes: labels are the numbers below it, 10 at most.

  Raises:
    UserError: a kind is unknown, or there are none or too many classes.
  """
  where = "data.derive.questions"
  if not kinds or {*kinds} - {*KINDS}:
    raise UserError(
      f"{where}.kinds={list(kinds)}: choose among {', '.join(KINDS)}"
    )
  if not 1 <= classes <= 10:
    raise UserError(f"{where}.classes={classes}: must be 1 to 10, for digits")
  form = Text(SYMBOLS, joint=" ")
  asked = [form.ids(KINDS[kind][0], WORDS) for kind in kinds]

  def make(example: Example, rng: np.random.Generator) -> Example:
    a = int(field_of(example, "label", "questions"))
    if "peer_label" not in example:
      raise UserError(f"{where}: asks about two images; set data.peers=1")
    b = int(example["peer_label"][0])
    if max(a, b) >= classes:
      raise UserError(
        f"{where}.classes={classes}: an example has the class {max(a, b)}"
      )
    which = int(rng.integers(len(kinds)))
    answer = KINDS[kinds[which]][1](a, b)
    return {"question": asked[which], "text": form.ids(answer, ANSWER)}

  return Rule(make, {"question": form, "text": form})
