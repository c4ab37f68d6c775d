"""VAR on the published list of scales: 680 units, at a tiny width."""

import functools

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import multiscale_vq, var
from tests import golden_weights, optimised
from tests.convert import scale_golden

CLOSE = dict(rtol=1e-4, atol=1e-4)


@functools.cache
def golden():
  golden = scale_golden.load("var_256", var, multiscale_vq)
  config, arrays, _, model, variables = golden
  return config, arrays, scale_golden.system("var", model), variables


class VAR256Test(absltest.TestCase):
  def test_units_of_images(self):
    config, arrays, system, variables = golden()
    self.assertEqual(list(system.tokenizer.scales), config["patch_nums"])

    @optimised.jit
    def every(variables, image):
      codes = system.codec(variables)
      latent = codes.latent(image)
      return latent, codes.quantizer.encode(latent)[0]

    image = golden_weights.image(config["images"], 256)
    latent, units = every(variables, image)
    np.testing.assert_allclose(
      np.moveaxis(latent, -1, 1), arrays["latent"], **CLOSE
    )
    np.testing.assert_array_equal(units, arrays["indices"])

  def test_inputs_and_logits(self):
    config, arrays, system, variables = golden()
    units = jnp.asarray(arrays["indices"])

    @optimised.jit
    def every(variables):
      codes = system.codec(variables)
      label = jnp.array(config["labels"])
      logits = system.logits(variables, label, units)
      return codes.embed(units)[:, 1:], codes.quantizer.walk(units)[-1], logits

    given, fhat, logits = every(variables)
    np.testing.assert_allclose(
      given[:, ::20], arrays["var_input_strided"], **CLOSE
    )
    np.testing.assert_allclose(
      np.moveaxis(fhat, -1, 1), arrays["fhat"], **CLOSE
    )
    kept = np.concatenate([logits[:, :55], logits[:, 55::25]], axis=1)
    np.testing.assert_allclose(
      kept[:, : arrays["logits_strided"].shape[1]],
      arrays["logits_strided"],
      **CLOSE,
    )

  def test_best_units(self):
    config, arrays, system, variables = golden()
    units, fhat = scale_golden.greedy(
      system, variables, config["labels"], guidance=4.0
    )
    np.testing.assert_array_equal(units, arrays["tokens"])
    np.testing.assert_allclose(
      np.moveaxis(fhat, -1, 1), arrays["sampled_fhat"], **CLOSE
    )


if __name__ == "__main__":
  absltest.main()
