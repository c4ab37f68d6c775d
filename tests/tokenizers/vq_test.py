"""LlamaGen's tokenizer against the official one and against itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import vq as convert
from ar_jax.core import prng
from ar_jax.core.system import UserError, build
from ar_jax.tokenizers.vq import MULT, VQ
from tests import golden_weights


class GoldenTest(absltest.TestCase):
  """The official model's own outputs, with the weights behind them."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    description, cls.expected = golden_weights.load("llamagen_tokenizer")
    state = golden_weights.weights(description)
    module = VQ(**convert.config(state)["model"])
    image = golden_weights.tensor("image", (1, 3, 64, 64))
    image = np.moveaxis(np.clip(image, -1, 1), 1, -1)

    @jax.jit
    def everything(params, image):
      bound = module.bind({"params": params})
      latent, units = bound.latent(image), bound.encode(image)
      return latent, units, bound.embed(units), bound.decode(units)

    cls.got = everything(convert.to_ours(state), image)

  def assert_close(self, ours, name):
    want = np.moveaxis(self.expected[name], 1, -1)
    ours = np.reshape(ours, want.shape)
    want = want.clip(-1, 1) if name == "reconstruction" else want
    np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-4)

  def test_latent(self):
    self.assert_close(self.got[0], "latent")

  def test_units_are_equal(self):
    np.testing.assert_array_equal(self.got[1].ravel(), self.expected["indices"])

  def test_codes(self):
    self.assert_close(self.got[2], "quantized")

  def test_image(self):
    self.assert_close(self.got[3], "reconstruction")


class VQTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    sizes = dict(vocab=32, channels=4, z=8, ch=8, mult=(1, 2), blocks=1)
    cls.module = VQ(**sizes, in_channels=1, size=8)
    cls.x = jax.random.uniform(
      jax.random.key(0), (2, 8, 8, 1), minval=-1, maxval=1
    )
    key = prng.key(0)
    cls.variables = jax.jit(cls.module.init)(key, cls.x)

    @jax.jit
    def everything(variables, x):
      bound = cls.module.bind(variables)
      units, out = bound.encode(x), bound(x)
      again = bound.to_image(out.feature)
      return units, out, again, bound.decode(units), bound.codebook()

    cls.everything = staticmethod(everything)
    cls.units, cls.out, cls.again, cls.decoded, cls.codebook = everything(
      cls.variables, cls.x
    )

  @parameterized.parameters((16, 71.883, 256), (8, 70.110, 1024))
  def test_published_sizes(self, stride, millions, length):
    module = VQ(mult=MULT[stride])
    self.assertEqual((module.stride, module.length), (stride, length))
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    self.assertAlmostEqual(count(params) / 1e6, millions, places=2)
    if stride == 16:
      self.assertEqual(count(params["encoder"]), 29_298_176)
      self.assertEqual(count(params["decoder"]), 42_449_795)
    variables = {"params": params}
    encode = lambda v, x: module.apply(v, x, method="encode")
    large = jax.ShapeDtypeStruct((2, 384, 384, 3), jnp.float32)
    units = jax.eval_shape(encode, variables, large)
    self.assertEqual(units.shape, (2, length * 9 // 4))
    decode = lambda v, u: module.apply(v, u, method="decode")
    self.assertEqual(
      jax.eval_shape(decode, variables, units).shape, large.shape
    )

  def test_training_sees_what_units_say(self):
    np.testing.assert_array_equal(self.out.units, self.units)
    clipped = jnp.clip(self.out.image, -1, 1)
    np.testing.assert_allclose(clipped, self.decoded, atol=1e-5)
    np.testing.assert_allclose(self.out.image, self.again, atol=1e-5)
    self.assertEqual({x.shape for x in self.out.losses.values()}, {(2,)})

  def test_codes_have_unit_length_however_long_they_are_stored(self):
    length = jnp.linalg.norm(self.codebook, axis=-1)
    np.testing.assert_allclose(length, 1, rtol=1e-5)
    longer = jax.tree.map(jnp.copy, self.variables)
    longer["params"]["quantizer"]["codebook"] *= 3.0
    units, _, _, image, _ = self.everything(longer, self.x)
    np.testing.assert_array_equal(units, self.units)
    np.testing.assert_allclose(image, self.decoded, atol=1e-5)

  def test_units_do_not_depend_on_the_batch(self):
    alone = self.everything(self.variables, self.x[1:])[0]
    np.testing.assert_array_equal(self.units[1:], alone)

  def test_half_precision_keeps_float32_where_it_matters(self):
    half = dataclasses.replace(self.module, dtype=jnp.bfloat16)
    out = jax.eval_shape(half.apply, self.variables, self.x)
    self.assertEqual(out.image.dtype, jnp.float32)
    self.assertEqual(out.losses["commit_loss"].dtype, jnp.float32)

  def test_wrong_images_say_what_to_do(self):
    encode = lambda x: self.module.apply(self.variables, x, method="encode")
    with self.assertRaisesRegex(UserError, "image 9x8.*multiples of 2"):
      jax.eval_shape(encode, jnp.zeros((1, 9, 8, 1)))
    with self.assertRaisesRegex(UserError, "3 channels"):
      jax.eval_shape(encode, jnp.zeros((1, 8, 8, 3)))
    with self.assertRaisesRegex(UserError, "size=100"):
      build("vq", size=100)


if __name__ == "__main__":
  absltest.main()
