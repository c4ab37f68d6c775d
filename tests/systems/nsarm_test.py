"""NSARM: what is trained, where gradients go, what a poor image may be.

The official numbers are in tests/convert/nsarm_test.py.
"""

import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data, parallel, sample
from ar_jax.core.system import UserError, build
from ar_jax.families.scale import given_maps
from ar_jax.nn.quantize.scaled_bits import ScaledBits
from tests import filled, smoke

KEYS = jax.random.split(jax.random.key(0), 2)


@functools.cache
def small():
  """The smoke system and its variables."""
  system = build("nsarm", **smoke.config("nsarm").model.to_dict())
  return system, filled.variables(system)


def batch():
  draw = np.random.default_rng(0)
  image = lambda: draw.integers(256, size=(2, 8, 8, 1)).astype(np.uint8)
  return {"image": image(), "low": image()}


class NSARMTest(parameterized.TestCase):
  def test_stages(self):
    """First the network of maps alone, on what is left of the good image; then
    both, on bits behind bits that the network says."""
    system, variables = small()
    first = dataclasses.replace(system, stage="maps", consistency=0.5)
    self.assertEqual(first.trains, ("maps",))
    self.assertIsNone(system.trains)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(system, params):
      def value(params):
        own = variables | {"params": params}
        loss = system.loss(own, batch(), jax.random.key(0), train=True)
        return loss.value.sum(), loss

      return jax.grad(value, has_aux=True)(params)

    grads, loss = gradient(first, variables["params"])
    some = lambda tree: max(np.abs(x).max() for x in jax.tree.leaves(tree))
    self.assertEqual(some(grads["net"]), 0)
    self.assertGreater(some(grads["maps"]), 0)
    codec = system.codec(variables)
    images = batch()
    latent = codec.latent(images["image"] / 127.5 - 1)
    said = system.said(variables, system.poor(variables, images["low"]))
    # One map of one cell: what is left is the mean of the latent.
    error = np.square(said[0][:, 0, 0] - latent.mean((1, 2))).mean(-1)
    np.testing.assert_allclose(loss.metrics["maps"], error, rtol=1e-4)
    np.testing.assert_allclose(
      loss.value, 1.5 * error, rtol=1e-4
    )  # of one map their sums are the maps themselves
    grads, loss = gradient(system, variables["params"])
    self.assertGreater(some(grads["net"]), 0)
    self.assertGreater(some(grads["maps"]), 0)
    # The given units count for nothing, and are those of the network.
    np.testing.assert_array_equal(system.weight()[: system.known], 0)
    np.testing.assert_allclose(loss.nll[:, : system.known], 0, atol=1e-5)
    np.testing.assert_array_equal(loss.units, 4)
    # Anchored, the network goes on to say what is left of the good image.
    anchored = dataclasses.replace(system, anchor=3.0)
    _, other = gradient(anchored, variables["params"])
    np.testing.assert_allclose(other.value, loss.value + 3 * error, rtol=1e-4)
    asked = lambda of: of.loss(
      variables, images, jax.random.key(0), train=False
    )
    np.testing.assert_array_equal(asked(anchored).value, asked(system).value)

  def test_given_maps_wrong_in_one_direction_make_later_bits_certain(self):
    maps = ScaledBits(4, ((1, 1), (2, 2), (2, 2), (2, 2)))
    f = jax.random.normal(jax.random.key(0), (50, 2, 2, 4))
    f /= jnp.linalg.norm(f, axis=-1, keepdims=True)
    of = lambda value: [
      jnp.full((50, h, w, 4), value) for h, w in maps.shapes[:3]
    ]
    behind = lambda said: given_maps.coded_behind(maps, f, said).units[:, 9:]
    self.assertEqual(behind(of(1.0)).max(), 0)
    self.assertEqual(behind(of(-1.0)).min(), 1)
    right = given_maps.coded_behind(maps, f, given_maps.left(maps, f, 3)).units[
      :, 9:
    ]
    self.assertBetween(float(right.mean()), 0.3, 0.7)

  def test_stored_examples_hold_no_units(self):
    """The network of maps learns, so its units are not to be kept."""
    system, variables = small()
    stored = system.encode(variables, batch() | {"view": np.zeros(2, int)})
    self.assertEqual({*stored}, {"low", "latent", "low_latent"})
    known = system.encode(variables, batch())
    said = system.said(variables, known["low_latent"])
    np.testing.assert_array_equal(
      known["units"][:, : system.known],
      system.known_units(said),
    )
    again = system.encode(variables, stored)
    self.assertEqual({*again}, {*stored})

  def test_poor_images_of_any_size(self):
    system, variables = small()
    low = batch()["low"]
    self.assertEqual(system.poor(variables, low).shape, (2, 2, 2, 4))
    large = jnp.asarray(low).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(
      system.poor(variables, large), system.poor(variables, low), atol=1e-5
    )
    draw = functools.partial(system.sample, colour="none")
    image = jax.eval_shape(draw, variables, {"low": large}, KEYS)
    self.assertEqual(image.shape, (2, 8, 8, 1))

  def test_of_a_picture_of_ones_own_no_truth_is_known(self):
    c = smoke.config("nsarm")
    system, variables = small()
    dataset, mesh = data.load(**c.data), parallel.make_mesh(c.mesh)
    draw = lambda: sample.draw(c, system, variables, dataset, 1, mesh)
    drawn = draw()
    pairs = [dataset.test[i] for i in range(len(dataset.test))]
    (pair,) = (
      x for x in pairs if np.array_equal(x["low"], drawn.cond["low"][0])
    )
    np.testing.assert_array_equal(drawn.truth["image"][0], pair["image"])
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
      Image.new("L", (8, 8), 90).save(file.name)
      c.sample.control = file.name
      self.assertEqual(draw().truth, {})

  def test_begins_as_an_infinity(self):
    system, variables = small()
    net = variables["params"]["net"]
    made = system.adopt("params", net)
    self.assertIs(made["net"], net)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shapes(made), shapes(variables["params"]))
    self.assertIs(system.adopt("params", made), made)
    self.assertIs(system.adopt("tokenizer", net), net)

  def test_wrong_use(self):
    system, variables = small()
    cond = {"low": batch()["low"]}
    for options, message in (
      (dict(guidance=2.0), "has no null class"),
      (dict(colour="blue"), "colour='blue'"),
    ):
      with self.assertRaisesRegex(UserError, message):
        system.sample(variables, cond, KEYS, **options)
    model = smoke.config("nsarm").model.to_dict()
    for change, message in (
      (dict(stage="one"), "stage='one'"),
      (dict(label_dropout=0.1), "words=False has none"),
      (dict(tokenizer=model["tokenizer"] | dict(scales=(1,))), "of 1 one must"),
      (dict(maps=dict(dims=(8, 8))), "2 dims, 7 layers"),
      (dict(maps=dict(width=8)), "maps: .*width"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("nsarm", **model | change)


if __name__ == "__main__":
  absltest.main()
