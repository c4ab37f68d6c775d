"""The evaluators of text, on systems whose answers are known."""

import dataclasses

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core.forms import Text
from ar_jax.core.system import Loss, System, UserError
from ar_jax.data import Dataset
from ar_jax.data.text import made
from ar_jax.evals.text import ngrams, transcripts

KEY = jax.random.key(0)
FORM = Text(("", *" abcdefgh"))


@dataclasses.dataclass(frozen=True)
class Scribe(System):
  """Reads `hint` and writes `text`: the same, with a letter more or less."""

  needs = ("hint",)
  makes = ("text",)

  def init(self, key, batch):
    return {}

  def loss(self, variables, batch, key, *, train):
    return Loss(np.zeros(1))

  def sample(self, variables, cond, keys):
    raise NotImplementedError


class Author(Scribe):
  needs = ()


class Painter(Scribe):
  makes = ("image",)


def data(texts):
  rows = [{"text": FORM.ids(t, 12), "hint": FORM.ids(t, 12)} for t in texts]
  return Dataset("notes", rows, rows, forms={"text": FORM})


def drawn(change):
  """A `draw` that changes every hint, read as text."""

  def draw(system, variables, cond, key, *, batch, start=0, options=None):
    texts = [change(FORM.read(x), i) for i, x in enumerate(cond["hint"])]
    return {"text": np.stack([FORM.ids(t, 12) for t in texts])}

  return draw


class TranscriptsTest(absltest.TestCase):
  def test_by_hand(self):
    found = transcripts.errors(
      ["a bc d", "", "gg h"], ["a bb d", "ee ff", "gg h"]
    )
    # 1 + 5 + 0 edits of 6 + 5 + 4 characters, 1 + 2 + 0 of 3 + 2 + 2 words.
    self.assertEqual(found["cer"], 6 / 15)
    self.assertEqual(found["wer"], 3 / 7)
    self.assertEqual(found["exact"], 1 / 3)
    self.assertEqual(found["edit_distance"], 2.0)
    self.assertEqual(found["length_error"], 5 / 3)

  def evaluate(self, change, system=None, texts=None, **options):
    texts = texts or ["ab cd", "abc", "bad cab", "h"]
    options = {"draw": drawn(change), "batch": 3, **options}
    evaluate = evals.build("transcripts", data(texts), **options)
    return evaluate(system or Scribe(), {}, [], KEY)

  def test_no_error(self):
    found = self.evaluate(lambda text, i: text)
    self.assertEqual((found["cer"], found["wer"], found["exact"]), (0, 0, 1))
    self.assertGreater(found["cer_baseline"], 0.5)
    self.assertEqual(found["protocol"]["texts"], 4)

  def test_a_letter_too_many(self):
    found = self.evaluate(lambda text, i: text + "e")
    self.assertEqual(found["cer"], 4 / 16)
    self.assertEqual(found["wer"], 4 / 6)
    self.assertEqual((found["exact"], found["length_error"]), (0.0, 1.0))

  def test_answers_belong_to_their_examples(self):
    # More samples than a chunk holds, in the random order of conditions.
    texts = ["".join(FORM.symbols[1 + i // 9 ** k % 9] for k in (0, 1, 2, 3))
             for i in range(1, 6000, 5)]  # fmt: skip
    texts = [t.replace(" ", "a") for t in texts]
    found = self.evaluate(lambda text, i: text, texts=texts)
    self.assertEqual(found["exact"], 1.0)

  def test_refusals(self):
    same = lambda text, i: text
    with self.assertRaisesRegex(UserError, "reads nothing and no example"):
      self.evaluate(same, Author())
    with self.assertRaisesRegex(UserError, "scores the field 'text'.*image"):
      self.evaluate(same, Painter())
    with self.assertRaisesRegex(UserError, "field='hint' is no text"):
      self.evaluate(same, field="hint")
    with self.assertRaisesRegex(UserError, "every true text is empty"):
      self.evaluate(same, texts=["", ""])


class NgramsTest(absltest.TestCase):
  def test_by_hand(self):
    self.assertEqual(
      ngrams.grams(["abab", "a"], 2, "characters"),
      {("a", "b"): 2, ("b", "a"): 1},
    )
    self.assertEqual(
      ngrams.grams(["to be or to be"], 2, "words"),
      {("to", "be"): 2, ("be", "or"): 1, ("or", "to"): 1},
    )
    self.assertAlmostEqual(
      ngrams.divergence({"a": 3, "b": 1}, {"a": 3, "b": 1}), 0
    )
    self.assertAlmostEqual(ngrams.divergence({"a": 3}, {"b": 1}), 1.0)
    # p = (1, 0), q = (1/2, 1/2): m = (3/4, 1/4).
    want = (np.log2(4 / 3) + (np.log2(2 / 3) + np.log2(2)) / 2) / 2
    self.assertAlmostEqual(ngrams.divergence({"a": 1}, {"a": 2, "b": 2}), want)
    self.assertEqual(ngrams.divergence({}, {"b": 1}), 1.0)

  def evaluate(self, ids, **options):
    source = made.markov_text(length=40, count=256, symbols=5)

    def draw(system, variables, cond, key, *, batch, start=0, options=None):
      rows = np.arange(start, start + len(next(iter(cond.values()))))
      return {"text": np.stack([ids(int(i)) for i in rows])}

    evaluate = evals.build("ngrams", source, draw=draw, **options)
    return evaluate(Author(), {}, [], KEY)

  def test_its_own_law_is_at_the_floor_and_others_are_not(self):
    chain = made.chain(5)
    law = lambda i: chain.draw(40, np.random.default_rng((9, i)))
    # The right letters in a wrong order.
    mixed = lambda i: np.random.default_rng(i).permutation(law(i))
    even = lambda i: np.random.default_rng(i).integers(1, 6, 40)
    right, shuffled, flat = map(self.evaluate, (law, mixed, even))
    for k in (1, 2, 3):
      floor = right[f"ngram_js_{k}_floor"]
      self.assertLess(right[f"ngram_js_{k}"], 3 * floor)
      self.assertGreater(flat[f"ngram_js_{k}"], 10 * floor)
      self.assertEqual(floor, flat[f"ngram_js_{k}_floor"])
    self.assertLess(shuffled["ngram_js_1"], 3 * right["ngram_js_1_floor"])
    self.assertGreater(shuffled["ngram_js_2"], 0.05)
    self.assertEqual(right["protocol"]["samples"], 32)
    self.assertEqual(right, self.evaluate(law))

  def test_known_words(self):
    rows = [{"text": FORM.ids(t, 12), "hint": FORM.ids(t, 12)}
            for t in ["ab cd ef gh", "ab cd cd gh"]]  # fmt: skip
    source = Dataset("notes", rows, rows, forms={"text": FORM})
    draw = drawn(lambda text, i: "a cd ff ab h")
    evaluate = evals.build("ngrams", source, draw=draw)
    found = evaluate(Scribe(), {}, [], KEY)
    self.assertAlmostEqual(found["known_words"], 2 / 3)  # cd and ab, not ff
    self.assertEqual(found["known_words_floor"], 1.0)

  def test_refusals(self):
    with self.assertRaisesRegex(UserError, "unit='letters'"):
      self.evaluate(lambda i: None, unit="letters")
    with self.assertRaisesRegex(UserError, "field='image' is no text"):
      self.evaluate(lambda i: None, field="image")


if __name__ == "__main__":
  absltest.main()
