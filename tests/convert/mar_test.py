"""Published weights of MAR: there and back, and the same outputs."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import mar as convert
from ar_jax.core.flows import ddpm
from ar_jax.core.system import UserError, build
from tests import golden_weights

DESCRIPTION, OUTPUTS = golden_weights.load("mar_transformer")
STATE = golden_weights.weights(DESCRIPTION)


class MARTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # The golden model was made without the sizes' own eps of 1e-6.
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
    net = self.system.net.bind({"params": self.params})
    # Four rows too many, which must not matter.
    wide = np.concatenate([at, np.tile(order[:4], (2, 1))], axis=1)
    h = jax.jit(net.encode)(label, units, wide, 56)
    np.testing.assert_allclose(
      h[:, : 8 + 56], OUTPUTS["encoder"], rtol=1e-4, atol=2e-5
    )
    z = jax.jit(net.decode)(h, wide, 56)
    np.testing.assert_allclose(z, OUTPUTS["decoder"], rtol=1e-4, atol=2e-5)

    x = golden_weights.tensor("x_t", (16, 16))
    t = 60 * np.arange(16)
    out = net.head.net(x[None], t[None], z[:, :8].reshape(1, 16, -1))
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


if __name__ == "__main__":
  absltest.main()
