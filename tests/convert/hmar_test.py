"""Published weights of HMAR: there and back, and the same numbers."""

import functools
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import hmar as convert
from ar_jax.convert import multiscale_vq
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError
from tests import optimised
from tests.convert import scale_golden

SCALES = (1, 2, 3, 4)


@functools.cache
def golden():
  config, arrays, state, model, variables = scale_golden.load(
    "hmar", convert, multiscale_vq, scales=SCALES
  )
  return config, arrays, state, scale_golden.system("hmar", model), variables


class HMARTest(parameterized.TestCase):
  def test_round_trip_is_exact(self):
    config, _, state, _, variables = golden()
    buffers = {"lvl_1L": np.zeros((1, 30))} | {
      f"{stack}.0.attn.zero_k_bias": np.zeros(128)
      for stack in ("base_blocks", "ns_blocks", "mask_blocks")
    }
    model = convert.config(state | buffers, SCALES)["model"]
    self.assertEqual((model["depth"], model["tail"]), (3, 1))
    self.assertEqual(model["heads"], config["num_heads"])
    convert.to_ours(state | buffers, SCALES)
    back = convert.to_official(variables)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_inputs_and_logits_of_both_stages(self):
    config, arrays, _, system, variables = golden()
    label, units = jnp.array(config["labels"]), jnp.asarray(arrays["units"])
    # Positions were counted from the second scale.
    hidden = np.zeros(30, bool)
    hidden[1 + arrays["hidden"]] = True

    @optimised.jit
    def every(variables):
      codes = system.target.codec(variables)
      first = {**variables, "params": variables["net"]}
      return {
        "ns_input": codes.embed(units)[:, 1:],
        "mask_input": codes.parts(units)[:, 1:],
        "ns_logits": system.target.logits(first, label, units),
        "mask_logits": system.logits(variables, label, units, hidden),
      }

    for name, got in every(variables).items():
      np.testing.assert_allclose(
        got, arrays[name], rtol=1e-4, atol=1e-4, err_msg=name
      )

  @parameterized.parameters(0, 1, 2)
  def test_best_units_with_and_without_refinement(self, run):
    config, arrays, _, system, variables = golden()
    options = config["runs"][run]
    law = dict(guidance=1 + options["cfg"], temperature=1.0)
    if options["top_k"]:
      law |= dict(top_k=options["top_k"], top_p=options["top_p"])
    if options["mask_schedule"]:
      law["refine"] = tuple(map(tuple, options["mask_schedule"]))
    # The law counts, too: its least certain units are drawn again.
    best = lambda logp, keys: jnp.argmax(logp, -1).astype(jnp.int32)
    with mock.patch.object(pick, "draw", best):
      units, latent = scale_golden.greedy(
        system, variables, config["labels"], **law
      )
    np.testing.assert_array_equal(units, arrays[f"tokens_{run}"])
    if run == 1:
      image = optimised.jit(system.target.decode_latent)(variables, latent)
      np.testing.assert_allclose(
        image[:, ::4, ::4],
        np.moveaxis(arrays["image_1"], 1, -1),
        atol=1e-4,
      )

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no mask_head.weight"):
      convert.config({})


if __name__ == "__main__":
  absltest.main()
