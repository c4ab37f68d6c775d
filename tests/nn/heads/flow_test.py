"""Flow and diffusion heads: invariants, counts, and laws that they learn."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core import prng
from ar_jax.core.errors import UserError
from ar_jax.core.flows import flow
from ar_jax.core.plans import entities, makers, plan
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.heads.codes import Bitwise
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import GroupTransformer, TokenMLP
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.positions import rope_scales
from ar_jax.nn.layers.times import TimeEmbed, sinusoids, thousandths
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone
from tests import optimised

KEY = jax.random.key(0)
CHANNELS, WIDTH = 3, 8


def filled(module, *args, seed=0, **kwargs):
  """Variables of large values, zeros nowhere."""
  shapes = jax.eval_shape(functools.partial(module.init, **kwargs), KEY, *args)
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * draw.normal(size=leaf.shape), jnp.float32),
    shapes,
  )


def fresh(module, *args, seed=0, **kwargs):
  """Variables as they begin, by one compiled program."""
  init = functools.partial(module.init, **kwargs)
  return jax.jit(init)(prng.key(seed), *args)


def inputs(units=5, batch=2):
  draw = np.random.default_rng(1)
  normal = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
  return (
    normal(batch, units, CHANNELS),
    jnp.full((batch, units), 300.0),
    normal(batch, units, WIDTH),
  )


class TimesTest(absltest.TestCase):
  def test_sinusoids(self):
    at = jnp.array([0.0, 300.0])
    got = sinusoids(at)
    rates = 10_000.0 ** (-np.arange(128) / 128)
    want = np.concatenate([np.cos(300 * rates), np.sin(300 * rates)])
    np.testing.assert_allclose(got[1], want, atol=1e-4)
    np.testing.assert_array_equal(got[0], [1.0] * 128 + [0.0] * 128)

  def test_whole_thousandths_of_a_grid(self):
    grid = np.linspace(0, 1, 51)
    got = thousandths(jnp.asarray(grid, jnp.float32))
    np.testing.assert_array_equal(got, np.round(1000 * (1 - grid)))
    self.assertEqual(float(thousandths(jnp.float32(0.70051))), 299.0)

  def test_embedding_is_two_linears(self):
    x = jnp.array([[3.0, 5.0]])
    embed = TimeEmbed(7)
    variables = filled(embed, x)
    p = variables["params"]
    h = sinusoids(x) @ p["fc1"]["kernel"] + p["fc1"]["bias"].reshape(1, 1, -1)
    want = nn.silu(h) @ p["fc2"]["kernel"] + p["fc2"]["bias"].reshape(1, 1, -1)
    np.testing.assert_allclose(embed.apply(variables, x), want, rtol=1e-4)


class NetsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("B", 768, 6, 1024, 35_749_920),
    ("L", 1024, 8, 1280, 72_230_432),
    ("H", 1280, 12, 1536, 151_206_944),
  )
  def test_parameters_of_mar(self, _, width, depth, w, count):
    net = TokenMLP(16, w, depth, 32)
    x, h = jnp.zeros((1, 1, 16)), jnp.zeros((1, 1, width))
    shapes = jax.eval_shape(net.init, KEY, x, jnp.zeros((1, 1)), h)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    self.assertEqual(sum(sizes), count)

  def test_output_begins_at_zero_and_the_loss_at_that_of_zero(self):
    x, at, h = inputs(units=600)
    for net in (TokenMLP(CHANNELS, 16, 2, CHANNELS),
                GroupTransformer(CHANNELS, 16, 1, 2)):  # fmt: skip
      run = jax.jit(net.init_with_output)
      out, _ = run(KEY, x[:, :2], at[:, :2], h[:, :2])
      np.testing.assert_array_equal(out, 0)
    head = Flow(TokenMLP(CHANNELS, 16, 2, CHANNELS), repeats=4)
    keys = jax.random.split(KEY, 2)
    variables = fresh(head, h[:, :2], x[:, :2], keys, method="loss")
    run = jax.jit(functools.partial(head.apply, method="loss"))
    loss = run(variables, h, x, keys)
    want = 1 + float(jnp.mean(x**2))
    self.assertAlmostEqual(float(loss.mean()) / want, 1, delta=0.03)
    head = Diffusion(TokenMLP(CHANNELS, 16, 2, 2 * CHANNELS))
    variables = fresh(head, h[:, :2], x[:, :2], keys, method="terms")
    run = jax.jit(functools.partial(head.apply, method="terms"))
    error, _ = run(variables, h, x, keys)
    self.assertAlmostEqual(float(error.mean()), 1, delta=0.03)

  def test_who_sees_whom(self):
    x, at, h = inputs()
    steps = plan.plan((2, 3), plan.within)
    for net, mask, reach in (
      (TokenMLP(CHANNELS, 16, 2, CHANNELS), None, slice(1, 2)),
      (GroupTransformer(CHANNELS, 16, 2, 2), steps, slice(0, 2)),
      (GroupTransformer(CHANNELS, 16, 2, 2, cross=True), steps, slice(0, 2)),
    ):
      run = jax.jit(functools.partial(net.apply, mask=mask))
      variables = filled(net, x, at, h, mask=mask)
      before = run(variables, x, at, h)
      for after in (run(variables, x.at[:, 1].add(1.0), at, h),
                    run(variables, x, at, h.at[:, 1].add(1.0))):  # fmt: skip
        moved = np.any(np.asarray(before) != after, (0, 2))
        want = np.zeros(5, bool)
        want[reach] = True
        np.testing.assert_array_equal(moved, want)

  def test_a_plan_of_steps_is_each_step_alone(self):
    x, at, h = inputs(units=5)
    steps = makers.scales((1, 2), plan.within)
    pos = rope_scales((1, 2), 8)
    for cross in (False, True):
      net = GroupTransformer(CHANNELS, 16, 2, 2, cross=cross)
      variables = filled(net, x, at, h, mask=steps, pos=pos)

      @jax.jit
      def every(variables, net=net):
        whole = net.apply(variables, x, at, h, mask=steps, pos=pos)
        parts = [
          net.apply(variables, x[:, i], at[:, i], h[:, i], pos=pos[i])
          for i in map(steps.span, range(2))
        ]
        return whole, jnp.concatenate(parts, 1)

      whole, parts = every(variables)
      np.testing.assert_allclose(whole, parts, atol=1e-5)


class GuidanceTest(absltest.TestCase):
  def test_scales(self):
    x, _, h = inputs(units=4)
    null = h[::-1]
    keys = jax.random.split(KEY, 2)
    flow_head = Flow(TokenMLP(CHANNELS, 16, 1, CHANNELS))
    diffusion = Diffusion(TokenMLP(CHANNELS, 16, 1, 2 * CHANNELS), levels=50)
    for head, options in (
      (flow_head, dict(times=4)),
      (flow_head, dict(times=(0.0, 0.5, 1.0), solver="heun")),
      (diffusion, dict(steps=5)),
    ):
      variables = filled(head, h, x, keys, method="loss")
      # Loud noise drowns what is compared.
      variables = jax.tree.map(lambda x: 0.3 * x, variables)
      draw = jax.jit(functools.partial(head.apply, method="draw", **options))
      plain, other = draw(variables, h, keys), draw(variables, null, keys)
      self.assertGreater(float(jnp.abs(plain - other).max()), 1e-3)
      guided = functools.partial(draw, variables, h, keys, h_null=null)
      np.testing.assert_allclose(guided(scale=1.0), plain, atol=1e-5)
      if head is flow_head:  # of the other, only the noise is guided
        np.testing.assert_allclose(guided(scale=0.0), other, atol=1e-5)
      self.assertGreater(float(jnp.abs(guided(scale=3.0) - plain).max()), 1e-3)

  def test_interval_and_examples(self):
    x, _, h = inputs(units=4)
    keys = jax.random.split(KEY, 2)
    head = Flow(TokenMLP(CHANNELS, 16, 1, CHANNELS))
    variables = filled(head, h, x, keys, method="loss")
    options = dict(method="draw", h_null=h[::-1], scale=4.0, times=4)

    @jax.jit
    def every(variables):
      never = head.apply(variables, h, keys, interval=(2.0, 3.0), **options)
      draw = functools.partial(head.apply, method="draw", times=4)
      plain = draw(variables, h, keys)
      return never, plain, draw(variables, h[1:], keys[1:])

    never, plain, alone = every(variables)
    np.testing.assert_allclose(never, plain, atol=1e-5)
    np.testing.assert_allclose(plain[1:], alone, atol=1e-5)


def trained(head, target, steps, batch, seed=0):
  """Variables of a head after Adam on target(key) -> (h, x), and one loss."""
  h, x = target(KEY)
  keys = jax.random.split(KEY, len(x))
  variables = fresh(head, h, x, keys, seed=seed, method="loss")
  tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

  def objective(variables, key):
    h, x = target(key)
    keys = jax.random.split(key, len(x))
    return head.apply(variables, h, x, keys, method="loss").mean()

  @optimised.jit
  def run(variables):
    def step(carry, i):
      variables, opt = carry
      key = jax.random.fold_in(KEY, i)
      gradient = jax.grad(objective)(variables, key)
      change, opt = tx.update(gradient, opt)
      return (optax.apply_updates(variables, change), opt), None

    carry = variables, tx.init(variables)
    return jax.lax.scan(step, carry, jnp.arange(steps))[0][0]

  return run(variables)


# A ring: by class k of 8, the target lies at one of three angles.
def ring(key, n=256):
  kk, km, kn = jax.random.split(key, 3)
  k, m = jax.random.randint(kk, (n,), 0, 8), jax.random.randint(km, (n,), 0, 3)
  angle = 2 * jnp.pi * (k / 8 + m / 3)
  x = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
  x = x + 0.05 * jax.random.normal(kn, (n, 2))
  return jax.nn.one_hot(k, 8)[:, None], x[:, None]


def near_and_shares(x, k):
  """Share within 0.15 of a mode of class k, and counts of the modes."""
  angle = 2 * np.pi * (k[:, None] / 8 + np.arange(3) / 3)
  modes = np.stack([np.cos(angle), np.sin(angle)], -1)
  distance = np.linalg.norm(x[:, None] - modes, axis=-1)
  close = distance.min(1) < 0.15
  return close.mean(), np.bincount(distance.argmin(1), minlength=3)


class LearnedTest(absltest.TestCase):
  def check(self, head, **options):
    variables = trained(head, ring, 1000, 256)
    k = np.arange(600) % 8
    h = jnp.asarray(np.eye(8)[k][:, None], jnp.float32)
    keys = jax.random.split(jax.random.key(5), len(k))
    draw = optimised.jit(
      functools.partial(head.apply, method="draw", **options)
    )
    x = np.asarray(draw(variables, h, keys))[:, 0]
    near, counts = near_and_shares(x, k)
    # A Gaussian of each class has 0.03 of its mass there.
    self.assertGreater(near, 0.85)
    self.assertGreater(stats.chisquare(counts).pvalue, 1e-4)
    return variables

  def test_flow_of_a_ring(self):
    head = Flow(TokenMLP(2, 64, 2, 2), times=flow.Times("logit_normal"))
    variables = self.check(head, times=20)
    # The density that the flow reports is near that of the data.
    h, x = ring(jax.random.key(9), 64)
    law = functools.partial(head.apply, method="nll", times=40)
    nll = optimised.jit(law)(variables, h, x)
    want = math.log(3) + math.log(2 * math.pi * 0.05**2) + 1
    self.assertAlmostEqual(float(nll.mean()), want, delta=0.7)

  def test_diffusion_of_a_ring(self):
    head = Diffusion(TokenMLP(2, 64, 2, 4), repeats=2)
    # Over few of the cosine levels, a small error of the first is multiplied.
    variables = self.check(head, steps=250)
    h, x = ring(jax.random.key(9), 32)
    keys = jax.random.split(KEY, 32)
    law = functools.partial(head.apply, method="nll", steps=1000)
    bound = optimised.jit(law)(variables, h, x, keys)
    want = math.log(3) + math.log(2 * math.pi * 0.05**2) + 1
    self.assertGreater(float(bound.mean()), want - 0.3)
    self.assertLess(float(bound.mean()), want + 2.0)

  def test_groups_have_no_likelihood_of_units(self):
    x, _, h = inputs()
    head = Flow(GroupTransformer(CHANNELS, 16, 1, 2))
    with self.assertRaisesRegex(UserError, "event=2"):
      head.init(KEY, h, x, method="nll")

  def test_group_flow_of_a_gaussian(self):
    # Targets N(1, 0.3^2) whatever h says: mean and variance come back.
    head = Flow(GroupTransformer(1, 32, 1, 2))

    def target(key):
      a, b = jax.random.split(key)
      h = jax.random.normal(a, (64, 4, 8))
      return h, 1 + 0.3 * jax.random.normal(b, (64, 4, 1))

    variables = trained(head, target, 600, 64)
    n = 1000
    h = jax.random.normal(KEY, (n, 4, 8))
    keys = jax.random.split(jax.random.key(7), n)
    draw = functools.partial(head.apply, method="draw", times=40)
    x = optimised.jit(draw)(variables, h, keys)
    # Learned, so three standard errors and what training leaves.
    self.assertAlmostEqual(float(x.mean()), 1.0, delta=0.06)
    self.assertAlmostEqual(float(x.std()), 0.3, delta=0.06)


class Wearer(nn.Module):
  """A backbone over any plan: a step reads the mean of the one before."""

  plan: plan.Plan
  backbone: Backbone
  head: nn.Module
  features: int

  @nn.compact
  def __call__(self, units, keys):
    p, x = self.plan, units.reshape(*units.shape[:2], -1)
    x = jax.nn.one_hot(x[..., 0], self.features) if x.shape[-1] == 1 else x
    means = [x[:, p.span(s)].mean(1) for s in range(p.steps)]
    means = jnp.stack([jnp.zeros_like(means[0]), *means[:-1]], 1)
    x = nn.Dense(WIDTH)(means[:, p.step_of()])
    slots = self.param("slots", nn.initializers.normal(1.0), (len(p), WIDTH))
    h, _ = self.backbone(x + slots[None], p)
    loss = self.head.loss(h, units, keys, plan=p)
    drawn = self.head.draw(h[:, p.span(p.steps - 1)], keys)
    return loss, drawn


HEADS = {
  "categorical": (lambda: Categorical(6), 6, "ids"),
  "bitwise": (lambda: Bitwise(4), 4, "bits"),
  "mlp flow": (lambda: Flow(TokenMLP(4, 16, 1, 4)), 4, "numbers"),
  "transformer flow": (
    lambda: Flow(GroupTransformer(4, 16, 1, 2)), 4, "numbers",
  ),
}  # fmt: skip
PLANS = {
  "raster": makers.raster(2, 2),
  "scales": makers.scales((1, 2)),
  "cells": entities.cells(2, 4, 2),
}


class AnyHeadOnAnyBackboneTest(parameterized.TestCase):
  @parameterized.product(head=tuple(HEADS), order=tuple(PLANS))
  def test_trains(self, head, order):
    make, features, kind = HEADS[head]
    p = PLANS[order]
    draw = np.random.default_rng(0)
    shape = (4, len(p))
    units = {
      "ids": draw.integers(6, size=shape),
      "bits": draw.integers(2, size=(*shape, 4)),
      "numbers": draw.normal(size=(*shape, 4)).astype(np.float32),
    }[kind]
    backbone = Backbone(
      PlainBlock(Attention(2), Mlp(16), rms=False),
      1,
      out_norm=nn.LayerNorm(),
    )
    net = Wearer(p, backbone, make(), features)
    keys = jax.random.split(KEY, 4)
    tx = optax.adam(1e-2)

    params = filled(net, units, keys)["params"]

    def objective(params):
      loss, drawn = net.apply({"params": params}, units, keys)
      return loss.mean(), drawn

    @jax.jit
    def run(params):
      def step(carry, _):
        params, opt = carry
        (loss, drawn), g = jax.value_and_grad(objective, has_aux=True)(params)
        change, opt = tx.update(g, opt)
        return (optax.apply_updates(params, change), opt), (loss, drawn)

      _, out = jax.lax.scan(step, (params, tx.init(params)), None, 8)
      return out

    losses, drawn = run(params)
    self.assertTrue(np.isfinite(losses).all())
    self.assertLess(losses[-1], losses[0])  # the noise is always the same
    last = p.sizes[-1]
    want = (8, 4, last) if kind == "ids" else (8, 4, last, 4)
    self.assertEqual(drawn.shape, want)
    if kind == "numbers":
      self.assertTrue(np.isfinite(drawn).all())
    else:
      self.assertLess(drawn.max(), 6 if kind == "ids" else 2)


if __name__ == "__main__":
  absltest.main()
