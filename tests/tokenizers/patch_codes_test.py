"""Codes of patches answer as the tokenizers whose place they take."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError, build

FORMS = (
  dict(form="map"),
  dict(form="pyramid", scales=(1, 2, 4)),
  dict(form="pyramid", scales=(1, 2, 4), bands="nyquist"),
  dict(form="resized", scales=(1, 2, 4)),
)
SIZES = dict(vocab=8, patch=2, size=8, in_channels=3)
C = 12


def bound(**options):
  """The tokenizer, its first code nothing and all others clear of each other
  and of the bounds of a pixel."""
  tokenizer = build("patch_codes", **SIZES, **options).tokenizer
  x = jnp.zeros((1, 8, 8, 3))
  shapes = jax.eval_shape(tokenizer.init, jax.random.key(0), x)
  if options["form"] == "bits":
    return tokenizer.bind(tokenizer.init(jax.random.key(0), x))
  codebook = np.random.default_rng(0).uniform(-0.4, 0.4, (8, C))
  codebook[0] = 0
  assert jax.tree.map(np.shape, shapes["params"]) == {
    "quantizer": {"codebook": (8, C)}
  }
  return tokenizer.bind(
    {"params": {"quantizer": {"codebook": jnp.asarray(codebook, jnp.float32)}}}
  )


def units_of(codes, batch=3):
  key = jax.random.key(1)
  return jax.random.randint(key, (batch, codes.length), 0, codes.vocab)


class PatchCodesTest(parameterized.TestCase):
  @parameterized.parameters(*FORMS)
  def test_shapes(self, **options):
    codes = bound(**options)
    length = 16 if options["form"] == "map" else 21
    self.assertEqual(codes.length, length)
    self.assertEqual((codes.channels, codes.stride, codes.size), (C, 2, 8))
    self.assertEqual((codes.vocab, codes.in_channels), (8, 3))
    image = codes.decode(units_of(codes))
    self.assertEqual(image.shape, (3, 8, 8, 3))
    self.assertEqual(codes.encode(image).shape, (3, length))
    self.assertEqual(codes.embed(units_of(codes)).shape, (3, length, C))
    self.assertEqual(codes.codebook().shape, (8, C))

  def test_map_comes_back(self):
    codes = bound(form="map")
    units = units_of(codes)
    image = codes.decode(units)
    # The patch of the second row and third column, pixel by pixel.
    np.testing.assert_array_equal(
      image[:, 2:4, 4:6].reshape(3, C), codes.codebook()[units[:, 6]]
    )
    np.testing.assert_array_equal(codes.encode(image), units)

  def test_a_part_of_a_map(self):
    codes = bound(form="map")
    units = units_of(codes)
    whole, part = codes.decode(units), codes.decode_part(units, 6)
    np.testing.assert_array_equal(part[:, :2], whole[:, :2])
    np.testing.assert_array_equal(part[:, 2:4, :4], whole[:, 2:4, :4])
    np.testing.assert_array_equal(part[:, 2:4, 4:], 0)
    np.testing.assert_array_equal(part[:, 4:], 0)

  def test_pyramid_of_one_code_comes_back(self):
    codes = bound(form="pyramid", scales=(1, 2, 4))
    units = jnp.zeros((3, 21), jnp.int32).at[:, 0].set(jnp.array([2, 5, 7]))
    image = codes.decode(units)
    np.testing.assert_allclose(
      image[:, 2:4, 4:6].reshape(3, C), codes.codebook()[units[:, 0]], atol=1e-6
    )
    np.testing.assert_array_equal(codes.encode(image), units)

  def test_pyramid_adds_its_maps(self):
    codes = bound(form="pyramid", scales=(1, 2, 4))
    units, total = units_of(codes), 0
    for ids, side in zip(jnp.split(units, [1, 5], 1), (1, 2, 4), strict=True):
      latent = codes.codebook()[ids].reshape(3, side, side, C)
      total = total + resize(latent, (4, 4), "bicubic")
    np.testing.assert_allclose(
      codes.decode(units), codes.decode_latent(total), atol=1e-6
    )

  def test_bands_leave_high_frequencies_to_later_maps(self):
    plain = bound(form="pyramid", scales=(1, 2, 4))
    banded = bound(form="pyramid", scales=(1, 2, 4), bands="nyquist")
    x = jax.random.uniform(jax.random.key(2), (16, 8, 8, 3), minval=-1)
    # Both code the mean alone by the first map.
    one, other = plain.encode(x), banded.encode(x)
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    self.assertTrue((one[:, 1:] != other[:, 1:]).any())

  def test_resized_maps_are_coded_by_themselves(self):
    codes = bound(form="resized", scales=(1, 2, 4))
    units = units_of(codes)
    image = codes.decode(units)
    again = codes.encode(image)
    np.testing.assert_array_equal(again[:, 5:], units[:, 5:])
    latent = codes.codebook()[units[:, 5:]].mean(1, keepdims=True)
    distance = jnp.square(latent - codes.codebook()[None]).sum(-1)
    np.testing.assert_array_equal(again[:, 0], jnp.argmin(distance, 1))

  def test_resized_decodes_other_lists(self):
    codes = bound(form="resized", scales=(1, 2, 4))
    wide = codes.clone(scales=(1, 2, (4, 6)), parent=None)
    wide = wide.bind(codes.variables)
    self.assertEqual(wide.decode(units_of(wide)).shape, (3, 8, 12, 3))

  @parameterized.parameters(*FORMS[1:])
  def test_advance_is_embed_map_by_map(self, **options):
    codes = bound(**options)
    units, state = units_of(codes), codes.start(3)
    inputs = []
    for k, ids in enumerate(jnp.split(units, [1, 5], 1)):
      soft, _ = codes.advance_soft(state, k, codes.codebook()[ids])
      state, following = codes.advance(state, k, ids)
      np.testing.assert_array_equal(soft, state)
      inputs.append(following)
    self.assertIsNone(inputs.pop())
    np.testing.assert_allclose(
      jnp.concatenate(inputs, 1), codes.embed(units)[:, 1:], atol=1e-6
    )
    np.testing.assert_allclose(
      codes.decode_latent(state), codes.decode(units), atol=1e-6
    )

  @parameterized.parameters(
    (dict(form="map", vocab=24), 3),
    (dict(form="pyramid", scales=(1, 2, 4), vocab=24), 2.5),
    (dict(form="pyramid", scales=(1, 2, 4), vocab=24, bands="nyquist"), 2.5),
    (dict(form="resized", scales=(1, 2, 4), vocab=24), 3),
    (dict(form="bits", vocab=8), 1.8),
  )
  def test_codes_are_fitted_to_the_data(self, options, better):
    system = build("patch_codes", **{**SIZES, "in_channels": 1, **options})
    digits = data.load("digits", size=8, channels=1)
    batch = data.batch_at(digits.test, 0, batch=64, seed=0)
    variables = system.init(jax.random.key(0), batch)
    variables = jax.tree.map(np.asarray, variables)
    source = [digits.train[i] for i in range(300)]
    fitted, again, other = (
      system.fitted(variables, source, seed) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, fitted, again)
    if options["form"] != "bits":  # where nothing is random
      differ = jax.tree.map(lambda a, b: (a != b).any(), fitted, other)
      self.assertTrue(any(jax.tree.leaves(differ)))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    self.assertEqual(shapes(variables), shapes(fitted))

    def error(variables):
      loss = system.loss(variables, batch, jax.random.key(0), train=False)
      return float(loss.metrics["pixel"].mean())

    self.assertLess(better * error(fitted), error(variables))

  def test_fewer_patches_than_codes(self):
    system = build("patch_codes", **{**SIZES, "vocab": 64})
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    variables = system.init(jax.random.key(0), {"image": image})
    fitted = system.fitted(variables, [{"image": image[0]}], 0)
    code = lambda v: v["params"]["tokenizer"]["quantizer"]["codebook"]
    # What is left is as it was; what there is comes back.
    np.testing.assert_array_equal(code(variables)[16:], code(fitted)[16:])
    shown = system.sample(fitted, {"image": image}, jax.random.key(0))
    np.testing.assert_allclose(shown, image / 255, atol=1e-5)

  def test_bits_are_signs_of_components(self):
    codes = bound(form="bits")
    every = jnp.arange(8)
    np.testing.assert_array_equal(
      codes.quantizer.encode(codes.codebook()), every
    )
    levels = codes.variables["params"]["quantizer"]["levels"]
    flipped = codes.codebook()[0b101] - codes.codebook()[0b001]
    np.testing.assert_allclose(
      flipped,
      (levels[0, 1] - levels[0, 0])
      * codes.variables["params"]["quantizer"]["basis"][0],
      atol=1e-6,
    )
    units = jax.random.randint(jax.random.key(1), (2, 16), 0, 8)
    np.testing.assert_allclose(
      codes.embed(units), codes.codebook()[units], atol=1e-6
    )

  def test_as_a_system(self):
    system = build("patch_codes", **SIZES)
    image = jax.random.randint(jax.random.key(3), (2, 8, 8, 3), 0, 256)
    batch = {"image": image.astype(jnp.uint8)}
    variables = system.init(jax.random.key(0), batch)
    self.assertGreater(
      jnp.std(variables["params"]["tokenizer"]["quantizer"]["codebook"]), 0.3
    )
    loss = system.loss(variables, batch, jax.random.key(0), train=False)
    drawn = system.sample(variables, batch, jax.random.key(0))
    error = jnp.square(2 * drawn - image / 127.5).mean((1, 2, 3))
    # Codes may lie outside of the bounds of a pixel, images do not.
    self.assertTrue((loss.metrics["pixel"] >= error - 1e-5).all())
    self.assertEqual(loss.value.shape, (2,))

  @parameterized.parameters(
    (dict(form="maps"), "form='maps'"),
    (dict(patch=3), "size=8.*patch=3"),
    (dict(form="bits", vocab=12), r"vocab=12: .* 2\^12"),
    (dict(form="bits", vocab=2**13), "the patches having 12 numbers"),
    (dict(scales=(1, 4)), "only a map has none"),
    (dict(form="pyramid"), "only a map has none"),
    (dict(form="pyramid", scales=(1, 2)), "must be size / patch = 4"),
    (dict(form="resized", scales=(1, 4), bands="nyquist"), "use pyramid"),
    (dict(form="pyramid", scales=(1, 4), bands="low"), "bands='low'"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      build("patch_codes", **SIZES | options)

  @parameterized.parameters(*FORMS)
  def test_images_of_another_size(self, **options):
    with self.assertRaisesRegex(UserError, "image 7x7"):
      bound(**options).encode(jnp.zeros((1, 7, 7, 3)))


if __name__ == "__main__":
  absltest.main()
