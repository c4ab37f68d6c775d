"""What the evaluator of conversations says of draws that are known."""

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import data, evals
from ar_jax.core.domains import conversation
from ar_jax.core.errors import UserError
from ar_jax.evals.series import interaction


class Agent:
  needs = ("audio_u",)
  makes = ("motion_a", "state")


class InteractionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.data = data.load("dyads", frames=250, count=64)
    self.rows = [self.data.test[i] for i in range(8)]

  def scored(self, change):
    """Results where what is drawn is the truth, changed."""
    rows = self.rows
    names = "motion_a", "state", "voice_a", "voice_u"

    def draw(system, variables, cond, key, **options):
      sound = np.stack([r["audio_u"] for r in rows])
      same = (cond["audio_u"][:, None] == sound[None]).all((2, 3)).argmax(1)
      return change({k: np.stack([rows[i][k] for i in same]) for k in names})

    run = evals.build("interaction", self.data, n=8, draw=draw)
    return run(Agent(), {}, (), jax.random.key(0))

  def test_the_truth_is_the_truth(self):
    found = self.scored(lambda x: x)
    self.assertEqual(found["state_accuracy"], 1)
    self.assertEqual(found["feedback_or_interruption"], 1)
    self.assertBetween(found["state_accuracy_voice"], 0.5, 0.95)
    for name in ("motion", "velocity"):
      self.assertLess(found[f"frechet_{name}"], 1e-8)
      self.assertGreater(found[f"frechet_{name}_floor"], 0)
    np.testing.assert_allclose(found["variance_ratio"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["spread"], 0, atol=1e-12)
    self.assertEqual(found["answer_error"], 0)
    self.assertEqual(*found["answer_size"])
    self.assertEqual(found["protocol"]["channel"], "nod")

  def test_what_differs_is_told(self):
    def change(x):
      # By voices alone, and twice as far; the nods come two frames late.
      late = np.stack([conversation.late(v) for v in x["voice_u"]])
      best = np.array([[5, 6], [0, 1]])
      motion = np.roll(2 * x["motion_a"], 2, 1)
      return {"motion_a": motion, "state": best[x["voice_a"], late]}

    found = self.scored(change)
    self.assertLess(found["state_accuracy"], 0.95)
    self.assertLessEqual(
      found["state_accuracy"], found["state_accuracy_voice"] + 1e-9
    )
    self.assertEqual(found["feedback_or_interruption"], 0.5)
    np.testing.assert_allclose(found["variance_ratio"], 4, rtol=0.05)
    self.assertAlmostEqual(found["answer_error"], 2 / 25, delta=0.03)
    self.assertGreater(found["frechet_motion"], 0.1)

  def test_spread_is_the_variance_of_draws(self):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(50, 4, 30, 2)) * [1.0, 2.0]
    np.testing.assert_allclose(interaction.spread(draws), [1, 4], rtol=0.1)

  def test_other_data_are_refused(self):
    series = data.load("ar_process", count=200)
    with self.assertRaisesRegex(UserError, "no 'motion_a'"):
      evals.build("interaction", series)
    with self.assertRaisesRegex(UserError, "channel='tail'"):
      evals.build("interaction", self.data, channel="tail")


if __name__ == "__main__":
  absltest.main()
