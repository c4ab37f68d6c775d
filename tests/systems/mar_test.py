"""MAR: masked models at static shapes, orders, guidance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import refine
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from tests import filled

TINY = dict(
  tokenizer=dict(name="patches", size=8, patch=2),
  depth=1,
  width=16,
  heads=2,
  head_depth=1,
  head_width=16,
  num_classes=3,
  prefix=2,
  repeats=2,
  levels=50,
)
LENGTH = 16


class RefineTest(absltest.TestCase):
  def test_cosine_steps(self):
    self.assertEqual(makers.cosine(256, 8), (5, 15, 24, 31, 39, 45, 48, 49))
    self.assertEqual(makers.cosine(256, 256), (1,) * 256)
    for length in (1, 7, 16, 256):
      for steps in range(1, length + 1):
        sizes = makers.cosine(length, steps)
        self.assertEqual((len(sizes), sum(sizes)), (steps, length))
        self.assertGreaterEqual(min(sizes), 1)
    with self.assertRaisesRegex(UserError, "17 steps for 16 units"):
      makers.cosine(16, 17)

  def test_stretches_cover_the_steps(self):
    for waste in (0.0, 0.5, 3.0):
      sizes = makers.cosine(64, 20)
      runs = refine.stretches(sizes, waste)
      self.assertEqual(sum((r.sizes for r in runs), ()), sizes)
      self.assertEqual([r.before for r in runs],
                       [sum(sizes[: r.start]) for r in runs])  # fmt: skip
      for r in runs:
        self.assertLessEqual(r.width, (1 + waste) * min(r.sizes))
        self.assertEqual(r.rows, r.before + sum(r.sizes[:-1]))

  def test_every_place_is_drawn_once_and_sees_those_before(self):
    b, length = 3, 16
    keys = jax.random.split(jax.random.key(0), b)
    order = jax.vmap(lambda k: jax.random.permutation(k, length))(keys)

    def predict(canvas, known, at, s, keys, *, rows):
      # What is drawn tells the step and how much was known: 0 is unknown.
      seen = jnp.sum(canvas[..., 0] > 0, 1)
      shape = at.shape
      return jnp.stack(
        [
          jnp.broadcast_to(s + 1, shape),
          jnp.broadcast_to(seen[:, None], shape),
          jnp.broadcast_to(known, shape),
          jnp.broadcast_to(rows, shape),
        ],
        -1,
      )

    sizes = makers.cosine(length, 6)
    canvas = jnp.zeros((b, length, 4), jnp.int32)
    run = jax.jit(
      lambda canvas, order, keys: refine.refine(
        predict, canvas, order, sizes, keys
      )
    )
    out = np.asarray(run(canvas, order, keys))
    step = np.repeat(np.arange(len(sizes)), sizes)
    before = np.cumsum(sizes) - sizes
    for row, places in zip(out, np.asarray(order), strict=True):
      drawn = row[places]
      np.testing.assert_array_equal(drawn[:, 0], step + 1)
      np.testing.assert_array_equal(drawn[:, 1], before[step])
      np.testing.assert_array_equal(drawn[:, 2], before[step])
      self.assertTrue((drawn[:, 3] >= drawn[:, 2]).all())


class MARTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("mar", **TINY)
    cls.variables = filled.variables(cls.system)
    cls.keys = jax.random.split(jax.random.key(3), 2)
    draw = np.random.default_rng(0)
    cls.units = jnp.asarray(draw.normal(size=(2, LENGTH, 4)), jnp.float32)
    cls.label = jnp.array([0, 2])
    cls.order = cls.system.orders(cls.keys)
    net, params = cls.system.net, {"params": cls.variables["params"]}
    cls.hidden_states = staticmethod(
      jax.jit(functools.partial(net.apply, params), static_argnames="rows")
    )

  def states(self, units, known, rows):
    return self.hidden_states(self.label, units, self.order, known, rows=rows)

  def test_dropping_is_masking(self):
    # Gathering just the visible units is what the paper does; more rows, up
    # to all of them, are masked as keys.
    want = self.states(self.units, 5, 5)
    for rows in (9, LENGTH):
      got = self.states(self.units, 5, rows)
      np.testing.assert_allclose(got, want, atol=1e-5)

  def test_hidden_units_are_not_seen_and_visible_ones_are(self):
    before = self.states(self.units, 5, 9)
    late = self.order[:, 5:]
    rows = jnp.arange(2)[:, None]
    other = self.units.at[rows, late].add(100.0)
    np.testing.assert_array_equal(before, self.states(other, 5, 9))
    seen = self.units.at[rows, self.order[:, 4:5]].add(1.0)
    moved = jnp.abs(self.states(seen, 5, 9) - before).max((0, 2))
    self.assertGreater(float(moved.min()), 0)

  def test_orders(self):
    order = np.asarray(self.order)
    self.assertTrue((np.sort(order, 1) == np.arange(LENGTH)).all())
    self.assertFalse((order[0] == order[1]).all())
    raster = build("mar", **TINY | dict(order="raster"))
    order = np.asarray(raster.orders(self.keys))
    np.testing.assert_array_equal(order, [np.arange(LENGTH)] * 2)

  def test_share_hidden(self):
    # Of 256 units, as published: normal about 1, cut at 0.7; 180 at least.
    system = build("mar", **TINY | dict(
      tokenizer=dict(name="patches", size=16)))  # fmt: skip
    self.assertEqual(system.rows, 76)
    keys = jax.random.split(jax.random.key(0), 20_000)
    hidden = np.asarray(jax.vmap(system.hidden)(keys))
    self.assertGreaterEqual(hidden.min(), 180)
    self.assertLessEqual(hidden.max(), 256)
    # The mean of a normal law cut on one side, by its density and mass.
    z = 0.3 / 0.25
    density = lambda x: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    mass = 0.384930  # of a normal law within [0, 1.2]
    want = 1 - 0.25 * (density(0) - density(z)) / mass
    self.assertAlmostEqual((hidden / 256).mean(), want + 0.5 / 256, delta=2e-3)
    uniform = build("mar", **TINY | dict(mask_std=None, mask_low=0.0))
    self.assertEqual(uniform.rows, LENGTH)
    hidden = np.asarray(jax.vmap(uniform.hidden)(keys[:4000]))
    self.assertEqual((hidden.min(), hidden.max()), (1, LENGTH))
    self.assertAlmostEqual(hidden.mean(), 8.5, delta=0.2)

  def test_a_head_of_zeros_predicts_no_noise(self):
    system, key = self.system, jax.random.key(1)
    variables = jax.tree_util.tree_map_with_path(
      lambda path, x: 0 * x if "'out'" in str(path[-2]) else x, self.variables
    )
    image = np.random.default_rng(0).integers(256, size=(64, 8, 8, 1))
    batch = {"image": image, "label": np.zeros(64, int)}
    loss = jax.jit(functools.partial(system.loss, train=True))(
      variables, batch, key
    )
    self.assertAlmostEqual(float(loss.metrics["mse"].mean()), 1, delta=0.06)
    np.testing.assert_allclose(
      loss.value, loss.metrics["mse"] + loss.metrics["bits"], rtol=1e-5
    )

  def test_guidance(self):
    cond = {"label": self.label}
    run = lambda **options: np.asarray(
      jax.jit(
        functools.partial(self.system.generate, steps=3, denoise=3, **options)
      )(self.variables, cond, self.keys)
    )
    plain = run()
    self.assertEqual(plain.shape, (2, LENGTH, 4))
    self.assertGreater(np.abs(plain - run(guidance=3.0)).max(), 1e-3)

  def test_scales_of_guidance(self):
    scales = self.system.scales(3.0, "linear", makers.cosine(256, 8))
    known = np.cumsum([5, 15, 24, 31, 39, 45, 48, 48])
    np.testing.assert_allclose(scales, 1 + 2 * known / 256, rtol=1e-6)
    scales = self.system.scales(3.0, "constant", (1, 2))
    np.testing.assert_array_equal(scales, [3, 3])

  def test_bad_arguments(self):
    run = lambda **options: self.system.generate(
      self.variables, {"label": self.label}, self.keys, **options
    )
    with self.assertRaisesRegex(UserError, "schedule='ramp'"):
      run(guidance=2.0, schedule="ramp")
    with self.assertRaisesRegex(UserError, "no null class"):
      system = build("mar", **TINY | dict(label_dropout=0.0))
      system.generate(
        self.variables, {"label": self.label}, self.keys, guidance=2.0
      )
    for wrong in (dict(order="spiral"), dict(head="softmax"),
                  dict(mask_low=1.0), dict(width=15)):  # fmt: skip
      name = next(iter(wrong))
      with self.assertRaisesRegex(UserError, name):
        build("mar", **TINY | wrong)


if __name__ == "__main__":
  absltest.main()
