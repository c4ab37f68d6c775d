"""Speculation draws from the target's law: sequences that can be counted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import (
  draft_tree,
  drafters,
  pick,
  place_keys,
  speculate,
  steps,
)
from ar_jax.core.errors import UserError
from pallas_kernels.spec_verify import reference, rules
from tests import laws, optimised

V, L, K = 5, 4, 3
# One row for each prefix of up to L - 1 units, numbered in base V + 1.
CONTEXTS = (V + 1) ** (L - 1)
TABLE = 1.2 * jax.random.normal(jax.random.key(0), (CONTEXTS, V))
OTHER = TABLE + jax.random.normal(jax.random.key(1), TABLE.shape)
WEIGHTS = (V + 1) ** np.arange(L - 1)
ROOT = 0
TREE = np.array([0, 0, 1, 1, 2, 3])  # the parents' rows: 2, then 3, then 1


def context(units):
  """The row of a prefix i32[..., <= L - 1], whose last units may be -1."""
  places = units.shape[-1]
  return (units + 1) @ WEIGHTS[:places]


def prefix(progress, ahead=None):
  """i32[B, L - 1], the drawn units and those ahead of them; else -1."""
  count = progress.count[:, None]
  place = jnp.arange(L)[None]
  units = jnp.where(place < count, progress.units, -1)
  if ahead is not None:
    at = jnp.where(jnp.arange(ahead.shape[1])[None] < L, count, L)
    at = at + jnp.arange(ahead.shape[1])[None]
    rows = jnp.arange(len(units))[:, None]
    units = units.at[rows, at].set(ahead, mode="drop")
  return units[:, : L - 1]


def score(state, progress, draft):
  """Logits of every row, from the path that leads to it."""
  k = draft.units.shape[1]
  parents = draft.parents
  if parents is None:
    parents = jnp.broadcast_to(jnp.arange(k), draft.units.shape)
  lines, depth = draft_tree.ancestry(parents)
  logits = []
  for row in range(k + 1):
    # The drafts above this row in the order of their depth.
    above = jnp.where(lines[:, row, 1:], depth[:, 1:], L + 1)
    order = jnp.argsort(above, axis=1)
    ahead = jnp.take_along_axis(draft.units, order, 1)
    shown = jnp.arange(k)[None] < depth[:, row, None]
    logits.append(TABLE[context(prefix(progress, jnp.where(shown, ahead, -1)))])
  return jnp.stack(logits, 1), (), state


def chain(state, progress, keys):
  """A small model of its own: another table."""
  units, logps = jnp.zeros((len(keys), 0), jnp.int32), []
  for i in range(K):
    logp = pick.law(OTHER[context(prefix(progress, units))])
    place = progress.count[:, None] + i
    new = place_keys.draw_at(logp[:, None], keys, place)
    units = jnp.concatenate([units, new], 1)
    logps.append(logp)
  return speculate.Draft(units, jnp.stack(logps, 1)), state


def tree(state, progress, keys):
  """Children by rank in the other table, without drawing."""
  del keys
  batch, k = len(progress.count), len(TREE)
  parents = jnp.broadcast_to(TREE, (batch, k))
  paths = [jnp.zeros((batch, 0), jnp.int32)]
  units = []
  for j, parent in enumerate(TREE):
    rank = int(np.sum(TREE[:j] == parent))
    logits = OTHER[context(prefix(progress, paths[parent]))]
    unit = jnp.argsort(-logits, axis=-1)[:, rank]
    units.append(unit)
    paths.append(jnp.concatenate([paths[parent], unit[:, None]], 1))
  return speculate.Draft(jnp.stack(units, 1), None, parents), state


def exact():
  """f64[V^L], the probability of every sequence."""
  sequences = laws.sequences(V, L)
  logp = np.asarray(jax.nn.log_softmax(TABLE), np.float64)
  total = np.zeros(len(sequences))
  for i in range(L):
    known = np.where(np.arange(L - 1) < i, sequences[:, : L - 1], -1)
    rows = ((known + 1) * WEIGHTS).sum(-1)
    total += logp[rows, sequences[:, i]]
  return np.exp(total)


def p_value(units):
  """Of the chi-square test of i32[N, L] against `exact`."""
  return laws.chi_square(units, exact(), V)


def no_residual(*args, **kwargs):
  """A verifier that draws what follows a rejection from the law itself."""
  verdict = reference.verify(*args, **kwargs)
  row = verdict.accepted[:, None, None]
  logits = jnp.take_along_axis(args[0][:, 0], row, 1)[:, 0]
  cumulative = jnp.cumsum(jax.nn.softmax(logits), -1)
  token = jnp.sum(cumulative <= args[2][:, -1:], -1)
  return verdict._replace(token=jnp.minimum(token, V - 1))


PLAIN = reference.verify
DRAFTERS = {
  # drafter, its state, levels, mode, verifier
  "chain": (chain, (), None, "exact", PLAIN),
  "tree": (tree, (), 3, "point", PLAIN),
  "gumbel": (chain, (), None, "gumbel", PLAIN),
  "tree_gumbel": (tree, (), 3, "gumbel", PLAIN),
  "point": (drafters.lookup(K), (), None, "point", PLAIN),
  "jacobi": (drafters.jacobi(K), False, None, "exact", PLAIN),
  "no_residual": (chain, (), None, "exact", no_residual),
  "group_of_one": (
    drafters.jacobi(K), False, None, "exact",
    functools.partial(PLAIN, rule=rules.Cluster(1)),
  ),
}  # fmt: skip


@functools.partial(optimised.jit, static_argnums=0)
def sample(name, keys):
  drafter, state, levels, mode, verify = DRAFTERS[name]
  batch = len(keys)
  logits = jnp.broadcast_to(TABLE[ROOT], (batch, 1, V))
  first = pick.draw(pick.law(logits), steps.fold(keys, 0))
  units = jnp.zeros((batch, L), jnp.int32).at[:, :1].set(first)
  k = len(TREE) if levels else K
  progress = speculate.begin(
    units, jnp.ones(batch, jnp.int32), (), logits, k, levels
  )
  return speculate.speculate(
    drafter, score, verify, progress, (jnp.asarray(state), ()), keys, mode=mode
  )


@jax.jit
def plain(keys):
  def step(known, s, keys):
    rows = context(jnp.where(jnp.arange(L - 1) < s, known[:, : L - 1], -1))
    unit = pick.draw(pick.law(TABLE[rows])[:, None], keys)[:, 0]
    return known.at[:, s].set(unit), unit

  units = jnp.zeros((len(keys), L), jnp.int32)
  return steps.scan_steps(step, units, L, keys)[1]


def many(name, batches, size=10_000):
  draws = [
    sample(name, jax.random.split(jax.random.key(i), size))
    for i in range(batches)
  ]
  units = np.concatenate([d[0] for d in draws])
  stats = jax.tree.map(lambda *x: np.concatenate(x), *[d[1] for d in draws])
  return units, stats


class SpeculateTest(parameterized.TestCase):
  # 80,000 sequences of each: half of them show what `no_residual` does.
  @parameterized.parameters("chain", "tree", "gumbel", "point", "jacobi")
  def test_law(self, name):
    units, stats = many(name, 8)
    self.assertGreater(p_value(units), 1e-4)
    self.assertTrue((stats.forwards <= L).all())
    self.assertLess(stats.forwards.mean(), L - 0.2)  # some are saved
    # The chance of acceptance has the mean of acceptance.
    gap = (stats.chance - stats.accepted).sum() / stats.trials.sum()
    self.assertLess(abs(gap), 3 * 0.5 / np.sqrt(stats.trials.sum()))

  def test_without_the_residual_the_law_is_another(self):
    units, _ = many("no_residual", 4)
    self.assertLess(p_value(units), 1e-6)

  @parameterized.parameters("gumbel", "tree_gumbel")
  def test_gumbel_draws_what_the_plain_sampler_draws(self, name):
    keys = jax.random.split(jax.random.key(7), 100)
    np.testing.assert_array_equal(sample(name, keys)[0], plain(keys))

  def test_an_example_does_not_depend_on_its_batch(self):
    keys = jax.random.split(jax.random.key(7), 100)
    units, stats = sample("chain", keys)
    few, few_stats = sample("chain", keys[40:44])
    np.testing.assert_array_equal(few, units[40:44])
    np.testing.assert_array_equal(few_stats.forwards, stats.forwards[40:44])

  def test_a_group_of_one_is_exact_verification(self):
    keys = jax.random.split(jax.random.key(8), 100)
    np.testing.assert_array_equal(
      sample("group_of_one", keys)[0], sample("jacobi", keys)[0]
    )

  def test_lookup_finds_the_last_occurrence(self):
    units = jnp.array([[1, 2, 3, 1, 2, 0, 0, 0], [4, 4, 1, 0, 0, 0, 0, 0]])
    progress = speculate.begin(
      units, jnp.array([5, 3]), (), jnp.zeros((2, 1, V)), 4
    )
    draft, _ = drafters.lookup(4)((), progress, None)
    # After the last (1, 2) came 3, 1, 2, and around again; (4, 1) is new.
    np.testing.assert_array_equal(draft.units, [[3, 1, 2, 3], [1, 1, 1, 1]])

  def test_ancestry(self):
    lines, depth = draft_tree.ancestry(jnp.asarray(TREE)[None])
    np.testing.assert_array_equal(depth[0], [0, 1, 1, 2, 2, 2, 3])
    np.testing.assert_array_equal(lines[0, 6].nonzero()[0], [0, 1, 3, 6])

  def test_modes_that_do_not_fit(self):
    keys = jax.random.split(jax.random.key(0), 2)
    for drafter, mode in ((tree, "exact"), (chain, "point")):
      DRAFTERS["bad"] = drafter, (), 3, mode, PLAIN
      with self.assertRaisesRegex(UserError, "gumbel"):
        sample.__wrapped__("bad", keys)


if __name__ == "__main__":
  absltest.main()
