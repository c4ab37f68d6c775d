"""RETRO of Megatron-Core: there and back, and the same numbers."""

import functools

import jax
import numpy as np
from absl.testing import absltest

from ar_jax.convert import retro as convert
from ar_jax.core.system import UserError, build
from tests import golden_weights


@functools.cache
def golden():
  """(config, arrays, official state, our variables)."""
  description, arrays = golden_weights.load("retro")
  state = golden_weights.weights(description)
  heads = description["config"]["heads"]
  return (
    description["config"],
    arrays,
    state,
    convert.to_ours(state, heads=heads),
  )


@functools.cache
def system(residual: str):
  config, _, state, _ = golden()
  model = convert.config(state, heads=config["heads"])["model"]
  return build(
    "retro", **model | dict(encoder_residual=residual, chunk=4, neighbours=2)
  )


def logits(residual, tokens, neighbours, first=None):
  net = system(residual).net
  own = {"params": golden()[-1]["params"]}
  run = functools.partial(net.apply, method="plain_logits", first=first)
  return jax.jit(run)(own, tokens.astype(np.int32), neighbours.astype(np.int32))


class RetroTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    config, _, state, variables = golden()
    model = convert.config(state, heads=4)["model"]
    self.assertEqual(model["layers"], config["retro_layers_1based"])
    self.assertEqual(model["encoder_depth"], config["encoder_layers"])
    self.assertTrue(model["tied"])
    back = convert.to_official(variables, heads=4)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_names_of_transformer_engine(self):
    state, variables = golden()[2:]
    other = {}
    for key, array in state.items():
      for fused, own in convert._FUSED.items():
        if ".norm." not in key:
          key = key.replace(own, fused)
      other[key] = array
    self.assertNotEqual(set(other), set(state))
    found = convert.to_ours(other, heads=4)
    jax.tree.map(np.testing.assert_array_equal, found, variables)

  def test_an_output_and_a_last_norm(self):
    state = dict(golden()[2])
    for name, shape in (
      ("output_layer.weight", (40, 32)),
      ("decoder.final_layernorm.weight", (32,)),
      ("decoder.final_layernorm.bias", (32,)),
    ):
      state[name] = golden_weights.weight(name, shape)
    back = convert.to_official(convert.to_ours(state, heads=4), heads=4)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_numbers(self):
    arrays = golden()[1]
    tokens, neighbours = arrays["tokens"], arrays["neighbours"]
    for residual, name in (
      ("normed", "logits"), ("raw", "logits_raw_residual")
    ):  # fmt: skip
      found = logits(residual, tokens, neighbours)
      np.testing.assert_allclose(found, arrays[name], rtol=1e-4, atol=1e-4)

  def test_a_short_first_chunk(self):
    config, arrays = golden()[:2]
    n, m = config["short_length"], config["chunk_length"]
    found = logits(
      "normed", arrays["tokens"][:, :n], arrays["neighbours"], n % m
    )
    np.testing.assert_allclose(
      found, arrays["short_logits"], rtol=1e-4, atol=1e-4
    )

  def test_who_sees_what(self):
    arrays = golden()[1]
    tokens, neighbours = arrays["tokens"], arrays["neighbours"].copy()
    before = logits("normed", tokens, neighbours)
    neighbours[:, 1] = (neighbours[:, 1] + 1) % 40
    after = logits("normed", tokens, neighbours)
    moved = np.any(np.asarray(before) != np.asarray(after), (0, 2))
    np.testing.assert_array_equal(
      moved, arrays["changed_by_neighbours_of_chunk1"]
    )

  def test_mistakes(self):
    state = dict(golden()[2])
    with self.assertRaisesRegex(UserError, "heads"):
      convert.config(state)
    del state["embedding.position_embeddings.weight"]
    with self.assertRaisesRegex(UserError, "rotary positions are not ours"):
      convert.config(state, heads=4)


if __name__ == "__main__":
  absltest.main()
