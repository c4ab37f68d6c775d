"""NBP's tokenizer of videos against the official one, and back."""

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.convert import video_fsq as convert
from ar_jax.core.system import UserError, build
from ar_jax.nn.quantize.bits import FSQ
from tests import golden_weights
from tests.golden_weights import tensor


def state():
  """By the rule of this file: kernels by their whole fan-in, betas near 1."""
  description, outputs = golden_weights.load("nbp_tokenizer")

  def weight(key, shape):
    x = tensor(key, shape)
    if key.endswith("beta"):
      return 1 + 0.1 * x
    if len(shape) == 5:
      return x / np.sqrt(np.prod(shape[1:])).astype(np.float32)
    return golden_weights.weight(key, shape)

  shapes = description["state_dict"].items()
  return {k: weight(k, tuple(s)) for k, s in shapes}, outputs


class VideoFsqTest(absltest.TestCase):
  def test_outputs_of_the_official_model(self):
    official, outputs = state()
    sizes = dict(size=16, frames=5)
    config = convert.config(official, **sizes)
    self.assertEqual(config["model"]["mult"], (1, 2, 2, 4))
    self.assertEqual(config["model"]["blocks"], (1, 1, 1, 2))
    params = convert.to_ours(official, **sizes)
    tokenizer = build("video_fsq", **config["model"]).tokenizer
    self.assertEqual(tokenizer.volume, (2, 2, 2))
    video = np.moveaxis(tensor("video", (1, 3, 5, 16, 16)), 1, -1)

    @jax.jit
    def run(x):
      bound = tokenizer.bind({"params": params})
      z, units = bound.latent(x), bound.encode(x)
      code = bound.embed(units)
      return z, units, code, bound.decoded(code.reshape(1, 2, 2, 2, 6))[0]

    # Theirs see [0, 1].
    z, units, code, rebuilt = run(video.clip(-1, 1))
    channels_last = lambda x: np.moveaxis(x, 1, -1)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(z, channels_last(outputs["latent"]), **close)
    np.testing.assert_array_equal(units, outputs["indices"].reshape(1, -1))
    want = channels_last(outputs["quantized"]).reshape(1, 8, 6)
    np.testing.assert_allclose(code, want, atol=1e-6)
    want = 2 * channels_last(outputs["reconstruction"]) - 1
    np.testing.assert_allclose(rebuilt, want, **close)
    back = convert.to_official(params)
    self.assertEqual(back.keys(), official.keys())
    for key, array in official.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_rounding(self):
    outputs, fsq = state()[1], FSQ((8, 8, 8, 5, 5, 5), "tan")
    z = 1.5 * tensor("fsq_input1", (40, 6))
    np.testing.assert_array_equal(fsq.encode(z), outputs["fsq_indices"])
    code, _, _ = fsq(z)
    np.testing.assert_allclose(code, outputs["fsq_codes"], atol=1e-6)
    some = np.arange(40) * 1601
    np.testing.assert_allclose(
      fsq.embed(some), outputs["fsq_decode"], atol=1e-6
    )

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a tokenizer of NBP"):
      convert.config({"quantize.embedding.weight": np.zeros((4, 2))})


if __name__ == "__main__":
  absltest.main()
