"""The backbone: caches, leaks, stochastic depth, remat, initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.nn.layers.attention import Attention, CosineNorm
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.mlp import Mlp, SwiGLU
from ar_jax.nn.layers.norms import AdaLN, RMSNorm
from ar_jax.nn.stacks.blocks import Block, PlainBlock, drop_path, dropout
from ar_jax.nn.stacks.transformer import Backbone

PLAN = makers.scales((1, 2, 3))
DEPTH, WIDTH, HEADS = 3, 16, 4


def backbone(norm=True, **kwargs) -> Backbone:
  mixer = Attention(
    HEADS,
    scale=1.0 if norm else None,
    norm=CosineNorm(HEADS) if norm else None,
    bias="qv",
    stddev=0.3,
    out_stddev=0.3,
  )
  ada, out_ada = AdaLN(DEPTH, (0.3,) * 6), AdaLN(1, (0.3,) * 2)
  block = Block(mixer, Mlp(2 * WIDTH, 0.3, 0.3))
  return Backbone(block, DEPTH, ada, out_ada, **kwargs)


@functools.partial(jax.jit, static_argnums=0, static_argnames="plan")
def run(net, variables, x, cond, mask=None, *, plan=None, **kwargs):
  """Conditions and calls."""
  mask = plan or mask
  call = lambda net: net(x, mask, cond=net.condition(cond), **kwargs)
  return net.apply(variables, method=call)


class BackboneTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    key = jax.random.key(0)
    cls.x = jax.random.normal(key, (2, len(PLAN), WIDTH))
    cls.cond = jax.random.normal(key, (2, WIDTH))
    every = lambda net, x, cond: net(x, PLAN, cond=net.condition(cond))[0]
    init = lambda net: jax.jit(
      lambda key: net.init(key, cls.x, cls.cond, method=every)
    )(key)
    cls.nets = {norm: backbone(norm) for norm in (True, False)}
    cls.variables = {norm: init(net) for norm, net in cls.nets.items()}
    cls.full = {
      norm: run(net, cls.variables[norm], cls.x, cls.cond, plan=PLAN)[0]
      for norm, net in cls.nets.items()
    }

  def cache(self, index):
    shape = (DEPTH, 2, HEADS, len(PLAN) + 3, WIDTH // HEADS)
    # Rows that nobody wrote must not matter.
    return Cache(jnp.full(shape, 1e4), jnp.full(shape, 1e4), index)

  @parameterized.product(norm=(True, False), traced=(True, False))
  def test_cached_equals_uncached(self, norm, traced):
    cache, parts = self.cache(jnp.array(0) if traced else 0), []
    for s in range(PLAN.steps):
      x = self.x[:, PLAN.span(s)]
      args = self.nets[norm], self.variables[norm], x, self.cond
      h, cache = run(*args, cache=cache)
      parts.append(h)
    got = jnp.concatenate(parts, 1)
    np.testing.assert_allclose(got, self.full[norm], atol=1e-5)
    self.assertEqual(int(cache.index), len(PLAN))

  def test_a_cache_with_a_mask_of_its_own(self):
    raster = makers.raster(1, len(PLAN))
    args = self.nets[True], self.variables[True]
    want, _ = run(*args, self.x, self.cond, plan=raster)
    mask = jnp.asarray(raster.mask())[None, None]
    _, cache = run(
      *args, self.x[:, :6], self.cond, mask[..., :6, :6], cache=self.cache(0)
    )
    got, _ = run(*args, self.x[:, 6:], self.cond, mask[..., 6:, :], cache=cache)
    np.testing.assert_allclose(got, want[:, 6:], atol=1e-5)

  def test_no_leak(self):
    for s in range(PLAN.steps):
      changed = self.x.at[:, PLAN.span(s)].add(1.0)
      h, _ = run(
        self.nets[True], self.variables[True], changed, self.cond, plan=PLAN
      )
      moved = np.abs(h - self.full[True]).max((0, 2)) > 0
      start = PLAN.span(s).start
      self.assertFalse(moved[:start].any())
      self.assertTrue(moved[start:].all())

  def test_remat_changes_no_gradient(self):
    def gradient(net):
      loss = lambda v: (
        run(net, v, self.x, self.cond, plan=PLAN)[0] ** 2
      ).mean()
      return jax.grad(loss)

    variables = self.variables[True]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      jax.jit(gradient(self.nets[True]))(variables),
      jax.jit(gradient(backbone(remat="weights")))(variables),
    )
    products = {
      remat: str(
        jax.make_jaxpr(gradient(backbone(remat=remat)))(variables)
      ).count("dot_general")
      for remat in ("none", "dots", "weights", "full")
    }
    self.assertEqual(products["none"], products["dots"])
    self.assertLess(products["dots"], products["weights"])
    self.assertLess(products["weights"], products["full"])
    with self.assertRaisesRegex(UserError, "remat='some': choose one of none"):
      gradient(backbone(remat="some"))(variables)

  def test_stochastic_depth_depends_on_the_example(self):
    net, variables = backbone(drop=0.5), self.variables[True]
    keys = jax.random.split(jax.random.key(3), 2)
    h, _ = run(net, variables, self.x, self.cond, plan=PLAN, keys=keys)
    one, _ = run(
      net, variables, self.x[1:], self.cond[1:], plan=PLAN, keys=keys[1:]
    )
    np.testing.assert_allclose(h[1:], one, atol=1e-5)
    self.assertGreater(float(jnp.abs(h - self.full[True]).max()), 1e-3)
    off, _ = run(net, variables, self.x, self.cond, plan=PLAN)
    np.testing.assert_array_equal(off, self.full[True])

  def test_drop_path_is_unbiased_and_linear_over_depth(self):
    factors = drop_path(jax.random.split(jax.random.key(0), 4000), 0.5, 3)
    self.assertEqual(factors.shape, (3, 4000, 2))
    np.testing.assert_allclose(factors.mean(1), 1, atol=0.06)
    dropped = (factors == 0).mean(1)
    np.testing.assert_allclose(dropped.T, [[0, 0.25, 0.5]] * 2, atol=0.03)

  def test_bfloat16(self):
    net = backbone(dtype=jnp.bfloat16)
    low = dict(dtype=jnp.bfloat16)
    block = dataclasses.replace(
      net.block,
      mixer=net.block.mixer.clone(**low),
      mlp=net.block.mlp.clone(**low),
    )
    net = net.clone(block=block)
    h, _ = run(net, self.variables[True], self.x, self.cond, plan=PLAN)
    self.assertEqual(h.dtype, jnp.float32)
    self.assertLess(float(jnp.abs(h - self.full[True]).mean()), 0.05)

  def test_modulations_start_with_their_own_spread(self):
    ada = AdaLN(4, (0.0, 0.5))
    params = ada.init(jax.random.key(0), jnp.ones((1, 64)))["params"]
    gates, scales = jnp.split(params["kernel"], 2, -1)
    self.assertEqual(float(jnp.abs(gates).max()), 0)
    self.assertAlmostEqual(float(scales.std()), 0.5, delta=0.02)

  def test_equal_modules_are_equal_values(self):
    self.assertEqual(backbone(), backbone())
    self.assertEqual(hash(backbone()), hash(backbone()))


class PlainTest(absltest.TestCase):
  """The unconditional stack, against a few lines of NumPy."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    block = PlainBlock(Attention(HEADS, out_bias=False), SwiGLU(24))
    cls.net = Backbone(block, 2, out_norm=RMSNorm())
    cls.x = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    init = jax.jit(cls.net.init)(jax.random.key(1), cls.x)
    # Away from the initial ones, which hide a scale that is not applied.
    noise = lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape)
    cls.variables = jax.tree.map(noise, init)
    cls.call = staticmethod(jax.jit(cls.net.apply))

  def test_equals_the_formula(self):
    params = jax.tree.map(np.asarray, self.variables["params"])

    def rms(x, p):
      return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"]

    def attend(x, p):
      qkv = (x @ p["qkv"]["kernel"]).reshape(2, 5, 3, HEADS, -1)
      q, k, v = np.moveaxis(qkv, 2, 0)
      scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(WIDTH / HEADS)
      weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
      out = np.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape)
      return out @ p["out"]["kernel"]

    x = np.asarray(self.x, np.float64)
    for i in range(2):
      p = jax.tree.map(lambda a, i=i: a[i], params["block"])
      x = x + attend(rms(x, p["norm1"]), p["mixer"])
      h, mlp = rms(x, p["norm2"]), p["mlp"]
      gate = h @ mlp["gate"]["kernel"]
      gate = gate / (1 + np.exp(-gate)) * (h @ mlp["fc1"]["kernel"])
      x = x + gate @ mlp["fc2"]["kernel"]
    h, _ = self.call(self.variables, self.x)
    np.testing.assert_allclose(h, rms(x, params["out_norm"]), atol=1e-4)

  def test_no_biases(self):
    names = [
      path[-1].key
      for path, _ in jax.tree_util.tree_leaves_with_path(self.variables)
    ]
    self.assertEqual(set(names), {"kernel", "scale"})

  def test_dropout(self):
    keys = jax.random.split(jax.random.key(3), 2)
    x = jnp.ones((2, 50, 40))
    y = dropout(x, keys, 0.25, 0)
    self.assertEqual(
      set(np.unique(y).tolist()), {0.0, float(x[0, 0, 0] / 0.75)}
    )
    self.assertAlmostEqual(float(y.mean()), 1.0, delta=0.05)
    self.assertGreater(np.mean(y != dropout(x, keys, 0.25, 1)), 0.2)
    # By example, and not at all without keys.
    np.testing.assert_array_equal(y[1:], dropout(x[1:], keys[1:], 0.25, 0))
    np.testing.assert_array_equal(x, dropout(x, None, 0.25, 0))

  def test_layers_drop_different_features(self):
    block = self.net.block.clone(dropout=0.5)
    net = self.net.clone(block=block, drop=0.5)
    keys = jax.random.split(jax.random.key(3), 2)
    run = jax.jit(lambda v, k: net.apply(v, self.x, keys=k)[0])
    h = run(self.variables, keys)
    self.assertGreater(float(jnp.abs(h - run(self.variables, None)).max()), 0.1)
    off = self.call(self.variables, self.x)[0]
    np.testing.assert_allclose(run(self.variables, None), off, atol=1e-6)


if __name__ == "__main__":
  absltest.main()
