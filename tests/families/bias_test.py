"""A bias on the logits, under every way in which units are drawn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting import eagle_drafts, speculation
from tests import filled, laws, optimised
from tests.systems import scale_models

V, L, N = 4, 4, 50_000  # codes, units of an image, images
TINY = dict(
  tokenizer=dict(
    name="patch_codes", vocab=V, patch=2, size=4, in_channels=1
  ),
  depth=1, width=8, heads=1, multiple_of=8, num_classes=2,
)  # fmt: skip
NAR = dict(TINY, name="nar", width=16, heads=2)
LAW = dict(guidance=1.5, temperature=0.7, top_k=3)
# One unit is forbidden, others are pushed up and down.
BIAS = np.array([0.8, -1.2, -1e30, 0.4], np.float32)


@functools.cache
def lantern():
  """LANTERN over a tiny LlamaGen, whose units hang together."""
  system = build("lantern", target=dict(name="llamagen", **TINY))
  return system, filled.variables(system, stddev=0.6)


def law_of(logits, bias):
  """Probabilities f64[..., V] of guided logits: what is asked of `LAW`."""
  logits = np.asarray(logits, np.float64) / LAW["temperature"] + bias
  kept = logits >= np.sort(logits, -1)[..., -LAW["top_k"], None]
  return special.softmax(np.where(kept, logits, -np.inf), -1)


@functools.cache
def exact():
  """f64[V^L], the law of all images of class 1, with the bias."""
  system, variables = lantern()
  target, own = system.target, system.of_target(variables)
  every = jnp.array(list(itertools.product(range(V), repeat=L)))
  label = {"label": jnp.ones(len(every), jnp.int32)}
  logits, hide = jax.jit(target.logits), jnp.ones(len(every), bool)
  shown = np.asarray(logits(own, label, every, ~hide))
  hidden = np.asarray(logits(own, label, every, hide))
  p = law_of(hidden + LAW["guidance"] * (shown - hidden), BIAS)
  return np.take_along_axis(p, np.asarray(every)[..., None], -1).prod((1, 2))


def speculated(by, keys, bias):
  return _speculated(by, *lantern(), keys, bias)


@functools.partial(optimised.jit, static_argnums=(0, 1))
def _speculated(by, system, variables, keys, bias):
  program = system.target.program(**LAW)
  net = system.target.net_variables(system.of_target(variables))
  layer = {"params": variables["params"]}
  tree = eagle_drafts.Tree(2, 2, 4)
  source = {
    "jacobi": lambda: speculation.jacobi(2, program),
    "model": lambda: speculation.model(
      2, system.target.program(temperature=1.3), net
    ),
    "eagle": lambda: eagle_drafts.source(system.eagle, layer, k=2),
    "tree": lambda: eagle_drafts.source(system.eagle, layer, k=0, tree=tree),
  }[by]()
  label = {"label": jnp.ones(len(keys), jnp.int32)}
  mode = "point" if by == "tree" else "exact"
  return speculation.generate(
    program, net, label, keys, source, mode=mode, bias=bias
  )


def p_value(units, wanted):
  return laws.chi_square(units, wanted, V)


class SpeculationTest(parameterized.TestCase):
  @parameterized.parameters("jacobi", "model", "eagle", "tree")
  def test_the_law_is_the_biased_one(self, by):
    n = N if by == "jacobi" else N // 10
    keys = jax.random.split(jax.random.key(1), n)
    bias = jnp.broadcast_to(BIAS, (n, V)) if by == "jacobi" else BIAS
    units, took = speculated(by, keys, bias)
    self.assertGreater(p_value(units, exact()), 1e-4)
    self.assertFalse((units == 2).any())
    if by != "eagle":  # which knows nothing; the others draft with it, too
      self.assertGreater(took.accepted.sum() / took.trials.sum(), 0.2)
    if by == "model":  # without it the law is another
      units, _ = speculated(by, keys, jnp.zeros(V))
      self.assertLess(p_value(units, exact()), 1e-6)

  def test_a_system_reads_it_from_its_condition(self):
    """One step of many units, by drafts of the target itself."""
    system = build("gsd", target=NAR)
    self.assertIn("bias", system.takes)
    variables = filled.variables(system)
    draw = jax.jit(
      lambda cond, keys: (
        system.generate(variables, cond, keys, size=1)[0],
        system.target.generate(variables, cond, keys),
      )
    )
    keys = jax.random.split(jax.random.key(2), 64)
    cond = {"label": jnp.zeros(64, jnp.int32)}
    cond["bias"] = jnp.broadcast_to(BIAS, (64, V))
    for units in draw(cond, keys):
      self.assertFalse((units == 2).any())
      self.assertLen(np.unique(units), V - 1)

  def test_of_another_vocabulary(self):
    with self.assertRaisesRegex(UserError, r"bias of shape \(5,\)"):
      speculated("jacobi", jax.random.split(jax.random.key(0), 2), np.ones(5))


@functools.partial(jax.jit, static_argnums=(0, 1))
def maps(system, options, variables, bias, keys):
  cond = {"label": jnp.arange(len(keys)) % 3}
  if bias is not None:
    cond["bias"] = bias
  return system.generate(variables, cond, keys, **dict(options))[0]


class ScaleTest(parameterized.TestCase):
  KEYS = jax.random.split(jax.random.key(3), 64)

  def draw(self, bias, name="var", **options):
    options = {"guidance": 2.0} | options
    system, variables = getattr(scale_models, name)()
    options = tuple(sorted(options.items()))
    return np.asarray(maps(system, options, variables, bias, self.KEYS))

  @parameterized.parameters("var", "flexvar")
  def test_what_is_forbidden_is_not_drawn(self, name):
    bias = np.zeros((64, 16), np.float32)
    plain = self.draw(None, name)
    np.testing.assert_array_equal(self.draw(bias, name), plain)
    often = np.bincount(plain.ravel()).argmax()
    bias[:32, often] = -1e30  # for half of the examples
    units = self.draw(bias, name)
    self.assertFalse((units[:32] == often).any())
    np.testing.assert_array_equal(units[32:], plain[32:])

  def test_each_map_has_its_own(self):
    bias = np.zeros((64, 3, 16), np.float32)
    bias[:, 1, :15] = -1e30
    units = self.draw(bias)
    self.assertTrue((units[:, 1:5] == 15).all())
    np.testing.assert_array_equal(units[:, 0], self.draw(None)[:, 0])
    self.assertGreater(len(np.unique(units[:, 5:])), 8)
    with self.assertRaisesRegex(UserError, "more than 2 steps"):
      self.draw(bias[:, :2])

  def test_greedy_draws_are_moved_by_what_is_forbidden_alone(self):
    plain = self.draw(None, temperature=0.0)
    bias = np.linspace(0, 9, 64 * 16, dtype=np.float32).reshape(64, 16)
    np.testing.assert_array_equal(self.draw(bias, temperature=0.0), plain)
    bias[:, plain[0, 0]] = -1e30
    units = self.draw(bias, temperature=0.0)
    self.assertFalse((units == plain[0, 0]).any())
    self.assertTrue(np.isfinite(units).all())

  def test_what_is_drawn_again_is_biased_too(self):
    """HMAR draws the least certain units of a map once more."""
    system = build(
      "hmar", tokenizer=dict(scale_models.TOKENIZER, form="pyramid"), tail=1,
      refine=True, drop_path=0.0, **scale_models.SIZES,
    )  # fmt: skip
    variables = filled.variables(system)
    draw = jax.jit(
      lambda bias: system.generate(
        variables,
        {"label": jnp.arange(64) % 3, "bias": bias},
        self.KEYS,
        refine=((1,), (1, 3), (4, 12)),
      )[0]
    )
    bias = np.zeros((64, 16), np.float32)
    bias[:, ::2] = -1e30
    self.assertFalse((np.asarray(draw(bias)) % 2 == 0).any())


if __name__ == "__main__":
  absltest.main()
