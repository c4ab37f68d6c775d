"""LlamaGen against the official model and its own mathematics."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.cache import Cache
from ar_jax.systems import llamagen
from tests import smoke
from tests.systems.llamagen_models import (
  KEYS,
  TINY,
  generate,
  golden,
  logits,
  texts,
)


class GoldenTest(parameterized.TestCase):
  def test_logits(self):
    system, variables, label, expected = golden()
    units = jnp.asarray(expected["tokens"], jnp.int32)
    got = logits(system, variables, label, units)
    np.testing.assert_allclose(got, expected["logits"], rtol=1e-4, atol=1e-4)

  @parameterized.parameters((1.0, "greedy_cfg1"), (2.0, "greedy_cfg2"))
  def test_greedy_units(self, guidance, name):
    system, variables, label, expected = golden()
    options = dict(guidance=guidance, temperature=0.0)
    got = generate(system, variables, {"label": label}, KEYS[:2], **options)
    np.testing.assert_array_equal(got, expected[name])


class NetTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, cls.label, _ = golden()
    cls.units = jax.random.randint(jax.random.key(1), (2, 16), 0, 64)
    cls.full = logits(cls.system, cls.variables, cls.label, cls.units)

  @parameterized.product(by=("class", "text"), size=(1, 3))
  def test_cached_equals_recomputed(self, by, size):
    """In steps of one unit and of three, as a verifier takes them; and rows
    that nobody wrote do not matter."""
    system, variables, cond = self.system, self.variables, self.label
    if by == "text":
      system, variables, words = texts()
      cond = words[:2]
    want = logits(system, variables, cond, self.units)

    @jax.jit
    def stepwise(variables, cond, units):
      own = system.net_variables(variables)
      net = system.net.bind(own)
      cond = system.condition(cond)
      h, cache = net.begin(cond, units[:, :0])
      seen, parts = net.prefix.valid(cond), [h]
      dirt = cache.causal(1)[0, 0, 0] if size == 1 else None
      if dirt is not None:
        poison = lambda x: jnp.where(dirt[None, None, :, None], x, 1e4)
        k, v = jax.tree.map(poison, (cache.k, cache.v))
        # The row to be written next is seen by that mask, and overwritten.
        cache = Cache(k, v, cache.index)
      for start in range(0, 15, size):
        h, cache = net.step(units[:, start : start + size], cache, seen)
        parts.append(h)
      return net.head.logits(jnp.concatenate(parts, 1))

    got = stepwise(variables, cond, self.units)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

  def test_stacked_and_separate_caches_agree(self):
    net = self.system.net

    @functools.partial(jax.jit, static_argnums=0)
    def two(unstacked, own, units):
      bound = net.bind(own)
      h, cache = bound.begin({"label": self.label}, units[:, :0])
      if not unstacked:
        stack = lambda xs: xs if not isinstance(xs, tuple) else jnp.stack(xs)
        cache = Cache(stack(cache.k), stack(cache.v), cache.index)
      elif not cache.is_unstacked:
        cache = cache.unstacked()
      for i in range(2):
        h, cache = bound.step(units[:, i : i + 1], cache)
      return h, jnp.stack(list(cache.k))

    own = self.system.net_variables(self.variables)
    for a, b in zip(
      two(True, own, self.units), two(False, own, self.units), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

  def test_later_units_do_not_leak(self):
    for at in (0, 7, 14):
      changed = self.units.at[:, at].add(1) % 64
      after = logits(self.system, self.variables, self.label, changed)
      moved = np.abs(after - self.full).max((0, 2)) > 0
      self.assertFalse(moved[: at + 1].any())
      self.assertTrue(moved[at + 1 :].all())
    other = logits(self.system, self.variables, self.label + 1, self.units)
    self.assertTrue((np.abs(other - self.full).max((0, 2)) > 0).all())

  def test_queries_and_keys_of_a_zeroed_prefix_do_not_matter(self):
    width = self.system.net.width

    def meddle(by):
      """Adds to q and k (not v) of the first position, before rotation."""

      def intercept(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if context.module.name == "qkv" and context.method_name == "__call__":
          out = out.at[:, 0, : 2 * width].add(by)
        return out

      with nn.intercept_methods(intercept):
        return jax.jit(lambda v: system.logits(v, self.label, self.units))(
          self.variables
        )

    system = self.system
    np.testing.assert_array_equal(meddle(5.0), meddle(0.0))
    net = system.net.clone(prefix_rope="identity")
    system = dataclasses.replace(system, net=net)
    self.assertGreater(np.abs(meddle(5.0) - meddle(0.0)).max(), 1e-3)

  def test_a_fresh_model_knows_nothing(self):
    case = smoke.case("llamagen")
    first = case.trained[1][0]["loss"]
    self.assertAlmostEqual(first / math.log(case.system.net.vocab), 1, 5)

  def test_training_hides_conditions_by_example(self):
    system = dataclasses.replace(self.system, label_dropout=1.0)
    block = system.net.backbone.block.clone(dropout=0.0)
    net = system.net.clone(
      backbone=system.net.backbone.clone(block=block), dropout=0.0
    )
    system = dataclasses.replace(system, net=net)
    batch = {"units": self.units, "label": self.label}

    @functools.partial(jax.jit, static_argnums=1)
    def value(batch, train):
      key = jax.random.key(0)
      return system.loss(self.variables, batch, key, train=train).value

    null = batch | {"label": jnp.array([10, 10])}
    np.testing.assert_allclose(
      value(batch, True), value(null, False), rtol=1e-5
    )


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(num_classes=3, heads=3), "width=32"),
    (dict(), "either num_classes or text"),
    (dict(num_classes=3, prefix_rope="off"), None),
    (dict(text=dict(name="clip")), "text.name='clip'"),
    (dict(text=dict(layers=3)), "layers"),
  )
  def test_bad_values(self, values, message):
    if message is None:  # told when it is used
      system = build("llamagen", **(TINY | values))
      with self.assertRaisesRegex(UserError, "prefix_rope='off'"):
        jax.eval_shape(lambda k: system.init(k, {}), jax.random.key(0))
      return
    with self.assertRaisesRegex(UserError, message):
      build("llamagen", **(TINY | values))

  @parameterized.parameters(
    ("b", 110_888_448),
    ("l", 342_910_976),
    ("xl", 774_699_520),
    ("xxl", 1_410_972_672),
    ("3b", 3_096_659_200),
  )
  def test_published_parameter_counts(self, size, count):
    system = build(
      "llamagen",
      tokenizer={"name": "vq"},
      num_classes=1000,
      **llamagen.SIZES[size],
    )
    self.assertEqual(hash(system), hash(system))
    self.assertLen(system.plan, 256)
    shapes = jax.eval_shape(lambda k: system.init(k, {}), jax.random.key(0))
    leaves = jax.tree.leaves(shapes["params"])
    self.assertEqual(sum(math.prod(x.shape) for x in leaves), count)


if __name__ == "__main__":
  absltest.main()
