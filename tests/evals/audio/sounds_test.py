"""What is heard in chirps is what they say; powers are those of their bands."""

import numpy as np
from absl.testing import absltest

from ar_jax import data, evals
from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.evals.audio import sounds, spoken_chirps


class Speaker(System):
  """Says what it is given, `gain` times as loud."""

  needs = ("text",)
  takes = ("voice",)
  makes = ("audio", "audio_length")

  def __init__(self, gain=1.0):
    self.gain = gain

  init = loss = sample = None


System.register(Speaker)


def chirps(**options):
  known = dict(
    rate=4000, each=192, longest=4, speakers=8, pitch=1.1, phases=True,
    length=256,
  )  # fmt: skip
  return data.load("chirps", **known | options)


class SoundsTest(absltest.TestCase):
  def test_a_filter_hears_what_is_said(self):
    found = chirps()
    rows = [found.train[i] for i in range(24)]
    stack = lambda k: np.stack([r[k] for r in rows])
    rule = found.train.rule
    wrong, pitch = spoken_chirps.scores(
      rule, *(stack(k) for k in ("audio", "audio_length", "text"))
    )
    self.assertEqual(wrong, 0)
    np.testing.assert_allclose(pitch, rule.pitches[stack("label")], rtol=0.02)
    # Other texts are not heard; and cut off, they are heard no more.
    other = np.roll(stack("text"), 1, 0)
    args = rule, stack("audio"), stack("audio_length")
    self.assertGreater(spoken_chirps.scores(*args, other)[0], 0.5)
    silent = spoken_chirps.scores(
      rule, 0 * stack("audio"), stack("audio_length"), stack("text")
    )
    self.assertGreater(silent[0], 0.5)

  def test_halves(self):
    found = chirps(shortest=2)
    rows = [found.test[i] for i in range(8)]
    rows = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    cond = spoken_chirps.halves(rows)
    for i, text in enumerate(rows["text"]):
      m = int((text > 0).sum())
      ids = lambda k, i=i: [x for x in cond[k][i].tolist() if x]
      self.assertEqual(ids("voice_text") + ids("text"), text[:m].tolist())
      cut = cond["voice_length"][i]
      self.assertEqual(cut, rows["audio_length"][i] // m * (m // 2))
      np.testing.assert_array_equal(
        cond["voice"][i, :cut], rows["audio"][i, :cut]
      )
      self.assertFalse(cond["voice"][i, cut:].any())

  def test_bands(self):
    n = np.arange(512)
    tones = [np.sin(2 * np.pi * f * n) for f in (0.35, 0.2, 0.1, 0.02)]
    for tone, band in zip(tones, (3, 2, 1, 0), strict=True):
      x = np.stack([tone, 0 * tone])
      power = sounds.band_powers(x, np.array([512, 0]), 4)
      self.assertGreater(power[band], 0.4 * np.square(tone).mean() * 2)
      self.assertEqual(power.argmax(), band)
      self.assertAlmostEqual(power.sum(), 0.5, delta=0.01)
    # What lies behind the end is not counted.
    x = np.concatenate([tones[0][:256], np.ones(256)])[None]
    power = sounds.band_powers(x, np.array([256]), 4)
    self.assertAlmostEqual(power.sum(), 0.5, delta=0.01)
    ratio = sounds.ratios(np.array([1.0, 3.0]), np.array([0.001, 2.0]), 0.01)
    np.testing.assert_array_equal(ratio, [np.nan, 1.5])

  def test_evaluators(self):
    found = chirps()

    def draw(system, variables, cond, key, **options):
      del variables, key, options
      texts = {r["text"].tobytes(): r for r in map(found.test.__getitem__,
                                                   range(32))}  # fmt: skip
      if "voice" in cond:
        rows = [found.test[0]] * len(cond["text"])
      else:
        rows = [texts[t.tobytes()] for t in cond["text"]]
      audio = system.gain * np.stack([r["audio"] for r in rows])
      return {
        "audio": audio,
        "audio_length": np.stack([r["audio_length"] for r in rows]),
      }

    score = lambda name, gain: evals.build(name, found, n=8, draw=draw)(
      Speaker(gain), {}, (), None
    )
    same, quiet = (score("sounds", gain) for gain in (1.0, 0.5))
    self.assertEqual(same["variance_ratio"], 1)
    self.assertAlmostEqual(quiet["variance_ratio"], 0.25)
    self.assertEqual(same["length_error"], 0)
    self.assertGreater(same["length_error_baseline"], 0)
    said = score("spoken_chirps", 1.0)
    self.assertEqual((said["symbol_error"], said["symbol_error_data"]), (0, 0))
    self.assertLess(abs(said["pitch_correlation"]), 1)

  def test_mistakes(self):
    with self.assertRaisesRegex(UserError, "says nothing in chirps"):
      evals.build("spoken_chirps", data.load("markov_text"))
    with self.assertRaisesRegex(UserError, "have no audio"):
      evals.build("sounds", data.load("markov_text"))
    with self.assertRaisesRegex(UserError, "must be at least 1"):
      evals.build("first_sound", chirps(), every=0)


if __name__ == "__main__":
  absltest.main()
