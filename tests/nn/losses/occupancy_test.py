"""Imitation by occupancy: on a small world where all can be counted, and the
parent's loss."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError
from ar_jax.nn.losses import occupancy
from ar_jax.nn.losses.occupancy import Steps

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "iqlearn_loss.npz"
GAMMA = 0.9

# A stack of at most 3 symbols of 2: 15 states. Actions: push 0, push 1, take
# back, end; NEXT is -1 where the text is over, LEGAL says what may be done.
STATES = [""]
for _ in range(3):
  STATES += [s + a for s in STATES if len(s) == len(STATES[-1]) for a in "01"]
NEXT = np.full((15, 4), -1)
LEGAL = np.ones((15, 4), bool)
for i, text in enumerate(STATES):
  for j in (0, 1):
    LEGAL[i, j] = len(text) < 3
    if LEGAL[i, j]:
      NEXT[i, j] = STATES.index(text + "01"[j])
  LEGAL[i, 2] = len(text) > 0
  if LEGAL[i, 2]:
    NEXT[i, 2] = STATES.index(text[:-1])


def visits(policy):
  """f64[15, 4] of a policy f64[15, 4]: how often what is done where, from the
  empty stack, step t weighed by gamma^t; no trajectory is drawn."""
  go = jnp.zeros((15, 15))
  for j in range(4):
    into = jax.nn.one_hot(NEXT[:, j], 15, dtype=float)  # nothing of -1
    go = go + policy[:, j : j + 1] * into
  start = jnp.zeros(15).at[0].set(1.0)
  state = jnp.linalg.solve(jnp.eye(15) - GAMMA * go.T, start)
  return state[:, None] * policy


def policy(logits):
  return jax.nn.softmax(jnp.where(LEGAL, logits, -jnp.inf), -1)


def steps(logits, weight):
  """Every action of every state as a step."""
  v = jax.nn.logsumexp(jnp.where(LEGAL, logits, -jnp.inf), -1)
  after = jnp.where(NEXT < 0, 0.0, v[NEXT])
  both = logits, jnp.broadcast_to(v[:, None], (15, 4)), after, weight
  return Steps(*(jnp.where(LEGAL, x, 0.0).reshape(-1) for x in both))


def objective(logits, data, model, **options):
  found = occupancy.terms(
    steps(logits, data), None if model is None else steps(logits, model),
    gamma=GAMMA, **options,
  )  # fmt: skip
  return found["linear"] - found["value"] - found["penalty"]


class OccupancyTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.assertLen(STATES, 15)
    self.enterContext(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.laws = [policy(rng.normal(size=(15, 4))) for _ in range(3)]
    self.logits = jnp.asarray(rng.normal(size=(15, 4)))

  def test_the_value_telescopes(self):
    """For three behaviours the same number: that of the first state."""
    first = jax.nn.logsumexp(self.logits[0][LEGAL[0]])
    for law in self.laws:
      own = visits(law)
      for where in ("data", "mixture"):
        found = occupancy.terms(
          steps(self.logits, own), steps(self.logits, visits(self.laws[0])),
          gamma=GAMMA, alpha=0.0, value=where, penalty="none",
        )  # fmt: skip
        np.testing.assert_allclose(found["value"], first, rtol=0, atol=1e-12)

  def test_without_alpha_it_is_the_likelihood(self):
    data, model = visits(self.laws[1]), visits(self.laws[2])

    def likelihood(logits):
      law = jax.nn.log_softmax(jnp.where(LEGAL, logits, -1e9), -1)
      return jnp.sum(jnp.where(LEGAL, data * law, 0.0))

    safe = jnp.where(LEGAL, self.logits, 0.0)
    want = likelihood(safe), jax.grad(likelihood)(safe)
    for where, other in (("data", None), ("mixture", model)):
      own = jax.value_and_grad(objective)(
        safe, data, other, alpha=0.0, value=where, penalty="none"
      )
      np.testing.assert_allclose(own[0], want[0], rtol=0, atol=1e-10)
      np.testing.assert_allclose(own[1], want[1], rtol=0, atol=1e-10)

  def test_the_optimum_is_the_data(self):
    """Occupancies at the optimum: the same but for alpha, which draws them to
    the law of most entropy."""
    data = visits(self.laws[0])
    tx = optax.adam(optax.cosine_decay_schedule(0.1, 1500))

    def apart(alpha):
      loss = lambda x, m: -objective(x, data, m, alpha=alpha)

      def step(_, state):
        logits, opt = state
        model = jax.lax.stop_gradient(visits(policy(logits)))
        change, opt = tx.update(jax.grad(loss)(logits, model), opt)
        return logits + change, opt

      begin = jnp.zeros((15, 4))
      logits, _ = jax.lax.fori_loop(0, 1500, step, (begin, tx.init(begin)))
      model = visits(policy(logits))
      share = lambda x: x / x.sum()
      return 0.5 * jnp.sum(jnp.abs(share(model) - share(data)))

    found = jax.jit(jax.vmap(apart))(jnp.array([0.01, 0.1, 1.0]))
    self.assertLess(found[0], 0.005)
    self.assertTrue(bool(jnp.all(jnp.diff(found) > 0)), found)
    self.assertGreater(found[2], 0.02)

  @parameterized.parameters(
    ("value_none", "mixture", "none", 0.0, "chi2"),
    ("value_expert_chi", "data", "data", 1 / 0.5, "chi2"),
    ("value_regularize", "mixture", "mixture", 1 / 0.01, "chi2"),
    ("value_expert_regularize", "data", "mixture", 1 / 0.1, "chi2"),
    ("v0_chi", "initial", "data", 1 / 0.5, "chi2"),
    ("value_hellinger", "mixture", "none", 0.0, "hellinger"),
    ("value_kl", "mixture", "none", 0.0, "kl"),
    ("value_kl2", "mixture", "none", 0.0, "kl_batch"),
    ("value_klfix", "mixture", "none", 0.0, "kl_unbiased"),
    ("value_js", "mixture", "none", 0.0, "js"),
  )
  def test_the_parents_loss(self, name, value, penalty, alpha, divergence):
    golden, gamma = np.load(GOLDEN), 0.998
    draw = lambda key: golden_tensor(key)[:, 0]
    q, v = draw("current_q"), draw("current_v")
    after = (1 - golden["done"][:, 0]) * draw("next_v")
    expert = golden["is_expert"][:, 0]

    def loss(q):
      of = lambda rows: Steps(
        q[rows], v[rows], after[rows], np.full(rows.sum(), 1 / rows.sum())
      )
      data = of(expert)
      found = occupancy.terms(
        data, of(~expert), gamma=gamma, alpha=alpha, value=value,
        penalty=penalty, divergence=divergence, share=expert.mean(),
      )  # fmt: skip
      second = found["value"]
      if value == "initial":  # of five texts of one step each
        second = (1 - gamma) * np.mean(v[expert])
      return second + found["penalty"] - found["linear"]

    found, slope = jax.value_and_grad(loss)(jnp.asarray(q))
    np.testing.assert_allclose(found, golden[f"loss_{name}"], rtol=1e-5)
    want = golden[f"grad_q_{name}"][:, 0]
    np.testing.assert_allclose(slope, want, rtol=1e-4, atol=1e-6)

  def test_initial_is_the_first_state(self):
    data = Steps(
      *(jnp.asarray(x) for x in ([1.0, 2], [3.0, 4], [5.0, 6], [1, 0.9]))
    )
    found = occupancy.terms(
      data, None, gamma=0.9, alpha=0.0, value="initial", penalty="none"
    )
    self.assertAlmostEqual(float(found["value"]), 3.0)

  def test_what_is_not_to_be_learned(self):
    """Neither way teaches the action itself, and only one telescopes."""
    rng = np.random.default_rng(0)
    wrong = jnp.array([False, True, False])

    def made(q, v, how):
      match = occupancy.Matching(
        gamma=0.9, alpha=0.0, value="data", penalty="none", wrong=how
      )
      # Three states in a row, and the end.
      after = jnp.concatenate([v[1:], jnp.zeros(1)])
      data = match.unlearned(Steps(q, v, after, 0.9 ** jnp.arange(3)), wrong)
      found = match.terms(data, None)
      return found["linear"] - found["value"]

    q, v = (jnp.asarray(rng.normal(size=3)) for _ in range(2))
    slope = {
      how: jax.grad(made, (0, 1))(q, v, how) for how in ("certain", "left_out")
    }
    for of_q, _ in slope.values():
      np.testing.assert_allclose(of_q, [1, 0, 0.81])
    # log pi of the others alone: what is left of V(s) is 1 for each of them.
    np.testing.assert_allclose(slope["certain"][1], [-1, 0, -0.81], atol=1e-9)
    self.assertGreater(abs(float(slope["left_out"][1][2]) + 0.81), 0.5)

  def test_choices(self):
    for options in (
      dict(value="all"), dict(penalty="initial"), dict(divergence="tv")
    ):  # fmt: skip
      with self.assertRaisesRegex(UserError, next(iter(options))):
        occupancy.terms(None, None, gamma=0.9, alpha=0.1, **options)
    for options in (dict(wrong="no"), dict(terminal="no"), dict(gamma=1.0)):
      with self.assertRaisesRegex(UserError, next(iter(options))):
        occupancy.Matching(**options)


def golden_tensor(key):
  from tests.golden_weights import tensor

  return np.float64(tensor(key, (12, 1)))


if __name__ == "__main__":
  absltest.main()
