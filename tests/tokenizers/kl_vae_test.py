"""The KL autoencoder against the official one and against its definition."""

import dataclasses
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.convert import kl_vae as convert
from ar_jax.core import prng
from ar_jax.core.system import UserError, build
from ar_jax.data.images import transforms
from ar_jax.data.wrap import cache
from ar_jax.tokenizers import kl_vae
from ar_jax.tokenizers.kl_vae import KLVAE, MULT, SCALE
from tests import golden_weights

SMALL = dict(channels=2, ch=8, mult=(1, 2), blocks=1, attention=(1,))
SMALL |= dict(in_channels=1, size=8)


class GoldenTest(absltest.TestCase):
  def test_official_outputs(self):
    description, expected = golden_weights.load("kl16_vae")
    state = golden_weights.weights(description)
    module = KLVAE(**convert.config(state)["model"])
    image = golden_weights.tensor("image", (1, 3, 64, 64))
    image = np.moveaxis(np.clip(image, -1, 1), 1, -1)

    @jax.jit
    def everything(params, image):
      bound = module.bind({"params": params})
      return bound.moments(image), bound.decode(bound.encode(image))

    moments, rebuilt = everything(convert.to_ours(state), image)
    for got, name in ((moments, "moments"), (rebuilt, "reconstruction")):
      want = np.moveaxis(expected[name], 1, -1)
      want = want.clip(-1, 1) if name == "reconstruction" else want
      got = np.reshape(got, want.shape)
      np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


class LawTest(absltest.TestCase):
  """The normal law of the latents."""

  def test_divergence(self):
    self.assertEqual(float(kl_vae.divergence(jnp.zeros((1, 5, 6)))[0]), 0.0)
    mean, logvar = 0.7, -1.2
    moments = jnp.asarray([[[mean, logvar], [0.0, 0.0]]])
    want = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
    np.testing.assert_allclose(kl_vae.divergence(moments), [want], rtol=1e-6)

  def test_log_variances_are_clipped(self):
    moments = jnp.asarray([[[0.0, 90.0], [0.0, -90.0]]])
    logvar = kl_vae.split(moments)[1]
    np.testing.assert_array_equal(logvar.ravel(), [20.0, -30.0])

  def test_draws_follow_the_moments(self):
    moments = jnp.tile(
      jnp.asarray([[[1.0, -2.0, 0.0, np.log(0.25)]]]), (1, 2, 1)
    )
    keys = jax.random.split(jax.random.key(0), 20_000)
    rows = jnp.broadcast_to(moments, (len(keys), 2, 4))
    z = np.asarray(jax.jit(kl_vae.draw)(rows, keys))
    np.testing.assert_allclose(z.mean(0), [[1, -2]] * 2, atol=0.03)
    np.testing.assert_allclose(z.std(0), [[1, 0.5]] * 2, atol=0.02)
    self.assertLess(abs(np.corrcoef(z[:, 0, 0], z[:, 1, 0])[0, 1]), 0.03)
    np.testing.assert_array_equal(kl_vae.draw(moments, None), moments[..., :2])

  def test_gradient_of_a_draw(self):
    keys = jax.random.split(jax.random.key(1), 1)
    moments = jnp.asarray([[[0.3, -0.4]]])
    value = lambda m: jnp.sum(kl_vae.draw(m, keys) ** 2)
    z = kl_vae.draw(moments, keys)[0, 0, 0]
    # dz/dmean = 1 and dz/dlogvar = (z - mean) / 2.
    want = [2 * z, 2 * z * (z - 0.3) / 2]
    np.testing.assert_allclose(jax.grad(value)(moments)[0, 0], want, rtol=1e-5)


class KLVAETest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.module = KLVAE(**SMALL, scale=0.5)
    cls.x = jax.random.uniform(
      jax.random.key(0), (2, 8, 8, 1), minval=-1, maxval=1
    )
    key = prng.key(0)
    cls.variables = jax.jit(cls.module.init)(key, cls.x)
    cls.keys = jax.random.split(jax.random.key(3), 2)

    @jax.jit
    def everything(variables, x, keys):
      bound = cls.module.bind(variables)
      out, moments = bound(x, keys), bound.moments(x)
      units = bound.draw(moments, keys)
      return out, moments, units, bound.encode(x), bound.decode(units)

    cls.everything = staticmethod(everything)
    cls.out, cls.moments, cls.drawn, cls.mode, cls.decoded = everything(
      cls.variables, cls.x, cls.keys
    )

  @parameterized.parameters((16, (4,), 66.46), (8, (), 83.65))
  def test_published_sizes(self, stride, attention, millions):
    channels = {16: 16, 8: 4}[stride]
    module = KLVAE(mult=MULT[stride], attention=attention, channels=channels)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    # The published count of f8 leaves out the two 1x1 convolutions.
    ones = count(params["quant_conv"]) + count(params["post_quant_conv"])
    total = count(params) - (ones if stride == 8 else 0)
    self.assertAlmostEqual(total / 1e6, millions, delta=0.006)
    apply = lambda method: lambda v, x: module.apply(v, x, method=method)
    variables = {"params": params}
    self.assertEqual(module.length, (256 // stride) ** 2)
    images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    units = jax.eval_shape(apply("encode"), variables, images)
    self.assertEqual(units.shape, (2, (512 // stride) ** 2, channels))
    again = jax.eval_shape(apply("decode"), variables, units)
    self.assertEqual(again.shape, images.shape)

  def test_units_are_scaled_latents(self):
    mean = self.moments[..., :2]
    np.testing.assert_allclose(self.mode, 0.5 * mean, rtol=1e-6)
    z = kl_vae.draw(self.moments, self.keys)
    np.testing.assert_allclose(self.drawn, 0.5 * z, rtol=1e-6)

  def test_training_sees_what_units_say(self):
    np.testing.assert_allclose(self.out.units, self.drawn, atol=1e-6)
    clipped = jnp.clip(self.out.image, -1, 1)
    np.testing.assert_allclose(clipped, self.decoded, atol=1e-5)
    self.assertEqual(self.out.losses["kl"].shape, (2,))

  def test_a_draw_depends_on_its_key_alone(self):
    alone = self.everything(self.variables, self.x[1:], self.keys[1:])[2]
    np.testing.assert_allclose(self.drawn[1:], alone, atol=1e-6)

  def test_half_precision_keeps_float32_where_it_matters(self):
    half = dataclasses.replace(self.module, dtype=jnp.bfloat16)
    out = jax.eval_shape(half.apply, self.variables, self.x)
    dtypes = {x.dtype for x in jax.tree.leaves((out.image, out.units))}
    self.assertEqual(dtypes | {out.losses["kl"].dtype}, {jnp.dtype("float32")})

  def test_cached_moments_of_flipped_images(self):
    """A view of the cache is the moments of the pixels as they were flipped,
    never flipped moments."""
    source = data.load("fake", size=8, channels=1, length=6).train
    params = self.variables["params"]
    moments = jax.jit(
      lambda x: self.module.apply({"params": params}, x, method="moments")
    )
    signed = lambda image: np.asarray(image, np.float32) / 127.5 - 1

    def encode(batch):
      return {"units": moments(signed(batch["image"]))}

    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    folder = folder / "units"
    augment = transforms.augmentation("flip")
    options = dict(batch=2, views=4, augment=augment, seed=0, digest="d")
    cache.write(folder, source, encode, **options)
    found = cache.read(folder)
    self.assertEqual(found[0]["units"].shape, (16, 4))
    seen = set()
    for i in range(len(source)):
      image = source[i]["image"]
      both = np.stack([image, image[:, ::-1]])
      both = np.asarray(moments(signed(both)))
      for v in range(4):
        gap = np.abs(found.view(i, v)["units"] - both).max((1, 2))
        self.assertLess(gap.min(), 1e-5)
        seen.add(int(gap.argmin()))
    self.assertEqual(seen, {0, 1})

  def test_wrong_values_say_what_to_do(self):
    encode = lambda x: self.module.apply(self.variables, x, method="encode")
    with self.assertRaisesRegex(UserError, "image 9x8.*multiples of 2"):
      jax.eval_shape(encode, jnp.zeros((1, 9, 8, 1)))
    with self.assertRaisesRegex(UserError, "3 channels"):
      jax.eval_shape(encode, jnp.zeros((1, 8, 8, 3)))
    with self.assertRaisesRegex(UserError, "size=100"):
      build("kl_vae", size=100)
    with self.assertRaisesRegex(UserError, "levels 0..1"):
      build("kl_vae", mult=(1, 2))
    with self.assertRaisesRegex(UserError, "scale=0"):
      build("kl_vae", scale=0)

  def test_published_scales_are_the_defaults(self):
    for channels, scale in (*SCALE.items(), (8, 1.0)):
      system = build("kl_vae", channels=channels)
      self.assertEqual(system.tokenizer.scale, scale)
      self.assertIsNone(system.vocab)


if __name__ == "__main__":
  absltest.main()
