"""Published weights of MAR: there and back, and the same outputs."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import mar as convert
from ar_jax.core.decoding import refine
from ar_jax.core.flows import ddpm, solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.systems import mar
from tests import golden_weights, optimised

DESCRIPTION, OUTPUTS = golden_weights.load("mar_transformer")
STATE = golden_weights.weights(DESCRIPTION)


class MARTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # The golden models were made without the sizes' own eps of 1e-6.
    model = convert.config(STATE, heads=2)["model"] | {"eps": 1e-5}
    cls.system = build("mar", **model)
    cls.params = convert.to_ours(STATE, heads=2)

  def test_round_trip_is_exact(self):
    back = convert.to_official(self.params)
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_outputs_of_the_official_model(self):
    latent = golden_weights.tensor("latent", (2, 16, 16, 16))
    units = latent.reshape(2, 16, 256).swapaxes(1, 2)
    order = np.random.default_rng(11).permutation(256)
    # The first 200 of it are hidden there; the others came in raster order.
    at = np.tile(np.sort(order[200:]), (2, 1))
    label = np.array(DESCRIPTION["config"]["labels"])
    # Four rows too many, which must not matter.
    wide = np.concatenate([at, np.tile(order[:4], (2, 1))], axis=1)
    x = golden_weights.tensor("x_t", (16, 16))
    t = 60 * np.arange(16)

    @jax.jit
    def every(params, label, units, wide, count):
      net = self.system.net.bind({"params": params})
      h = net.encode(label, units, wide, count)
      z = net.decode(h, wide, count)
      out = net.head.net(x[None], t[None], z[:, :8].reshape(1, 16, -1))
      return h, z, out

    h, z, out = every(self.params, label, units, wide, 56)
    np.testing.assert_allclose(
      h[:, : 8 + 56], OUTPUTS["encoder"], rtol=1e-4, atol=2e-5
    )
    np.testing.assert_allclose(z, OUTPUTS["decoder"], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(
      out[0], OUTPUTS["head_out"], rtol=1e-4, atol=2e-5
    )
    noisy = ddpm.cosine().noisy(units[:, :8].reshape(16, 16), jnp.asarray(x), t)
    np.testing.assert_allclose(noisy, OUTPUTS["q_sample"], rtol=1e-5, atol=1e-5)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "width 64 is no published MAR"):
      convert.config(STATE)
    with self.assertRaisesRegex(UserError, "no class_emb.weight"):
      convert.config({})
    less = {k: v for k, v in STATE.items() if k != "fake_latent"}
    with self.assertRaisesRegex(UserError, "missing: labels"):
      convert.to_ours(less, heads=2)


@functools.cache
def sampling():
  """(config, arrays, the system, its variables) of the sampler's golden."""
  description, arrays = golden_weights.load("mar_sampling")
  state = golden_weights.weights(description)
  model = convert.config(state, heads=2)["model"] | {"eps": 1e-5}
  variables = {"params": convert.to_ours(state, heads=2)}
  return description["config"], arrays, build("mar", **model), variables


class SamplingTest(parameterized.TestCase):
  def test_numbers_of_units_and_scales_of_guidance(self):
    config, arrays, system, _ = sampling()
    for units, steps in ((256, 64), (256, 10), (49, 7)):
      sizes = makers.cosine(units, steps)
      np.testing.assert_array_equal(sizes, arrays[f"counts_{units}_{steps}"])
      np.testing.assert_allclose(
        system.scales(4.0, "linear", sizes),
        arrays[f"scales_{units}_{steps}"],
        rtol=1e-6,
      )
    for name, run in config["runs"].items():
      schedule = run.get("cfg_schedule", "linear")
      got = system.scales(run["cfg"], schedule, makers.cosine(25, 4))
      np.testing.assert_allclose(got, arrays[f"scales_{name}"], rtol=1e-6)

  @parameterized.parameters("plain", "linear_hot")
  def test_latents_with_order_and_noise_given(self, run):
    config, arrays, system, variables = sampling()
    options = config["runs"][run]
    # Theirs hides the first of an order, so the last come first.
    order = jnp.asarray(arrays["order"][:, ::-1])
    noise = jnp.asarray(golden_weights.tensor("noise", (2, 25, 7, 8)))
    levels = tuple(config["times"]["3,1,1,1"])
    place = []  # of the units that are drawn, while a step is traced

    def given(keys, shape, level=0):
      # The start stands first, then what each step down adds.
      own = jnp.take_along_axis(noise, place[-1][..., None, None], axis=1)
      return own[:, :, len(levels) - level]

    def refined(predict, *args, **kwargs):
      def placed(canvas, known, at, s, keys, **rest):
        place.append(at)
        return predict(canvas, known, at, s, keys, **rest)

      return whole(placed, *args, **kwargs)

    def sample(variables):
      return system.generate(
        variables,
        {"label": jnp.array(config["labels"])},
        jax.random.split(jax.random.key(0), 2),
        steps=config["num_iter"],
        guidance=options["cfg"],
        schedule=options.get("cfg_schedule", "linear"),
        temperature=options.get("temperature", 1.0),
        denoise=config["denoise_steps"],
      )

    whole = refine.refine
    with (
      mock.patch.object(mar.MAR, "orders", lambda self, keys: order),
      mock.patch.object(solvers, "noise", given),
      mock.patch.object(refine, "refine", refined),
      mock.patch.object(ddpm.Levels, "respaced", lambda s, n: s.only(levels)),
    ):
      units = optimised.jit(sample)(variables)
    want = np.moveaxis(arrays[f"sample_{run}"], 1, -1).reshape(2, 25, 8)
    # 24 steps of random weights, which make errors larger, too.
    np.testing.assert_allclose(
      units, want, rtol=1e-3, atol=5e-4 * np.abs(want).max()
    )


if __name__ == "__main__":
  absltest.main()
