"""Published weights of M-VAR: there and back, and the same numbers."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import m_var as convert
from ar_jax.convert import multiscale_vq
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError
from tests import golden_weights, optimised
from tests.convert import scale_golden

SCALES = (1, 2, 4, 5)


@functools.cache
def golden():
  config, arrays, state, model, variables = scale_golden.load(
    "m_var", convert, multiscale_vq, scales=SCALES
  )
  return config, arrays, state, scale_golden.system("m_var", model), variables


class MVARTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    config, _, state, _, variables = golden()
    buffers = {"lvl_1L": np.zeros((1, 46))} | {
      "blocks.0.attn.zero_k_bias": np.zeros(128),
      "blocks.1.attn.patch_nums": np.array([1, 4, 16, 25]),
    }
    model = convert.config(state | buffers, SCALES)["model"]
    self.assertEqual((model["features"], model["states"]), (64, 64))
    self.assertEqual(model["heads"], config["num_heads"])
    convert.to_ours(state | buffers, SCALES)
    back = convert.to_official(variables["params"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_inputs_logits_and_the_layer_alone(self):
    config, arrays, _, system, variables = golden()
    label, units = jnp.array(config["labels"]), jnp.asarray(arrays["units"])
    x = golden_weights.tensor("mamba_input", (2, 11, 128))
    block = variables["params"]["backbone"]["block"]
    first = jax.tree.map(lambda x: x[0], block["memory"])
    layer = system.net.backbone.block.memory.clone(parent=None)

    @optimised.jit
    def every(variables, first):
      return {
        "var_input": system.codec(variables).embed(units)[:, 1:],
        "logits": system.logits(variables, label, units),
        "mamba_output": layer.apply({"params": first}, x)[0],
      }

    for name, got in every(variables, first).items():
      np.testing.assert_allclose(
        got, arrays[name], rtol=1e-4, atol=1e-4, err_msg=name
      )

  def test_best_units(self):
    """Those of all strengths of guidance in one program, each in its rows."""
    config, arrays, _, system, variables = golden()
    cfgs, rows, plain = config["cfgs"], len(config["labels"]), pick.schedule

    def schedules(name, guidance, n):
      del guidance
      each = np.float32([plain(name, 1 + cfg, n) for cfg in cfgs])
      return np.repeat(each, rows, 0).T[..., None, None]

    with mock.patch.object(pick, "schedule", schedules):
      units, _ = scale_golden.greedy(
        system, variables, config["labels"] * len(cfgs), guidance=2.0
      )
    for cfg, own in zip(cfgs, np.split(units, len(cfgs)), strict=True):
      np.testing.assert_array_equal(own, arrays[f"tokens_cfg{cfg}"])

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no blocks.0.mamba"):
      convert.config({})
    state = golden()[2]
    less = {k: v for k, v in state.items() if "scale_mul" not in k}
    with self.assertRaisesRegex(UserError, "width 128 is no published VAR"):
      convert.config(less, SCALES)


if __name__ == "__main__":
  absltest.main()
