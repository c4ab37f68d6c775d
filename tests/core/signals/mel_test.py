"""Mel features against a plain double loop, and stacked frames."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.signals import mel
from tests import golden_weights


class MelTest(absltest.TestCase):
  def test_against_the_definition(self):
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, size=(2, 700)).astype(np.float32)
    found = mel.log_mel(
      jnp.asarray(audio), rate=8000, bands=8, size=200, hop=80
    )
    self.assertEqual(found.shape, (2, mel.frames(700, 200, 80), 8))
    wide = mel.bank(8000, 256, 8)
    x = audio[1, 3 * 80 : 3 * 80 + 200].astype(np.float64)
    x = x - x.mean()
    x = x - 0.97 * np.concatenate([x[:1], x[:-1]])
    x = x * np.hamming(200)
    at = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(200)) / 256)
    power = np.abs(at @ x) ** 2
    np.testing.assert_allclose(found[1, 3], np.log(power @ wide), rtol=1e-4)

  def test_a_tone_is_loudest_in_its_band(self):
    t = np.arange(4000) / 8000
    for hertz in (300, 1000, 3000):
      tone = jnp.asarray(np.sin(2 * np.pi * hertz * t)[None], jnp.float32)
      loudest = int(mel.log_mel(tone, rate=8000, bands=40)[0, 5].argmax())
      edges = np.linspace(mel.mel(20.0), mel.mel(4000.0), 42)
      middle = edges[1 + loudest]
      step = edges[1] - edges[0]
      self.assertLess(abs(mel.mel(float(hertz)) - middle), step)

  def test_stacked_frames_of_the_official_code(self):
    want = golden_weights.load("paraformer_cif")[1]
    fbank = golden_weights.tensor("fbank", (23, 5))
    names = [k for k in want if k.startswith("lfr_")]
    self.assertNotEmpty(names)
    for name in names:
      m, n = map(int, name.split("_")[1:])
      found = mel.stacked(jnp.asarray(fbank[None]), m, n)[0]
      np.testing.assert_array_equal(found, want[name], err_msg=name)


if __name__ == "__main__":
  absltest.main()
