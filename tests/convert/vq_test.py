"""The table of LlamaGen's tokenizer: official -> ours -> official."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import vq as convert
from ar_jax.core.system import UserError
from tests import golden_weights


class VQTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    description, _ = golden_weights.load("llamagen_tokenizer")
    self.state = golden_weights.weights(description)

  def test_config_from_shapes(self):
    config = convert.config(self.state)
    self.assertEqual(config["system"], "vq")
    want = dict(vocab=64, channels=8, z=256, ch=128, mult=(1, 1, 2, 2, 4))
    want |= dict(blocks=2, in_channels=3)
    self.assertEqual(config["model"], want)

  def test_there_and_back_bit_for_bit(self):
    back = convert.to_official(convert.to_ours(self.state))
    # Which codes were used last is nothing to learn.
    del self.state["quantize.codebook_used"]
    self.assertEqual(back.keys(), self.state.keys())
    for key, value in self.state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a tokenizer of LlamaGen"):
      convert.config({"tok_embeddings.weight": np.zeros((3, 4))})

  def test_a_key_too_few(self):
    for key, name in (
      ("decoder.norm_out.bias", "missing: decoder.norm_out.bias"),
      ("encoder.mid.1.k.bias", "missing: encoder.mid.1.qkv.bias"),
    ):
      state = {k: v for k, v in self.state.items() if k != key}
      with self.assertRaisesRegex(UserError, name):
        convert.to_ours(state)


if __name__ == "__main__":
  absltest.main()
