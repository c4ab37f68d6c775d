"""Units of several codes: what is read, what they cost, how they are drawn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick
from ar_jax.nn.heads.codes import Bitwise, SubCodeEmbed, SubCodes, hamming

RNG = np.random.default_rng(0)


def normal(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


class ReaderTest(absltest.TestCase):
  def test_tables_side_by_side_through_one_matrix(self):
    units = jnp.asarray(RNG.integers(0, 8, (2, 3, 4)))
    tables, matrix = normal(4, 8, 5), normal(20, 5)
    params = {"embedding": tables, "proj": {"kernel": matrix}}
    reader = SubCodeEmbed(4, 8, 5)
    got = reader.apply({"params": params}, units)
    parts = [tables[j][units[..., j]] for j in range(4)]
    want = jnp.concatenate(parts, -1) @ matrix
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    added = SubCodeEmbed(4, 8, 5, added=True)
    got = added.apply({"params": {"embedding": tables}}, units)
    np.testing.assert_allclose(got, sum(parts), rtol=1e-5, atol=1e-5)
    self.assertEqual(reader.blank(2, 7).shape, (2, 7, 4))

  def test_a_single_code_is_read_by_its_table_alone(self):
    table = normal(1, 8, 5)
    units = jnp.asarray(RNG.integers(0, 8, (2, 3, 1)))
    got = SubCodeEmbed(1, 8, 5).apply({"params": {"embedding": table}}, units)
    np.testing.assert_array_equal(got, table[0][units[..., 0]])


class BitwiseTest(absltest.TestCase):
  def bound(self, kernel, **options):
    linear = {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}
    head = Bitwise(
      kernel.shape[1] // (1 + options.get("pairs", False)), **options
    )
    return head.bind({"params": {"linear": linear}})

  def test_log_odds_are_as_much_as_pairs_of_logits(self):
    kernel, h = normal(5, 6), normal(2, 3, 5)
    pairs = self.bound(kernel, pairs=True)
    odds = self.bound(kernel[:, 1::2] - kernel[:, ::2])
    for law in ({}, {"temperature": 0.5, "top_p": 0.8}):
      np.testing.assert_allclose(
        pairs.law(h, **law), odds.law(h, **law), atol=1e-5
      )
    target = jnp.asarray(RNG.integers(0, 2, (2, 3, 3)))
    cost = pairs.nll(h, target)
    np.testing.assert_allclose(cost, odds.nll(h, target), atol=1e-5)
    own = jnp.take_along_axis(pairs.law(h), target[..., None], -1)
    np.testing.assert_allclose(cost, -own.sum((-2, -1)), atol=1e-5)

  def test_filters_and_biases_act_bit_by_bit(self):
    """Top-p of 0.97 drops the rarer value where it is no likelier than 0.03."""
    odds = jnp.log(jnp.array([0.02 / 0.98, 0.05 / 0.95, 0.99 / 0.01]))
    head, h = self.bound(odds[None]), jnp.ones((1, 1, 1))
    law = head.law(h, top_p=0.97)[0, 0]
    np.testing.assert_array_equal(
      jnp.isfinite(law), [[True, False], [True, True], [False, True]]
    )
    never = head.law(h, bias=jnp.array([-1e30, 0.0]), temperature=0.0)
    np.testing.assert_array_equal(never[0, 0].argmax(-1), 1)
    one = jnp.zeros((1, 3, 2)).at[0, 1, 1].set(50.0)
    pushed = head.law(h, bias=one)[0, 0]
    np.testing.assert_array_equal(pushed.argmax(-1), [0, 1, 1])


class HeadTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.h, cls.null = normal(2, 3, 5), normal(2, 3, 5)
    cls.kernel = normal(4, 5, 8)
    cls.target = jnp.asarray(RNG.integers(0, 8, (2, 3, 4)))
    cls.keys = jax.random.split(jax.random.key(0), 2)

  def bound(self, **options):
    head = SubCodes(4, 8, **options)
    return head.bind({"params": {"kernel": self.kernel}})

  def test_cost_of_a_unit_is_that_of_its_codes(self):
    logits = jnp.einsum("bsd,tdv->bstv", self.h, self.kernel)
    logp = jax.nn.log_softmax(logits, -1)
    own = jnp.take_along_axis(logp, self.target[..., None], -1)[..., 0]
    head = self.bound()
    np.testing.assert_allclose(
      head.nll(self.h, self.target), -own.sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(head.logits(self.h), logits, rtol=1e-5)

  def test_neighbours_share_the_target(self):
    table = np.array(
      [[bin(a ^ b).count("1") for b in range(8)] for a in range(8)]
    )
    for most in (0, 1, 2):
      weight = np.where(table <= most, np.exp(-3.0 * table), 0)
      weight /= weight.sum(1, keepdims=True)
      got = hamming(jnp.arange(8), 8, most)
      np.testing.assert_allclose(got, weight, rtol=1e-5)
    head, plain = self.bound(soften=1), self.bound()
    logp = jax.nn.log_softmax(plain.logits(self.h), -1)
    near = hamming(self.target, 8, 1)
    want = -(near * logp).sum((-1, -2))
    np.testing.assert_allclose(head.nll(self.h, self.target), want, rtol=1e-5)

  def test_guidance_and_filters_act_code_by_code(self):
    law = dict(temperature=0.7, top_k=3)
    got = self.bound().law(self.h, h_null=self.null, scale=2.5, **law)
    logits, null = (self.bound().logits(h) for h in (self.h, self.null))
    want = pick.law(pick.guide(logits, null, 2.5), **law)
    # -inf at the same places.
    np.testing.assert_allclose(jnp.exp(got), jnp.exp(want), atol=1e-4)
    np.testing.assert_array_equal((got > -jnp.inf).sum(-1), 3)
    best = self.bound().draw(self.h, self.keys, temperature=0.0)
    np.testing.assert_array_equal(best, jnp.argmax(logits, -1))

  def test_draws_have_the_law_and_depend_on_their_key(self):
    head, many = self.bound(), 4000
    keys = jax.random.split(jax.random.key(1), many)
    h = jnp.broadcast_to(self.h[:1, :1], (many, 1, 5))
    drawn = np.asarray(head.draw(h, keys))
    self.assertEqual(drawn.shape, (many, 1, 4))
    p = np.exp(head.law(self.h[:1, :1]))[0, 0]
    for j in range(4):
      share = np.bincount(drawn[:, 0, j], minlength=8) / many
      np.testing.assert_allclose(share, p[j], atol=0.035)
    alone = head.draw(h[7:8], keys[7:8])
    np.testing.assert_array_equal(alone, drawn[7:8])

  def test_a_bias_forbids(self):
    for shape in ((8,), (2, 8), (2, 4, 8)):
      bias = np.full(shape, pick.FORBIDDEN, np.float32)
      bias[..., 5] = 0
      drawn = self.bound().draw(self.h, self.keys, bias=jnp.asarray(bias))
      np.testing.assert_array_equal(drawn, 5)


class FactorisationTest(parameterized.TestCase):
  """What a product of laws can say of two bits (exact, for one hidden state):
  the sum of the entropies of its parts."""

  @parameterized.parameters(
    ("independent", 1, 1.0), ("independent", 2, 1.0),
    ("equal", 1, 1.0), ("equal", 2, 2.0),
  )  # fmt: skip
  def test_least_cost(self, source, t, bits):
    p = 0.8 if source == "independent" else 0.5
    law = {
      "independent": lambda a, b: (p if a else 1 - p) * (0.7 if b else 0.3),
      "equal": lambda a, b: p if a == b else 0.0,
    }[source]
    pairs = list(itertools.product((0, 1), repeat=2))
    weight = jnp.array([law(*pair) for pair in pairs])
    units = [[2 * a + b] if t == 1 else [a, b] for a, b in pairs]
    target = jnp.array(units)[:, None]
    head, h = SubCodes(t, 4 // t), jnp.ones((4, 1, 1))
    cost = lambda kernel: jnp.sum(
      weight * head.apply({"params": {"kernel": kernel}}, h, target,
                          method="nll")[:, 0]
    )  # fmt: skip

    @jax.jit
    def descend(kernel):
      step = lambda k, _: (k - 2.0 * jax.grad(cost)(k), None)
      return cost(jax.lax.scan(step, kernel, None, 3000)[0])

    entropy = -float(jnp.sum(weight * jnp.log(jnp.maximum(weight, 1e-30))))
    least = float(descend(jnp.zeros((t, 1, 4 // t))))
    want = entropy if bits == 1 else entropy + np.log(2)
    np.testing.assert_allclose(least, want, atol=1e-3)


if __name__ == "__main__":
  absltest.main()
