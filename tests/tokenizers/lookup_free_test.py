"""Codes of rounded numbers answer as the codes of a table do."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build

SIZES = dict(
  levels=(4, 3), bits_of_code=4, z=8, ch=8, mult=(1, 2), blocks=1, size=8,
  in_channels=1,
)  # fmt: skip
KINDS = ("fsq", "lfq", "bsq")
VOCAB = {"fsq": 12, "lfq": 16, "bsq": 16}


class RoundedTest(parameterized.TestCase):
  @parameterized.parameters(*KINDS)
  def test_every_code_is_itself(self, kind):
    own = build("lookup_free", kind=kind, **SIZES).tokenizer.quantizer
    self.assertEqual(own.vocab, VOCAB[kind])
    units = jnp.arange(own.vocab)
    codes = own.codebook()
    self.assertLen(np.unique(codes, axis=0), own.vocab)
    np.testing.assert_array_equal(own.embed(units), codes)
    if kind != "fsq":  # whose bound moves what it is given
      np.testing.assert_array_equal(own.encode(codes), units)

  @parameterized.parameters(*KINDS)
  def test_the_nearest_of_the_codes(self, kind):
    """Rounding number by number finds what a search of the table finds."""
    own = build("lookup_free", kind=kind, **SIZES).tokenizer.quantizer
    z = jax.random.normal(jax.random.key(0), (64, own.channels))
    every = jnp.ones(own.vocab, bool)
    np.testing.assert_array_equal(own.encode(z), own.encode(z, every))
    some = every.at[::2].set(False)
    self.assertTrue(np.all(np.asarray(own.encode(z, some)) % 2 == 1))

  @parameterized.parameters(*KINDS)
  def test_training_and_units_agree(self, kind):
    own = build("lookup_free", kind=kind, **SIZES).tokenizer.quantizer
    z = jax.random.normal(jax.random.key(1), (3, 2, 2, own.channels))
    code, losses, units = own(z)
    np.testing.assert_array_equal(units, own.encode(z))
    np.testing.assert_allclose(code, own.embed(units), atol=1e-6)
    for value in losses.values():
      self.assertEqual(value.shape, (3,))
    some = 1.0 + jnp.arange(own.channels)
    of_code = lambda z: jnp.einsum("bhwc,c->", own(z)[0], some)
    gradient = jax.grad(of_code)(z)
    self.assertGreater(np.abs(gradient).min(), 0)

  @parameterized.parameters(
    (dict(kind="vq"), "choose one of"),
    (dict(kind="lfq", bits_of_code=19), "1 to 18"),
    (dict(kind="fsq", levels=(1, 2)), "at least 2"),
    (dict(size=7), "multiple of the stride"),
  )
  def test_wrong_options(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      build("lookup_free", **SIZES | options)


if __name__ == "__main__":
  absltest.main()
