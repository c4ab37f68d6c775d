"""The measures of VidChatBench, of answers that are known."""

import dataclasses

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import data, evals
from ar_jax.core.errors import UserError
from ar_jax.evals.images.statistics import Moments, frechet
from ar_jax.evals.video import dialogue
from tests.evals import fakes


class Speaker:
  needs = ("ask_video", "face")
  makes = ("video", "speech")


def means(x):
  """A network of a user: the mean of each picture."""
  return np.float64(x).reshape(len(x), -1).mean(1, keepdims=True)


class DialogueTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.data = data.load("dialogues", chunks=6, count=160)
    self.rows = [self.data.test[i] for i in range(20)]

  def scored(self, change, **options):
    rows = self.rows

    def draw(system, variables, cond, key, **options):
      known = np.stack([r["ask_video"] for r in rows])
      same = (cond["ask_video"][:, None] == known[None]).all((2, 3, 4, 5))
      own = [rows[i] for i in same.argmax(1)]
      made = {k: np.stack([r[k] for r in own]) for k in Speaker.makes}
      made["video"] = made["video"] / np.float32(255)
      return change(made)

    run = evals.build("dialogue", self.data, draw=draw, **options)
    return run(Speaker(), {}, (), jax.random.key(0))

  def test_the_truth(self):
    found = self.scored(lambda x: x, networks={"face": means})
    self.assertLess(found["frechet_frames"], 1e-6)
    self.assertLess(found["frechet_clips"], 1e-6)
    self.assertGreater(found["frechet_frames_floor"], 1e-3)
    self.assertEqual(found["psnr"], 100)
    self.assertEqual(found["coherence"], 1)
    self.assertEqual(found["token_accuracy"], 1)
    self.assertGreater(found["sync"], 0.99)
    self.assertAlmostEqual(found["identity"], 1)
    for name in ("ssim", "voice", "frechet_expression"):
      self.assertStartsWith(found[name], "unavailable")
    self.assertEqual(found["protocol"]["answers"], 20)
    self.assertNotIn("fid", found)

  def test_what_differs(self):
    def change(x):
      return {"video": x["video"][:, ::-1], "speech": (x["speech"] + 8) % 16}

    found = self.scored(change, names={"frechet_frames": "fid"})
    self.assertLess(found["coherence"], 0.7)
    self.assertEqual(found["token_accuracy"], 0)
    self.assertLess(found["sync"], 0.9)
    self.assertLess(found["psnr"], 30)
    self.assertEqual(found["fid"], found["frechet_frames"])

  def test_frechet_of_known_laws(self):
    mu = np.array([1.0, -2.0, 0.5])
    law = lambda m: Moments.given(m, np.eye(3), 1000)
    self.assertAlmostEqual(frechet(law(0 * mu), law(mu)), mu @ mu, places=6)
    x = np.random.default_rng(0).normal(size=(50, 4))
    self.assertLess(dialogue.distance(x, x), 1e-9)
    few = x[:3]  # fewer than numbers: a little is added to the variances
    self.assertLess(dialogue.distance(few, few), 1e-6)

  def test_coherence_by_edits_and_by_vectors(self):
    best = np.arange(12).reshape(1, 12) % 7
    others = np.stack([(best + k) % 7 for k in (4, 3, 2, 1)], 1)
    five = np.concatenate([others, best[:, None]], 1)
    embed = lambda x: np.eye(7)[x].reshape(len(x), -1)
    for network in (None, embed):
      for i, score in enumerate(dialogue.SCORES):
        found = dialogue.coherence(five[:, i], five, network)
        self.assertEqual(found.tolist(), [score])

  def test_lips_of_those_who_listen_are_not_counted(self):
    for row, silent in zip(self.rows, [True, False] * 10, strict=True):
      row["listens"] = np.asarray(silent)
    self.data = dataclasses.replace(self.data, test=self.rows)
    listens = np.stack([r["listens"] for r in self.rows])
    seen = []

    def sync(video, speech):
      seen.append(len(video))
      return np.ones(len(video))

    self.scored(lambda x: x, networks={"sync": sync})
    self.assertEqual(seen, [int((~listens).sum())])

  def test_networks_of_a_user(self):
    found = self.scored(
      lambda x: x, networks={"frames": f"{__name__}:means", "face": ""}
    )
    self.assertEqual(found["protocol"]["networks"], {"frames": "means"})
    for given, message in (
      ({"frames": "nowhere:f"}, "must be module:function"),
      ({"frame": means}, "networks.frame: there are frames, clips"),
    ):
      with self.assertRaisesRegex(UserError, message):
        evals.build("dialogue", self.data, networks=given)
    with self.assertRaisesRegex(UserError, "no 'speech'"):
      evals.build("dialogue", data.load("clips", size=8))
    with self.assertRaisesRegex(UserError, "makes"):
      evals.check_system("dialogue", {}, fakes.Fake())


if __name__ == "__main__":
  absltest.main()
