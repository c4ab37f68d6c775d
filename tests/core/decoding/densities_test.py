"""Speculation over vectors draws from the target's law: laws that can be
integrated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core.decoding import densities, place_keys, speculate_vectors
from ar_jax.core.errors import UserError
from ar_jax.core.flows import chains, ddpm
from ar_jax.nn.heads.density import Mixed
from tests import golden_weights, laws

N, FEWER = 40_000, 15_000


def mixed(weights, mean, std):
  """A mixture, of one row."""
  mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
  log_std = np.log(np.broadcast_to(std, mean.shape))
  return Mixed(np.log(np.asarray(weights, np.float32)), mean, log_std)


def rows(law, n):
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), law)


# Name -> (target, drafter).
PAIRS = {
  "normal": (mixed([1.0], [[0.0]], 1.0), mixed([1.0], [[0.8]], 1.0)),
  "four": (
    mixed([1.0], [[0.0, 0.2, -0.1, 0.4]], [[1.0, 0.8, 1.2, 1.0]]),
    mixed([1.0], [[0.3, 0.0, 0.2, 0.1]], [[1.2, 1.0, 1.1, 0.9]]),
  ),
  "three": (
    mixed([0.5, 0.3, 0.2], [[-2, 0], [0, 1], [2, -1]], [[0.5, 1.0]]),
    mixed([0.2, 0.4, 0.4], [[-2, 0.5], [0.5, 1], [1.5, -1]], [[0.7, 1.2]]),
  ),
}


def judged(rule, q, p, keys, most):
  """One draft of every row: its unit, whether it stood, its chance, and what
  `residual` says."""
  bank, use, own = (jax.vmap(jax.random.fold_in, (0, None))(keys, i)
                    for i in range(3))  # fmt: skip
  sample, known = rule.draw(q, bank)
  seen = rule.look(p, bank)
  ratio = rule.log_ratio(q, p, sample, known, seen)
  stands = jnp.log(densities.uniform(use)) < ratio
  again = densities.residual(rule, q, p, known, seen, ~stands, own, most)
  unit = jnp.where(stands[:, None], rule.unit(q, sample), again.unit)
  return unit, stands, jnp.exp(jnp.minimum(ratio, 0)), again


@functools.cache
def drawn(name):
  p, q = (rows(law, N) for law in PAIRS[name])
  keys = jax.random.split(jax.random.key(1), N)
  run = jax.jit(
    lambda keys: (judged(densities.Exact(), q, p, keys, 10_000), p.draw(keys))
  )
  (unit, stands, chance, again), plain = jax.device_get(run(keys))
  return unit, stands, chance, again, plain


class ExactTest(parameterized.TestCase):
  @parameterized.parameters(*PAIRS)
  def test_law(self, name):
    unit, stands, chance, again, plain = drawn(name)
    p, _ = PAIRS[name]
    cdf = laws.mixture_cdf(np.exp(p.logits), p.mean, np.exp(p.log_std))
    self.assertGreater(laws.kolmogorov(unit, cdf), 1e-4)
    # The plain draws of other keys than the first ones.
    self.assertGreater(laws.energy_p(unit, plain[N // 2 :]), 1e-3)
    # The same without the residual is another law.
    wrong = np.where(stands[:, None], unit, plain)
    self.assertLess(laws.kolmogorov(wrong, cdf), 1e-6)
    # One proposal for each verified draft, most of them none.
    count = again.proposals
    self.assertLess(abs(count.mean() - 1), 3 * count.std() / np.sqrt(N))
    np.testing.assert_array_equal(count == 0, stands)
    self.assertFalse(again.capped.any())
    # The chance of acceptance has the mean of acceptance.
    self.assertLess(abs(chance.mean() - stands.mean()), 3 * 0.5 / np.sqrt(N))

  def test_acceptance_is_the_overlap(self):
    stands = drawn("normal")[1]
    wanted = 2 * stats.norm.cdf(-0.8 / 2)
    error = np.sqrt(wanted * (1 - wanted) / N)
    self.assertLess(abs(stands.mean() - wanted), 3 * error)

  def test_the_residual_is_capped(self):
    """The same law twice rejects nothing; asked all the same, it has none."""
    law = rows(PAIRS["normal"][0], 4)
    asked = jnp.array([True, True, True, False])
    again = densities.residual(
      densities.Exact(), law, law, (), (), asked,
      jax.random.split(jax.random.key(0), 4), 8,
    )  # fmt: skip
    np.testing.assert_array_equal(again.proposals, [8, 8, 8, 0])
    np.testing.assert_array_equal(again.capped, asked)
    self.assertTrue((again.unit[:3] != 0).all())

  def test_a_temperature_of_zero_has_no_density(self):
    with self.assertRaisesRegex(UserError, "temperature=0"):
      densities.check_temperature(0.0)


# A chain of units x_i = slope x_{i-1} + normal noise.
LENGTH, TARGET, DRAFTER = 4, (0.8, 1.0), (0.5, 1.2)


def following(slope, std, before):
  """The laws of units behind `before` f32[FEWER, 1]."""
  mean = (slope * before)[:, None]
  log_std = jnp.full_like(mean, np.log(std))
  return Mixed(jnp.zeros((len(before), 1)), mean, log_std)


def draft(k, state, units, count, keys):
  at = jnp.minimum(count - 1, LENGTH - 1)
  before = jnp.take_along_axis(units, at[:, None, None], 1)[:, 0]
  seen, new = [], []
  for i in range(k):
    seen.append(before)
    own = place_keys.keys_at(keys, count + i)
    before = following(*DRAFTER, before).draw(own)
    new.append(before)
  new, seen = jnp.stack(new, 1), jnp.stack(seen, 1).reshape(-1, 1)
  law = lambda rows: following(*DRAFTER, seen[rows])
  return speculate_vectors.Drafts(new, new, (), law), state


def score(state, units, count, drafts):
  at = jnp.minimum(count - 1, LENGTH - 1)
  last = jnp.take_along_axis(units, at[:, None, None], 1)
  seen = jnp.concatenate([last, drafts], 1).reshape(-1, 1)
  return lambda rows: following(*TARGET, seen[rows]), state


@functools.partial(jax.jit, static_argnums=1)
def sequences(keys, k):
  first = densities.normal(keys, (1,))
  units = jnp.zeros((len(keys), LENGTH, 1)).at[:, 0].set(first)
  return speculate_vectors.speculate(
    functools.partial(draft, k), score, densities.Exact(), units,
    jnp.ones(len(keys), jnp.int32), ((), ()), keys, k,
  )  # fmt: skip


class LoopTest(absltest.TestCase):
  def test_sequences_follow_the_target(self):
    keys = jax.random.split(jax.random.key(0), FEWER)
    units, took = jax.device_get(sequences(keys, 2))
    # What is left of each unit behind the one before is noise.
    rest = units[:, 1:, 0] - TARGET[0] * units[:, :-1, 0]
    normal = lambda v, c: stats.norm.cdf(v)
    self.assertGreater(laws.kolmogorov(rest, normal), 1e-4)
    both = (rest[:, :-1] + rest[:, 1:]) / np.sqrt(2)
    self.assertGreater(laws.kolmogorov(both, normal), 1e-4)
    self.assertLess(took.forwards.mean(), 2.4)  # of 3
    self.assertGreaterEqual(took.forwards.min(), 1)
    self.assertLessEqual(took.forwards.max(), 3)
    found = speculate_vectors.summary(took, LENGTH)
    self.assertAlmostEqual(float(found["proposals"]), 1, delta=0.05)
    rate = took.accepted.sum() / took.trials.sum()
    self.assertAlmostEqual(float(found["acceptance"]), rate, delta=0.01)

  def test_an_example_does_not_depend_on_its_batch(self):
    keys = jax.random.split(jax.random.key(0), FEWER)
    units, took = jax.device_get(sequences(keys, 2))
    # Others beside it; as many, so that nothing is compiled.
    other = (
      jax.random.split(jax.random.key(3), FEWER).at[: FEWER - 5].set(keys[5:])
    )
    again, again_took = jax.device_get(sequences(other, 2))
    np.testing.assert_array_equal(again[: FEWER - 5], units[5:])
    np.testing.assert_array_equal(
      again_took.forwards[: FEWER - 5], took.forwards[5:]
    )


# Chains of three steps, whose prediction is a linear function of x_i.
LEVELS = ddpm.Levels((0.2, 0.3, 0.4), (0, 1, 2))


def chain(slope, shift, r):
  predict = lambda x, name: (slope * x + shift, jnp.full_like(x, r))
  return chains.Chain(LEVELS, predict, 1)


P, Q = chain(0.7, 0.1, 0.2), chain(0.6, 0.25, 0.0)


@functools.cache
def of_chains(name):
  keys = jax.random.split(jax.random.key(2), FEWER)
  run = lambda keys: judged(densities.RULES[name], Q, P, keys, 64)
  return jax.device_get(jax.jit(run)(keys))


class ChainTest(absltest.TestCase):
  def test_ways_are_exact(self):
    keys = jax.random.split(jax.random.key(5), FEWER)
    unit, _, _, again = of_chains("exact")
    wanted = jax.jit(lambda keys: P.walk(keys).states[:, -1])(keys)
    self.assertGreater(laws.kolmogorov(unit, wanted), 1e-4)
    self.assertLess(again.capped.mean(), 1e-3)
    # Drawn from the drafter alone it is another law.
    other = jax.jit(lambda keys: Q.walk(keys).states[:, -1])(keys)
    self.assertLess(laws.kolmogorov(other, wanted), 1e-6)

  def test_the_other_rules_are_biased(self):
    keys = jax.random.split(jax.random.key(6), FEWER)
    plain = jax.jit(lambda keys: P.walk(keys, last=False).states[:, -1])(keys)
    for name in ("surrogate", "official"):
      self.assertLess(laws.kolmogorov(of_chains(name)[0], plain), 1e-6)

  def test_shared_noise_aligns(self):
    rule = densities.RULES["surrogate"]

    @jax.jit
    def both(keys):
      own = jax.vmap(lambda key: jax.random.fold_in(key, 7))(keys)
      sample, known = rule.draw(Q, keys)
      gaps, chances = [], []
      for bank in (keys, own):
        seen = rule.look(P, bank)
        ratio = rule.log_ratio(Q, P, sample, known, seen)
        gaps.append(jnp.abs(sample - seen.mean).mean())
        chances.append(jnp.exp(jnp.minimum(ratio, 0)).mean())
      return gaps, chances

    gaps, chances = both(jax.random.split(jax.random.key(4), 20_000))
    self.assertLess(gaps[0], gaps[1])
    self.assertGreater(chances[0], 2 * chances[1])

  def test_a_draft_of_the_target_stands(self):
    keys = jax.random.split(jax.random.key(4), 100)
    for rule in densities.RULES.values():
      sample, known = rule.draw(P, keys)
      seen = rule.look(P, keys)
      ratio = rule.log_ratio(P, P, sample, known, seen)
      np.testing.assert_allclose(ratio, 0, atol=1e-5)


class GoldenTest(absltest.TestCase):
  """Arithmetic of the released code, mode `official`."""

  def test_acceptance_and_residual(self):
    _, x = golden_weights.load("cspd")
    spread = lambda name: x[f"sumlog_{name}"].sum(-1)
    known, seen = (
      chains.End(x[f"mu_{n}"], np.log(x[f"std_{n}"]), spread(n))
      for n in ("q", "p")
    )
    rule = densities.RULES["official"]
    np.testing.assert_allclose(
      np.exp(rule.scale(known, seen)), x["scale_term"], rtol=1e-5
    )
    for inner in (42, 1):
      own = densities.Aligned(True, float(inner))
      ratio = own.log_ratio(None, None, x["mu_q"], known, seen)
      np.testing.assert_allclose(np.exp(ratio), x[f"ratio_{inner}"], rtol=1e-4)
    stands = rule.stands(None, None, x["proposal"], known, seen)
    np.testing.assert_allclose(stands, x["residual_accept"], rtol=1e-4)
    for name, end in (("q", known), ("p", seen)):
      density = np.exp(chains.log_normal(x["proposal"], *end[:2]))
      np.testing.assert_allclose(density, x[f"density_{name}"], rtol=1e-4)


if __name__ == "__main__":
  absltest.main()
