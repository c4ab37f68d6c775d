"""Models of pixels: what sees what, counted laws, samples of them."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.nn.layers.masked_conv import group, kernel_mask
from tests import filled, laws

KINDS = ("pixelcnn", "gated", "plus")
SMALL = dict(width=12, depth=3, first=3, out=12, components=2, dropout=0.0)


def made(kind, size, channels=1, levels=3, **model):
  pixels = dict(name="given", form="pixels", levels=levels, size=size)
  pixels["in_channels"] = channels
  if kind == "plus":  # has two streams, down and up again
    model = dict(depth=1) | model
  system = build("pixelcnn", tokenizer=pixels, kind=kind, **SMALL | model)
  return system, filled.variables(system, stddev=0.4)


@functools.cache
def seen(kind):
  """bool[36 c, 36 c]: whether a channel of a pixel of a 6 x 6 image of three
  channels, a row, says something about another, a column; in one of five
  images, for a rectifier may be off."""
  system, variables = made(kind, 6, 3)
  units = np.random.default_rng(0).integers(3, size=(5, 1, 108))
  others = np.repeat(units, 109, 1)
  at = np.arange(108)
  others[:, at + 1, at] = (others[:, at + 1, at] + 1) % 3
  call = lambda u: system.logits(variables, None, u)
  logits = np.asarray(jax.jit(call)(others.reshape(-1, 36, 3)))
  logits = logits.reshape(5, 109, 108, -1)
  # What lies last in a batch may be rounded in another way.
  return np.any(np.abs(logits[:, 1:] - logits[:, :1]) > 1e-4, (0, -1))


@functools.cache
def counted(kind):
  """A model of images of 2 x 2 pixels of three levels, all 81 of them, and the
  probability of each."""
  system, variables = made(kind, 2, resolutions=1)
  every = laws.sequences(3, 4)
  key = jax.random.key(0)
  call = lambda u: system.loss(variables, {"units": u}, key, train=False)
  loss = jax.jit(call)(every[..., None])
  np.testing.assert_allclose(loss.value, loss.nll.sum(1) / 4, rtol=1e-5)
  return system, variables, np.exp(-np.asarray(loss.nll, np.float64).sum(1))


class OrderTest(parameterized.TestCase):
  @parameterized.parameters(*KINDS)
  def test_nothing_sees_itself_or_what_is_behind(self, kind):
    """Raster order, and red before green before blue."""
    self.assertFalse(np.tril(seen(kind)).any())
    # The neighbour is seen, so mask A is there once.
    pixels = seen(kind).reshape(36, 3, 36, 3)
    for j in range(36):
      if j % 6:
        self.assertGreater(pixels[j - 1, :, j].mean(), 0.5, j)
    own = pixels[np.arange(36), :, np.arange(36)].mean(0)
    for a, b in ((0, 1), (0, 2), (1, 2)):
      self.assertGreater(own[a, b], 0.8)

  def test_blind_spot(self):
    """PixelCNN does not see the upper right, the others do."""
    at = lambda kind, a, b: seen(kind).reshape(6, 6, 3, 6, 6, 3)[a][
      :, b[0], b[1]
    ]
    for column in (3, 4, 5):
      self.assertFalse(at("pixelcnn", (2, column), (3, 1)).any())
    for kind in ("gated", "plus"):
      self.assertGreater(at(kind, (2, 3), (3, 1)).mean(), 0.5, kind)
    self.assertGreater(at("pixelcnn", (2, 2), (3, 1)).mean(), 0.5)

  def test_masks(self):
    np.testing.assert_array_equal(group(6, 3, 2), [0, 1, 2] * 2)
    np.testing.assert_array_equal(group(4, 3), [0, 0, 1, 2])
    one = np.zeros(1, int)
    a, b = (kernel_mask((2, 3), one, one, first) for first in (True, False))
    np.testing.assert_array_equal(a[..., 0, 0], [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(b[..., 0, 0], [[1, 1, 1], [1, 1, 0]])
    three = np.arange(3)
    own = kernel_mask((1, 2), three, three, True)
    np.testing.assert_array_equal(own[0, 0], np.ones((3, 3)))
    np.testing.assert_array_equal(own[0, 1], np.triu(np.ones((3, 3)), 1))


class LawTest(parameterized.TestCase):
  @parameterized.parameters(*KINDS)
  def test_all_images_have_one_in_all(self, kind):
    _, _, law = counted(kind)
    self.assertAlmostEqual(law.sum(), 1, delta=1e-5)
    self.assertGreater(law.max() / law.min(), 5)

  @parameterized.parameters(*KINDS)
  def test_samples_follow_it(self, kind):
    system, variables, law = counted(kind)
    n = 3_000
    keys = jax.random.split(jax.random.key(1), n)
    # The first pixel of half of them is known.
    cond = {
      "prompt": jnp.full((n, 1, 1), 2),
      "known": (jnp.arange(n) % 2).astype(jnp.int32),
    }
    draw = jax.jit(lambda keys: system.generate(variables, cond, keys))
    units = np.asarray(draw(keys))[..., 0]
    self.assertGreater(laws.chi_square(units[::2], law, 3), 1e-3)
    self.assertLess(laws.chi_square(units[::2], np.full(81, 1 / 81), 3), 1e-6)
    known = np.where(laws.sequences(3, 4)[:, 0] == 2, law, 0)
    self.assertTrue((units[1::2, 0] == 2).all())
    self.assertGreater(
      laws.chi_square(units[1::2], known / known.sum(), 3), 1e-3
    )

  def test_forwards_are_those_that_are_told(self):
    for kind, passes in (("pixelcnn", 12), ("gated", 12), ("plus", 4)):
      system, variables = made(kind, 2, 3)
      call = lambda keys, s=system, v=variables: s.generate(v, {}, keys)
      keys = jax.random.split(jax.random.key(0), 1)
      (scan,) = (
        eqn for eqn in jax.make_jaxpr(call)(keys).eqns
        if eqn.primitive.name == "scan"
      )  # fmt: skip
      body = str(scan.params["jaxpr"])
      self.assertEqual(scan.params["length"], passes)
      self.assertEqual(system.forwards(), passes)
      # The net once in a step: it alone convolves.
      once = str(jax.make_jaxpr(
        lambda u, s=system, v=variables: s.logits(v, None, u)
      )(jnp.zeros((1, 4, 3), int)))  # fmt: skip
      count = lambda text: text.count("conv_general_dilated[")
      self.assertEqual(count(body), count(once))


class ErrorsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(kind="row_lstm"), "kind='row_lstm'"),
    (dict(kind="plus", resolutions=3), "resolutions=3: images of 6 pixels"),
    (dict(first=4), "odd sides"),
    (dict(width=2), "as the 3 channels"),
  )
  def test_builds(self, model, message):
    with self.assertRaisesRegex(UserError, message):
      made(**dict(kind="pixelcnn", size=6, channels=3) | model)

  def test_tokenizers(self):
    with self.assertRaisesRegex(UserError, "form='pixels'"):
      build("pixelcnn", tokenizer=dict(name="patch_codes"))
    for wrong in (dict(levels=1), dict(levels=300), dict(patch=2)):
      with self.assertRaisesRegex(UserError, "2 to 256"):
        build("given", form="pixels", **wrong)

  def test_pictures_of_another_size(self):
    system, variables = made("pixelcnn", 6, 3)
    for shape in ((8, 8, 3), (6, 6, 1)):
      batch = {"image": np.zeros((1, *shape), np.uint8)}
      with self.assertRaisesRegex(UserError, "data.size and data.channels"):
        jax.eval_shape(lambda b: system.encode(variables, b), batch)
    with self.assertRaisesRegex(UserError, "no null class"):
      system.generate(variables, {}, jax.random.split(jax.random.key(0), 1),
                      guidance=2.0)  # fmt: skip

  def test_published_sizes(self):
    """PixelCNN++ by its kernels: 15 blocks down and 17 up in two streams."""
    module = importlib.import_module("configs.pixelcnn")
    count = {}
    for preset in ("paper", "paper_gated", "paper_plus"):
      config = module.get_config(preset)
      system = build(config.system, **config.model.to_dict())
      shapes = jax.eval_shape(
        lambda k, s=system: s.init(k, {}), jax.random.key(0)
      )
      leaves = jax.tree.leaves(shapes["params"])
      count[preset] = sum(x.size for x in leaves) / 1e6
      self.assertLen(system.plan, 1024)
    taps, d = (6, 4), 160  # of the two streams
    block = sum(taps) * (2 * d * d + 2 * d * 2 * d)
    down, up = block + 2 * d * d, block + 2 * d * d + 4 * d * d
    moved = 4 * sum(taps) * d * d
    wanted = (15 * down + 17 * up + moved) / 1e6
    self.assertAlmostEqual(count["paper_plus"] / wanted, 1, delta=2e-3)
    self.assertAlmostEqual(wanted, 53.5, delta=0.1)
    # 15 blocks of 256 - 128 - 128 - 256, kernels of 6 taps or 1.
    wanted = 15 * (2 * 256 * 128 + 6 * 128 * 128)
    wanted += 256 * 1024 + 1024 * 768 + 28 * 3 * 256
    self.assertAlmostEqual(1e6 * count["paper"] / wanted, 1, delta=1e-2)

  def test_sizes_follow_the_data(self):
    """A picture of one's own is an override of the data alone."""
    config = importlib.import_module("configs.pixelcnn").get_config("gated")
    config.data.update(size=20, channels=3)
    codes = config.model.tokenizer
    self.assertEqual((codes.size, codes.in_channels), (20, 3))


if __name__ == "__main__":
  absltest.main()
