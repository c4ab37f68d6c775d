"""HMAR: scales that do not see each other, and their refinement."""

import functools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import optim, step
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import UserError, build
from ar_jax.families.base import of_target
from ar_jax.systems import hmar
from ar_jax.tokenizers.multiscale_vq import SCALES
from tests import filled

REFINE = ((1,), (1, 3), (5, 4, 7))
HIDDEN = jnp.arange(21) % 2 == 0


def tiny(refine=True, **kwargs):
  tokenizer = dict(vocab=16, channels=4, ch=8, mult=(1, 2), blocks=1)
  tokenizer |= dict(name="multiscale_vq", scales=(1, 2, 4), in_channels=1)
  sizes = dict(depth=3, width=32, heads=2, num_classes=3, tail=1)
  sizes |= dict(tokenizer=tokenizer, refine=refine)
  return build("hmar", **(sizes | kwargs))


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(system, method, *args):
  return getattr(system, method)(*args)


@functools.partial(jax.jit, static_argnums=(0, 4))
def generate(system, variables, label, keys, options=()):
  return system.generate(variables, {"label": label}, keys, **dict(options))


class HMARTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = tiny()
    cls.variables = filled.variables(cls.system)
    cls.net = of_target(cls.variables, "net")
    cls.plan, cls.label = cls.system.plan, jnp.array([1, 2])
    shape = (2, len(cls.plan))
    cls.units = jax.random.randint(jax.random.key(1), shape, 0, 16)
    cls.keys = jax.random.split(jax.random.key(0), 2)

  def test_scales_do_not_see_each_other(self):
    net, p = self.system.target.net, self.plan

    @jax.jit
    def both(params, label, embedding):
      """Of one pass over all scales, and of one for each."""
      bound = net.bind({"params": params})
      whole = bound.head.logits(bound(label, embedding))
      x, cond = bound.begin(label)
      parts = []
      for s in range(p.steps):
        x = bound.latent(embedding[:, p.span(s)]) if s else x
        h, cache = bound.step(s, x, cond, bound.cache(2))
        self.assertIsNone(cache)
        parts.append(bound.head.logits(h))
      return whole, jnp.concatenate(parts, axis=1)

    params = self.variables["net"]
    noise = jax.random.normal(jax.random.key(2), (2, len(p), 4))
    before, parts = both(params, self.label, noise)
    np.testing.assert_allclose(before, parts, rtol=1e-5, atol=1e-5)
    for s in range(1, p.steps):
      at = p.span(s)
      after, _ = both(params, self.label, noise.at[:, at].add(1))
      moved = np.asarray(after != before).any(-1)
      self.assertTrue(moved[:, at].all())
      moved[:, at] = False
      self.assertFalse(moved.any())

  def test_published_weights_of_the_scales(self):
    want = (0.0247, 0.0642, 0.1150, 0.1379, 0.1402, 0.1329, 0.1208, 0.1054,
            0.0882, 0.0709)  # fmt: skip
    np.testing.assert_allclose(hmar.bell(SCALES[256]), want, atol=1e-4)

  def test_weights_of_the_scales(self):
    for weights, want in (
      ("bell", hmar.bell((1, 2, 4))), ("equal", (1 / 3,) * 3), ("units", None),
    ):  # fmt: skip
      system = tiny(refine=False, weights=weights)
      self.assertEqual(system.scale_weights, want)

  def test_what_training_hides(self):
    draw = jax.jit(jax.vmap(self.system.hidden))
    hidden = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
    self.assertFalse(hidden[:, 0].any())
    small, large = hidden[:, 1:5].sum(1), hidden[:, 5:].sum(1)
    self.assertEqual(set(small), {1, 2, 3, 4})
    self.assertEqual(set(large), set(range(1, 17)))
    # The same share p of both: ceil(4 p) and ceil(16 p).
    np.testing.assert_array_equal(small, -(-large // 4))
    spread = hidden[:, 1:].mean(0)
    self.assertLess(np.abs(spread - spread.mean()).max(), 0.15)

  def test_loss_is_over_hidden_units(self):
    batch = {"units": self.units, "label": self.label}
    key = jax.random.key(3)
    loss = functools.partial(self.system.loss, train=False)
    loss = jax.jit(loss)(self.variables, batch, key)
    hidden = self.system.hidden(jax.random.split(key)[1])
    args = self.variables, self.label, self.units, hidden
    logp = np.asarray(jax.nn.log_softmax(call(self.system, "logits", *args)))
    nll = -np.take_along_axis(logp, np.asarray(self.units)[..., None], -1)
    want = nll[..., 0][:, np.asarray(hidden)].mean(1)
    np.testing.assert_allclose(loss.value, want, rtol=1e-5)

  def test_hidden_units_are_not_seen(self):
    """But through phi, whose window holds neighbours, as published; so without
    it here, and of the last scale, which no other scale reads."""
    codes = dict(self.variables["tokenizer"])
    codes["quantizer"] = jax.tree.map(jnp.zeros_like, codes["quantizer"]) | {
      "codebook": codes["quantizer"]["codebook"]
    }
    variables, hidden = {**self.variables, "tokenizer": codes}, HIDDEN
    at = lambda i: self.units.at[:, i].add(1) % 16
    args = lambda units: (variables, self.label, units, hidden)
    before = call(self.system, "logits", *args(self.units))
    same = call(self.system, "logits", *args(at(6)))
    np.testing.assert_array_equal(before, same)
    other = call(self.system, "logits", *args(at(7)))
    moved = np.asarray(other != before).any((0, 2))
    np.testing.assert_array_equal(moved, np.arange(21) >= 5)

  def test_sampling_is_the_training_pass_step_by_step(self):
    """Both nets over all scales, an example at a time, as the paper says."""
    law = dict(top_k=9, temperature=0.9)
    guided = dict(guidance=3.0, schedule="constant")
    options = (("refine", REFINE), *law.items(), *guided.items())
    args = self.variables, self.label, self.keys
    got, _ = generate(self.system, *args, options)
    for b in range(2):
      label, keys = self.label[b : b + 1], self.keys[b : b + 1]
      units = jnp.zeros((1, 21), jnp.int32)
      for s, sizes in enumerate(REFINE):
        at, own = self.plan.span(s), fold(keys, s)
        logits, null = (
          call(self.system.target, "logits", self.net, of, units)
          for of in (label, jnp.array([3]))
        )
        logp = pick.law(pick.guide(logits, null, 3.0)[:, at], **law)
        new, among = pick.draw(logp, own), np.ones(sum(sizes), bool)
        for i in range(1, len(sizes)):
          units = units.at[:, at].set(new)
          sure = np.array(logp)[0, np.arange(sum(sizes)), new[0]]
          sure[~among] = np.inf
          among = np.isin(
            np.arange(len(sure)), np.argsort(sure)[: sum(sizes[i:])]
          )
          hidden = jnp.zeros(21, bool).at[at].set(among)
          given = self.variables, label, units, hidden
          logits = call(self.system, "logits", *given)
          logp = pick.law(logits[:, at], **law)
          drawn = pick.draw(logp, fold(own, i))
          new = jnp.where(among[None], drawn, new)
        units = units.at[:, at].set(new)
      np.testing.assert_array_equal(units[0], got[b])

  def test_steps_that_confidence_decides(self):
    """What is surer than a threshold is settled, an example at a time; a unit
    of the quota at least."""
    law, limit = dict(temperature=0.9), 0.16
    refine = ((1,), (1, 3), (5, 4, 4, 3))
    options = (("refine", refine), ("fill", "threshold"), ("threshold", limit))
    args = self.variables, self.label, self.keys
    got, _ = generate(self.system, *args, options + tuple(law.items()))
    counts = []
    for b in range(2):
      label, keys = self.label[b : b + 1], self.keys[b : b + 1]
      units = jnp.zeros((1, 21), jnp.int32)
      for s, sizes in enumerate(refine):
        at, own = self.plan.span(s), fold(keys, s)
        logits = call(self.system.target, "logits", self.net, label, units)
        logp = pick.law(logits[:, at], **law)
        units = units.at[:, at].set(pick.draw(logp, own))
        t, most = sum(sizes), len(sizes) - 1
        sure = np.array(logp)[0, np.arange(t), units[0, at]]
        left, i = np.zeros(t, bool), 0
        left[np.argsort(sure)[: t - sizes[0]] if most else []] = True
        while left.any():
          hidden = jnp.zeros(21, bool).at[at].set(left)
          logits = call(
            self.system, "logits", self.variables, label, units, hidden
          )
          logp = pick.law(logits[:, at], **law)
          new = pick.draw(logp, fold(own, i + 1))
          sure = np.exp(np.array(logp)[0, np.arange(t), new[0]])
          quota = -(-(t - i) // most)  # as even as can be, the first one more
          chosen = left & (sure > limit)
          if chosen.sum() < min(quota, left.sum()):
            chosen = left & np.isin(
              np.arange(t), np.argsort(-np.where(left, sure, -1))[:quota]
            )
          if i == most - 1:
            chosen = left
          units = units.at[0, at].set(jnp.where(chosen, new[0], units[0, at]))
          left, i = left & ~chosen, i + 1
        counts.append(i)
      np.testing.assert_array_equal(units[0], got[b])
    self.assertGreater(max(counts), 1)

  def test_a_step_a_scale_is_plain_sampling(self):
    """The very call of the first stage: nothing is drawn again."""
    redraw = lambda refine: self.system._redraw(
      self.variables, {"label": self.label}, refine, None, {}
    )
    self.assertIsNone(redraw(((1,), (4,), (16,))))
    self.assertIsNone(redraw(()))
    self.assertIsNotNone(redraw(REFINE))

  def test_forwards(self):
    self.assertEqual(self.system.forwards(REFINE), 6)
    self.assertEqual(self.system.forwards(), 3)
    for key, sides, want in (
      ("256", SCALES[256], 14), ("256_speed", SCALES[256], 13),
      ("512_speed", SCALES[512], 15), ("1024_speed", SCALES[1024], 20),
    ):  # fmt: skip
      steps = hmar.SCHEDULES[key]
      for own, side in zip(steps, sides, strict=False):
        self.assertEqual(sum(own), side * side)
      self.assertEqual(sum(map(len, steps)) + len(sides) - len(steps), want)

  @parameterized.parameters(
    dict(refine=((2,),)),
    dict(refine=((1,), (0, 4))),
    dict(refine=((1,),) * 4),
    dict(refine=REFINE, smooth=True),
  )
  def test_bad_schedules(self, **options):
    with self.assertRaisesRegex(UserError, "refine"):
      self.system.generate(
        self.variables, {"label": self.label}, self.keys, **options
      )

  def test_edits_as_its_target_does(self):
    cond = {
      "label": self.label,
      "given": jnp.zeros((2, 8, 8, 1), jnp.uint8),
      "keep": jnp.zeros((2, 8, 8)).at[:, :, :4].set(1),
    }
    draw = lambda v, c, k: self.system.sample(
      v, c, k, refine=REFINE, paste=True
    )
    image = jax.eval_shape(draw, self.variables, cond, self.keys)
    self.assertEqual(image.shape, (2, 8, 8, 1))
    self.assertIn("keep", self.system.takes)

  def test_bad_sizes(self):
    for kwargs in (dict(tail=3), dict(weights="some"), dict(shared_ada=True)):
      with self.assertRaises(UserError):
        tiny(**kwargs)

  def test_the_second_stage_begins_as_a_copy(self):
    begun = self.system.ready(self.variables)
    params, net = begun["params"], begun["net"]
    np.testing.assert_array_equal(
      params["tail"]["block"]["mlp"]["fc1"]["kernel"],
      net["backbone"]["parts_1"]["block"]["mlp"]["fc1"]["kernel"],
    )
    np.testing.assert_array_equal(
      params["head"]["linear"]["kernel"], net["head"]["linear"]["kernel"]
    )
    self.assertEqual(params["mask"]["embedding"].shape, (1, 32))

  def test_a_run_begins_with_what_it_was_given(self):
    """Not with a copy of what `init` drew, which is ones here."""
    ones = {"net": self.variables["net"], "params": self.variables["params"]}
    ones = jax.tree.map(np.ones_like, ones)
    system = mock.Mock(init=lambda *_: ones, ready=self.system.ready)
    make = functools.partial(
      step.init_state, system, optim.make({"lr": 1e-3}, 2), step.Options(), 0
    )
    given = {"net": self.variables["net"]}
    params = make({}, given).variables["params"]
    np.testing.assert_array_equal(
      params["tail"]["block"]["mlp"]["fc2"]["bias"],
      given["net"]["backbone"]["parts_1"]["block"]["mlp"]["fc2"]["bias"],
    )
    given["params"] = self.variables["params"]
    params = make({}, given).variables["params"]
    np.testing.assert_array_equal(
      params["head"]["linear"]["bias"],
      self.variables["params"]["head"]["linear"]["bias"],
    )

  def test_first_stage_learns_everywhere(self):
    system = tiny(refine=False)
    batch = {"units": self.units, "label": self.label}

    def total(params):
      variables = {**self.net, "params": params}
      loss = system.loss(variables, batch, jax.random.key(0), train=True)
      return loss.value.sum()

    grads = jax.jit(jax.grad(total))(self.net["params"])
    still = [
      jax.tree_util.keystr(path)
      for path, g in jax.tree_util.tree_leaves_with_path(grads)
      if not np.abs(g).max() > 0
    ]
    self.assertEmpty(still)


class SizesTest(parameterized.TestCase):
  @parameterized.parameters((16, 467.7), (20, 845.5), (24, 1384), (30, 2556))
  def test_published_parameter_counts(self, depth, millions):
    tokenizer = dict(name="multiscale_vq", ch=32, blocks=1)
    system = build(
      "hmar", tokenizer=tokenizer, num_classes=1000, depth=depth, refine=True
    )
    self.assertEqual(hash(system), hash(system))
    shapes = jax.eval_shape(system.init, jax.random.key(0), {})
    count = sum(
      math.prod(x.shape)
      for k in ("params", "net")
      for x in jax.tree.leaves(shapes[k])
    )
    self.assertLess(abs(count / millions / 1e6 - 1), 5e-4)
    self.assertEqual(system.plan.pairs(), 110_468)

  def test_layers_are_dropped_as_in_one_stack(self):
    stack = tiny(depth=7, tail=3, drop_path=0.6).target.net.backbone
    rates = [
      np.linspace(part.drop_from, part.drop, part.depth) for part in stack.parts
    ]
    np.testing.assert_allclose(np.concatenate(rates), np.linspace(0, 0.6, 7))


if __name__ == "__main__":
  absltest.main()
