"""Searches by mass: the official outputs, and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import mass_beam, slot_paths
from ar_jax.core.domains import peptides
from tests import golden_weights


def collapse(path, blank):
  found = [a for a, b in zip(path, (-1, *path), strict=False) if a != b]
  return tuple(x for x in found if x != blank)


class SlotPathsTest(absltest.TestCase):
  def test_official_decoding(self):
    said, out = golden_weights.load("crossnovo_decoding")
    log = jax.nn.log_softmax(jnp.asarray(out["ctc_logits"]))
    masses = np.asarray(said["config"]["pmc_masses"][1:], np.float32)
    masses[25] = -17.026549
    neutral = jnp.asarray(out["precursor_mass"])

    @jax.jit
    def run(log):
      law = dict(bins=1100, released=True)
      found = slot_paths.of_mass(log, neutral - 18.01, masses, **law)
      beam = slot_paths.prefix_beam(log, 5)
      return found, beam, slot_paths.best_of_mass(log, neutral, masses, **law)

    (slots, score, mass), beam, (final, taken) = jax.device_get(run(log))
    np.testing.assert_array_equal(slots, out["pmc_slots"])
    np.testing.assert_allclose(score, out["pmc_score"], rtol=1e-5)
    np.testing.assert_allclose(mass, out["pmc_mass"], rtol=1e-6)
    np.testing.assert_array_equal(beam[0], out["beam_tokens"])
    np.testing.assert_allclose(beam[2], out["beam_log_prob"], atol=1e-4)
    np.testing.assert_array_equal(final, out["final_tokens"])
    np.testing.assert_array_equal(taken, out["pmc_used"] > 0)

  def test_a_wide_beam_is_exact(self):
    t, v = 4, 3
    log = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (5, t, v)))
    run = jax.jit(lambda x: slot_paths.prefix_beam(x, 31))
    ids, count, score = jax.device_get(run(log))
    for i, x in enumerate(np.asarray(log)):
      total = {}
      for path in itertools.product(range(v), repeat=t):
        said = collapse(path, v - 1)
        p = np.exp(sum(x[s, k] for s, k in enumerate(path)))
        total[said] = total.get(said, 0.0) + p
      best = max(total, key=total.get)
      self.assertEqual(tuple(ids[i, : count[i]].tolist()), best)
      np.testing.assert_allclose(score[i], np.log(total[best]), atol=1e-5)

  def test_mass_control_against_brute_force(self):
    """What is returned has the mass; it is never better than the best path,
    and of laws as sharp as those of a trained net, whose mass is that of a
    path drawn from them, it is the best in more than 95 %. Of flat laws and
    any mass it is so in about 85 %, for a bin keeps one path."""
    t, n, cases = 6, 4, 200
    rng = np.random.default_rng(0)
    masses = np.asarray([57.02, 71.04, 99.07, 113.08], np.float32)
    paths = np.asarray(list(itertools.product(range(n + 1), repeat=t)))
    weights = np.asarray(
      [masses[list(collapse(p, n))].sum() for p in paths.tolist()]
    )
    log = jax.nn.log_softmax(5 * rng.normal(size=(cases, t, n + 1)))
    log = np.asarray(log, np.float32)
    planted = (log + rng.gumbel(size=log.shape)).argmax(-1)
    said = [masses[list(collapse(p, n))].sum() for p in planted.tolist()]
    mass = np.maximum(said, 57.02).astype(np.float32)
    run = jax.jit(lambda log, m: slot_paths.of_mass(log, m, masses, bins=700))
    slots, score, own = jax.device_get(run(log, mass))
    equal = 0
    for i in range(cases):
      x = np.maximum(log[i], slot_paths.CLIP)
      x = x - x.min() + 0.1
      allowed = np.abs(weights - mass[i]) <= 0.1
      each = x[np.arange(t)[None], paths].sum(1)
      best = each[allowed].max()
      if own[i] == 0:  # nothing is returned
        self.assertTrue((slots[i] == n).all())
        continue
      self.assertLessEqual(abs(own[i] - mass[i]), 0.1 + 1e-3)
      said = masses[list(collapse(slots[i].tolist(), n))].sum()
      np.testing.assert_allclose(said, own[i], atol=1e-3)
      np.testing.assert_allclose(
        x[np.arange(t), slots[i]].sum(), score[i], rtol=1e-4
      )
      self.assertLessEqual(score[i], best + 1e-4)
      equal += score[i] >= best - 1e-4
    self.assertGreaterEqual(equal / cases, 0.95)
    none = run(log[:1], np.asarray([3.0], np.float32))
    self.assertTrue((np.asarray(none[0]) == n).all() and none[2][0] == 0)

  def test_official_beam(self):
    said, out = golden_weights.load("crossnovo_beam")
    logits = 1.5 * golden_weights.tensor("beam_logits", (4, 11, 29, 29))
    table = jax.nn.softmax(jnp.asarray(logits + out["beam_logits_bias"]))
    masses = np.zeros(29, np.float32)
    masses[:28] = peptides.masses(released=True)
    precursors = out["precursors"]
    target = mass_beam.Target(
      jnp.asarray(masses), jnp.asarray(precursors[:, 2]),
      jnp.asarray(precursors[:, 1]),
    )  # fmt: skip
    row = jnp.repeat(jnp.arange(4), 5)

    def probabilities(s, chosen, parent):
      del parent
      return table[row, s, chosen], s + 1

    @jax.jit
    def run():
      return mass_beam.search(
        probabilities, 0, target, batch=4, length=10, stop=28, released=True
      )

    found = jax.device_get(run())
    for i in range(4):
      true = out["tokens"][i]
      n = int(np.argmax(true == 28))
      np.testing.assert_array_equal(found.ids[i, : found.count[i]], true[:n])
    self.assertEqual(found.fits.tolist(), [True, True, False, False])


if __name__ == "__main__":
  absltest.main()
