"""FlowAR: the pyramid, leaks, caches, guidance, the published grid."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.flows import flow, solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.positions import rope_scales
from ar_jax.systems import flowar
from tests import filled

TINY = dict(
  tokenizer=dict(name="patches", size=8, patch=2),
  depth=1,
  width=16,
  heads=2,
  head_depth=1,
  head_width=16,
  head_heads=2,
  num_classes=3,
)
SIDES, LENGTH = (1, 2, 4), 21


class PlainTest(absltest.TestCase):
  def test_grid(self):
    points = flowar.grid(25)
    self.assertLen(points, 25)  # 24 steps
    noise = 1 - points
    np.testing.assert_allclose(noise[:12], np.linspace(1, 0.3, 12))
    np.testing.assert_allclose(noise[12:], np.linspace(0.25, 0, 13), atol=1e-12)
    np.testing.assert_allclose(np.diff(flowar.grid(50)), 0.02)
    self.assertLen(flowar.grid(50), 51)
    with self.assertRaisesRegex(UserError, "times=3"):
      flowar.grid(3)

  def test_pairs_of_the_published_plan(self):
    p = makers.scales((1, 2, 4, 8, 16))
    self.assertLen(p, 341)
    self.assertEqual(p.pairs(), 93_093)

  def test_coarse_cells_lie_on_the_ground_of_fine_ones(self):
    table = rope_scales((1, 2, 16), 8)
    p = makers.scales((1, 2, 16))
    fine = {(r, c): table[i] for i, (r, c) in enumerate(
      zip(p["row"], p["col"], strict=True)) if i >= 5}  # fmt: skip
    np.testing.assert_allclose(table[0], fine[0, 0])
    for i, (r, c) in enumerate(((0, 0), (0, 8), (8, 0), (8, 8))):
      np.testing.assert_allclose(table[1 + i], fine[r, c], atol=1e-6)

  def test_one_step_is_exact_without_spread(self):
    # Data at a point m: the velocity (m - x) / (1 - t) leads there at once.
    m = jnp.array([[[1.5, -2.0]]])
    velocity = lambda x, t: (m - x) / (1 - t)
    x = jax.random.normal(jax.random.key(0), (1, 1, 2))
    np.testing.assert_allclose(
      solvers.integrate(velocity, x, (0.0, 1.0)), m, atol=1e-6
    )
    np.testing.assert_allclose(
      flow.LINEAR.convert("velocity", velocity(x, 0.0), x, 0.0).data,
      m,
      atol=1e-6,
    )


class FlowARTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("flowar", **TINY)
    cls.variables = filled.variables(cls.system)
    draw = np.random.default_rng(0)
    cls.targets = jnp.asarray(draw.normal(size=(2, LENGTH, 4)), jnp.float32)
    cls.label = jnp.array([0, 2])
    cls.keys = jax.random.split(jax.random.key(3), 2)
    cls.states = staticmethod(jax.jit(cls.system.states))

  def test_pyramid(self):
    units = self.targets[:, -16:]
    got = self.system.targets(units)
    self.assertEqual(got.shape, (2, LENGTH, 4))
    grid = np.asarray(units).reshape(2, 4, 4, 4)
    np.testing.assert_allclose(got[:, 0], grid.mean((1, 2)), atol=1e-6)
    two = grid.reshape(2, 2, 2, 2, 2, 4).mean((2, 4)).reshape(2, 4, 4)
    np.testing.assert_allclose(got[:, 1:5], two, atol=1e-6)
    np.testing.assert_array_equal(got[:, 5:], units)

  def test_a_flat_map_tells_a_flat_one(self):
    for s, (p, q) in enumerate(((1, 2), (2, 4))):
      flat = jnp.full((2, p * p, 4), 0.7)
      got = self.system.following(s, flat)
      self.assertEqual(got.shape, (2, q * q, 4))
      np.testing.assert_allclose(got, 0.7, atol=1e-5)

  def test_no_leak(self):
    before = self.states(self.variables, self.label, self.targets)
    p = self.system.plan
    for s in range(p.steps):
      at = p.span(s)
      other = self.targets.at[:, at].add(1.0)
      after = self.states(self.variables, self.label, other)
      moved = jnp.abs(after - before).max((0, 2))
      np.testing.assert_array_equal(moved[: at.stop], 0)
      if s + 1 < p.steps:
        self.assertGreater(float(moved[p.span(s + 1)].min()), 0)

  def test_cached_is_uncached(self):
    net = self.system.net.bind({"params": self.variables["params"]})
    want = self.states(self.variables, self.label, self.targets)

    @jax.jit
    def cached(label, targets):
      x, cond = net.begin(label)
      cache, out, p = net.cache(2), [], self.system.plan
      for s in range(p.steps):
        h, cache = net.step(s, x, cond, cache)
        out.append(h)
        if s + 1 < p.steps:
          x = net.latent(self.system.following(s, targets[:, p.span(s)]))
      return jnp.concatenate(out, 1)

    np.testing.assert_allclose(
      cached(self.label, self.targets), want, rtol=1e-4, atol=1e-4
    )

  def test_loss_weighs_positions_alike(self):
    units = self.targets[:, -16:]
    batch = {
      "label": self.label,
      "units": jnp.concatenate([units, jnp.full_like(units, -30)], -1),
    }
    loss = jax.jit(functools.partial(self.system.loss, train=False))(
      self.variables, batch, jax.random.key(0)
    )
    parts = [loss.metrics[f"mse/scale_{s + 1}"] for s in range(3)]
    want = (parts[0] + 4 * parts[1] + 16 * parts[2]) / 16
    np.testing.assert_allclose(loss.value, want, rtol=1e-5)

  def test_guidance(self):
    # Two maps are enough, and compile in half the time.
    system = build(
      "flowar", **TINY | dict(tokenizer=dict(name="patches", size=4, patch=2))
    )
    variables = filled.variables(system)
    run = lambda **options: np.asarray(
      jax.jit(functools.partial(system.generate, times=4, **options))(
        variables, {"label": self.label}, self.keys
      )
    )
    plain, guided = run(), run(guidance=3.0)
    self.assertEqual(plain.shape, (2, 5, 4))
    # Nothing guides the first map, and everything the others.
    np.testing.assert_allclose(guided[:, :1], plain[:, :1], atol=1e-5)
    difference = np.abs(guided - plain).max((0, 2))[1:]
    self.assertGreater(difference.min(), 1e-5)
    # No time has less noise than none.
    never = run(guidance=3.0, guide_until=-1.0)
    np.testing.assert_allclose(never, plain, atol=1e-4)

  def test_bad_arguments(self):
    for wrong, name in (
      (dict(width=18), "width=18"),
      (dict(head_width=18), "head_width=18"),
      (dict(tokenizer=dict(name="patches", size=12, patch=2)), "power of 2"),
    ):
      with self.assertRaisesRegex(UserError, name):
        build("flowar", **TINY | wrong)
    with self.assertRaisesRegex(UserError, "no null class"):
      build("flowar", **TINY | dict(label_dropout=0.0)).generate(
        self.variables, {"label": self.label}, self.keys, guidance=2.0
      )


if __name__ == "__main__":
  absltest.main()
