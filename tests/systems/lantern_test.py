"""LANTERN's law stays within its budget."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import near_codes
from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting import eagle_drafts, speculation
from ar_jax.families.token.program import TokenProgram
from pallas_kernels.spec_verify import row, rules
from tests import filled
from tests import laws as toys

V, ROWS = 256, 200
TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TARGET = dict(
  name="llamagen", tokenizer=TOKENIZER, depth=1, width=16, heads=2,
  multiple_of=16, num_classes=3,
)  # fmt: skip


CONTROLLED = dict(
  name="controlar", depth=3, width=16, heads=2, multiple_of=16, num_classes=2,
  tokenizer=dict(name="patch_codes", vocab=4, patch=2, size=4, in_channels=1),
  encoder=dict(depth=1, width=16, heads=2), control_init="released",
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


class ControlledTest(absltest.TestCase):
  """LANTERN over ControlAR, of 4 units of 4 codes: all images are listed."""

  LAW = dict(guidance=1.5, temperature=0.8)

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("lantern", target=CONTROLLED)
    cls.variables = filled.variables(cls.system, stddev=0.5)
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (2, 4, 4, 1))
    cls.pictures = jnp.asarray(pictures, jnp.uint8)

  def cond(self, picture, n):
    return {
      "label": jnp.ones(n, jnp.int32),
      "edges": jnp.repeat(picture[None], n, 0),
    }

  def test_exact_drafts_keep_the_law_of_the_control(self):
    every = toys.sequences(4, 4)
    target, own = self.system.target, self.system.of_target(self.variables)

    @jax.jit
    def law_of(picture):
      cond, units = self.cond(picture, len(every)), jnp.asarray(every)
      said = lambda hide: target.logits(
        own, cond, units, jnp.full(len(every), hide)
      )
      null = said(True)
      guided = null + self.LAW["guidance"] * (said(False) - null)
      logp = jax.nn.log_softmax(guided / self.LAW["temperature"], -1)
      return jnp.take_along_axis(logp, units[..., None], -1).sum((1, 2))

    @jax.jit
    def draw(picture, keys):
      return self.system.generate(
        self.variables, self.cond(picture, len(keys)), keys, drafts=2,
        delta=0.0, **self.LAW,
      )  # fmt: skip

    units, took = draw(
      self.pictures[0], jax.random.split(jax.random.key(1), 3000)
    )
    first, other = (np.exp(law_of(picture)) for picture in self.pictures)
    self.assertAlmostEqual(first.sum(), 1, places=4)
    self.assertGreater(toys.chi_square(units, first / first.sum(), 4), 1e-4)
    self.assertLess(toys.chi_square(units, other / other.sum(), 4), 1e-6)
    self.assertLess(took.forwards.mean(), 4)

  def test_the_drafter_reads_the_control(self):
    """With a cache what it reads in training, and of its own place only."""
    net = self.system.target.net
    own = self.system.target.net_variables(
      self.system.of_target(self.variables)
    )
    layer, params = self.system.eagle, {"params": self.variables["params"]}
    units = jnp.asarray([[0, 3, 1, 2]])

    @jax.jit
    def both(features, picture):
      cond, bound = self.cond(picture, 1), net.bind(own)
      beside = bound.beside(cond)
      whole = layer.bind(params).forced(bound, cond, units, features, beside)
      start = speculation.Start(
        TokenProgram(net), own, cond, units[:, :1], features[:, :2], None
      )
      forward = eagle_drafts._Forward(
        layer, params, start, eagle_drafts._beside(start)
      )
      cache, got = forward.begin(1), []
      for at in (1, 2):
        cache = dataclasses.replace(cache, index=jnp.full(1, at))
        h, cache = forward.feed(
          cache, units[:, at : at + 1], features[:, at : at + 1],
          jnp.full((1, 1), at), cache.causal(1),
        )  # fmt: skip
        got.append(h)
      return whole, jnp.concatenate(got, 1)

    features = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 16)))
    found = [both(features, picture) for picture in self.pictures]
    for whole, got in found:
      np.testing.assert_allclose(got, whole[:, 1:], rtol=1e-5, atol=1e-4)
    apart = np.abs(found[0][0] - found[1][0]).max((0, 2))
    self.assertTrue((apart > 1e-3).all())

  def test_the_sides_of_a_picture_are_those_of_the_image(self):
    for system in (
      self.system, build("lantern", target=CONTROLLED, drafter="itself")
    ):  # fmt: skip
      variables = filled.variables(system)
      wide = jnp.zeros((4, 8, 1), jnp.uint8)
      keys = jax.random.split(jax.random.key(0), 2)
      draw = functools.partial(system.sample, drafts=2, k=3)
      made = jax.eval_shape(draw, variables, self.cond(wide, 2), keys)
      self.assertEqual(made["image"].shape, (2, 4, 8, 1))
      self.assertEqual(system.control, "edges")


if __name__ == "__main__":
  absltest.main()
