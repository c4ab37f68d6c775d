"""Jacobi decoding of steps of many units: the law, the edit, the counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax import ops
from ar_jax.core import jacobi, pick, speculate
from ar_jax.core.editing import Edit
from ar_jax.core.plan import plan
from ar_jax.core.system import UserError, build
from tests import filled, optimised

V, PLAN = 3, plan((1, 2, 1))
L, N = len(PLAN), 40_000
LEVEL = PLAN.step_of()
# One row for each unit and each prefix, numbered in base V + 1.
WEIGHTS = (V + 1) ** np.arange(L)
TABLE = 1.5 * jax.random.normal(jax.random.key(0), (L, (V + 1) ** L, V))
VQ = dict(
  name="vq", vocab=16, channels=4, z=8, ch=8, mult=(1, 2), blocks=1, size=8
)
MAPS = dict(
  name="multiscale_vq", scales=(1, 2, 4), vocab=16, channels=4, ch=8,
  mult=(1, 2), blocks=1,
)  # fmt: skip
TARGETS = {
  "nar": dict(
    name="nar", tokenizer=VQ, depth=1, width=16, heads=2, multiple_of=16,
    num_classes=3,
  ),
  "var": dict(
    name="var", tokenizer=MAPS, depth=2, width=16, heads=2, num_classes=3
  ),
}  # fmt: skip
LABEL = {"label": jnp.arange(6) % 3}
KEYS = jax.random.split(jax.random.key(7), 6)


def rows(units):
  """The rows of TABLE, [..., L], of units [..., L]."""
  before = LEVEL[:, None] > LEVEL[None]  # a step does not see itself
  return (units + 1) @ (before * WEIGHTS[None]).T


def score(units):
  return TABLE[jnp.arange(L)[None], rows(units)]


def exact():
  """f64[V^L], the probability of every sequence."""
  every = np.indices((V,) * L).reshape(L, -1).T
  logp = np.asarray(jax.nn.log_softmax(TABLE), np.float64)
  own = logp[np.arange(L)[None], rows(every), every]
  return np.exp(own.sum(1))


def no_residual(logits, drafts, noise, **kwargs):
  """A verifier that draws what follows a rejection from the law itself."""
  verdict = ops.verify(logits, drafts, noise, **kwargs)
  cumulative = jnp.cumsum(jax.nn.softmax(logits[:, 0, 0]), -1)
  token = jnp.sum(cumulative <= noise[:, -1:], -1)
  return verdict._replace(token=jnp.minimum(token, V - 1))


@functools.cache
def drawn(verify=ops.verify):
  keys = jax.random.split(jax.random.key(1), N)
  run = optimised.jit(lambda keys: jacobi.decode(score, verify, PLAN, keys))
  return run(keys)


def p_value(units):
  index = np.ravel_multi_index(np.asarray(units).T, (V,) * L)
  wanted = N * exact()
  keep = wanted >= 5
  pool = lambda x: np.append(x[keep], x[~keep].sum())
  counts, wanted = pool(np.bincount(index, minlength=V**L)), pool(wanted)
  return stats.chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue


class LawTest(absltest.TestCase):
  def test_law(self):
    units, took = drawn()
    self.assertGreater(p_value(units), 1e-4)
    self.assertGreaterEqual(took.forwards.min(), 2)
    self.assertLessEqual(took.forwards.max(), PLAN.steps + 1)
    # Every unit behind the first step is judged once.
    np.testing.assert_array_equal(took.trials, L - 1)
    rate = float(jnp.sum(took.chance) / jnp.sum(took.trials))
    self.assertLess(abs(rate - np.mean(took.accepted) / (L - 1)), 0.01)

  def test_without_the_residual_the_law_is_another(self):
    self.assertLess(p_value(drawn(no_residual)[0]), 1e-6)

  def test_drafts_of_a_law_without_context_always_stand(self):
    logits = jax.random.normal(jax.random.key(2), (1, L, V))
    wide = lambda units: jnp.broadcast_to(logits, (len(units), L, V))
    units, took = jacobi.decode(wide, ops.verify, PLAN, KEYS)
    np.testing.assert_array_equal(took.forwards, 2)
    place = jnp.broadcast_to(jnp.arange(L), (6, L))
    plain = speculate.draw_at(pick.law(wide(units)), KEYS, place)
    np.testing.assert_array_equal(units, plain)

  def test_known_units_stay(self):
    given = jax.random.randint(jax.random.key(3), (6, L), 0, V)
    keep = jnp.arange(L)[None] % 2 == jnp.arange(6)[:, None] % 2
    edit = Edit(given, keep)
    units, took = jacobi.decode(score, ops.verify, PLAN, KEYS, edit=edit)
    np.testing.assert_array_equal(units[keep], given[keep])
    asked = (~keep & (LEVEL > 0)[None]).sum(1)
    np.testing.assert_array_equal(took.trials, asked)


class SystemsTest(parameterized.TestCase):
  """GSD and LANTERN over systems of many units a step."""

  @parameterized.product(target=("nar", "var"), over=("gsd", "lantern"))
  def test_a_looser_rule_takes_fewer_forwards(self, target, over):
    options = {"drafter": "itself"} if over == "lantern" else {}
    system = build(over, target=TARGETS[target], **options)
    variables = filled.variables(system)
    exact, loose = {
      "gsd": (dict(size=1), dict(size=15, delta_p=1.0, quantile=None)),
      "lantern": (dict(delta=0.0), dict(k=15, delta=0.9)),
    }[over]

    def forwards(**options):
      run = jax.jit(
        lambda variables: system.generate(
          variables, LABEL, KEYS, guidance=2.0, **options
        )
      )
      units, took = run(variables)
      self.assertEqual(units.shape, (6, len(system.plan)))
      return took.forwards

    most = system.plan.steps + 1
    self.assertLessEqual(forwards(**exact).max(), most)
    self.assertLess(forwards(**loose).sum(), forwards(**exact).sum())

  def test_a_deterministic_law_gives_what_the_target_draws(self):
    for name, model in TARGETS.items():
      system = build("gsd", target=model)
      target = system.target
      variables = filled.variables(system)
      options = dict(guidance=2.0, temperature=0.0)
      run = jax.jit(
        lambda variables, target=target, system=system, options=options: (
          target.generate(variables, LABEL, KEYS, **options),
          system.generate(variables, LABEL, KEYS, size=1, **options),
        )
      )
      plain, (units, _) = run(variables)
      plain = plain[0] if isinstance(plain, tuple) else plain
      np.testing.assert_array_equal(units, plain, err_msg=name)

  def test_a_part_of_an_image_is_kept(self):
    system = build("gsd", target=TARGETS["var"])
    variables = filled.variables(system)
    draw = np.random.default_rng(0)
    given = jnp.asarray(draw.integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
    keep = jnp.zeros((6, 8, 8)).at[:, :4].set(1)
    cond = LABEL | {"given": given, "keep": keep}
    run = jax.jit(
      lambda variables: (
        system.generate(variables, cond, KEYS)[0],
        system.target.edit(variables, cond),
      )
    )
    units, edit = run(variables)
    self.assertGreater(edit.keep.sum(), 0)
    np.testing.assert_array_equal(units[edit.keep], edit.units[edit.keep])

  def test_what_cannot_be_drawn_from(self):
    maps = TARGETS["var"]
    with self.assertRaisesRegex(UserError, "drafter='itself'"):
      build("lantern", target=maps)
    for over in ("gsd", "lantern"):
      with self.assertRaisesRegex(UserError, "no law of discrete units"):
        build(over, target=MAPS)
    system = build("lantern", target=maps, drafter="itself")
    with self.assertRaisesRegex(UserError, "leave tree and chosen"):
      system.generate(filled.variables(system), LABEL, KEYS, chosen=True)


if __name__ == "__main__":
  absltest.main()
