"""Published weights of FlexVAR and of its tokenizer, there and back."""

import numpy as np
from absl.testing import absltest

from ar_jax.convert import __main__ as command
from ar_jax.convert import flex_vq
from ar_jax.convert import flexvar as convert
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError, build
from tests import golden_weights


def official() -> dict[str, np.ndarray]:
  """A state of VAR with one table of positions and no levels."""
  state = golden_weights.weights(golden_weights.load("var_transformer")[0])
  del state["lvl_embed.weight"]
  width = state["head.weight"].shape[1]
  return state | {"pos_1LC": golden_weights.tensor("pos", (1, width, 32, 32))}


class FlexVARTest(absltest.TestCase):
  def test_there_and_back_bit_for_bit(self):
    state = official()
    mask = {"attn_bias_for_masking": np.zeros((1, 1, 680, 680))}
    nested = {"trainer": {"var_wo_ddp": state | mask}}
    ours = convert.to_ours(command.state_of(nested))
    back = convert.to_official(ours)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    # As torch resizes it, channels first.
    want = golden_weights.tensor("pos", (1, 128, 32, 32))[0]
    want = want.reshape(128, 4, 8, 4, 8).mean((2, 4))
    got = resize(ours["slots"]["table"], (4, 4), "area")
    np.testing.assert_allclose(got, np.moveaxis(want, 0, -1), atol=1e-5)

  def test_config(self):
    config = convert.config(official())
    self.assertEqual(config["system"], "flexvar")
    self.assertEqual(config["model"]["grid"], 32)
    self.assertEqual(config["model"]["tokenizer"]["vocab"], 64)

  def test_another_file(self):
    state = golden_weights.weights(golden_weights.load("var_transformer")[0])
    with self.assertRaisesRegex(UserError, "no square table"):
      convert.config(state)

  def test_tokenizer(self):
    description, _ = golden_weights.load("llamagen_tokenizer")
    state = golden_weights.weights(description)
    state["quantize.embedding.weight"] = golden_weights.tensor("e", (89, 8))
    config = flex_vq.config(command.state_of({"model": state}))
    self.assertEqual(config["system"], "flex_vq")
    codes = build("flex_vq", **config["model"]).tokenizer
    self.assertEqual((codes.vocab, codes.channels), (89, 8))
    back = flex_vq.to_official(flex_vq.to_ours(state))
    del state["quantize.codebook_used"]
    self.assertEqual(back.keys(), state.keys())
    for key, value in state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)


if __name__ == "__main__":
  absltest.main()
