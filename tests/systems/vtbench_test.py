"""Codecs beside which tokenizers stand."""

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


def halved(x):
  """As a user's own tokenizer."""
  return x // 2


def as_floats(x):
  return x / 510.0


def too_large(x):
  return x.astype(np.float32)


def cropped(x):
  return x[:, 1:]


def drawn(system, params=None):
  sample = jax.jit(system.sample)
  return np.asarray(
    sample({"params": params or {}}, {"image": IMAGE}, jax.random.key(0))
  )


class CodecTest(parameterized.TestCase):
  def test_identity(self):
    np.testing.assert_allclose(
      drawn(build("vtbench", kind="identity")), IMAGE / 255, atol=1e-6
    )

  def test_as_many_numbers_as_pixels_lose_nothing(self):
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(48, 48)))[0]
    params = dict(down=basis, up=basis.T, mean=np.ones(48))
    made = drawn(build("vtbench", patch=4, channels=48), params)
    np.testing.assert_allclose(made, IMAGE / 255, atol=1e-5)

  def test_resampled_means(self):
    made = drawn(build("vtbench", kind="resample", factor=8))
    mean = IMAGE.mean((1, 2), keepdims=True) / 255
    np.testing.assert_allclose(
      made, np.broadcast_to(mean, made.shape), atol=1e-5
    )

  @parameterized.parameters("halved", "as_floats")
  def test_a_function_of_the_user(self, name):
    call = build("vtbench", kind="call", function=f"{__name__}:{name}")
    np.testing.assert_allclose(drawn(call), IMAGE / 510, atol=1 / 255)

  @parameterized.parameters(
    ("too_large", "outside of"), ("cropped", "must keep the shape")
  )
  def test_a_function_that_does_something_else(self, name, message):
    call = build("vtbench", kind="call", function=f"{__name__}:{name}")
    with self.assertRaisesRegex(Exception, message):
      drawn(call)

  @parameterized.parameters(
    (dict(kind="jpeg"), "choose one of"),
    (dict(kind="call"), "MODULE:NAME"),
    (dict(function="os:getcwd"), "MODULE:NAME"),
    (dict(kind="call", function="nowhere:f"), "cannot be had"),
    (dict(kind="call", function="os:sep"), "is no function"),
    (dict(kind="resample", factor=0), "at least 1"),
  )
  def test_wrong_options(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      build("vtbench", **options)


if __name__ == "__main__":
  absltest.main()
