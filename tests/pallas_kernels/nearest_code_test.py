"""Nearest code: every form against float64, ties, and sizes of any kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.pallas.mosaic.interpret import (
  interpret_pallas_call as interpreter,  # there is no public way to ask
)
from jax.experimental.pallas import tpu as pltpu

from ar_jax import ops
from ar_jax.core.system import UserError
from pallas_kernels.nearest_code import reference, tpu, xla

FORMS = {
  "reference": jax.jit(reference.nearest_code),
  "xla": jax.jit(xla.nearest_code),
  "tpu": jax.jit(functools.partial(tpu.nearest_code, interpret=True)),
}


def distances(z, codebook):
  z, codebook = np.asarray(z, np.float64), np.asarray(codebook, np.float64)
  return np.square(z[:, None] - codebook[None]).sum(-1)


class NearestCodeTest(parameterized.TestCase):
  # Few shapes, for each is compiled; three codes in all, so that most tie.
  @given(
    st.sampled_from([(1, 1, 1), (130, 300, 3), (3, 9, 70)]),
    st.integers(0, 2**31),
    st.integers(1, 3),
  )
  @settings(max_examples=12, deadline=None, derandomize=True)
  def test_ties_go_to_the_lowest_index(self, shape, seed, high):
    tokens, vocab, width = shape
    rng = np.random.default_rng(seed)
    z = rng.integers(-high, high + 1, (tokens, width)).astype(np.float32)
    codebook = rng.integers(-high, high + 1, (vocab, width)).astype(np.float32)
    codebook = codebook[rng.integers(0, 1 + vocab // 3, vocab)]
    # Small integers are exact in every form, and argmin takes the first.
    want = distances(z, codebook).argmin(1)
    for name, form in FORMS.items():
      np.testing.assert_array_equal(form(z, codebook), want, name)

  # Both products: by features on the vector unit, and by matrices.
  @parameterized.parameters((130, 300, 3), (513, 700, 80))
  def test_no_code_is_nearer(self, tokens, vocab, width):
    keys = jax.random.split(jax.random.key(0), 2)
    z = jax.random.normal(keys[0], (tokens, width))
    codebook = jax.random.normal(keys[1], (vocab, width))
    all_of = distances(z, codebook)
    best = all_of.argmin(1)
    for name, form in FORMS.items():
      got = np.asarray(form(z, codebook))
      mine = all_of[np.arange(tokens), got]
      # What float32 can tell apart: a few roundings of the largest term.
      np.testing.assert_array_less(mine, all_of.min(1) + 1e-4, name)
      self.assertGreater((got == best).mean(), 0.99, name)

  def test_less_than_float32_flips_codes(self):
    # The control: products of bfloat16 find other codes among near ones.
    keys = jax.random.split(jax.random.key(0), 2)
    z = 1 + 0.02 * jax.random.normal(keys[0], (130, 3))
    codebook = 1 + 0.02 * jax.random.normal(keys[1], (300, 3))
    best = distances(z, codebook).argmin(1)
    right = lambda *given: (np.asarray(FORMS["xla"](*given)) == best).mean()
    rough = lambda x: x.astype(jnp.bfloat16).astype(jnp.float32)
    self.assertGreater(right(z, codebook), 0.95)
    self.assertLess(right(rough(z), rough(codebook)), 0.8)

  def test_no_races(self):
    z, codebook = np.ones((130, 2)), np.ones((300, 2))
    codebook[:2] = 9.0
    params = pltpu.InterpretParams(detect_races=True)
    got = tpu.nearest_code(z, codebook, interpret=params)
    np.testing.assert_array_equal(got, 2)
    self.assertFalse(interpreter.races.races_found)

  def test_any_leading_axes(self):
    codebook = jnp.eye(4)
    z = jnp.stack([codebook, codebook[::-1]])
    for form in FORMS.values():
      np.testing.assert_array_equal(
        form(z, codebook), [range(4), range(4)[::-1]]
      )
      self.assertEqual(form(jnp.zeros((0, 2, 4)), codebook).shape, (0, 2))

  def test_refusals_say_why(self):
    with self.assertRaisesRegex(NotImplementedError, "no kernel for cpu"):
      ops.nearest_code(jnp.ones((1, 2)), jnp.ones((3, 2)), impl="pallas")
    with self.assertRaisesRegex(UserError, "widths differ"):
      ops.nearest_code(jnp.ones((1, 2)), jnp.ones((3, 4)))
    with self.assertRaisesRegex(UserError, "wanted \\[V, d\\]"):
      ops.nearest_code(jnp.ones((1, 2)), jnp.ones((0, 2)))


if __name__ == "__main__":
  absltest.main()
