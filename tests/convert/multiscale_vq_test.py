"""The table of VAR's tokenizer: official -> ours -> official."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import multiscale_vq as convert
from ar_jax.core.system import UserError
from ar_jax.tokenizers.multiscale_vq import SCALES
from tests import golden_weights


class MultiScaleVQTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    description, _ = golden_weights.load("var_tokenizer")
    self.state = golden_weights.weights(description)

  def test_config_from_shapes(self):
    config = convert.config(self.state)
    self.assertEqual(config["system"], "multiscale_vq")
    self.assertEqual(
      config["model"],
      dict(
        vocab=64,
        channels=8,
        ch=32,
        mult=(1, 1, 2, 2, 4),
        blocks=2,
        in_channels=3,
        scales=SCALES[256],
      ),
    )

  def test_there_and_back_bit_for_bit(self):
    hits = {"quantize.ema_vocab_hit_SV": np.zeros((10, 64), np.float32)}
    back = convert.to_official(convert.to_ours(self.state | hits))
    self.assertEqual(back.keys(), self.state.keys())
    for key, value in self.state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a tokenizer of VAR"):
      convert.config({"pos_1LC": np.zeros((1, 680, 1024))})

  def test_a_key_too_few(self):
    del self.state["decoder.norm_out.bias"]
    with self.assertRaisesRegex(UserError, "missing: decoder.norm_out.bias"):
      convert.to_ours(self.state)


if __name__ == "__main__":
  absltest.main()
