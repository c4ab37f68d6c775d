"""Published weights of HMAR, there and back."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import hmar as convert
from ar_jax.core.system import UserError
from tests import golden_weights

SCALES = (1, 2, 3, 4)


def official(base=2, tail=2, width=128, slots=30) -> dict[str, tuple]:
  """key -> shape, as the published files have them."""
  c = width
  block = {
    "attn.mat_qkv.weight": (3 * c, c),
    "attn.q_bias": (c,),
    "attn.v_bias": (c,),
    "attn.scale_mul_1H11": (1, c // 64, 1, 1),
    "attn.proj.weight": (c, c),
    "attn.proj.bias": (c,),
    "ffn.fc1.weight": (4 * c, c),
    "ffn.fc1.bias": (4 * c,),
    "ffn.fc2.weight": (c, 4 * c),
    "ffn.fc2.bias": (c,),
    "ada_lin.1.weight": (6 * c, c),
    "ada_lin.1.bias": (6 * c,),
  }
  counts = {"base_blocks": base, "ns_blocks": tail, "mask_blocks": tail}
  shapes = {
    f"{stack}.{i}.{key}": shape
    for stack, n in counts.items()
    for i in range(n)
    for key, shape in block.items()
  }
  for head in ("ns_head", "mask_head"):
    shapes |= {
      f"{head}_nm.ada_lin.1.weight": (2 * c, c),
      f"{head}_nm.ada_lin.1.bias": (2 * c,),
      f"{head}.weight": (64, c),
      f"{head}.bias": (64,),
    }
  return shapes | {
    "word_embed.weight": (c, 16),
    "word_embed_bias": (c,),
    "mask_embed.weight": (1, c),
    "class_emb.weight": (11, c),
    "pos_start": (1, 1, c),
    "pos_1LC": (1, slots, c),
    "lvl_embed.weight": (len(SCALES), c),
  }


class HMARTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    shapes = official()
    state = {k: golden_weights.weight(k, s) for k, s in shapes.items()}
    buffers = {"lvl_1L": np.zeros((1, 30))} | {
      f"{stack}.1.attn.zero_k_bias": np.zeros(128)
      for stack in ("base_blocks", "ns_blocks", "mask_blocks")
    }
    model = convert.config(state, SCALES)["model"]
    self.assertEqual((model["depth"], model["tail"]), (4, 2))
    ours = convert.to_ours(state | buffers, SCALES)
    np.testing.assert_array_equal(
      ours["params"]["tail"]["block"]["mlp"]["fc1"]["kernel"][1],
      state["mask_blocks.1.ffn.fc1.weight"].T,
    )
    back = convert.to_official({**ours, "tokenizer": {}})
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no mask_head.weight"):
      convert.config({})


if __name__ == "__main__":
  absltest.main()
