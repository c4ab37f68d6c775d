"""Verification: kernel against reference, and the law of what it emits."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax._src.pallas.mosaic.interpret import (
  interpret_pallas_call as interpreter,  # there is no public way to ask
)
from jax.experimental.pallas import tpu as pltpu
from scipy import stats

from ar_jax import ops
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError
from pallas_kernels import mosaic_gpu
from pallas_kernels.spec_verify import examples, gpu, reference, rules, tpu
from pallas_kernels.spec_verify import row as rows_of

FILTERS = rules.Law(0.8, top_k=40, top_p=0.9, min_p=0.01)
# Sequences, drafts, tokens, and the rest; `experiments.benchmarks.verify_rows`
# has more.
CASES = {
  "five": (2500, 3, 5, {}),
  "thousand": (
    16,
    8,
    1000,
    dict(guided=True, law=FILTERS, dtype=jnp.bfloat16),
  ),
  "odd": (3, 4, 16387, dict(mode="point", law=rules.Law(0.5, top_k=50))),
  "point_masses": (9, 17, 5, dict(drawn=False)),
  "gumbel": (9, 17, 300, dict(mode="gumbel", guided=True)),
  "tree": (9, 20, 100, dict(mode="point", tree=True, law=rules.Law(0.0))),
  "lantern": (9, 9, 100, dict(rule=rules.Neighbours(20, 0.2))),
  "lantern_official": (
    9,
    3,
    64,
    dict(rule=rules.Neighbours(9, factor=3.0, residual="official")),
  ),
  "gsd": (9, 9, 100, dict(rule=rules.Cluster(14, 0.05))),
  "groups": (9, 3, 64, dict(rule=rules.Groups("group"), drawn=False)),
}


def forms(settings, **options):
  """The reference and the kernels, interpreted, as functions of arrays."""
  kernels = (functools.partial(x.verify, **options) for x in (tpu, gpu))
  return [
    jax.jit(functools.partial(examples.run, form, settings))
    for form in (reference.verify, *kernels)
  ]


class KernelTest(parameterized.TestCase):
  def assert_same(self, want, got):
    for name in ("accepted", "token", "row"):
      np.testing.assert_array_equal(
        getattr(got, name), getattr(want, name), name
      )
    np.testing.assert_allclose(got.logp, want.logp, atol=1e-5)
    if want.chance is not None:
      np.testing.assert_allclose(got.chance, want.chance, atol=1e-5)

  @parameterized.named_parameters((name, *case) for name, case in CASES.items())
  def test_same_integers(self, batch, k, vocab, options):
    settings, arrays = examples.make(batch, k, vocab, **options)
    dense, *kernels = forms(settings, interpret=True)
    want = dense(arrays)
    for kernel in kernels:
      self.assert_same(want, kernel(arrays))
    if batch > 3:
      self.assertGreater(len(set(np.asarray(want.accepted).tolist())), 1)
    if batch == 2500:  # the numbers matter: others give another answer
      other = dense(arrays | {"noise": arrays["noise"][:, ::-1]})
      self.assertGreater((other.token != want.token).mean(), 0.1)

  @parameterized.parameters("exact", "point", "gumbel")
  def test_masked_vocabulary_under_guidance(self, mode):
    # -inf under both, under one alone, with guidance on, off and null alone.
    settings, arrays = examples.make(6, 2, 9, guided=True, mode=mode)
    logits = arrays["logits"].at[:, :, :, 0].set(-jnp.inf)
    logits = logits.at[:, 0, :, 1].set(-jnp.inf)
    arrays["logits"] = logits.at[:, 1, :, 2].set(-jnp.inf)
    arrays["guidance"] = jnp.array([1.0, 2.0, 0.0, 1.0, 0.5, 3.0])
    arrays["drafts"] = arrays["drafts"] % 3
    dense, *kernels = forms(settings, interpret=True)
    want = dense(arrays)
    self.assertTrue(np.isfinite(want.logp).all())
    self.assertNotIn(0, np.asarray(want.token).tolist())
    for kernel in kernels:
      self.assert_same(want, kernel(arrays))

  @parameterized.parameters("exact", "point", "gumbel")
  def test_biased_logits(self, mode):
    """A bias is in the logits: kernels need not know of it."""
    law = rules.Law(0.7, top_k=30, top_p=0.9)
    settings, arrays = examples.make(6, 3, 300, mode=mode, law=law)
    bias = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
    bias[:, ::2] = -1e30
    plain = arrays["logits"][:, 0].astype(jnp.float32)
    biased = pick.biased(plain, bias, law.temperature)
    arrays["logits"] = biased[:, None]
    dense, *kernels = forms(settings, interpret=True)
    want = dense(arrays)
    self.assertTrue((np.asarray(want.token) % 2 == 1).all())
    for kernel in kernels:
      self.assert_same(want, kernel(arrays))

  def test_a_temperature_next_to_zero_is_greedy(self):
    settings, arrays = examples.make(4, 2, 9, mode="point")
    answers = []
    for temperature in (1e-38, 0.0):
      settings["law"] = rules.Law(temperature)
      for form in forms(settings, interpret=True):
        answers.append(form(arrays))
    for answer in answers[1:]:
      self.assert_same(answers[0], answer)

  @parameterized.parameters("exact", "point", "gumbel")
  def test_no_drafts_is_a_draw(self, mode):
    settings, arrays = examples.make(5, 0, 9, drawn=False, mode=mode)
    dense, *kernels = forms(settings, interpret=True)
    want = dense(arrays)
    np.testing.assert_array_equal(want.accepted, 0)
    for kernel in kernels:
      got = kernel(arrays)
      self.assert_same(want, got)
      self.assertEqual(got.chance.shape, (5, 0))

  def test_no_races_between_copies_and_rows(self):
    # Three groups of rows: two of them are copied by hand. The interpreter
    # of TPU memory stops where something is read that nobody has written.
    settings, arrays = examples.make(
      2, 17, 130, drawn=True, rule=rules.Neighbours(5, 0.9)
    )
    arrays["valid"] = jnp.array([17, 16])
    arrays["noise"] = arrays["noise"].at[:, :17].set(0.0)  # all stand
    params = pltpu.InterpretParams(detect_races=True)
    dense, kernel, _ = forms(settings, interpret=params)
    got = kernel(arrays)
    self.assert_same(dense(arrays), got)
    np.testing.assert_array_equal(got.accepted, [17, 16])
    self.assertFalse(interpreter.races.races_found)

  def test_in_the_memories_of_a_gpu(self):
    # jax's interpreter of Mosaic GPU: nothing is read before it is written.
    settings, arrays = examples.make(3, 1, 5)
    dense, _, kernel = forms(settings, interpret=mosaic_gpu.interpreter())
    self.assert_same(dense(arrays), kernel(arrays))

  def test_a_row_in_the_second_level_cache(self):
    settings, arrays = examples.make(2, 2, 300, law=rules.Law(top_k=9))
    with mock.patch.object(gpu, "_SHARED", 0):
      dense, _, kernel = forms(settings, interpret=True)
      self.assert_same(dense(arrays), kernel(arrays))


class LawTest(parameterized.TestCase):
  def test_is_that_of_the_sampler(self):
    logits = 3 * jax.random.normal(jax.random.key(0), (40, 300))
    for law in (
      FILTERS, rules.Law(top_p=0.7), rules.Law(0.0), rules.Law(1.3, 7),
    ):  # fmt: skip
      want = pick.law(
        logits, temperature=law.temperature, top_k=law.top_k,
        top_p=law.top_p, min_p=law.min_p,
      )  # fmt: skip
      row = jax.jit(functools.partial(rows_of.target, law=law, vocab=300))(
        reference._padded(logits)
      )
      got = (row.logits - row.lse)[:, :300]
      np.testing.assert_array_equal(jnp.isinf(got), jnp.isinf(want))
      np.testing.assert_allclose(jnp.exp(got), jnp.exp(want), atol=1e-6)

  def test_gumbel_rows_draw_what_the_sampler_draws(self):
    logits = jax.random.normal(jax.random.key(1), (100, 2, 300))
    keys = jax.random.split(jax.random.key(2), (100, 2))
    drafts = jnp.zeros((100, 1), jnp.int32)
    got = ops.verify(logits[:, None], drafts, keys, mode="gumbel", top_k=99)
    want = [
      pick.draw(pick.law(logits[:, k], top_k=99), keys[:, k]) for k in (0, 1)
    ]
    stands = want[0] == 0
    np.testing.assert_array_equal(got.accepted, stands)
    np.testing.assert_array_equal(got.token, jnp.where(stands, *want[::-1]))

  def test_sums_have_one_order(self):
    # Monotone in what is summed, so that thresholds can be bisected on it.
    x = jax.random.uniform(jax.random.key(0), (7, 640))
    np.testing.assert_allclose(rows_of.total(x)[:, 0], x.sum(1), rtol=1e-6)
    first = lambda n: rows_of.total(
      jnp.where(jnp.arange(640)[None] < n, x, 0.0)
    )
    sums = jax.vmap(first)(jnp.arange(641))[..., 0]
    self.assertTrue((jnp.diff(sums, axis=0) >= 0).all())
    weights = jnp.zeros((3, 128)).at[:, 5].set(1.0).at[:, 9].set(3.0)
    uniform = jnp.array([[0.0], [0.25], [1.0]])
    got = rows_of.inverse(weights, uniform)[:, 0]
    np.testing.assert_array_equal(got, [5, 9, 9])


def toy(seed=0):
  """A Markov chain over five tokens, and the strings of three it emits."""
  rng = np.random.default_rng(seed)
  softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
  p = softmax(rng.standard_normal((6, 5)))  # row 5: nothing is known yet
  q = softmax(rng.standard_normal((6, 5)))
  exact = np.einsum("a,ab,bc->abc", p[5], p[:5], p[:5]).ravel()
  return p.astype(np.float32), q.astype(np.float32), exact


def p_value(text, exact):
  """Of strings [size, 3] against their law, rare ones taken together."""
  counts = np.bincount(text @ [25, 5, 1], minlength=125)
  expected = exact * len(text) / exact.sum()
  cells = np.where(expected < 5, 125, np.arange(125))
  cells = np.unique(cells, return_inverse=True)[1]
  pooled = lambda x: np.bincount(cells, x)
  return stats.chisquare(pooled(counts), pooled(expected)).pvalue


def draw(rng, p):
  return (p.cumsum(-1) > rng.random((len(p), 1))).argmax(-1)


def emitted(mode, drawn, size, residual=True, seed=0):
  """p-value of the strings that verification emits against the chain."""
  p, q, exact = toy()
  rng = np.random.default_rng(seed)
  first = draw(rng, np.broadcast_to(q[5], (size, 5)))
  second = draw(rng, q[first])
  drafts = np.stack([first, second], 1)
  before = np.concatenate([np.full((size, 1), 5), drafts], 1)
  logits = np.log(p[before])[:, None]
  extra = {"draft_logp": np.log(q[before[:, :2]])} if drawn else {}
  if mode == "gumbel":
    noise = rng.integers(0, 2**32, (size, 3, 2), np.uint32)
  else:
    noise = rng.random((size, 3), np.float32)
  verify = jax.jit(functools.partial(reference.verify, mode=mode))
  verdict = verify(logits, drafts, noise, **extra)
  n, token = np.asarray(verdict.accepted), np.array(verdict.token)
  if not residual:  # after a rejection from p itself: must be noticed
    rows = np.take_along_axis(before, n[:, None], 1)[:, 0]
    token = np.where(n < 2, draw(rng, p[rows]), token)
  text = np.concatenate([drafts, np.zeros((size, 1), int)], 1)
  text[np.arange(size), n] = token
  for place in (1, 2):  # what is not emitted yet follows the chain
    text[:, place] = np.where(
      place > n, draw(rng, p[text[:, place - 1]]), text[:, place]
    )
  return p_value(text, exact)


class EmittedLawTest(parameterized.TestCase):
  @parameterized.parameters(
    ("exact", True), ("exact", False), ("point", False), ("gumbel", False)
  )
  def test_chi_square(self, mode, drawn):
    self.assertGreater(emitted(mode, drawn, 40_000), 1e-4)

  def test_without_the_residual_it_is_another_law(self):
    self.assertLess(emitted("exact", True, 40_000, residual=False), 1e-6)

  def test_tree(self):
    # Both children of the root and one of each: 0, 1 | 0 -> 2, 1 -> 3.
    size, (p, _, exact) = 40_000, toy(1)
    rng = np.random.default_rng(3)
    drafts = np.broadcast_to(np.array([0, 1, 2, 3]), (size, 4))
    parents = np.broadcast_to(np.array([0, 0, 1, 2]), (size, 4))
    logits = np.broadcast_to(np.log(p[[5, 0, 1, 2, 3]]), (size, 1, 5, 5))
    got = jax.jit(functools.partial(reference.verify, mode="point"))(
      logits, drafts, rng.random((size, 5), np.float32), parents=parents
    )
    n, row, token = map(np.asarray, (got.accepted, got.row, got.token))
    text = np.zeros((size, 3), int)
    text[:, 0] = np.where(n == 0, token, np.where(np.isin(row, (1, 3)), 0, 1))
    text[:, 1] = np.where(n == 1, token, np.where(row == 3, 2, 3))
    text[:, 1] = np.where(n == 0, draw(rng, p[text[:, 0]]), text[:, 1])
    text[:, 2] = np.where(n == 2, token, draw(rng, p[text[:, 1]]))
    self.assertGreater(p_value(text, exact), 1e-4)


def law_of(rule, p, q, table, radius=None):
  """f64[V]: the exact law of the first token, all drafts tried; and rates."""
  vocab = len(p)
  rows = rows_of.target(
    reference._padded(jnp.log(jnp.broadcast_to(p, (vocab, vocab)))),
    rules.Law(), vocab,
  )  # fmt: skip
  draft = jnp.arange(vocab)[:, None]
  pad = lambda x, fill: reference._padded(x.astype(jnp.float32), fill)
  log_q = None if q is None else pad(
    jnp.broadcast_to(jnp.log(q), (vocab, vocab)), -jnp.inf
  )  # fmt: skip
  table = pad(table, -1.0).astype(jnp.int32)
  held = jax.jit(lambda *given: rows_of.trial(*given[:3], rule, *given[3:]))
  trial = held(rows, draft, log_q, table, radius)
  rate = np.exp(np.minimum(np.asarray(trial.ratio[:, 0], np.float64), 0))
  left = np.asarray(trial.residual, np.float64)[:, :vocab]
  left /= left.sum(1, keepdims=True)
  return rate[:, None] * np.eye(vocab) + (1 - rate)[:, None] * left, rate


class RulesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    softmax = lambda x: np.exp(x) / np.exp(x).sum()
    self.p, self.q = (softmax(rng.standard_normal(256)) for _ in range(2))
    far = np.where(np.eye(256), -1, rng.random((256, 256)))
    self.table = jnp.asarray(np.argsort(np.argsort(far, 1), 1))

  def test_lantern_keeps_its_budget(self):
    total_variation = lambda rule: (
      np.abs(law_of(rule, self.p, None, self.table)[0] - self.p).sum(1) / 2
    )
    kept = total_variation(rules.Neighbours(64, 0.1))
    self.assertLessEqual(kept.max(), 0.1 + 1e-6)
    self.assertGreater(kept.max(), 0.05)
    np.testing.assert_allclose(
      total_variation(rules.Neighbours(64, 0.0)), 0, atol=1e-6
    )
    published = rules.Neighbours(64, 0.1, residual="official")
    self.assertGreater(total_variation(published).max(), 0.15)

  def test_exact_rule_has_the_law_of_the_target(self):
    laws, _ = law_of(None, self.p, self.q, self.table)
    np.testing.assert_allclose(self.q @ laws, self.p, atol=1e-6)
    laws, _ = law_of(rules.Cluster(1), self.p, self.q, self.table,
                     jnp.full((256, 1), 256))  # fmt: skip
    np.testing.assert_allclose(self.q @ laws, self.p, atol=1e-6)

  def test_cluster_is_a_window_of_ranks(self):
    order = np.lexsort((np.arange(256), self.p))
    place = np.argsort(order)
    # 7 before and 6 after.
    near = np.abs(place[None] - place[:, None] + 0.5) < 7
    near &= np.abs(self.p[:, None] - self.p) < 0.01
    near &= np.asarray(self.table) <= 99
    want = (near * self.p).sum(1) / (near * self.q).sum(1)
    _, rate = law_of(rules.Cluster(14, 0.01), self.p, self.q, self.table,
                     jnp.full((256, 1), 99))  # fmt: skip
    np.testing.assert_allclose(rate, np.minimum(want, 1), rtol=1e-4)

  def test_groups_accept_more_and_keep_their_marginals(self):
    groups = np.arange(256) % 64
    sums = lambda x: np.bincount(groups, x, 64)
    table = jnp.asarray(groups)[None]
    laws, rate = law_of(rules.Groups("token"), self.p, self.q, table)
    accepted = self.q @ rate
    self.assertAlmostEqual(
      accepted, np.minimum(sums(self.p), sums(self.q)).sum(), places=5
    )
    self.assertGreater(accepted, np.minimum(self.p, self.q).sum())
    by_token = np.abs(sums(self.q @ laws) - sums(self.p)).sum() / 2
    self.assertGreater(by_token, 0.01)
    left = reference._group_residual(
      reference._padded(jnp.float32(self.p))[None, None],
      reference._padded(jnp.float32(self.q))[None, None], table[0],
    )[0, 0, :256]  # fmt: skip
    whole = (self.q * rate) + (1 - accepted) * np.asarray(left / left.sum())
    np.testing.assert_allclose(sums(whole), sums(self.p), atol=1e-5)


class DoorTest(parameterized.TestCase):
  def test_refusals_say_why(self):
    settings, arrays = examples.make(2, 3, 16, rule=rules.Groups("group"))
    arrays = dict(arrays)
    first = [arrays.pop(name) for name in ("logits", "drafts", "noise")]
    go = lambda **more: ops.verify(
      *first, **arrays, rule=settings["rule"], **more
    )
    for kernel in (tpu, gpu):
      with self.assertRaisesRegex(NotImplementedError, "sum per group"):
        kernel.verify(*first, **arrays, **settings, interpret=True)
    with self.assertRaisesRegex(NotImplementedError, "no kernel for cpu"):
      go(impl="pallas")
    with self.assertRaisesRegex(UserError, "choose None"):
      go(impl="triton")
    with self.assertRaisesRegex(UserError, "top_k=17"):
      go(top_k=17)
    with self.assertRaisesRegex(UserError, "takes neither"):
      go(mode="point")
    with self.assertRaisesRegex(UserError, "drafts has shape"):
      ops.verify(first[0], first[1][:, :1], first[2])
    with self.assertRaisesRegex(UserError, "guidance needs"):
      ops.verify(*first, guidance=2.0)
    with self.assertRaisesRegex(UserError, "needs a table"):
      ops.verify(*first, rule=rules.Groups())
    go()  # None takes the form that can


if __name__ == "__main__":
  absltest.main()
