"""LPIPS with a narrow VGG of random weights, read from files."""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from safetensors.numpy import save_file

from ar_jax.core.system import UserError
from ar_jax.nn.losses import perceptual

_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 8, 8)
_TAPS = (4, 6, 8, 8, 8)


def write_files(folder: str) -> tuple[str, str]:
  """A trunk and heads of the official names; returns their paths."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  vgg, width = {}, 3
  for i, wider in zip(_CONVS, _WIDTHS, strict=True):
    vgg[f"features.{i}.weight"] = draw(wider, width, 3, 3) / width
    vgg[f"features.{i}.bias"] = draw(wider) / 10
    width = wider
  heads = {
    f"lin{i}.model.1.weight": np.abs(draw(1, width, 1, 1))
    for i, width in enumerate(_TAPS)
  }
  paths = [os.path.join(folder, f"{x}.safetensors") for x in ("vgg", "lin")]
  save_file(vgg, paths[0])
  save_file(heads, paths[1])
  return paths[0], paths[1]


class LPIPSTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.files = write_files(folder.name)
    cls.weights = perceptual.read(*cls.files)

  def distance(self, x, y):
    return jax.jit(perceptual.distance)(self.weights, x, y)

  def test_taps(self):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    taps = jax.eval_shape(
      lambda x: list(perceptual.taps(self.weights["trunk"], x)), x
    )
    self.assertEqual(
      [t.shape[1:] for t in taps],
      [(32 // 2**i, 32 // 2**i, w) for i, w in enumerate(_TAPS)],
    )

  def test_is_a_distance_per_example(self):
    x, y = jax.random.uniform(jax.random.key(0), (2, 3, 16, 16, 3)) * 2 - 1
    y = y.at[0].set(x[0])
    apart = self.distance(x, y)
    self.assertLess(float(apart[0]), 1e-9)
    self.assertGreater(float(apart[1:].min()), 0.01)
    np.testing.assert_allclose(self.distance(y, x), apart, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(
      self.distance(x[1:2], y[1:2]), apart[1:2], rtol=1e-4
    )

  def test_grey_images_are_grey_colours(self):
    x, y = jax.random.uniform(jax.random.key(0), (2, 1, 16, 16, 1))
    colour = self.distance(x.repeat(3, -1), y.repeat(3, -1))
    np.testing.assert_allclose(self.distance(x, y), colour, rtol=1e-5)

  def test_gradient_at_equal_images_is_finite(self):
    x = jnp.zeros((1, 16, 16, 3))
    loss = lambda x, y: perceptual.distance(self.weights, x, y).sum()
    self.assertTrue(jnp.isfinite(jax.jit(jax.grad(loss))(x, x)).all())

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "lpips: no features.0.weight"):
      perceptual.read(self.files[1], self.files[1])


if __name__ == "__main__":
  absltest.main()
