"""The chain: what it draws follows the laws that it says."""

import itertools

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.data.text import made


class ChainTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.25)
  def test_probabilities_of_all_texts_add_up(self, end):
    chain = made.chain(3, end=end)
    texts = np.array(list(itertools.product(range(4), repeat=4)))
    log_p = chain.log_probability(texts)
    p = np.exp(log_p.sum(1))
    self.assertAlmostEqual(p.sum(), 1.0)
    # The expected -log p of every id, by going through all texts.
    each = -np.where(p[:, None] > 0, log_p, 0.0) * p[:, None]
    np.testing.assert_allclose(each.sum(0), chain.entropy(4))

  def test_known_laws(self):
    even = made.chain(8, sharpness=0.0)
    self.assertAlmostEqual(even.entropy_rate(), np.log(8))
    np.testing.assert_allclose(even.stationary(), [0] + [1 / 8] * 8)
    # p(2 | 1) = 1/4, p(1 | 2) = 1/2: twice as long at 1 as at 2.
    chain = made.Chain(
      np.array([0, 2 / 3, 1 / 3]),
      np.array([[1, 0, 0], [0, 3 / 4, 1 / 4], [0, 1 / 2, 1 / 2]]),
    )
    np.testing.assert_allclose(chain.stationary(), [0, 2 / 3, 1 / 3])
    h = lambda q: -q * np.log(q) - (1 - q) * np.log(1 - q)
    want = 2 / 3 * h(1 / 4) + 1 / 3 * h(1 / 2)
    self.assertAlmostEqual(chain.entropy_rate(), want)
    np.testing.assert_allclose(chain.entropy(3), [h(1 / 3), want, want])
    got = chain.log_probability(np.array([1, 2, 2]))
    np.testing.assert_allclose(got, np.log([2 / 3, 1 / 4, 1 / 2]))

  def test_draws_follow_the_law(self):
    chain = made.chain(3, end=0.2)
    rng = np.random.default_rng(1)
    n = 4000
    texts = np.stack([chain.draw(3, rng) for _ in range(n)])
    codes, counts = np.unique(texts @ [16, 4, 1], return_counts=True)
    every = np.array(list(itertools.product(range(4), repeat=3)))
    p = np.exp(chain.log_probability(every).sum(1))
    self.assertTrue(set(codes) <= set((every @ [16, 4, 1])[p > 0]))
    seen = dict(zip(codes, counts, strict=True))
    chi = sum(
      (seen.get(code, 0) - n * q) ** 2 / (n * q)
      for code, q in zip(every @ [16, 4, 1], p, strict=True)
      if q > 0
    )
    cells = (p > 0).sum() - 1
    self.assertLess(chi, cells + 5 * np.sqrt(2 * cells))


class MarkovTextTest(absltest.TestCase):
  def test_examples_are_functions_of_their_index(self):
    one, two = (made.markov_text(length=20, count=16) for _ in range(2))
    self.assertEqual((len(one.train), len(one.test)), (16, 2))
    for i in (0, 7, 15):
      np.testing.assert_array_equal(one.train[i]["text"], two.train[i]["text"])
    self.assertFalse(np.array_equal(one.train[0]["text"], one.test[0]["text"]))
    form = one.forms["text"]
    self.assertEqual(form.vocab, 9)
    text = one.train[3]["text"]
    form.check(text[None])
    self.assertEqual(text.dtype, np.int32)
    np.testing.assert_array_equal(form.ids(form.read(text)), text)
    with self.assertRaises(IndexError):
      one.train[16]

  def test_texts_end(self):
    data = made.markov_text(length=64, end=0.5, count=8)
    for example in (data.train[i]["text"] for i in range(8)):
      first = int(np.argmin(example))
      self.assertTrue((example[:first] > 0).all())
      self.assertFalse(example[first:].any())

  def test_refusals(self):
    for wrong in ({"symbols": 0}, {"symbols": 63}, {"end": 1.0}, {"length": 0}):
      with self.subTest(str(wrong)), self.assertRaises(UserError):
        made.markov_text(**wrong)


if __name__ == "__main__":
  absltest.main()
