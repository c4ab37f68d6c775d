"""Published weights of FlowAR by their keys, there and back."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import flowar as convert
from ar_jax.core.system import UserError
from tests import golden_weights

D, W, C = 32, 64, 16


def shapes(cross):
  """Keys and shapes as the sheet of the published files lists them."""
  hidden = lambda n: int(8 * n / 3)
  found = {
    "class_emb.weight": (11, D),
    "z_proj.weight": (D, C), "z_proj.bias": (D,), "z_proj_ln.weight": (D,),
    "decoder_embed.weight": (D, D), "decoder_embed.bias": (D,),
    "diffusion_pos_embed_learned": (1, 341, D),
    "flownet.time_embed.mlp.0.weight": (W, 256),
    "flownet.time_embed.mlp.0.bias": (W,),
    "flownet.time_embed.mlp.2.weight": (W, W),
    "flownet.time_embed.mlp.2.bias": (W,),
    "flownet.cond_embed.weight": (W, D), "flownet.cond_embed.bias": (W,),
    "flownet.input_proj.weight": (W, C), "flownet.input_proj.bias": (W,),
    "flownet.final_layer.linear.weight": (C, W),
    "flownet.final_layer.linear.bias": (C,),
    "flownet.final_layer.adaLN_modulation.1.weight": (2 * W, W),
    "flownet.final_layer.adaLN_modulation.1.bias": (2 * W,),
  }  # fmt: skip

  def linear(key, out, into, bias=True):
    found[f"{key}.weight"] = (out, into)
    if bias:
      found[f"{key}.bias"] = (out,)

  def mlp(key, n):
    for name in ("fc1_g", "fc1_x"):
      linear(f"{key}.{name}", hidden(n), n)
    linear(f"{key}.fc2", n, hidden(n))

  for stack in ("encoder", "decoder"):
    found[f"{stack}_pos_embed_learned"] = (1, 341, D)
    found[f"{stack}_norm.weight"] = (D,)
    for i in range(2):
      block = f"{stack}_blocks.{i}"
      linear(f"{block}.attn.qkv", 3 * D, D)
      linear(f"{block}.attn.proj", D, D)
      mlp(f"{block}.mlp", D)
      linear(f"{block}.ada_lin.1", 6 * D, D)
  for i in range(2):
    block = f"flownet.res_blocks.{i}"
    linear(f"{block}.attn.qkv", 3 * W, W, bias=False)
    linear(f"{block}.attn.proj", W, W)
    mlp(f"{block}.mlp", W)
    if not cross:
      linear(f"{block}.ada_lin.1", 6 * W, W)
      continue
    linear(f"{block}.ada_lin_attn.1", 3 * W, W)
    linear(f"{block}.ada_lin_mlp.1", 3 * W, W)
    linear(f"{block}.crossattn.q", W, W, bias=False)
    linear(f"{block}.crossattn.kv", 2 * W, D, bias=False)
    linear(f"{block}.crossattn.proj", W, W)
    found[f"{block}.norm2_1.weight"] = (W,)
    found[f"{block}.norm2_2.weight"] = (D,)
  return found


class FlowARTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_round_trip_is_exact(self, cross):
    state = {k: golden_weights.weight(k, s) for k, s in shapes(cross).items()}
    config = convert.config(state, heads=2)["model"]
    self.assertEqual(config["cross"], cross)
    self.assertEqual(config["tokenizer"]["size"], 256)
    self.assertEqual((config["depth"], config["head_depth"]), (2, 2))
    buffers = {
      "mask": np.zeros((1, 1, 341, 341)),
      "encoder_blocks.0.attn.rope.freqs_cos": np.zeros((341, 16)),
    }
    # A modulation may also be no sequence, but a linear by itself.
    other = {k.replace("ada_lin.1.", "ada_lin."): v for k, v in state.items()}
    for given in (state | buffers, other):
      back = convert.to_official(convert.to_ours(given, heads=2))
      self.assertEqual(set(back), set(state))
      for key, array in state.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "no class_emb.weight"):
      convert.config({})
    state = {k: np.zeros(s, np.float32) for k, s in shapes(False).items()}
    with self.assertRaisesRegex(UserError, "width 32 is no published FlowAR"):
      convert.config(state)
    del state["z_proj.bias"]
    with self.assertRaisesRegex(UserError, "missing: z_proj.bias"):
      convert.to_ours(state, heads=2)


if __name__ == "__main__":
  absltest.main()
