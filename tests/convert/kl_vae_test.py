"""The table of the KL autoencoders: official -> ours -> official."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import kl_vae as convert
from ar_jax.core.system import UserError
from tests import golden_weights


class KLVAETest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    description, _ = golden_weights.load("kl16_vae")
    self.state = golden_weights.weights(description)

  def test_config_from_shapes(self):
    config = convert.config(self.state)
    self.assertEqual(config["system"], "kl_vae")
    want = dict(channels=16, scale=0.2325, ch=128, mult=(1, 1, 2, 2, 4))
    want |= dict(blocks=2, attention=(4,), in_channels=3)
    self.assertEqual(config["model"], want)

  def test_there_and_back_bit_for_bit(self):
    losses = {"loss.logvar": np.zeros((), np.float32)}
    back = convert.to_official(convert.to_ours(self.state | losses))
    self.assertEqual(back.keys(), self.state.keys())
    for key, value in self.state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a KL autoencoder"):
      convert.config({"z_proj.weight": np.zeros((3, 4))})

  def test_a_key_too_few(self):
    for key in ("decoder.norm_out.bias", "post_quant_conv.weight"):
      state = {k: v for k, v in self.state.items() if k != key}
      with self.assertRaisesRegex(UserError, f"missing: {key}"):
        convert.to_ours(state)


if __name__ == "__main__":
  absltest.main()
