"""LANTERN's law stays within its budget."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import near_codes
from ar_jax.core.system import UserError, build
from pallas_kernels.spec_verify import row, rules
from tests import filled

V, ROWS = 256, 200
TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TARGET = dict(
  name="llamagen", tokenizer=TOKENIZER, depth=1, width=16, heads=2,
  multiple_of=16, num_classes=3,
)  # fmt: skip


def random_laws():
  """Logits, drafts, and the order of neighbours of random codes."""
  draw = np.random.default_rng(0)
  logits = jnp.asarray(2 * draw.normal(size=(ROWS, V)), jnp.float32)
  drafts = jnp.asarray(draw.integers(0, V, (ROWS, 1)))
  codes = jnp.asarray(draw.normal(size=(V, 4)), jnp.float32)
  return logits, drafts, codes


@functools.cache
def laws(rule):
  """(p, the law that is drawn from, the chance of acceptance), all exact."""
  logits, drafts, codes = random_laws()
  target = row.target(logits, rules.Law(), V)
  table = near_codes.ranks(codes)[drafts[:, 0]]
  trial = row.trial(target, drafts, None, rule, table, None)
  chance = np.exp(np.minimum(trial.ratio, 0))
  rest = np.asarray(trial.residual, np.float64)
  law = (1 - chance) * rest / rest.sum(1, keepdims=True)
  law[np.arange(ROWS), drafts[:, 0]] += chance[:, 0]
  return np.asarray(target.probs, np.float64), law, chance


def variation(p, q):
  return 0.5 * np.abs(p - q).sum(-1)


class LanternTest(parameterized.TestCase):
  @parameterized.parameters((64, 0.1), (200, 0.1), (200, 0.4))
  def test_the_budget_bounds_the_total_variation(self, k, delta):
    p, law, _ = laws(rules.Neighbours(k, delta))
    self.assertLess(variation(p, law).max(), delta + 1e-5)
    # The published residual empties k + 1 codes, however few were counted.
    p, law, _ = laws(rules.Neighbours(k, delta, residual="official"))
    self.assertGreater(variation(p, law).max(), 1.4 * delta)

  def test_a_larger_budget_accepts_more(self):
    chances = [laws(rules.Neighbours(64, d))[2].mean() for d in (0, 0.1, 0.4)]
    self.assertLess(chances[0] + 0.02, chances[1])
    self.assertLess(chances[1] + 0.02, chances[2])
    few, many = (laws(rules.Neighbours(k, 0.4))[2].mean() for k in (4, 64))
    self.assertLess(few, many)

  def test_a_relaxed_tree_keeps_to_the_same_budget(self):
    logits, _, codes = random_laws()
    # Five rows: three children of the first, one of the second.
    logp = jax.nn.log_softmax(logits.reshape(40, 5, V))
    order = np.random.default_rng(1).random((40, V)).argsort(1)
    drafts = jnp.asarray(order[:, :4])
    parents = jnp.broadcast_to(jnp.array([0, 0, 0, 1]), (40, 4))
    nearest = near_codes.order(codes)[:, 1:65]
    moved = near_codes.relaxed(
      logp, drafts, parents, nearest=nearest, delta=0.2
    )
    p, law = np.exp(logp), np.exp(moved)
    np.testing.assert_allclose(law.sum(-1), 1, atol=1e-5)
    distance = variation(p, law)
    self.assertLess(distance.max(), 0.2 + 1e-5)
    self.assertGreater(distance[:, :2].mean(), 0.1)
    # Rows without drafts are as they were.
    np.testing.assert_allclose(law[:, 2:], p[:, 2:], atol=1e-7)
    children = np.take_along_axis(law - p, np.asarray(drafts)[:, None], -1)
    # Later ones may have been taken for the first.
    self.assertTrue((children[:, 0, 0] >= -1e-7).all())
    # The first child alone: the rule that judges chains.
    rule = rules.Neighbours(64, 0.2)
    table = near_codes.ranks(codes)[drafts[:, 0]]
    target = row.target(logits.reshape(40, 5, V)[:, 0], rules.Law(), V)
    trial = row.trial(target, drafts[:, :1], None, rule, table, None)
    np.testing.assert_allclose(
      law[np.arange(40), 0, drafts[:, 0]],
      np.exp(trial.ratio[:, 0]),
      atol=1e-5,
    )

  def test_draws_by_a_tree(self):
    system = build("lantern", target=TARGET)
    variables = filled.variables(system)
    keys = jax.random.split(jax.random.key(0), 20)

    @functools.partial(jax.jit, static_argnums=0)
    def draw(delta, variables, keys):
      return system.generate(
        variables, {"label": jnp.zeros(len(keys), jnp.int32)}, keys,
        k=15, delta=delta, tree=(2, 3, 6),
      )  # fmt: skip

    exact, relaxed = (draw(d, variables, keys)[1] for d in (0.0, 0.4))
    self.assertLess(relaxed.forwards.sum(), exact.forwards.sum())

  def test_bad_options(self):
    with self.assertRaisesRegex(UserError, "gsd.*'patch_codes' has no law"):
      build("gsd", target=TOKENIZER)
    system = build("lantern", target=TARGET)
    draw = lambda **options: jax.eval_shape(
      lambda variables, keys: system.generate(
        variables, {"label": jnp.zeros(1, jnp.int32)}, keys, **options
      ),
      filled.variables(system),
      jax.random.split(jax.random.key(0), 1),
    )
    for options, message in (
      (dict(delta=1.5), r"delta in \[0, 1\]"),
      (dict(metric="l1"), "choose 'used' or 'stored'"),
      (dict(factor=2.0, tree=(2, 3, 6)), "keeps to a budget"),
    ):
      with self.assertRaisesRegex(UserError, message):
        draw(**options)


if __name__ == "__main__":
  absltest.main()
