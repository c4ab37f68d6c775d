"""Dialogues by rule: somebody asks, in picture and speech, and somebody else
answers.

C chunks, m speech tokens of each, V of them in all, S of a question.
"""

from __future__ import annotations

import functools

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Text, Video
from ar_jax.data.dataset import Dataset, Example

_TEST = 2**40  # where those of the test part begin in the stream of seeds
SIDE, GLYPH, GLYPHS = 8, 4, 8
SLOTS, VOCAB, ASKED = 4, 16, 4  # m, V, S
SYMBOLS = tuple("abcdefghijklmnop")
LIGHTS = 60, 120  # of the background, by chance in each frame
INK = 255
MOUTH = slice(6, 8), slice(3, 5)  # rows and columns
_TOP = 1  # row of the glyph
SCORES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the candidates, the worst first


def dialogues(
  *,
  chunks: int = 12,
  count: int = 2000,
  rate: float = 6.25,
  seed: int = 0,
) -> Dataset:
  """Questions and answers in picture and speech, made when asked for.

  From: a rule.
  Command: --config.data.name=dialogues
  Fields: ask_video u8[C, 8, 8, 1], ask_speech i32[4], text i32[4], face
    u8[8, 8, 1], video u8[C, 8, 8, 1], speech i32[4 C], candidates i32[5, 4 C].

  Who asks shows a glyph that moves to the left or to the right, and says four
  tokens; `text` is what was said. Who answers shows the same glyph in a mirror
  - `face` is a picture of it - that moves the other way; says in each chunk one
  of the tokens, mapped by one of two fixed rules; and opens its mouth by it.
  Which rule, only the motion of the question tells: the text lacks it. Light
  changes in every frame by chance, all over it at once. `candidates` are five
  answers, each nearer to the right one than the one before, which is the last.
  Example i is a pure function of i.

  Args:
    chunks: C, one frame and four tokens each.
    count: training examples; an eighth of it for test.
    rate: frames per second; of the speech it is four times that.
    seed: of all dialogues.

  Raises:
    UserError: a number is out of range.
  """
  if chunks < 1 or count < 1 or rate <= 0:
    raise UserError(
      f"dialogues: chunks={chunks} and count={count} must be at least 1, "
      f"rate={rate} above 0"
    )
  make = lambda n, at: _Dialogues(chunks, n, (seed, at))
  return Dataset(
    "dialogues",
    make(count, 0),
    make(max(count // 8, 1), _TEST),
    forms={
      "video": Video(rate),
      "speech": Text(SYMBOLS, stop=-1),
      "ask_video": Video(rate),
      "ask_speech": Text(SYMBOLS, stop=-1),
      "text": Text(SYMBOLS, stop=-1),
      "face": Image(),
    },
    digest="rule 1",
  )


class _Dialogues:
  """Examples made when asked for."""

  def __init__(self, chunks: int, count: int, seed):
    self._chunks, self._count, self._seed = chunks, count, seed

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    base, at = self._seed
    rng = np.random.default_rng((base, at + range(self._count)[i]))
    glyph = glyphs()[rng.integers(GLYPHS)]
    way = int(rng.choice((-1, 1)))
    begin, asked = rng.integers(SIDE, size=2), rng.integers(VOCAB, size=ASKED)
    reply = rules()[(way + 1) // 2][asked]
    said = spoken(reply, self._chunks)
    light = rng.integers(2, size=(2, self._chunks))
    mouth = asked[np.arange(self._chunks) % ASKED]
    ask = film(glyph, begin[0], way, mouth, light[0])
    mirror = glyph[:, ::-1]
    answer = film(mirror, begin[1], -way, said[:, 0], light[1])
    face = film(mirror, begin[1], 0, np.zeros(1, int), np.zeros(1, int))
    return {
      "ask_video": ask,
      "ask_speech": asked.astype(np.int32),
      "text": asked.astype(np.int32),
      "face": face[0],
      "video": answer,
      "speech": said.reshape(-1).astype(np.int32),
      "candidates": _candidates(reply, self._chunks, rng),
    }


@functools.cache
def glyphs() -> np.ndarray:
  """bool[8, 4, 4]: none of which is its mirror image, or another's."""
  rng, found = np.random.default_rng(5), []
  while len(found) < GLYPHS:
    new = rng.random((GLYPH, GLYPH)) < 0.5
    known = [x for y in found for x in (y, y[:, ::-1])]
    same = [new[:, ::-1], *known]
    if new.sum() == 8 and not any(np.array_equal(new, x) for x in same):
      found.append(new)
  return np.stack(found)


@functools.cache
def rules() -> np.ndarray:
  """i64[2, V]: what each token becomes, where the question moves to the left
  and to the right; no token becomes the same by both."""
  rng = np.random.default_rng(7)
  left = rng.permutation(VOCAB)
  return np.stack([left, (left + 1 + np.arange(VOCAB) % 7) % VOCAB])


def spoken(reply: np.ndarray, chunks: int) -> np.ndarray:
  """i64[C, m]: each chunk says one token of the reply, which rises."""
  own = np.asarray(reply)[np.arange(chunks) % len(reply)]
  return (own[:, None] + np.arange(SLOTS)) % VOCAB


def film(
  glyph: np.ndarray, begin: int, way: int, mouth: np.ndarray, light: np.ndarray
) -> np.ndarray:
  """u8[C, 8, 8, 1]: a glyph that moves by `way` columns a frame and comes in
  again on the other side; `mouth` and `light` are of each frame."""
  frames = []
  for c, (token, bright) in enumerate(zip(mouth, light, strict=True)):
    frame = np.full((SIDE, SIDE), LIGHTS[bright], np.uint8)
    columns = (begin + way * c + np.arange(GLYPH)) % SIDE
    rows = _TOP + np.arange(GLYPH)
    part = frame[np.ix_(rows, columns)]
    frame[np.ix_(rows, columns)] = np.where(glyph, INK, part)
    frame[MOUTH] = opening(token)
    frames.append(frame)
  return np.stack(frames)[..., None]


def opening(token: np.ndarray | int) -> np.ndarray | int:
  """The brightness of the mouth at a token, 135 to 255."""
  return 135 + 8 * token


def error_by_chunk(video: np.ndarray, true: np.ndarray) -> np.ndarray:
  """f64[N, C]: mean squared error of the frames of answers u8[N, C, 8, 8, 1]
  in one light or the other, whichever is nearer, of numbers from 0 to 1."""
  ground = np.isin(true, LIGHTS)
  found = []
  for light in LIGHTS:
    right = np.where(ground, light, true).astype(np.float64)
    found.append(np.square((video - right) / 255).mean((2, 3, 4)))
  return np.minimum(*found)


def mouths(video: np.ndarray) -> np.ndarray:
  """f64[N, C]: how wide the mouth is open, 0 to 255, of u8[N, C, 8, 8, 1]."""
  rows, columns = MOUTH
  return np.float64(video[:, :, rows, columns]).mean((2, 3, 4))


def _candidates(
  reply: np.ndarray, chunks: int, rng: np.random.Generator
) -> np.ndarray:
  """i32[5, m C]: answers with four tokens wrong, three, two, one and none."""
  found, order = [], rng.permutation(ASKED)
  for wrong in range(len(SCORES))[::-1]:
    other = reply.copy()
    at = order[:wrong]
    other[at] = (other[at] + rng.integers(4, 13, size=len(at))) % VOCAB
    found.append(spoken(other, chunks).reshape(-1))
  return np.stack(found).astype(np.int32)
