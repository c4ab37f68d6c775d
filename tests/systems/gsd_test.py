"""GSD: groups of units, and what they keep exact."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from scipy import stats

from ar_jax import ops
from ar_jax.core.decoding import near_codes, pick
from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting import speculation
from tests import filled

V, N = 64, 30_000
TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TARGET = dict(
  name="llamagen", tokenizer=TOKENIZER, depth=1, width=16, heads=2,
  multiple_of=16, num_classes=3,
)  # fmt: skip
KEYS = jax.random.split(jax.random.key(0), 50)


def judged(residual, groups):
  """Tokens i32[N] of one random pair of laws, by a draft and a rule; p, q."""
  draw = np.random.default_rng(3)
  p, q = jnp.asarray(1.5 * draw.normal(size=(2, V)), jnp.float32)
  wide = lambda x: jnp.broadcast_to(x, (N, 1, V))
  drafts = pick.draw(
    jax.nn.log_softmax(wide(q)), jax.random.split(jax.random.key(1), N)
  )
  verdict = jax.jit(
    lambda drafts, noise: ops.verify(
      jnp.broadcast_to(p, (N, 1, 2, V)), drafts, noise,
      draft_logp=jax.nn.log_softmax(wide(q)),
      rule=ops.rules.Groups(residual), table=groups,
    )
  )(drafts, jax.random.uniform(jax.random.key(2), (N, 2)))  # fmt: skip
  first = jnp.where(verdict.accepted > 0, drafts[:, 0], verdict.token)
  laws = (np.asarray(jax.nn.softmax(x), np.float64) for x in (p, q))
  return np.asarray(first), np.asarray(verdict.accepted), *laws


class GSDTest(absltest.TestCase):
  def test_the_residual_of_groups_keeps_the_law_of_groups(self):
    codes = jax.random.normal(jax.random.key(4), (V, 3))
    groups = near_codes.partition(codes, 4)
    sums = lambda x: np.bincount(groups, x, minlength=V // 4)

    def p_value(residual):
      first, accepted, p, q = judged(residual, groups)
      rate = np.minimum(sums(p), sums(q)).sum()
      self.assertLess(abs(accepted.mean() - rate), 4 * 0.5 / N**0.5)
      self.assertGreater(rate, np.minimum(p, q).sum())
      counts = np.bincount(np.asarray(groups)[first], minlength=V // 4)
      return stats.chisquare(counts, N * sums(p) / p.sum()).pvalue

    self.assertGreater(p_value("group"), 1e-4)
    self.assertLess(p_value("token"), 1e-6)  # as published

  def test_a_group_of_one_is_the_plain_law(self):
    system = build("gsd", target=TARGET)
    variables = filled.variables(system)
    own = {k: v for k, v in variables.items() if k != "tokenizer"}
    label = jnp.arange(50) % 3
    program = system.target.program(guidance=2.0)

    @jax.jit
    def exact(own, keys):
      # That this follows the law of the plain sampler:
      # tests/core/decoding/speculate_test.py.
      return speculation.generate(
        program, own, {"label": label}, keys, speculation.jacobi(3, program)
      )

    @jax.jit
    def grouped(variables, keys, size):
      del size
      return system.generate(
        variables, {"label": label}, keys, window=4, size=1, guidance=2.0
      )

    units, took = exact(own, KEYS)
    same, _ = grouped(variables, KEYS, 1)
    np.testing.assert_array_equal(units, same)
    self.assertTrue((took.forwards <= 16).all())

    @jax.jit
    def wide(variables, keys):
      return system.generate(
        variables, {"label": label}, keys, window=4, size=15, delta_p=1.0,
        quantile=None, guidance=2.0,
      )  # fmt: skip

    self.assertLess(
      wide(variables, KEYS)[1].forwards.sum(), took.forwards.sum()
    )

  def test_partition_groups_what_is_near(self):
    codes = jax.random.normal(jax.random.key(5), (50, 2))
    groups = np.asarray(near_codes.partition(codes, 4))
    self.assertLessEqual(np.bincount(groups).max(), 4)
    square = np.asarray(near_codes.distances(codes))
    same = groups[:, None] == groups[None]
    self.assertLess(square[same].mean(), 0.3 * square[~same].mean())

  def test_ranks(self):
    codes = jax.random.normal(jax.random.key(6), (20, 3))
    square = np.square(codes[:, None] - codes[None]).sum(-1)
    want = np.argsort(np.argsort(square, 1, kind="stable"), 1)
    np.testing.assert_array_equal(near_codes.ranks(codes), want)
    np.testing.assert_array_equal(
      near_codes.counts(codes, 1.5), (square <= 1.5).sum(1) - 1
    )

  def test_bad_options(self):
    system = build("gsd", target=TARGET)
    for options, message in (
      (dict(window=1), "at least 2"),
      (dict(forced=(0,) * 16), "do not know of forced"),
      (dict(grouping="k-means"), "choose 'dynamic' or 'fixed'"),
    ):
      with self.assertRaisesRegex(UserError, message):
        jax.eval_shape(
          lambda variables, options=options: system.generate(
            variables, {"label": jnp.zeros(50, jnp.int32)}, KEYS, **options
          ),
          filled.variables(system),
        )


if __name__ == "__main__":
  absltest.main()
