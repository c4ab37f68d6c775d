"""M-VAR: what its branches see, and its states against one pass."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.systems import m_var
from tests import filled


def tiny(**kwargs):
  tokenizer = dict(vocab=16, channels=4, ch=8, mult=(1, 2), blocks=1)
  tokenizer |= dict(name="multiscale_vq", scales=(1, 2, 4), in_channels=1)
  sizes = dict(depth=2, width=32, heads=2, num_classes=3, tokenizer=tokenizer)
  sizes |= dict(features=16, states=4, chunk=8)
  return build("m_var", **(sizes | kwargs))


class MVARTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = tiny()
    cls.variables = filled.variables(cls.system)
    cls.plan, cls.label = cls.system.plan, jnp.array([1, 2])
    cls.noise = jax.random.normal(jax.random.key(2), (2, 21, 4))

    @jax.jit
    def both(params, label, embedding):
      """Of one pass over all scales, and of one for each."""
      net, p = cls.system.net.bind({"params": params}), cls.plan
      whole = net.head.logits(net(label, embedding))
      x, cond = net.begin(label)
      cache, parts = net.cache(2), []
      for s in range(p.steps):
        x = net.latent(embedding[:, p.span(s)]) if s else x
        h, cache = net.step(s, x, cond, cache)
        parts.append(net.head.logits(h))
      return whole, jnp.concatenate(parts, axis=1), cache

    cls.both = staticmethod(both)
    cls.params = cls.variables["params"]
    cls.whole = both(cls.params, cls.label, cls.noise)[0]

  def moved(self, params, before, s):
    """bool[L]: what another input of scale s changes."""
    noise = self.noise.at[:, self.plan.span(s)].add(1)
    after = self.both(params, self.label, noise)[0]
    return np.asarray(after != before).any((0, 2))

  def test_states_carry_all_there_is(self):
    whole, parts, cache = self.both(self.params, self.label, self.noise)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    # A block and a row: 2 D K and 3 (2 D + 2 K), whatever L.
    self.assertEqual(cache.state.size, 2 * 2 * 2 * 32 * 4)
    self.assertEqual(cache.tail.size, 2 * 2 * 3 * (64 + 8))

  def test_no_scale_sees_a_later_one(self):
    for s in (1, 2):
      at, moved = self.plan.span(s), self.moved(self.params, self.whole, s)
      self.assertFalse(moved[: at.start].any())
      self.assertTrue(moved[at.start :].all())

  def test_only_the_memory_sees_an_earlier_one(self):
    block = self.params["backbone"]["block"]
    memory = block["memory"]
    silent = jax.tree.map(jnp.zeros_like, memory["out"])
    block = {**block, "memory": {**memory, "out": silent}}
    stack = {**self.params["backbone"], "block": block}
    params = {**self.params, "backbone": stack}
    before = self.both(params, self.label, self.noise)[0]
    at = self.plan.span(1)
    want = np.isin(np.arange(21), np.arange(at.start, at.stop))
    np.testing.assert_array_equal(self.moved(params, before, 1), want)

  def test_all_three_branches_are_dropped(self):
    """All but surely in the second of two layers, never in the first."""
    net = tiny(drop_path=1 - 1e-6).net.bind({"params": self.params})
    x = self.noise @ jnp.ones((4, 32))
    mod, out_mod = net.backbone.condition(jnp.ones((2, 32)))
    keys = jax.random.split(jax.random.key(0), 2)
    run = jax.jit(
      lambda mod, keys=None: net.backbone(
        x, self.plan, cond=(mod, out_mod), keys=keys
      )[0]
    )
    dropped, closed = run(mod, keys), run(mod.at[1, :, :3].set(0))
    np.testing.assert_allclose(dropped, closed, atol=1e-5)
    self.assertGreater(np.abs(run(mod) - closed).max(), 0.1)

  def test_bad_sizes(self):
    for kwargs in (dict(features=24), dict(shared_ada=True)):
      with self.assertRaises(UserError):
        tiny(**kwargs)


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("d12", 198), ("d16", 464.2), ("d20", 900.5), ("d24", 1550),
    ("d30", 3017), ("d32", 3659),
  )  # fmt: skip
  def test_published_parameter_counts(self, name, millions):
    tokenizer = dict(name="multiscale_vq", ch=32, blocks=1)
    system = build(
      "m_var", tokenizer=tokenizer, num_classes=1000, **m_var.SIZES[name]
    )
    net = system.net
    init = functools.partial(
      net.init, method=lambda net, *args: net.head.logits(net(*args))
    )
    args = jnp.zeros(1, jnp.int32), jnp.zeros((1, 680, 32))
    shapes = jax.eval_shape(init, jax.random.key(0), *args)["params"]
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    # The first is published to three figures.
    error = 2.6e-3 if name == "d12" else 5e-4
    self.assertLess(abs(count / millions / 1e6 - 1), error)
    cache = jax.eval_shape(lambda: net.backbone.cache(1, 680, net.width))
    row = sum(math.prod(x.shape[1:]) for x in jax.tree.leaves(cache))
    self.assertEqual(row, 128 * net.width + 3 * (2 * net.width + 128))
    self.assertEqual(system.plan.pairs(), 110_468)


if __name__ == "__main__":
  absltest.main()
