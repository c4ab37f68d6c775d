"""Infinity: given maps, one pass over them, other lists, what options say.

The official numbers are in tests/convert/infinity_test.py; that steps do not
leak and that cached is uncached, tests/contract sees.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding.editing import Edit
from ar_jax.core.system import UserError, build
from ar_jax.families.scale.bitwise import Correction
from tests import filled, smoke

KEYS = jax.random.split(jax.random.key(0), 2)
BEST = ({"temperature": 0.0},) * 3


@functools.cache
def small():
  """The smoke system on maps of 1, 2 x 1 and 2 x 2 units, and its variables."""
  model = smoke.config("infinity").model.to_dict()
  model["tokenizer"]["scales"] = (1, (2, 1), 2)
  system = build("infinity", **model)
  return system, filled.variables(system)


def given(system):
  """Units of two images, and their texts."""
  shape = 2, len(system.plan), system.tokenizer.unit_bits
  units = jax.random.randint(jax.random.key(1), shape, 0, 2)
  return units, {"text": jnp.array([[3, 5], [4, 0]])}


class GivenMapsTest(absltest.TestCase):
  def test_given_maps(self):
    """Forced one by one and read in one pass they lead to the same; and all of
    them make the reconstruction."""
    system, variables = small()
    units, cond = given(system)
    draw = functools.partial(
      system.drawn, guided=False, scales=(1.0,) * 3, laws=BEST
    )

    @jax.jit
    def by_steps(variables, units, keep):
      return draw(variables, cond, KEYS, edit=Edit(units, keep))

    @jax.jit
    def at_once(variables, known):
      return draw(variables, cond, KEYS, known=known)

    first = system.plan.span(1).stop
    keep = jnp.broadcast_to(jnp.arange(len(system.plan)) < first, (2, 7))
    own, latent = by_steps(variables, units, keep)
    np.testing.assert_array_equal(own[:, :first], units[:, :first])
    merged, same = at_once(variables, units[:, :first])
    np.testing.assert_array_equal(merged, own)
    np.testing.assert_allclose(same, latent, atol=1e-5)
    free, _ = by_steps(variables, units, jnp.zeros_like(keep))
    self.assertGreater(np.mean(free != own), 0.05)  # they matter
    every, latent = by_steps(variables, units, jnp.ones_like(keep))
    np.testing.assert_array_equal(every, units)
    codec = system.codec(variables)
    np.testing.assert_array_equal(
      system.decode_latent(variables, latent), system.decode(variables, units)
    )
    np.testing.assert_array_equal(latent, codec.maps.walk(units)[-1])
    with self.assertRaisesRegex(UserError, "nothing is left to draw"):
      draw(variables, cond, KEYS, known=units)


class LossTest(absltest.TestCase):
  def test_wrong_bits_are_of_training_alone(self):
    system, variables = small()
    units, cond = given(system)
    latent = jax.random.normal(jax.random.key(2), (2, 2, 2, 4))
    units = system.codec(variables).code(latent).units
    batch = cond | {"units": units, "latent": latent}
    key = jax.random.key(0)
    true = system.seen(variables, batch, key, None)
    wrong = system.seen(variables, batch, key, KEYS)
    np.testing.assert_array_equal(true.units, units)
    self.assertGreater(np.abs(wrong.inputs - true.inputs).max(), 0.1)
    self.assertTrue((np.asarray(wrong.units) != units).any())
    # Of a map whose inputs are right, targets are, too.
    np.testing.assert_array_equal(wrong.units[:, :1], units[:, :1])
    never = dataclasses.replace(system, correction=Correction(most=0.0))
    none = never.seen(variables, batch, key, KEYS)
    np.testing.assert_array_equal(none.units, true.units)
    np.testing.assert_array_equal(none.inputs, true.inputs)
    own = Correction(by_example=True).flips(system.tokenizer, key, KEYS)
    self.assertEqual([x.shape for x in own], [(2, 1, 1, 4), (2, 2, 1, 4),
                                              (2, 2, 2, 4)])  # fmt: skip
    with self.assertRaisesRegex(UserError, "must hold `latent`"):
      system.seen(variables, cond | {"units": units}, key, KEYS)
    with self.assertRaisesRegex(UserError, "correction.most=2"):
      Correction(most=2)

  def test_weights(self):
    """Units of a map count by 1 over its side, as published."""
    system, _ = small()
    weight = system.weight()
    np.testing.assert_allclose(weight.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(weight[-1] / weight[0], 1 / 2, atol=1e-6)
    np.testing.assert_allclose(weight[1] / weight[0], 0.5**0.5, atol=1e-6)
    even = dataclasses.replace(system, weights="even").weight()
    np.testing.assert_allclose(even, 1 / 7, atol=1e-6)


class OptionsTest(parameterized.TestCase):
  def test_other_lists(self):
    system, variables = small()
    here = system.asked((), 1.5, "0.25M")
    self.assertEqual(here.net.ground, (78, 52))
    self.assertEqual(here.net.shapes[-1], (39, 26))
    self.assertLen(here.plan, sum(h * w for h, w in here.net.shapes))
    self.assertIs(system.asked((), None, None), system)
    _, cond = given(system)
    draw = functools.partial(system.sample, scales=(1, (2, 3)))
    image = jax.eval_shape(draw, variables, cond, KEYS)
    self.assertEqual(image.shape, (2, 8, 12, 1))

  @parameterized.parameters(
    (dict(scales=(1, 2), ratio=1.0), "not both"),
    (dict(scales=(2, 4)), "must begin with 1"),
    (dict(scales=tuple(range(1, 17))), "room for 15 maps"),
    (dict(ratio=1.1), "ratio=1.1: choose one of 0.333, 0.4"),
    (dict(budget="2M"), "budget='2M'"),
    (dict(temperatures=(1.0,)), "1 numbers for 3 maps"),
    (dict(guide_layer=2), "guide_layer=2: there are 2 layers"),
    (dict(force_first_scales=1), "no given image"),
  )
  def test_wrong_options(self, options, message):
    system, variables = small()
    _, cond = given(system)
    with self.assertRaisesRegex(UserError, message):
      system.generate(variables, cond, KEYS, **options)

  @parameterized.parameters(
    (dict(tokenizer=dict(name="patch_codes")), "no maps of bits"),
    (dict(weights="area"), "weights='area'"),
    (dict(heads=3), "not a multiple of heads=3"),
    (dict(levels=1), "the table of maps has 1 rows"),
    (dict(null_length=2), "null_length=2: a text may have 8"),
  )
  def test_wrong_sizes(self, change, message):
    model = smoke.config("infinity").model.to_dict()
    with self.assertRaisesRegex(UserError, message):
      build("infinity", **model | change)


if __name__ == "__main__":
  absltest.main()
