"""VAR's tokenizer against the official one and against itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import multiscale_vq as convert
from ar_jax.core import prng
from ar_jax.core.system import UserError
from ar_jax.tokenizers.multiscale_vq import SCALES, MultiScaleVQ
from tests import golden_weights


def tiny(**kwargs) -> MultiScaleVQ:
  sizes = dict(vocab=32, channels=8, ch=8, mult=(1, 2), blocks=1)
  return MultiScaleVQ(
    **(sizes | dict(scales=(1, 2, 4), in_channels=1, spread=0.3) | kwargs)
  )


class GoldenTest(absltest.TestCase):
  """The official model's own outputs, with the weights behind them."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    description, cls.expected = golden_weights.load("var_tokenizer")
    state = golden_weights.weights(description)
    model = convert.config(state)["model"]
    cls.module = MultiScaleVQ(**(model | dict(scales=(1, 2, 3, 4))))
    cls.variables = {"params": convert.to_ours(state)}
    image = golden_weights.tensor("image", (2, 3, 64, 64))
    cls.image = np.moveaxis(np.clip(image, -1, 1), 1, -1)

  def apply(self, *args, method):
    return jax.jit(lambda v, *a: self.module.apply(v, *a, method=method))(
      self.variables, *args
    )

  def assert_close(self, ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

  def test_latent(self):
    latent = self.apply(self.image, method="latent")
    self.assert_close(jnp.moveaxis(latent, -1, 1), self.expected["latent"])

  def test_units_are_equal(self):
    units = self.apply(self.image, method="encode")
    np.testing.assert_array_equal(units, self.expected["indices"])

  def test_running_reconstruction(self):
    units = jnp.asarray(self.expected["indices"], jnp.int32)
    sums = self.apply(units, method=lambda m, u: m.quantizer.walk(u))
    for ours, theirs in zip(sums, self.expected["fhat"], strict=True):
      self.assert_close(jnp.moveaxis(ours, -1, 1), theirs)

  def test_input_of_the_generator(self):
    units = jnp.asarray(self.expected["indices"], jnp.int32)
    embedded = self.apply(units, method="embed")
    self.assert_close(embedded[:, 1:], self.expected["var_input"])
    np.testing.assert_array_equal(embedded[:, :1], 0)

  def test_image(self):
    units = jnp.asarray(self.expected["indices"], jnp.int32)
    image = self.apply(units, method="decode")
    self.assert_close(
      jnp.moveaxis(image, -1, 1), self.expected["reconstruction"].clip(-1, 1)
    )


class MultiScaleVQTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.module = tiny()
    key = jax.random.key(0)
    cls.x = jax.random.uniform(key, (2, 8, 8, 1), minval=-1, maxval=1)
    cls.variables = jax.jit(cls.module.init)(
      # Compiles several times faster than the default generator.
      prng.key(0),
      cls.x,
    )
    cls.units = cls.apply(cls, cls.x, method="encode")

  def apply(self, *args, method, module=None):
    call = lambda v, *a: (module or self.module).apply(v, *a, method=method)
    return jax.jit(call)(self.variables, *args)

  def test_published_size(self):
    module = MultiScaleVQ()
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree)) / 1e6
    self.assertAlmostEqual(count(params), 108.95, places=2)
    self.assertAlmostEqual(count(params["encoder"]), 44.1, places=1)
    self.assertAlmostEqual(count(params["decoder"]), 64.7, places=1)
    self.assertAlmostEqual(count(params["quantizer"]), 0.17, places=2)

  @parameterized.parameters((256, 680), (512, 2240), (1024, 9451))
  def test_one_set_of_weights_for_all_sizes(self, size, length):
    small, module = MultiScaleVQ(), MultiScaleVQ(scales=SCALES[size])
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    image256 = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(small.init, jax.random.key(0), image256)
    encode = lambda v, x: module.apply(v, x, method="encode")
    units = jax.eval_shape(encode, variables, image)
    self.assertEqual(units.shape, (1, length))
    decode = lambda v, u: module.apply(v, u, method="decode")
    self.assertEqual(
      jax.eval_shape(decode, variables, units).shape, image.shape
    )

  def test_advance_is_embed_scale_by_scale(self):
    def steps(module, units):
      fhat, inputs, softs = module.start(len(units)), [], []
      for k, ids in enumerate(module.quantizer.split(units)):
        soft, _ = module.advance_soft(fhat, k, module.codebook()[ids])
        fhat, following = module.advance(fhat, k, ids)
        inputs.append(following)
        softs.append(jnp.abs(soft - fhat).max())
      return fhat, inputs, jnp.stack(softs)

    fhat, inputs, softs = self.apply(self.units, method=steps)
    self.assertIsNone(inputs[-1])
    np.testing.assert_array_equal(softs, 0)
    embedded = self.apply(self.units, method="embed")
    np.testing.assert_allclose(
      np.concatenate(inputs[:-1], axis=1), embedded[:, 1:], atol=1e-5
    )
    np.testing.assert_allclose(
      self.apply(fhat, method="decode_latent"),
      self.apply(self.units, method="decode"),
      atol=1e-5,
    )

  def test_training_output(self):
    out = self.apply(self.x, method=None)
    np.testing.assert_array_equal(
      out.units, self.apply(self.x, method="encode")
    )
    np.testing.assert_allclose(
      out.image, self.apply(out.feature, method="to_image"), atol=1e-5
    )
    np.testing.assert_allclose(
      jnp.clip(out.image, -1, 1),
      self.apply(out.units, method="decode"),
      atol=1e-5,
    )
    self.assertEqual({x.shape for x in out.losses.values()}, {(2,)})

  def test_wrong_image_size_says_what_to_do(self):
    with self.assertRaisesRegex(UserError, "image 16x16x1.*8x8x1"):
      self.apply(jnp.zeros((2, 16, 16, 1)), method="encode")

  def test_units_do_not_depend_on_the_batch(self):
    alone = self.apply(self.x[1:], method="encode")
    np.testing.assert_array_equal(self.units[1:], alone)

  def test_half_precision_keeps_float32_where_it_matters(self):
    half = dataclasses.replace(self.module, dtype=jnp.bfloat16)
    call = lambda v, x: half.apply(v, x)
    out = jax.eval_shape(call, self.variables, self.x)
    self.assertEqual(out.image.dtype, jnp.float32)
    self.assertEqual(out.losses["commit_loss"].dtype, jnp.float32)


if __name__ == "__main__":
  absltest.main()
