"""The wav-VAE: its rates, sounds in pieces, and who learns from whom."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.nn.losses.wave_critics import WaveCritics, matching
from configs import wav_vae as config
from tests import smoke


class WavVAETest(absltest.TestCase):
  def test_ten_seconds_are_78_latents(self):
    system = build("wav_vae", **config.paper().model.to_dict())
    codec = system.tokenizer
    self.assertEqual((codec.stride, codec.length), (2048, 78))
    x = jax.ShapeDtypeStruct((1, 160_000), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(codec.init, key, x)
    shape = lambda method, x: (
      jax.eval_shape(
        lambda v, x: codec.apply(v, x, method=method), variables, x
      ).shape
    )
    self.assertEqual(shape("moments", x), (1, 78, 128))
    units = jax.ShapeDtypeStruct((1, 78, 64), jnp.float32)
    self.assertEqual(shape("decode", units), (1, 78 * 2048))

  def test_pieces_are_the_sound(self):
    c = smoke.case("wav_vae")
    params = c.variables["params"]["tokenizer"]
    units = np.random.default_rng(0).normal(size=(2, 8, 2)).astype(np.float32)
    changed = units.copy()
    changed[:, 5:] += 1

    @jax.jit
    def made(params):
      codec = c.system.tokenizer.bind({"params": params})
      before, pieces = codec.begin(2), []
      for part in jnp.split(units, (1, 4), axis=1):
        x, before = codec.go_on(part, before)
        pieces.append(x)
      own = [codec.decode(x) for x in (units, changed)]
      return jnp.concatenate(pieces, 1), *own

    pieces, whole, other = jax.device_get(made(params))
    self.assertEqual(whole.shape, (2, 64))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    # A later latent changes no earlier sample.
    np.testing.assert_array_equal(other[:, :40], whole[:, :40])
    self.assertGreater(np.abs(other - whole)[:, 40:].max(), 1e-3)

  def test_what_is_left_over_is_silent(self):
    c = smoke.case("wav_vae")
    x = np.ones((1, 60), np.float32)
    sample = jax.jit(lambda v, x: c.system.sample(v, {"audio": x}, None))
    made = sample(c.variables, x)
    self.assertEqual(made.shape, (1, 60))
    self.assertFalse(np.any(made[:, 56:]))

  def test_each_side_takes_the_other_as_constant(self):
    c = smoke.case("wav_vae")
    batch, known = jax.device_get(c.batch), c.variables

    def term(name):
      def value(params):
        variables = {**known, "params": params}
        loss = c.system.loss(variables, batch, smoke.KEY, train=False)
        return loss.metrics[name].sum()

      return jax.grad(value)(known["params"])

    terms = jax.jit(lambda: {k: term(k) for k in ("gan_g", "gan_d")})()
    size = lambda tree: sum(
      float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)
    )
    self.assertEqual(size(terms["gan_g"]["critics"]), 0)
    self.assertEqual(size(terms["gan_d"]["tokenizer"]), 0)
    self.assertGreater(size(terms["gan_g"]["tokenizer"]), 0)
    self.assertGreater(size(terms["gan_d"]["critics"]), 0)

  def test_critics(self):
    critics = WaveCritics(2, 4, (4,))
    x = jax.random.normal(jax.random.key(0), (2, 64))
    init = jax.jit(critics.init_with_output)
    said, params = init(jax.random.key(1), x)
    self.assertEqual([y.shape for y, _ in said], [(2, 16), (2, 8)])
    self.assertFalse(np.any(matching(said, said)))
    other = jax.jit(critics.apply)(params, x + 0.1)
    self.assertTrue(np.all(matching(said, other) > 0))

  def test_mistakes(self):
    for changes, message in (
      (dict(widths=(4, 8)), "2 strides need 3 widths"),
      (dict(widths=(4, 4, 5)), "must be a multiple of 5"),
      (dict(samples=7), "a latent is of 8 samples"),
    ):
      model = dict(samples=64, strides=(2, 4), widths=(4, 4, 8)) | changes
      with self.assertRaisesRegex(UserError, message):
        build("wav_vae", **model)


if __name__ == "__main__":
  absltest.main()
