"""LBW: the law of its lists, around whatever draws."""

import itertools

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core.decoding import near_codes
from tests.systems.lbw_models import EXACT, LAW, N, V, draw, logits, marked


def inner(system, variables):
  """The host, and its variables."""
  host = system.drawn_from
  if "target" in variables:
    variables = {**variables, "params": variables["target"]}
  return host, variables


def exact(system, variables, strength):
  """(all i32[V^L, L] units, the chance f64[V^L] of each)."""
  host, own = inner(system, variables)
  length = len(host.plan)
  every = np.array(list(itertools.product(range(V), repeat=length)))
  at_host = np.asarray(logits(host, own, every), np.float64)
  green = system.lists(variables)[0]
  both = at_host / LAW["temperature"] + strength * green
  least = np.sort(both, -1)[..., -LAW["top_k"], None]
  p = np.where(both >= least, np.exp(both), 0)
  p /= p.sum(-1, keepdims=True)
  own = np.take_along_axis(p, every[..., None], -1)[..., 0]
  return every, own.prod(1)


def p_value(units, chance):
  """Of chi-square, rare outcomes together."""
  code = (units * V ** np.arange(units.shape[1])[::-1]).sum(1)
  seen, want = np.bincount(code, minlength=len(chance)), len(units) * chance
  if seen[want == 0].any():
    return 0.0
  rare = want < 5
  pool = lambda x: np.append(x[~rare], x[rare].sum())
  seen, want = pool(seen), pool(want)
  return stats.chisquare(seen[want > 0], want[want > 0]).pvalue


class LawTest(parameterized.TestCase):
  @parameterized.parameters(*EXACT)
  def test_what_is_exact_follows_the_law_of_the_lists(self, name):
    system, variables, options = marked(name)
    units = draw(system, variables, strength=1.5, **options, **LAW)
    every, chance = exact(system, variables, 1.5)
    self.assertLen(every, len(chance))
    self.assertAlmostEqual(chance.sum(), 1, places=6)
    self.assertGreater(p_value(units, chance), 1e-4)
    self.assertLess(p_value(units, exact(system, variables, 1.0)[1]), 1e-4)

  def test_relaxed_groups_keep_the_law_of_groups(self):
    """Fixed groups of GSD: the first unit and the group of the next one."""
    system, variables, _ = marked("llamagen by gsd")
    options = dict(window=3, size=2, grouping="fixed", **LAW)
    units = draw(system, variables, strength=1.5, **options)
    groups = np.asarray(
      near_codes.partition(system.target.target.embedding(variables), 2)
    )
    both = lambda units: V * units[:, 0] + groups[units[:, 1]]
    every, chance = exact(system, variables, 1.5)
    want = N * np.bincount(both(every), chance, V * V)
    seen = np.bincount(both(units), minlength=V * V)
    on = want > 0
    self.assertFalse(seen[~on].any())
    self.assertGreater(stats.chisquare(seen[on], want[on]).pvalue, 1e-4)
    self.assertLess(p_value(units, chance), 1e-4)  # the units themselves not
    self.all_green(system, variables, options)

  def test_a_relaxed_law_stays_within_its_budget(self):
    """LANTERN: the second unit, given the first."""
    system, variables, _ = marked("llamagen by lantern")
    options = dict(drafts=2, delta=0.3, k=2, **LAW)
    units = draw(system, variables, strength=1.5, **options)
    every, chance = exact(system, variables, 1.5)
    both = lambda units: V * units[:, 0] + units[:, 1]
    want = np.bincount(both(every), chance, V * V).reshape(V, V)
    seen = np.bincount(both(units), minlength=V * V).reshape(V, V) / N
    apart = np.abs(seen - want).sum(1) / 2
    self.assertLess((apart - 0.3 * want.sum(1)).max(), 0.015)
    self.assertLess(p_value(units, chance), 1e-4)
    self.all_green(system, variables, options)

  def test_clusters_of_maps(self):
    """GSD over VAR, whose groups are made anew for each draft."""
    system, variables, _ = marked("var by gsd")
    options = dict(size=3, quantile=None, delta_p=1.0, **LAW)
    self.all_green(system, variables, options, n=300)

  def all_green(self, system, variables, options, n=N):
    """Hard lists hold under relaxed rules: a random draft that is forbidden is
    not taken for its neighbours."""
    units = draw(system, variables, n, hard=True, **options)
    self.assertTrue(system.lists(variables)[0][units].all())


if __name__ == "__main__":
  absltest.main()
