"""Filling by confidence, against what the official programs commit at each
step, on logits that are given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding.confident import Fill, cosine, surest
from ar_jax.core.errors import UserError
from tests import golden_weights

KEYS = jax.random.split(jax.random.key(0), 1)


@functools.cache
def golden():
  return golden_weights.load("sdar_decode")[1]


def filled(fill, size=8, start=8):
  """(units, the step that filled each, forwards) of blocks of `size` from
  `start` on, by the table of logits."""
  table = golden()["table"]
  units, when, forwards = [], [], 0
  for begin in range(start, len(table), size):
    logits = jnp.asarray(table[None, begin : begin + size])
    hide, step = np.ones((1, size), bool), 0
    own, at = np.zeros(size, int), np.zeros(size, int)
    while hide.any():
      drawn, sure, entropy = fill.propose(logits, KEYS, temperature=0.0)
      chosen = np.asarray(fill.commit(sure, entropy, jnp.asarray(hide), step))
      assert not (chosen & ~hide).any()
      own[chosen[0]], at[chosen[0]] = np.asarray(drawn)[chosen], step
      hide &= ~chosen
      step, forwards = step + 1, forwards + 1
    units, when = [*units, *own], [*when, *at]
  return np.array(units), np.array(when), forwards


class FillTest(parameterized.TestCase):
  @parameterized.parameters(
    ("static_s4", Fill("static", 4)),
    ("static_s3", Fill("static", 3)),
    ("dynamic_85", Fill("threshold", 8, 0.85)),
    ("dynamic_60", Fill("threshold", 4, 0.6)),
    ("dynamic_40", Fill("threshold", 4, 0.4)),
    ("sequential_s4", Fill("sequential", 4)),
  )
  def test_as_the_script(self, name, fill):
    units, when, forwards = filled(fill)
    arrays = golden()
    np.testing.assert_array_equal(units, arrays[f"{name}_tokens"][8:])
    np.testing.assert_array_equal(when, arrays[f"{name}_step"][8:])
    self.assertEqual(forwards, arrays[f"{name}_forwards"][0])

  @parameterized.parameters(
    ("jet_static_s4", Fill("static", 4)),
    ("jet_sequential_s4", Fill("sequential", 4)),
    ("jet_entropy_035", Fill("entropy", 8, bound=0.35)),
    ("jet_entropy_15", Fill("entropy", 8, bound=1.5)),
    ("jet_loop_dynamic_85", Fill("threshold", 8, 0.85)),
    ("jet_loop_dynamic_60_s4", Fill("threshold", 4, 0.6)),
    ("jet_loop_entropy_15", Fill("entropy", 8, bound=1.5)),
  )
  def test_as_the_engine(self, name, fill):
    """Its steps are numbered over both blocks, from 1."""
    units, when, _ = filled(fill)
    arrays = golden()
    np.testing.assert_array_equal(units, arrays[f"{name}_tokens"][8:])
    want = arrays[f"{name}_trajectory"]
    second = want[8:] - want[8:].min()
    np.testing.assert_array_equal(when[:8], want[:8] - 1)
    np.testing.assert_array_equal(when[8:], second)

  def test_entropy(self):
    table = jnp.asarray(golden()["table"])[None]
    found = Fill().propose(table, KEYS, temperature=0.0)[2]
    np.testing.assert_allclose(found[0], golden()["entropy"], rtol=1e-4)

  @parameterized.parameters(
    ("conf_T0.7", "filtered", dict(temperature=0.7)),
    ("conf_T1.3_k4", "filtered", dict(temperature=1.3, top_k=4)),
    ("conf_T1.3_p0.7", "filtered", dict(temperature=1.3, top_p=0.7)),
    ("conf_k1", "filtered", dict(top_k=1)),
    ("evalconf_T1.3_k4", "plain", dict(temperature=1.3, top_k=4)),
  )
  def test_confidence_of_the_best(self, name, confidence, law):
    table = jnp.asarray(golden()["table"][:8])
    keys = jax.random.split(jax.random.key(1), 400)
    logits = jnp.broadcast_to(table, (400, *table.shape))
    fill = Fill(confidence=confidence)
    drawn, sure, _ = map(np.asarray, fill.propose(logits, keys, **law))
    best = drawn == np.asarray(jnp.argmax(table, -1))
    self.assertTrue(best.any(0).all())
    first = sure[np.argmax(best, 0), np.arange(8)]
    np.testing.assert_allclose(first, golden()[name], rtol=1e-4)

  @parameterized.parameters((4, 4), (4, 3), (8, 3), (8, 5), (16, 6))
  def test_quotas(self, size, steps):
    found = Fill(steps=steps).quotas(size)
    np.testing.assert_array_equal(found, golden()[f"quota_{size}_{steps}"])
    self.assertEqual(sum(found), size)

  def test_cosine(self):
    for size, steps in ((64, 8), (8, 8), (5, 2), (1, 1)):
      found = cosine(size, steps)
      self.assertEqual(sum(found), size)
      self.assertGreaterEqual(min(found), 1)
    self.assertEqual(cosine(64, 8), tuple(sorted(cosine(64, 8))))

  def test_noise_falls_to_none(self):
    """At the last step of "gumbel" the surest is committed, before others."""
    fill = Fill("gumbel", 4, noise=100.0, schedule="cosine")
    sure = jnp.asarray([[0.9, 0.3, 0.2, 0.1]])
    hide = jnp.ones((1, 4), bool)
    best = lambda step: {
      tuple(np.flatnonzero(fill.commit(sure, sure, hide, step, keys[None])[0]))
      for keys in jax.random.split(jax.random.key(2), 20)
    }
    self.assertGreater(len(best(0)), 1)
    self.assertEqual(best(3), {tuple(range(cosine(4, 4)[3]))})

  def test_no_more_than_are_hidden(self):
    hide = jnp.asarray([[True, False, True, False], [False] * 4])
    found = surest(jnp.full((2, 4), 0.5), hide, jnp.asarray([3, 3]))
    np.testing.assert_array_equal(found, hide)
    # What is surest of all is known already.
    sure = jnp.asarray([[0.1, 0.9, 0.2, 0.8]])
    found = surest(sure, hide[:1], 1)
    np.testing.assert_array_equal(found, [[False, False, True, False]])

  @parameterized.parameters(
    (dict(strategy="best"), "choose one of static, threshold"),
    (dict(confidence="x"), "choose one of plain, filtered"),
    (dict(steps=0), "at least one step"),
    (dict(threshold=-1.0), "must be at least 0"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      Fill(**values)


if __name__ == "__main__":
  absltest.main()
