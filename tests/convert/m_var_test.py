"""Published weights of M-VAR, there and back."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import m_var as convert
from ar_jax.core.system import UserError
from tests import golden_weights

SCALES = (1, 2, 3, 4)


def official(depth=2, c=128) -> dict[str, tuple]:
  """key -> shape, as the published files have them; qk-norm is off."""
  block = {
    "attn.mat_qkv.weight": (3 * c, c),
    "attn.q_bias": (c,),
    "attn.v_bias": (c,),
    "attn.proj.weight": (c, c),
    "attn.proj.bias": (c,),
    "ffn.fc1.weight": (4 * c, c),
    "ffn.fc1.bias": (4 * c,),
    "ffn.fc2.weight": (c, 4 * c),
    "ffn.fc2.bias": (c,),
    "ada_lin.1.weight": (9 * c, c),
    "ada_lin.1.bias": (9 * c,),
    "mamba.in_proj.weight": (4 * c + 128 + c // 32, c),
    "mamba.conv1d.weight": (2 * c + 128, 1, 4),
    "mamba.conv1d.bias": (2 * c + 128,),
    "mamba.dt_bias": (c // 32,),
    "mamba.A_log": (c // 32,),
    "mamba.D": (c // 32,),
    "mamba.norm.weight": (2 * c,),
    "mamba.out_proj.weight": (c, 2 * c),
  }
  shapes = {
    f"blocks.{i}.{k}": s for i in range(depth) for k, s in block.items()
  }
  return shapes | {
    "word_embed.weight": (c, 16),
    "word_embed.bias": (c,),
    "class_emb.weight": (11, c),
    "pos_start": (1, 1, c),
    "pos_1LC": (1, 30, c),
    "lvl_embed.weight": (len(SCALES), c),
    "head_nm.ada_lin.1.weight": (2 * c, c),
    "head_nm.ada_lin.1.bias": (2 * c,),
    "head.weight": (64, c),
    "head.bias": (64,),
  }


class MVARTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    state = {k: golden_weights.tensor(k, s) for k, s in official().items()}
    buffers = {"lvl_1L": np.zeros((1, 30))} | {
      "blocks.0.attn.zero_k_bias": np.zeros(128),
      "blocks.1.attn.patch_nums": np.array([1, 4, 9, 16]),
    }
    model = convert.config(state, SCALES)["model"]
    self.assertFalse(model["qk_norm"])
    self.assertEqual((model["features"], model["states"]), (64, 64))
    ours = convert.to_ours(state | buffers, SCALES)
    memory = ours["backbone"]["block"]["memory"]
    np.testing.assert_array_equal(
      memory["conv_kernel"][1, 3],
      state["blocks.1.mamba.conv1d.weight"][:, 0, 3],
    )
    back = convert.to_official(ours)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no blocks.0.mamba"):
      convert.config({})


if __name__ == "__main__":
  absltest.main()
