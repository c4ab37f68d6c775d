"""FlexVAR against its own mathematics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.plans import makers, scale_list
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError
from ar_jax.nn.layers.positions import GridEmbed, grid_weights
from ar_jax.systems import flexvar
from tests.systems import scale_models

LISTS = ((1, 2, 4), (1, 3, 4), (1, 2, 3))


@functools.partial(jax.jit, static_argnums=0)
def _logits(system, variables, batch, sides):
  targets = system.targets_of(
    variables, batch, jax.random.key(0), sides, train=False
  )
  return targets, system.predict(
    variables, targets, system.teacher_inputs(variables, targets)
  )


def logits(system, variables, batch, sides):
  """(targets, logits) for a list that is data, one program for all."""
  padded = np.zeros(4, np.int32)
  padded[: len(sides)] = sides
  return _logits(system, variables, batch, padded)


@functools.partial(jax.jit, static_argnums=(0, 1))
def stepwise(system, sides, variables, label, units):
  """Logits by the cached steps of the sampler."""
  there = system.over(sides)
  net, p = there.bound(variables), there.plan
  embedding = there.codec(variables).embed(units)
  x, cond = net.begin(label)
  cache, parts = net.cache(len(label)), []
  for s in range(p.steps):
    if s:
      x = net.latent(embedding[:, p.span(s)])
    h, cache = net.step(s, x, cond, cache)
    parts.append(net.head.logits(h))
  return jnp.concatenate(parts, 1)


class ListsAsDataTest(absltest.TestCase):
  def test_cached_steps_equal_one_pass_of_any_list(self):
    system, variables = scale_models.flexvar()
    batch = scale_models.units(system)
    before = _logits._cache_size()
    for sides in LISTS:
      targets, all_at_once = logits(system, variables, batch, sides)
      n = sum(p * p for p in sides)
      self.assertEqual(int((targets.level >= 0).sum()), n)
      steps = stepwise(
        system, sides, variables, batch["label"], targets.units[:, :n]
      )
      np.testing.assert_allclose(steps, all_at_once[:, :n], atol=1e-4)
    self.assertEqual(_logits._cache_size() - before, 1)

  def test_later_maps_do_not_leak(self):
    system, variables = scale_models.flexvar()
    batch = scale_models.units(system)
    whole = jnp.concatenate([batch["units"], batch["others"]], axis=1)
    begin = dict(zip(system.sizes, (0, 1, 5, 21), strict=True))
    for sides in LISTS:
      _, before = logits(system, variables, batch, sides)
      first = 0
      for side in sides[:-1]:
        at = slice(begin[side], begin[side] + side**2)
        other = whole.at[:, at].set((whole[:, at] + 1) % 16)
        other = {**batch, "units": other[:, :21], "others": other[:, 21:]}
        _, after = logits(system, variables, other, sides)
        moved = np.abs(before - after).max((0, 2)) > 0
        first += side**2
        self.assertFalse(moved[:first].any())
        self.assertTrue(moved[first:].any())
        # A map that is not in the list does not count at all.
      absent = ({1, 2, 3, 4} - set(sides)).pop()
      at = slice(begin[absent], begin[absent] + absent**2)
      other = whole.at[:, at].set((whole[:, at] + 1) % 16)
      other = {**batch, "units": other[:, :21], "others": other[:, 21:]}
      _, after = logits(system, variables, other, sides)
      np.testing.assert_array_equal(before, after)

  def test_what_a_slot_is_told(self):
    draw = np.random.default_rng(0)
    codes = draw.normal(size=(2, 40, 3)).astype(np.float32)
    sides = (1, 2, 3, 4, 5)
    batch = jax.jit(
      lambda codes, given: scale_list.previous_map(
        codes, scale_list.layout(given, 40), sides
      )
    )
    for given in ((1, 3, 5, 0), (1, 2, 3, 4)):
      p = makers.scales([side for side in given if side])
      got = batch(codes, np.array(given))
      for s in range(1, p.steps):
        side = given[s - 1]
        last = codes[:, p.span(s - 1)].reshape(2, side, side, 3)
        want = resize(last, (given[s],) * 2, "bicubic").reshape(2, -1, 3)
        np.testing.assert_allclose(got[:, p.span(s)], want, atol=1e-5)
      np.testing.assert_array_equal(got[:, len(p) :], 0)

  def test_loss_counts_the_units_of_the_list_alike(self):
    system, variables = scale_models.flexvar()
    batch = scale_models.units(system)
    targets, scores = logits(system, variables, batch, (1, 2, 3))
    loss = system.loss_of(targets, scores)
    logp = np.asarray(jax.nn.log_softmax(scores))[:, :14]
    nll = -np.take_along_axis(logp, np.asarray(targets.units)[:, :14, None], 2)
    np.testing.assert_allclose(loss.value, nll[..., 0].mean(1), rtol=1e-5)
    # The units of a map are those of its own place, whatever the list.
    np.testing.assert_array_equal(targets.units[:, 5:14], batch["others"])

  def test_published_lists(self):
    lists = scale_list.Lists()
    draw = jax.jit(jax.vmap(lists.draw))
    sides = np.asarray(draw(jax.random.split(jax.random.key(0), 100_000)))
    count = (sides > 0).sum(1)
    self.assertLessEqual(np.square(sides).sum(1).max(), 680)
    self.assertGreater((sides[:, :2] == [1, 2]).all(1).mean(), 0.999)
    self.assertAlmostEqual(1 - (sides == 16).any(1).mean(), 0.334, delta=0.01)
    self.assertBetween(count.mean(), 8, 9)
    for n, share in ((10, 0.049), (9, 0.476), (8, 0.393), (7, 0.066)):
      self.assertAlmostEqual((count == n).mean(), share, delta=0.01)
    ascending = (np.diff(sides, axis=1) > 0) | (sides[:, 1:] == 0)
    self.assertTrue(ascending.all())


class PositionsTest(absltest.TestCase):
  def test_resized_table(self):
    embed = GridEmbed(32, 4)
    at = lambda side: grid_weights(makers.scales((side,)), 32)
    (whole, params) = jax.jit(embed.init_with_output)(
      jax.random.key(0), *at(32)
    )
    table = np.asarray(params["params"]["table"])
    np.testing.assert_allclose(whole, table.reshape(-1, 4), atol=1e-6)
    one = embed.apply(params, *at(1))
    np.testing.assert_allclose(one[0], table.mean((0, 1)), atol=1e-5)
    y, x = np.indices((32, 32))
    want = [np.sin(y), np.cos(x), np.sin(y / 100), np.cos(x / 100)]
    np.testing.assert_allclose(table, np.stack(want, -1), atol=1e-5)


class SamplingTest(absltest.TestCase):
  def test_ramp(self):
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    ten = flexvar.ramp(3.5, sides, 16)
    np.testing.assert_allclose(ten, 1 + 2.5 * np.arange(10) / 9)
    thirteen = flexvar.ramp(3.5, (*range(1, 11), 12, 14, 16), 16)
    self.assertAlmostEqual(thirteen[-1] - 1, 4 / 3 * 2.5)
    larger = flexvar.ramp(3.5, (*range(1, 11), 12, 14, 16, 23, 32), 16)
    np.testing.assert_allclose(larger[-3:], [1 + 2.5 * 12 / 9, 3.5, 3.5])

  def test_any_list_and_shape(self):
    system, variables = scale_models.flexvar()
    keys = jax.random.split(jax.random.key(0), 2)
    cond = {"label": jnp.array([0, 1])}

    @functools.partial(jax.jit, static_argnums=0)
    def sample(scales, keys):
      units, latent = system.generate(
        variables, cond, keys, scales=scales, guidance=2.0
      )
      return units, system.decode_latent(variables, latent)

    units, image = sample((1, (2, 2), (3, 5)), keys)
    self.assertEqual(image.shape, (2, 6, 10, 1))
    self.assertEqual(units.shape, (2, 1 + 4 + 15))
    other, _ = sample((1, (2, 2), (3, 5)), jax.random.split(keys[0], 2))
    drawn = np.asarray(units != other)
    self.assertTrue(drawn[:, :5].any())
    # A map whose sides the model does not name follows from the ones before.
    same = ~drawn[:, :5].any(1)
    self.assertFalse(drawn[same, 5:].any())

  def test_lists_that_cannot_be(self):
    system, _ = scale_models.flexvar()
    for scales in ((2, 4), (1, 4, 2), (1, (2, 3), (3, 2))):
      with self.assertRaisesRegex(UserError, "must begin with 1"):
        system.over(scales)
    with self.assertRaisesRegex(UserError, "over 5 slots"):
      dataclasses.replace(system.lists, limit=5)


if __name__ == "__main__":
  absltest.main()
