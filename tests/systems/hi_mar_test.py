"""Hi-MAR: "It works when", line by line, and what may be chosen."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.nn.stacks.phased import phased_vit
from ar_jax.nn.stacks.vit import vit
from tests import filled

MODEL = dict(
  tokenizer=dict(name="patches", size=8, patch=2), depth=1, width=16, heads=2,
  head=(1, 16), map_head=(1, 16, 2), num_classes=3, prefix=2, repeats=1,
  levels=50, dropout=0.0,
)  # fmt: skip
SMALL, DENSE, C = 4, 16, 4
KEYS = jax.random.split(jax.random.key(3), 2)
DRAW = dict(steps=2, denoise=3, map_denoise=3)


@functools.cache
def model():
  """(system, variables)."""
  system = build("hi_mar", **MODEL)
  return system, filled.variables(system)


def images(n=8):
  image = np.random.default_rng(0).integers(256, size=(n, 8, 8, 1))
  return {"image": jnp.asarray(image, jnp.uint8), "label": jnp.arange(n) % 3}


class NetTest(absltest.TestCase):
  def test_phases_begin_as_plain_layers(self):
    own = dict(depth=2, width=16, heads=2, dropout=0.0)
    phased, plain = phased_vit(**own), vit(**own)
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    init = lambda net: net(x, cond=net.condition(0))
    params = phased.init(jax.random.key(1), method=init)["params"]
    rest = {k: v for k, v in params.items() if k != "ada"}
    want = plain.apply({"params": rest}, x)[0]

    @jax.jit
    def call(params, phase_of):
      run = lambda phase: phased.apply(
        {"params": params},
        x,
        method=lambda net, x: net(x, cond=net.condition(phase))[0],
      )
      return [run(p) for p in phase_of]

    for got in call(params, [0, 1]):
      np.testing.assert_allclose(got, want, atol=1e-6)
    ada = jax.tree.map(lambda x: x + 0.1, params["ada"])
    one, two = call({**params, "ada": ada}, [0, 1])
    self.assertGreater(float(jnp.abs(one - two).max()), 1e-3)

  def test_no_gradient_through_pivots_into_the_first_phase(self):
    system, variables = model()
    batch = system.encode(variables, images())

    @jax.jit
    def grads(params, key):
      def loss(params):
        own = {**variables, "params": params}
        found = system.loss(own, batch, key, train=False).metrics
        return found["loss/whole"].mean()

      return jax.grad(loss)(params)

    found = grads(variables["params"], jax.random.key(0))
    size = lambda x: float(jnp.abs(x).max())
    for name in ("encoder_slots", "decoder_slots", "hidden"):
      n = len(found[name]) // 2  # those of the first phase come first
      self.assertEqual(size(found[name][:n]), 0, name)
      self.assertGreater(size(found[name][n:]), 0, name)
    for name in ("scale", "shift"):
      own = found["encoder"]["ada"][name]
      self.assertEqual(size(own[:, 0]), 0)
      self.assertGreater(size(own[:, 1]), 0)
    self.assertGreater(size(found["pivot"]["kernel"]), 0)

  def test_known_units_come_out_as_they_went_in(self):
    system, variables = model()
    rng = np.random.default_rng(1)
    h = rng.normal(size=(2, DENSE, 16)).astype(np.float32)
    units = jnp.asarray(rng.normal(size=(2, DENSE, C)), jnp.float32)
    known = jnp.asarray(rng.random((2, DENSE)) < 0.5)

    @jax.jit
    def draw(units):
      return system.net.apply(
        {"params": variables["params"]},
        method=lambda net: net.map_head.clone(
          levels=1000, name="map_head"
        ).draw(h, KEYS, known=known, units=units, steps=50),
      )

    found = np.asarray(draw(units))
    # The last step takes away the noise of the first level alone, of 0.006.
    apart = np.abs(found - units)[np.asarray(known)]
    self.assertLess(apart.max(), 0.1)
    self.assertGreater(np.abs(found - units)[~np.asarray(known)].max(), 0.3)
    # What is not known is not read, and what is known is.
    other = draw(jnp.where(known[..., None], units, 9.0))
    np.testing.assert_array_equal(other, found)
    other = np.asarray(draw(jnp.where(known[..., None], -units, units)))
    self.assertGreater(np.abs(other - found)[~np.asarray(known)].max(), 1e-4)


class SystemTest(absltest.TestCase):
  def test_steps_and_passes_as_published(self):
    self.assertEqual(makers.cosine(256, 4), (20, 55, 84, 97))
    for steps in (4, 12):
      self.assertEqual(sum(makers.cosine(256, steps)), 256)
    config = importlib.import_module("configs.hi_mar").get_config("paper")
    system = build("hi_mar", **config.model.to_dict())
    options = config.sample.options.to_dict()
    self.assertEqual(system.forwards(**options), 36)
    self.assertEqual(system.map_forwards(**options), 1000)
    self.assertEqual((system.net.small, system.net.dense), (64, 256))

  def test_small_images(self):
    system = build("hi_mar", **MODEL, method="area")
    batch = images(2)
    found = system.encode({"tokenizer": {}}, batch)["small_units"]
    x = batch["image"].astype(jnp.float32) / 127.5 - 1
    mean = x.reshape(2, 4, 2, 4, 2).mean((2, 4))  # of squares of 2 x 2
    want = mean.reshape(2, 2, 2, 2, 2).swapaxes(2, 3).reshape(2, SMALL, C)
    np.testing.assert_allclose(found[..., :C], want, atol=1e-5)

  def test_losses_of_heads_that_say_nothing(self):
    # Both are means of the squared noise, the second over all units.
    system, variables = model()
    silent = jax.tree_util.tree_map_with_path(
      lambda path, x: 0 * x if "'out'" in str(path[-2]) else x, variables
    )
    run = jax.jit(functools.partial(system.loss, train=True))
    found = [run(silent, images(64), jax.random.key(i)) for i in range(8)]
    mean = lambda name: np.mean([f.metrics[f"loss/{name}"] for f in found])
    # One of u: the mean of cos(pi u / 2) is 2 / pi, and of 8 draws less sure.
    self.assertAlmostEqual(mean("whole"), 2 / np.pi, delta=0.25)
    whole, small = (found[0].metrics[f"loss/{n}"] for n in ("whole", "small"))
    np.testing.assert_allclose(
      found[0].value, 0.2 * 2 * small + 0.8 * 0.75 * whole, rtol=1e-5
    )
    self.assertGreater(small.min(), 0)
    masked = np.round(16 * np.mean(whole))  # within the noise of 64 images
    self.assertAlmostEqual(16 * np.mean(whole), masked, delta=0.45)

  def test_which_images_see_their_pivots(self):
    system = build("hi_mar", **MODEL, pivot_rate=0.5, pivot_ramp=100)
    token = build("hi_mar", **MODEL, pivot_rate=0.5, pivots="token")
    variables = model()[1]
    h = jax.random.normal(KEYS[0], (3, SMALL, 16))
    few = jax.random.normal(KEYS[1], (3, SMALL, C))
    hidden = jnp.array([[1.0, 1, 1, 0]] * 3)
    chance, step = jnp.array([0.2, 0.6, 0.95]), jnp.array([50] * 3)
    bound = system.net.bind({"params": variables["params"]})
    blank = np.asarray(bound.blank_pivots())[0]
    equal = lambda x: (np.abs(x - blank) < 1e-6).all(-1)
    shown = lambda system, *rest: np.asarray(
      system.shown(bound, h, few, hidden, *rest)
    )
    ramp = equal(shown(system, chance, step))
    np.testing.assert_array_equal(ramp[:2], np.ones((2, SMALL)))
    np.testing.assert_array_equal(ramp[2], [0, 0, 0, 1])  # it was known
    self.assertFalse(equal(shown(system, chance))[1, 0])  # the ramp is over
    tokens = equal(shown(token, chance))
    np.testing.assert_array_equal(tokens.all(1), [1, 0, 0])
    self.assertFalse(tokens[1:].any())  # clean ones, known or not
    self.assertFalse(equal(shown(system, None))[:, :3].any())

  def test_draws(self):
    system, variables = model()
    token = build("hi_mar", **MODEL, pivots="token")
    cond = {"label": jnp.array([0, 2])}

    @jax.jit
    def draw(variables):
      run = lambda system, **more: system.generate(
        variables, cond, KEYS, **DRAW, **more
      )
      return run(system, blank=True), run(token, guidance=2.0)

    blank, guided = (np.asarray(x) for x in draw(variables))
    for x in (blank, guided):
      self.assertEqual(x.shape, (2, DENSE, C))
      self.assertTrue(np.isfinite(x).all())
    self.assertGreater(np.abs(blank - guided).max(), 1e-3)

  def test_bad_arguments(self):
    system, variables = model()
    run = lambda **options: system.generate(
      variables, {"label": jnp.zeros(2, int)}, KEYS, **options
    )
    with self.assertRaisesRegex(UserError, "schedule='ramp'"):
      run(schedule="ramp")
    with self.assertRaisesRegex(UserError, "17 steps for 16 units"):
      run(steps=17, blank=True)
    with self.assertRaisesRegex(UserError, "without small_units"):
      units = jnp.zeros((2, DENSE, 2 * C))
      batch = {"units": units, "label": jnp.zeros(2, int)}
      system.loss(variables, batch, KEYS[0], train=False)
    odd = dict(name="patches", size=6, patch=2)
    for wrong in (dict(pivots="noise"), dict(method="nearest"),
                  dict(mask_low=1.0), dict(pivot_rate=1.5), dict(width=15),
                  dict(tokenizer=odd)):  # fmt: skip
      name = next(iter(wrong)).replace("tokenizer", "size")
      with self.assertRaisesRegex(UserError, name):
        build("hi_mar", **MODEL | wrong)


if __name__ == "__main__":
  absltest.main()
