"""Text made by a rule: a Markov chain, whose every law is known exactly.

A symbols, V = A + 1 ids with 0, which ends a text; N ids of an example.
"""

from __future__ import annotations

import dataclasses
import string

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Text
from ar_jax.data.dataset import Dataset, Example

_LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
_TEST = 2**40  # where the texts of the test part begin in the stream of seeds


@dataclasses.dataclass(frozen=True)
class Chain:
  """A chain of the ids 1 to A that may end, after which all ids are 0.

  Attributes:
    initial: f64[V], the law of the first id.
    transition: f64[V, V], row i the law of the id after i; row 0 stays at 0.
  """

  initial: np.ndarray
  transition: np.ndarray

  def stationary(self) -> np.ndarray:
    """f64[V]: the law of an id of a text that goes on; without an end that of
    any id far from the beginning, 0 where a text has one."""
    inner = self.transition[1:, 1:]
    going = inner / inner.sum(1, keepdims=True)
    a = len(going)
    equations = np.concatenate([going.T - np.eye(a), np.ones((1, a))])
    law = np.linalg.lstsq(equations, np.eye(a + 1)[a], rcond=None)[0]
    return np.concatenate([[0.0], law])

  def entropy_rate(self) -> float:
    """Nats per symbol of a text that goes on: what no model can go below, far
    from the beginning. For a chain without an end exactly its entropy rate."""
    return float(self.stationary() @ _entropy(self.transition))

  def entropy(self, length: int) -> np.ndarray:
    """f64[N]: the expected -log p of each id given those before it, in nats;
    their sum is that of an example."""
    found, law = [float(_entropy(self.initial[None])[0])], self.initial
    each = _entropy(self.transition)
    for _ in range(length - 1):
      found.append(float(law @ each))
      law = law @ self.transition
    return np.asarray(found)

  def log_probability(self, ids: np.ndarray) -> np.ndarray:
    """f64[..., N]: log p of each of the ids i[..., N] given those before it;
    -inf where it cannot be."""
    ids = np.asarray(ids)
    with np.errstate(divide="ignore"):
      first, next_ = np.log(self.initial), np.log(self.transition)
    rest = next_[ids[..., :-1], ids[..., 1:]]
    return np.concatenate([first[ids[..., :1]], rest], -1)

  def draw(self, length: int, rng: np.random.Generator) -> np.ndarray:
    """i32[N]: a text."""
    laws = np.cumsum(np.vstack([self.initial, self.transition]), 1)
    found, row = np.zeros(length, np.int32), 0
    for i, u in enumerate(rng.random(length)):
      found[i] = min(np.searchsorted(laws[row], u, "right"), len(laws) - 2)
      row = found[i] + 1
    return found


def _entropy(laws: np.ndarray) -> np.ndarray:
  """f64[n], in nats, of laws f64[n, V]."""
  safe = np.where(laws > 0, laws, 1.0)
  return -(laws * np.log(safe)).sum(1)


def chain(
  symbols: int = 8, *, sharpness: float = 2.0, end: float = 0.0, seed: int = 0
) -> Chain:
  """A chain with random laws.

  Args:
    symbols: A.
    sharpness: standard deviation of the logits of its laws; 0 makes every
      symbol as likely as any other.
    end: probability that a text ends after a symbol.
    seed: of the laws.
  """
  rng = np.random.default_rng((seed, symbols))
  law = np.exp(sharpness * rng.normal(size=(symbols, symbols)))
  v = symbols + 1
  transition = np.zeros((v, v))
  transition[1:, 1:] = (1 - end) * law / law.sum(1, keepdims=True)
  transition[1:, 0] = end
  transition[0, 0] = 1.0
  made = Chain(np.zeros(v), transition)
  return dataclasses.replace(made, initial=made.stationary())


def markov_text(
  *,
  length: int = 32,
  symbols: int = 8,
  sharpness: float = 2.0,
  end: float = 0.0,
  count: int = 4096,
  seed: int = 0,
) -> Dataset:
  """Texts of a Markov chain over a few letters, made when asked for.

  From: a rule.
  Command: --config.data.name=markov_text
  Fields: text.

  Nothing can predict it better than the chain itself, whose entropy is known:
  `ar_jax.data.text.made.chain` has it, the law of every letter and the
  probability of every text. Example i is a pure function of i.

  Args:
    length: ids of an example.
    symbols: how many letters, 1 to 62; id 0 ends a text.
    sharpness: of the laws: 0 makes all letters equally likely, much makes the
      next one certain.
    end: probability that a text ends after a letter, 0 for texts that go on.
    count: training examples; an eighth of it for test.
    seed: of the laws; the texts that are drawn by them differ as well.

  Raises:
    UserError: a number is out of range.
  """
  if length < 1 or count < 1:
    raise UserError("markov_text: length and count must be at least 1")
  if not 1 <= symbols <= len(_LETTERS):
    raise UserError(
      f"data.symbols={symbols}: must lie between 1 and {len(_LETTERS)}"
    )
  if not 0 <= end < 1 or sharpness < 0:
    raise UserError(
      f"markov_text: end={end} must be in 0 to 1, sharpness={sharpness} not "
      "negative"
    )
  law = chain(symbols, sharpness=sharpness, end=end, seed=seed)
  form = Text(("", *_LETTERS[:symbols]), stop=0)
  train = _Drawn(law, length, count, seed, 0)
  test = _Drawn(law, length, max(count // 8, 1), seed, _TEST)
  return Dataset(
    "markov_text", train, test, forms={"text": form}, digest="rule 1"
  )


class _Drawn:
  """Examples drawn when asked for."""

  def __init__(self, law: Chain, length: int, count: int, seed: int, at: int):
    self._law, self._length, self._count = law, length, count
    self._seed, self._at = seed, at

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    i = range(self._count)[i]
    rng = np.random.default_rng((self._seed, self._at + i))
    return {"text": self._law.draw(self._length, rng)}
