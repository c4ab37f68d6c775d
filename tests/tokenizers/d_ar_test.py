"""D-AR: "It works when", line by line, and what may be chosen. The number of
parameters is in tests/configs_test.py."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core.flows import flow, solvers
from ar_jax.core.system import UserError, build
from ar_jax.tokenizers.group_diffusion import GroupDiffusion, group_of
from tests import filled

MODEL = dict(
  vocab=16, channels=4, length=6, groups=3, rows=7, width=8, heads=2,
  depths=(1, 1, 1), size=8, in_channels=1, patch=4, pixel_patch=4,
)  # fmt: skip


def image(n=2):
  return np.random.default_rng(0).integers(256, size=(n, 8, 8, 1), dtype="u1")


@functools.cache
def model():
  """(system, variables), whose gates are not zero."""
  system = build("d_ar", **MODEL)
  batch = {"image": jnp.asarray(image())}
  return system, filled.variables(system, batch=batch)


def bound():
  system, variables = model()
  return system.tokenizer.bind({"params": variables["params"]["tokenizer"]})


class StepsTest(absltest.TestCase):
  def test_groups_of_times(self):
    tau = (np.arange(1600) + 0.5) / 1600
    count = np.bincount(group_of(jnp.asarray(tau), 8)) / 1600
    np.testing.assert_allclose(count, [1 / 16, *[1 / 8] * 6, 3 / 16])
    edges = (np.arange(8) + 0.5) / 8
    np.testing.assert_array_equal(
      group_of(jnp.asarray(edges), 8), [1, 2, 3, 4, 5, 6, 7, 7]
    )

  def test_a_straight_way_ends_at_the_data(self):
    """By every solver and schedule, and by every preview."""
    rng = np.random.default_rng(1)
    data, noise = (jnp.asarray(rng.normal(size=(2, 8, 8, 1))) for _ in "ab")
    data = (0.3 * data).clip(-0.6, 0.6)
    net = bound()
    straight = mock.patch.object(
      GroupDiffusion, "velocity", lambda *_: (data - noise, None)
    )
    with straight:
      for solver in solvers.SLOPES:
        for shift in (1.0, 2.0, 5.0):
          own = net.clone(solver=solver, shift=shift)
          carry, states = (noise, jnp.zeros_like(noise)), jnp.zeros((2, 6, 8))
          for group in range(3):
            carry, shown = own.step(states, carry, group)
            np.testing.assert_allclose(0.6 * shown, data, atol=1e-5)
          np.testing.assert_allclose(carry[0], data, atol=1e-5)
      # It may begin late, with an image at the noise of that time.
      silent = mock.patch.object(
        GroupDiffusion, "states", lambda *_: jnp.zeros((2, 6, 8))
      )
      drawn = mock.patch.object(GroupDiffusion, "noise", lambda *_: noise)
      with silent, drawn:
        units = jnp.zeros((2, 6), int)
        late = net.decode(units, start=2, image=data / net.std)
      np.testing.assert_allclose(0.6 * late, data, atol=1e-5)
    # On a bent way the weights tell: x' = 2 t.
    times = flow.shift(solvers.uniform_grid(8), 2.0)
    ends = {
      name: float(
        solvers.integrate(lambda x, t: 2 * t, jnp.zeros(()), times, name)
      )
      for name in solvers.SLOPES
    }
    steps = np.diff(times)
    own = 3 * times[1:-1] - times[:-2]
    fixed = 2 * times[0] * steps[0] + (own * steps[1:]).sum()
    self.assertAlmostEqual(ends["adams_bashforth_fixed"], fixed, places=5)
    self.assertAlmostEqual(ends["adams_bashforth"], 1, delta=0.01)
    self.assertLess(ends["euler"], ends["adams_bashforth"] - 0.1)

  def test_a_step_sees_its_group_and_those_before(self):
    net = bound()
    rng = np.random.default_rng(2)
    units = jnp.asarray(rng.integers(16, size=(2, 6)))
    # Without keys there is one noise; what is no whole group does not count.
    previews, part = jax.jit(net.previews), jax.jit(net.decode_part)
    shown, grey = previews(units), part(units, 1)
    np.testing.assert_array_equal(grey, jnp.zeros_like(grey))
    for done in (2, 5, 6):
      now = part(units, done)
      np.testing.assert_allclose(now, shown[done // 2 - 1], atol=1e-6)
    for at in range(6):
      other = units.at[:, at].set((units[:, at] + 5) % 16)
      moved, group = previews(other), at // 2
      np.testing.assert_array_equal(moved[:group], shown[:group])
      for n in range(group, 3):
        self.assertGreater(np.abs(moved[n] - shown[n]).max(), 1e-6, (at, n))


class EncoderTest(absltest.TestCase):
  def test_queries_see_patches_and_those_before(self):
    system, variables = model()
    params = variables["params"]["tokenizer"]
    x = jnp.asarray(image() / 127.5 - 1, jnp.float32)
    run = jax.jit(
      lambda queries, x: system.tokenizer.apply(
        {"params": {**params, "queries": queries}}, x, method="latent"
      )
    )
    before = run(params["queries"], x)
    for j in range(6):
      moved = np.abs(run(params["queries"].at[j].add(1.0), x) - before)
      self.assertEqual(moved[:, :j].max(initial=0), 0)
      self.assertGreater(moved[:, j:].max(-1).min(), 0)
    moved = np.abs(run(params["queries"], x.at[:, 4, 4].add(0.5)) - before)
    self.assertGreater(moved.max(-1).min(), 0)
    with self.assertRaisesRegex(UserError, "takes 8x8"):
      jax.eval_shape(lambda: bound().latent(jnp.zeros((1, 4, 4, 1))))


class TrainingTest(absltest.TestCase):
  def test_terms_and_what_is_compared_with(self):
    variables = model()[1]
    batch = {"image": jnp.asarray(image(4))}
    key = jax.random.key(0)
    others = {
      sees: build("d_ar", **MODEL, sees=sees) for sees in ("shuffled", "all")
    }
    loss = jax.jit(
      lambda: {
        sees: own.loss(variables, batch, key, train=sees == "all")
        for sees, own in others.items()
      }
    )()
    values = [of.value for of in loss.values()]
    self.assertGreater(np.abs(values[0] - values[1]).min(), 1e-6)
    own = loss["shuffled"].metrics
    np.testing.assert_allclose(
      loss["shuffled"].value,
      own["flow"] + own["codebook_loss"] + own["commit_loss"],
      rtol=1e-5,
    )
    # A step that sees all shows what is known of it by then.
    net = others["all"].tokenizer.bind(
      {"params": variables["params"]["tokenizer"]}
    )
    units = jnp.zeros((2, 6), jnp.int32)
    shown = jax.jit(net.previews)
    first, moved = shown(units), shown(units.at[:, 2].set(3))
    np.testing.assert_array_equal(first[0], moved[0])
    self.assertGreater(np.abs(first - moved)[1:].max((1, 2, 3, 4)).min(), 0)

  def test_options_and_the_evaluator(self):
    system, variables = model()
    batch = {"image": jnp.asarray(image())}
    keys = jax.random.split(jax.random.key(0), 2)
    draw = functools.partial(system.sample, variables, batch, keys)
    strip = jax.eval_shape(lambda: draw(previews=True))
    self.assertEqual(strip.shape, (2, 8, 24, 1))
    for wrong, said in (
      (dict(groups=4), "groups=4: must be in 1..3"),
      (dict(groups=2, previews=True), "leave groups"),
      (dict(start=3), "start=3"),
    ):
      with self.assertRaisesRegex(UserError, said):
        jax.eval_shape(functools.partial(draw, **wrong))

  def test_the_evaluator(self):
    class Fading:
      """Misses an image by 0.2 after one group and by 0.1 after two."""

      makes = ("image",)

      def units(self, variables, batch):
        return jnp.zeros((len(batch["image"]), 2), jnp.int32)

      def previews(self, variables, units, keys):
        true = variables["true"]
        return jnp.stack([true + 0.2, true - 0.1])

    true = jnp.asarray(image(4), jnp.float32) / 255
    mask = np.array([1.0, 1.0, 1.0, 0.0])
    batch = {"image": jnp.asarray(image(4)), "mask": mask}
    key = jax.random.key(1)
    for n, count in ((0, 3), (2, 2)):
      judge = evals.build("previews", None, n=n)
      found = judge(Fading(), {"true": true}, [batch], key)
      self.assertEqual(found["protocol"]["images"], count)
      self.assertAlmostEqual(found["mse_1"], 0.04, places=6)
      self.assertAlmostEqual(found["psnr_2"], 20, places=3)
      self.assertTrue(found["falls"])
    with self.assertRaisesRegex(UserError, "shows nothing before"):
      evals.check_system("previews", {}, build("vq", size=16))

  def test_bad_arguments(self):
    for wrong, said in (
      (dict(length=7), "length=7"),
      (dict(rows=5), "at most rows=5"),
      (dict(patch=3), "multiple of patch=3"),
      (dict(sees="half"), "sees='half'"),
      (dict(solver="rk4"), "solver='rk4'"),
      (dict(heads=3), "heads=3"),
      (dict(depths=(1, 1)), "three"),
      (dict(align=dict(depth=1)), "weight, layer"),
      (dict(align=dict(features=4, side=3)), "3x3"),
      (dict(align=dict(features=4, side=2)), "align.layer=8"),
      (dict(gan_adaptive=True), "gan_adaptive"),
    ):
      with self.assertRaisesRegex(UserError, said):
        build("d_ar", **MODEL | wrong)


class GeneratorTest(absltest.TestCase):
  def test_previews_while_codes_are_drawn(self):
    codes = {"name": "d_ar", **MODEL}
    system = build(
      "llamagen", tokenizer=codes, depth=1, width=16, heads=2, num_classes=3,
      multiple_of=16, prefix_rope="line",
    )  # fmt: skip
    variables = filled.variables(system)
    cond = {"label": jnp.arange(2)}
    keys = jax.random.split(jax.random.key(0), 2)
    options = dict(guidance=2.0, schedule="ramp", start=1.2)
    strip = jax.jit(
      lambda: system.sample(variables, cond, keys, previews=True, **options)
    )()
    shown = list(system.stream(variables, cond, keys, **options))
    self.assertLen(shown, 3)
    np.testing.assert_allclose(np.concatenate(shown, 2), strip, atol=1e-5)
    with self.assertRaisesRegex(UserError, "a group has 2"):
      next(system.stream(variables, cond, keys, every=3))


if __name__ == "__main__":
  absltest.main()
