"""Published weights of Hi-MAR: there and back, and the same outputs."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import hi_mar as convert
from ar_jax.core.decoding import refine
from ar_jax.core.flows import ddpm, solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.masked import phases, shares
from ar_jax.nn.heads.flow import NoiseHead
from tests import golden_weights, optimised

DESCRIPTION, OUTPUTS = golden_weights.load("himar_model")
STATE = golden_weights.weights(DESCRIPTION)
SMALL, DENSE = 16, 64
LABEL = np.array([3, 7])
# Theirs hides the first of an order, so the last come first.
ORDERS = {
  SMALL: OUTPUTS["orders"][:, :SMALL][:, ::-1],
  DENSE: OUTPUTS["orders"][:, SMALL:][:, ::-1] - SMALL,
}
tensor = golden_weights.tensor
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)


def units(x):
  """[B, L, C] of maps [B, C, h, w]."""
  return jnp.asarray(np.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2))


@functools.cache
def model():
  """(system, params)."""
  config = convert.config(STATE, heads=2, map_heads=4)["model"]
  params = convert.to_ours(STATE, heads=2, map_heads=4)
  return build("hi_mar", **config), params


class ModelTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    params = model()[1]
    back = convert.to_official(params)
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    places = OUTPUTS["pos_embed_dit"][None]
    buffers = {
      f"cond_diffloss.net.{k}": places for k in ("pos_embed", "c_pos_embed")
    }
    convert.to_ours(STATE | buffers, heads=2)  # which are not stored

  def test_outputs_of_the_official_model(self):
    system, params = model()
    net = system.net.bind({"params": params})
    few = units(tensor("small", (2, 16, 4, 4)))
    whole = units(tensor("latent", (2, 16, 8, 8)))
    # The golden rows came in raster order.
    seen = {SMALL: 4, DENSE: 24}
    at = {n: jnp.sort(jnp.asarray(ORDERS[n][:, :k])) for n, k in seen.items()}
    levels = ddpm.cosine()
    x1 = jnp.asarray(tensor("x_t1", (5, 16)))
    x2, noise2 = (units(tensor(n, (2, 16, 8, 8))) for n in ("x_t2", "noise2"))
    noise1 = tensor("noise1", (32, 16)).reshape(2, 16, 16)
    t1, t2 = np.array([0, 137, 500, 801, 999]), np.array([137, 801])
    train = system.__class__(
      system.net, system.tokenizer, system.small, pivot_rate=0.5, pivot_ramp=100
    )

    @jax.jit
    def run():
      found = {}
      take = lambda x, n: jnp.take_along_axis(x, at[n][..., None], 1)
      x = net.small_latent(take(few, SMALL))
      found["encoder1"] = h = net.encode(0, LABEL, x, at[SMALL], 4)
      h = net.decode(0, h, at[SMALL], 4)[:, :SMALL]
      found["decoder1_small"] = h
      own = jnp.broadcast_to(jnp.arange(SMALL), (2, SMALL))
      slots = jnp.concatenate([own, SMALL + at[DENSE]], 1)
      rest = net.latent(take(whole, DENSE))
      hidden = phases.hidden(jnp.asarray(ORDERS[SMALL]), 4)
      shown = train.shown(
        net, h, few, hidden, jnp.array([0.2, 0.95]), jnp.array([50, 50])
      )
      for name, pivots in (
        ("encoder2_train", shown), ("encoder2", net.hidden_pivots(h))
      ):  # fmt: skip
        rows = jnp.concatenate([pivots, rest], 1)
        found[name] = net.encode(1, LABEL, rows, slots, SMALL + 24)
      z = net.decode(1, found["encoder2"], slots, SMALL + 24)[:, SMALL:]
      found["decoder2_dense"] = z
      found["mlp_head"] = net.head.net(x1[None], t1[None], h[:1, :5])[0]
      at2 = jnp.broadcast_to(t2[:, None], (2, DENSE))
      found["dit_head"] = net.map_head.net(x2, at2, z)
      level = 20 + 30 * np.arange(32).reshape(2, 16)
      out = net.head.net(levels.noisy(few, noise1, level), level, h)
      guess, r = jnp.split(out, 2, -1)
      each = sum(levels.losses(guess, r, few, jnp.asarray(noise1), level))
      found["loss1_per_token"] = each.reshape(-1)
      found["loss1"] = jnp.sum(each * hidden) / jnp.sum(hidden)
      hidden = phases.hidden(jnp.asarray(ORDERS[DENSE]), 24)
      found["loss2"] = net.map_head.clone(repeats=1, name="map_head").loss(
        z, whole, t2, hidden
      )
      return found

    given = lambda self, keys, *xs: (keys, jnp.asarray(t2), *xs)
    with (
      mock.patch.object(NoiseHead, "_repeated", given),
      mock.patch.object(jax.random, "randint", lambda key, *_: key),
      mock.patch.object(solvers, "noise", lambda *_: noise2),
    ):
      found = run()
    loss2 = np.asarray(found.pop("loss2")).mean(1)
    close(loss2, OUTPUTS["loss2_per_image"])
    close(loss2.mean(), OUTPUTS["loss2"])
    self.assertEqual(OUTPUTS["dit_head"].shape, (2, 16, 8, 8))
    found["dit_head"] = np.moveaxis(found["dit_head"], 2, 1).reshape(
      2, 16, 8, 8
    )
    for name, got in found.items():
      scale = max(1.0, np.abs(OUTPUTS[name]).max())
      close(got, OUTPUTS[name], atol=2e-5 * scale, err_msg=name)
    # Single steps down, by what the heads have said.
    out, h = found["mlp_head"], jnp.asarray(found["decoder1_small"][:1, :5])
    maps = {n: OUTPUTS[f"timestep_map_head{n}"] for n in (1, 2)}
    chain = levels.only(maps[1])
    fresh = tensor("step_noise", (5, 16))
    for got, level in zip(OUTPUTS["p_sample_head1"], (0, 2, 7), strict=True):
      at1 = np.full((1, 5), maps[1][level])
      out = net.head.net(x1[None], at1, h)[0]
      mean, log = chain.down(*jnp.split(out, 2, -1), x1, np.full(5, level))
      want = mean + 0.9 * (level > 0) * jnp.exp(0.5 * log) * fresh
      close(want, got, atol=1e-4 * np.abs(got).max())
    chain, fresh = (
      levels.only(maps[2]),
      units(tensor("step_noise", (2, 16, 8, 8))),
    )
    z = jnp.asarray(found["decoder2_dense"])
    for got, level in zip(OUTPUTS["p_sample_head2"], (0, 3), strict=True):
      at2 = jnp.full((2, DENSE), maps[2][level])
      guess = net.map_head.net(x2, at2, z)
      mean, log = chain.down(guess, jnp.ones_like(guess), x2, at2 * 0 + level)
      want = mean + (level > 0) * jnp.exp(0.5 * log) * fresh
      close(want, units(got), atol=1e-4 * np.abs(got).max())

  def test_levels_and_places(self):
    for n in (250, 100):
      np.testing.assert_array_equal(
        ddpm.cosine().respaced(n).names, OUTPUTS[f"timestep_map_{n}"]
      )

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "width 64 is no published Hi-MAR"):
      convert.config(STATE)
    with self.assertRaisesRegex(UserError, "no class_emb.weight"):
      convert.config({})


class SamplerTest(absltest.TestCase):
  def test_numbers_of_units_and_scales_of_guidance(self):
    want = golden_weights.load("himar_sampler")[1]
    for n, steps in ((64, 32), (256, 4), (256, 12), (256, 64)):
      sizes = makers.cosine(n, steps)
      np.testing.assert_array_equal(sizes, want[f"reveal_{n}_{steps}"])
    for phase, s, sizes in ((1, 1.7, (16, 16)), (2, 2.5, (64, 3))):
      sizes = makers.cosine(*sizes)
      np.testing.assert_array_equal(sizes, want[f"reveal{phase}"])
      scales = shares.scales(s, "linear", sizes)
      np.testing.assert_allclose(scales, want[f"cfg{phase}"], rtol=1e-6)

  def test_latents_with_orders_and_noise_given(self):
    system, params = model()
    want = golden_weights.load("himar_sampler")[1]
    names = ("init", *range(9))
    table = {
      n: np.stack([
        np.stack([units(tensor(f"p{phase}.{k}.{j}", shape)) for j in names])
        for k in range(steps)
      ])
      for n, phase, shape, steps in (
        (SMALL, 1, (2, 16, 16), 16), (DENSE, 2, (2, 16, 8, 8), 3)
      )
    }  # fmt: skip
    # Units come behind channels in maps alone.
    table[SMALL] = np.stack([
      np.stack([tensor(f"p1.{k}.{j}", (2, 16, 16)) for j in names])
      for k in range(16)
    ])  # fmt: skip
    now = []  # (units, step, places), while a step is traced

    def given(keys, shape, level=0):
      n, step, at = now[-1]
      noise = jnp.asarray(table[n])[step, 9 - level]
      if shape[0] == n:
        return noise
      return jnp.take_along_axis(noise, at[..., None], 1)

    def refined(predict, canvas, *args, **options):
      def placed(canvas, known, at, s, keys, **rest):
        now.append((canvas.shape[1], s, at))
        return predict(canvas, known, at, s, keys, **rest)

      return whole(placed, canvas, *args, **options)

    def sample(params):
      variables, keys = {"params": params}, jax.random.split(jax.random.key(0))
      cond = {"label": jnp.asarray(LABEL)}
      dense = system.generate(
        variables, cond, keys, steps=3, guidance=2.5, small_guidance=1.7,
        denoise=11, map_denoise=12,
      )  # fmt: skip
      return first[-1], dense

    first, small_phase = [], phases.small  # the units of the first phase

    def small_units(*args, **options):
      found = small_phase(*args, **options)
      first.append(found[0])
      return found

    whole, maps = refine.refine, (
      OUTPUTS["timestep_map_head1"], OUTPUTS["timestep_map_head2"],
    )  # fmt: skip
    with (
      mock.patch.object(
        phases, "orders", lambda keys, n: jnp.asarray(ORDERS[n])
      ),
      mock.patch.object(solvers, "noise", given),
      mock.patch.object(refine, "refine", refined),
      mock.patch.object(phases, "small", small_units),
      mock.patch.object(
        ddpm.Levels, "respaced", lambda self, n: self.only(maps[n - 11])
      ),
    ):
      small, dense = optimised.jit(sample)(params)
    for got, name in ((small, "small"), (dense, "dense")):
      own = units(want[name])
      np.testing.assert_allclose(
        got, own, rtol=1e-3, atol=1e-4 * np.abs(own).max(), err_msg=name
      )


if __name__ == "__main__":
  absltest.main()
