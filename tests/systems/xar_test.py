"""xAR against the official model and its own mathematics."""

import functools
import itertools
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import xar as convert
from ar_jax.core.decoding.steps import fold
from ar_jax.core.flows import flow, solvers
from ar_jax.core.system import UserError, build
from ar_jax.families.entity.net import NextEntity
from ar_jax.systems import xar
from tests import filled, golden_weights

TOKENIZER = dict(name="kl_vae", in_channels=1, ch=8, mult=(1, 2), blocks=1)
TOKENIZER |= dict(attention=(), channels=2, size=8, scale=0.5)
SMALL = dict(tokenizer=TOKENIZER, depth=2, width=16, heads=2, num_classes=3)
LABEL, KEYS = jnp.array([2, 0]), jax.random.split(jax.random.key(5), 2)


@functools.cache
def small(entity="cell", part=2, **kwargs):
  """A system over 4 x 4 latents and its variables."""
  system = build("xar", **SMALL, entity=entity, part=part, **kwargs)
  return system, filled.variables(system)


@functools.partial(jax.jit, static_argnums=0)
def velocity(system, variables, x, label, t, context=None):
  """Of all entities, in one pass without a cache."""
  params = {"params": variables["params"]}
  return system.net.apply(params, x, label, t, context=context)


def generate(system, variables, **options):
  run = lambda v: system.generate(v, {"label": LABEL}, KEYS, **options)
  return jax.jit(run)(variables)


def reference(system, variables, steps, guidance, last):
  """The published sampler, in its own time: t = 1 is noise. Everything is
  computed again in every evaluation."""
  p, channels = system.plan, system.tokenizer.channels
  x = np.zeros((2, len(p), channels), np.float32)
  times = np.append(np.linspace(1, last, steps), 0)
  null = jnp.full_like(LABEL, system.null)
  for e in range(p.steps):
    own, at = fold(KEYS, e), p.span(e)
    shape = (p.sizes[e], channels)
    x[:, at] = solvers.noise(fold(own, 0), shape)
    scale = 1 + (guidance - 1) * e / max(1, p.steps - 1)
    for i, (t, to) in enumerate(itertools.pairwise(times)):
      noisy = jnp.zeros((2, p.steps)).at[:, e:].set(t)
      # Their velocity is noise - data, and ours the other way round.
      v = [-velocity(system, variables, x, c, 1 - noisy) for c in (LABEL, null)]
      d = [(2 - t) * np.asarray(y[:, at]) + x[:, at] for y in v]
      x[:, at] += (d[1] + scale * (d[0] - d[1])) * (to - t)
      if to > 0:
        noise = solvers.noise(fold(own, 1), shape, i)
        x[:, at] += np.sqrt(2 * t * (t - to)) * np.asarray(noise)
  return x


class GoldenTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    description, cls.expected = golden_weights.load("xar_transformer")
    state = golden_weights.weights(description)
    config = convert.config(state, heads=2)["model"]
    cls.system = build("xar", **config)
    cls.variables = {"params": convert.to_ours(state, heads=2)}
    cls.label = jnp.array(description["config"]["labels"])
    official = [[0.1, 0.7], [0.35, 0.9], [0.5, 0.05], [0.8, 0.25]]
    cls.t = jnp.asarray(1 - np.float32(official).T)

  def test_velocity(self):
    v = velocity(
      self.system,
      self.variables,
      self.expected["noisy_cells"],
      self.label,
      self.t,
    )
    want = self.expected["velocity"]
    np.testing.assert_allclose(-v, want, rtol=1e-4, atol=1e-4)

  def test_noisy_cells_and_target(self):
    latent = golden_weights.tensor("latent", (2, 16, 16, 16))
    latent = np.moveaxis(latent, 1, -1).reshape(2, 256, 16)
    x = latent[:, self.system.raster()]
    noise = golden_weights.tensor("noise", (4, 2, 64, 16))
    noise = noise.swapaxes(0, 1).reshape(2, 256, 16)
    t = self.t[:, self.system.plan.step_of()]
    noisy, v = flow.LINEAR.noisy(x, noise, t), flow.LINEAR.velocity(x, noise, t)
    np.testing.assert_allclose(noisy, self.expected["noisy_cells"], atol=1e-6)
    np.testing.assert_allclose(-v, self.expected["target"], atol=1e-6)


class XARTest(parameterized.TestCase):
  def data(self, system):
    draw = np.random.default_rng(0).normal
    p = system.plan
    x = draw(size=(2, len(p), 2)).astype(np.float32)
    t = np.float32([[0.9, 0.2, 0.5, 0.1], [0.3, 0.3, 1.0, 0.0]])[:, : p.steps]
    return x, t

  def test_who_sees_whom(self):
    system, variables = small()
    x, t = self.data(system)
    before = velocity(system, variables, x, LABEL, t)
    for s in range(4):
      at, other = system.plan.span(s), x.copy()
      other[:, at] += 1
      later = t.copy()
      later[:, s] = 0.7
      for args in ((other, t), (x, later)):
        after = velocity(system, variables, args[0], LABEL, args[1])
        moved = np.abs(after - before).max((0, 2)) > 0
        self.assertFalse(moved[: at.start].any())
        self.assertTrue(moved[at.start :].all())

  def test_a_clean_context_hides_the_noise(self):
    system, variables = small()
    x, t = self.data(system)
    context = x[::-1]
    see = lambda x, c: velocity(system, variables, x, LABEL, t, c)
    before, own = see(x, context), system.plan.span(1)
    other = x.copy()
    other[:, own] += 1
    moved = np.abs(see(other, context) - before).max((0, 2)) > 0
    np.testing.assert_array_equal(moved, system.plan.step_of() == 1)
    other = context.copy()
    other[:, own] += 1
    moved = np.abs(see(x, other) - before).max((0, 2)) > 0
    np.testing.assert_array_equal(moved, system.plan.step_of() > 1)

  @parameterized.parameters(("cell", 2), ("scale", (1, 4)))
  def test_cached_equals_uncached(self, entity, part):
    system, variables = small(entity, part)
    x, _ = self.data(system)
    p, net = system.plan, system.net
    params = {"params": variables["params"]}

    @jax.jit
    def stepwise(x, t):
      step = functools.partial(net.apply, params, method="step")
      caches = net.apply(params, 2, traced=net.even, method="caches")
      parts = []
      for s in range(p.steps):
        at = p.span(s)
        args = at.start, x[:, at], LABEL
        parts.append(step(*args, t, caches)[0])
        _, caches = step(*args, jnp.float32(1), caches)
      return parts

    parts = stepwise(x, jnp.float32(0.35))
    for s, part in enumerate(parts):
      t = np.ones((2, p.steps), np.float32)
      t[:, s:] = 0.35
      whole = velocity(system, variables, x, LABEL, t)[:, p.span(s)]
      np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(("cell", 2), ("scale", (1, 4)))
  def test_the_sampler_is_the_published_one(self, entity, part):
    system, variables = small(entity, part)
    fed, step = [], NextEntity.step
    options = dict(steps=3, guidance=2.5, last=0.1)

    def counted(net, start, x, label, t, caches):
      jax.debug.callback(lambda: fed.append(x.shape[1]))
      return step(net, start, x, label, t, caches)

    with unittest.mock.patch.object(NextEntity, "step", counted):
      trail = entity == "cell"  # the other without
      got = generate(system, variables, **options, trail=trail)
      jax.effects_barrier()
    want = reference(system, variables, **options)
    if trail:
      self.assertEqual(got.shape, (2, 16, 3, 2))
      self.check_frames(system, got)
      got = got[:, :, -1]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    # E S T + (E - 1) T for equal entities; pairs for guidance count once.
    self.assertEqual(sum(fed), system.slots_read(steps=3))
    self.assertLen(fed, system.forwards(steps=3))
    if entity == "cell":
      self.assertEqual(sum(fed), 4 * 3 * 4 + 3 * 4)

  def check_frames(self, system, way):
    frames, step = system.frames(way), system.plan.step_of()
    self.assertEqual(frames.shape, (12, 2, 16, 2))
    np.testing.assert_array_equal(frames[-1], way[:, :, -1])
    middle = np.asarray(frames[4])  # the second step of the second cell
    way = np.asarray(way)
    for cells, want in (
      (step < 1, way[:, step < 1, -1]),
      (step == 1, way[:, step == 1, 1]),
      (step > 1, 0 * way[:, step > 1, 0]),
    ):
      np.testing.assert_array_equal(middle[:, cells], want)

  def test_published_cost(self):
    published = build(
      "xar", tokenizer={"name": "kl_vae"}, num_classes=1000, **xar.SIZES["b"]
    )
    self.assertEqual(published.plan.sizes, (64,) * 4)
    self.assertEqual(published.slots_read(steps=40), 4 * 40 * 64 + 3 * 64)
    self.assertEqual(published.forwards(steps=40), 160 + 3)
    self.assertEqual(published.forwards(steps=5, method="heun"), 40 + 3)

  @parameterized.parameters(("subsample", 2), ("scale", (1, 2, 4)))
  def test_units_there_and_back(self, entity, part):
    system, variables = small(entity, part)
    image = jax.random.randint(jax.random.key(0), (2, 8, 8, 1), 0, 256)
    image = image.astype(jnp.uint8)

    @jax.jit
    def both(variables, image):
      tokenizer = system.codec(variables)
      units = system.encode(variables, {"image": image})["units"]
      rebuilt = system.decode(variables, system.parts(tokenizer.draw(units)))
      signed = image.astype(jnp.float32) / 127.5 - 1
      return units, rebuilt, tokenizer.decode(tokenizer.encode(signed))

    units, rebuilt, want = both(variables, image)
    self.assertEqual(units.shape, (2, 16, 4))
    np.testing.assert_allclose(rebuilt, (want + 1) / 2, atol=1e-5)

  def test_scales_are_means_of_the_drawn_latents(self):
    system, _ = small("scale", (1, 2, 4))
    x = np.random.default_rng(1).normal(size=(2, 16, 2)).astype(np.float32)
    parts = system.parts(jnp.asarray(x))
    np.testing.assert_allclose(parts[:, 0], x.mean(1), atol=1e-6)
    corner = x.reshape(2, 4, 4, 2)[:, :2, 2:].mean((1, 2))
    np.testing.assert_allclose(parts[:, 2], corner, atol=1e-6)
    np.testing.assert_array_equal(parts[:, 5:], x)

  def test_wrong_values(self):
    for values, message in (
      (dict(depth=3), "depth=3"),
      (dict(heads=3), "not a multiple of heads=3"),
      (dict(context="dirty"), "context='dirty'"),
      (dict(entity="line"), "entity='line'"),
      (dict(part=3), "parts of 3"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("xar", **SMALL | values)
    system, variables = small()
    without, _ = small(label_dropout=0.0)
    for chosen, options, message in (
      (system, dict(steps=1), "steps=1"),
      (system, dict(last=0.0), "last=0.0"),
      (system, dict(method="rk4"), "method='rk4'"),
      (without, dict(guidance=2.0), "no null class"),
    ):
      with self.assertRaisesRegex(UserError, message):
        chosen.generate(variables, {"label": LABEL}, KEYS, **options)


if __name__ == "__main__":
  absltest.main()
