"""Published weights of VAR, there and back."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import var as convert
from ar_jax.core.system import UserError
from tests import golden_weights

SCALES = (1, 2, 3, 4)


def official(name: str):
  return golden_weights.weights(golden_weights.load(name)[0])


class VarTest(parameterized.TestCase):
  @parameterized.parameters(
    "var_transformer", "var_transformer_no_qknorm", "var_transformer_shared_aln"
  )
  def test_round_trip_is_exact(self, name):
    state = official(name)
    buffers = {
      "lvl_1L": np.zeros((1, 30)),
      "attn_bias_for_masking": np.zeros((1, 1, 30, 30)),
      "blocks.1.attn.zero_k_bias": np.zeros(128),
    }
    back = convert.to_official(convert.to_ours(state | buffers, SCALES, 2))
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_scales_that_are_not_published(self):
    with self.assertRaisesRegex(UserError, "4 scales of 30 slots"):
      convert.config(official("var_transformer"))

  def test_published_scales_are_found(self):
    state = official("var_transformer") | {
      "pos_1LC": np.zeros((1, 2240, 128)),
      "lvl_embed.weight": np.zeros((10, 128)),
    }
    scales = convert.config(state)["model"]["tokenizer"]["scales"]
    self.assertEqual(scales[-1], 32)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no head.weight"):
      convert.config({})
    state = official("var_transformer")
    del state["blocks.1.ffn.fc2.bias"]
    with self.assertRaisesRegex(UserError, "missing: blocks.1.ffn.fc2.bias"):
      convert.to_ours(state, SCALES)


if __name__ == "__main__":
  absltest.main()
