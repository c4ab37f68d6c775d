"""The table of xAR's transformers: official -> ours -> official."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import xar as convert
from ar_jax.core.system import UserError
from tests import golden_weights


class XARTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    description, _ = golden_weights.load("xar_transformer")
    self.state = golden_weights.weights(description)

  def test_config_from_shapes(self):
    model = convert.config(self.state, heads=16)["model"]
    tokenizer = model.pop("tokenizer")
    self.assertEqual(tokenizer, dict(name="kl_vae", channels=16, size=256))
    want = dict(depth=4, width=64, heads=16, num_classes=1000)
    self.assertEqual(model, want | dict(entity="cell", part=8))

  def test_there_and_back_bit_for_bit(self):
    buffers = {
      "mask": np.zeros((1, 1, 256, 256), np.float32),
      "freqs_cos": np.zeros((256, 32), np.float32),
      "encoder_blocks.0.attn.rope.freqs_sin": np.zeros((256, 32), np.float32),
    }
    back = convert.to_official(convert.to_ours(self.state | buffers, heads=2))
    self.assertEqual(back.keys(), self.state.keys())
    for key, value in self.state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a transformer of xAR"):
      convert.config({"tok_embeddings.weight": np.zeros((3, 4))})

  def test_a_key_too_few(self):
    for key in ("z_proj_ln.weight", "decoder_blocks.1.attn.qkv.weight"):
      state = {k: v for k, v in self.state.items() if k != key}
      with self.assertRaisesRegex(UserError, f"missing: {key}"):
        convert.to_ours(state, heads=2)
    with self.assertRaisesRegex(UserError, "width 64 is no published xAR"):
      convert.config(self.state)


if __name__ == "__main__":
  absltest.main()
