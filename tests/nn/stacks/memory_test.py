"""Stacks that look at a memory: against NumPy, cached, cut, and as the
decoder of a small translator."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import parallel
from ar_jax.core.decoding import pairs
from ar_jax.core.errors import UserError
from ar_jax.nn.layers.cross_attention import Memory, NullFeatures
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.dit import dit
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.segments import Segments
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit
from tests.nn.layers.cross_attention_test import attend, noise

B, T, S, D, C, H = 2, 5, 6, 16, 7, 2
PAD = jnp.arange(S)[None] < jnp.array([[6], [3]])
CAUSAL = jnp.tril(jnp.ones((T, T), bool))[None, None]
DRAW = np.random.default_rng(0)
X, M = (DRAW.normal(size=s).astype(np.float32) for s in ((B, T, D), (B, S, C)))


def whole(net, x, m, mask=CAUSAL, **kwargs):
  """Remembers and calls."""
  return net(x, mask, memory=net.remember(m, PAD), **kwargs)[0]


@functools.cache
def filled(net, method=whole):
  init = lambda key: net.init(key, X, M, method=method)
  return noise(jax.jit(init)(jax.random.key(0)))


def run(net, *args, **kwargs):
  return jax.jit(functools.partial(net.apply, method=whole, **kwargs))(*args)


def factors(jaxpr):
  """The shapes of all that is multiplied."""
  shapes = set()
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "dot_general":
      shapes |= {v.aval.shape for v in eqn.invars}
    for inner in jax.tree.leaves(list(eqn.params.values())):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        shapes |= factors(inner)
  return shapes


def layer_norm(x, p):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  return x * p["scale"] + p["bias"]


def decoder(x, m, p, order):
  """A layer of the decoder of arXiv 1706.03762, section 3.1."""
  heads = lambda y: y.reshape(*y.shape[:2], H, -1)
  linear = lambda y, p: y @ p["kernel"] + p["bias"]

  def mix(x):
    biases = np.concatenate([p["mixer"][f"bias_{n}"] for n in "qkv"])
    qkv = np.split(x @ p["mixer"]["qkv"]["kernel"] + biases, 3, -1)
    seen = np.broadcast_to(CAUSAL[0], (B, T, T))
    return linear(attend(*map(heads, qkv), seen), p["mixer"]["out"])

  def look(x):
    own = p["cross"]
    q = x @ own["query"]["kernel"] + own["bias_q"]
    k, v = np.split(m @ own["key_value"]["kernel"], 2, -1)
    k, v = k + own["bias_k"], v + own["bias_v"]
    seen = np.broadcast_to(PAD[:, None], (B, T, S))
    return linear(attend(*map(heads, (q, k, v)), seen), own["out"])

  def act(x):
    return linear(np.maximum(linear(x, p["mlp"]["fc1"]), 0), p["mlp"]["fc2"])

  for name, branch in (("norm1", mix), ("norm3", look), ("norm2", act)):
    if order == "post":
      x = layer_norm(x + branch(x), p[name])
    else:
      x = x + branch(layer_norm(x, p[name]))
  return x


class MemoryTest(parameterized.TestCase):
  @parameterized.parameters("post", "pre")
  def test_equals_the_formula(self, order):
    net = vit(2, D, H, True, act="relu", order=order, hidden=24)
    variables = filled(net)
    got = run(net, variables, X, M)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables)
    params, x = params["params"], X
    for i in range(2):
      layer = jax.tree.map(lambda p, i=i: p[i], params["block"])
      x = decoder(x, M, layer, order)
    if order == "pre":
      x = layer_norm(x, params["out_norm"])
    np.testing.assert_allclose(got, x, atol=2e-5)

  def test_remembered_once(self):
    net = llama(2, D, H, cross=True, multiple_of=D, dropout=0.0)
    variables = filled(net)
    want = run(net, variables, X, M)
    remember = jax.jit(functools.partial(net.apply, method="remember"))
    memory = remember(variables, M, PAD)
    self.assertEqual(memory.k.shape, (2, B, H, S, D // H))
    step = lambda v, x, memory, cache: net.apply(
      v, x, cache.causal(x.shape[1]), cache=cache, memory=memory
    )
    for unstacked in (False, True):
      cache, outs = net.cache(B, T + 1, D), []
      cache = cache.unstacked() if unstacked else cache
      for at in (slice(0, 3), slice(3, 4), slice(4, 5)):
        out, cache = jax.jit(step)(variables, X[:, at], memory, cache)
        outs.append(out)
      np.testing.assert_allclose(jnp.concatenate(outs, 1), want, atol=1e-5)
      # A step multiplies nothing by the matrix of keys and values.
      traced = jax.make_jaxpr(step)(variables, X[:, :1], memory, cache)
      shapes = factors(traced.jaxpr)
      self.assertIn((D, D), shapes)
      self.assertNotIn((C, 2 * D), shapes)
    traced = jax.make_jaxpr(lambda v: whole(net.bind(v), X, M))(variables)
    self.assertIn((C, 2 * D), factors(traced.jaxpr))

  def test_gradients_and_remat(self):
    net = vit(2, D, H, True, dropout=0.0)
    variables = filled(net)

    def gradient(remat):
      value = lambda v, m: (
        net.clone(remat=remat).apply(v, X, m, method=whole) ** 2
      ).mean()
      return jax.jit(jax.grad(value, (0, 1)))(variables, M)

    plain, again = gradient("none"), gradient("full")
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again
    )
    moved = np.abs(plain[1]).sum(-1) > 0
    np.testing.assert_array_equal(moved, PAD)
    for p in jax.tree.leaves(plain[0]["params"]["block"]["cross"]):
      self.assertTrue(np.isfinite(p).all())
      self.assertTrue((p != 0).any())

  def test_dropout_and_stochastic_depth(self):
    net = vit(3, D, H, True, dropout=0.0)
    variables, keys = filled(net), jax.random.split(jax.random.key(3), B)
    off = run(net, variables, X, M)
    # Of each branch by itself: the third looks at the memory.
    self.assertEqual(net.block.branches, 3)
    for other in (
      net.clone(drop=0.9, drop_from=0.9),
      net.clone(block=net.block.clone(dropout=0.5)),
    ):
      out = run(other, variables, X, M, keys=keys)
      self.assertGreater(np.abs(out - off).max(), 0.1)
      swapped = keys[jnp.array([0, 0])]
      one = run(other, variables, X, M, keys=swapped)
      np.testing.assert_allclose(one[0], out[0], atol=1e-5)
      self.assertGreater(np.abs(one[1] - out[1]).max(), 1e-3)

  def test_modulated_layers(self):
    net = dit(2, D, H, cross=True, dropout=0.0)
    cond = DRAW.normal(size=(B, D)).astype(np.float32)
    every = lambda net, x, m: whole(net, x, m, cond=net.condition(cond))
    variables = filled(net, every)
    got = jax.jit(lambda v: net.apply(v, X, M, method=every))(variables)

    @jax.jit
    def by_hand(variables):
      x, block = X, net.block.clone(parent=None)
      mod, _ = net.apply(variables, cond, method="condition")
      for i in range(2):
        own = jax.tree.map(lambda p, i=i: p[i], variables["params"]["block"])
        own = {"params": own}
        k, v = block.cross.apply({"params": own["params"]["cross"]}, M,
                                 method="remember")  # fmt: skip
        x, _ = block.apply(own, x, mod[i], CAUSAL, memory=Memory(k, v, PAD))
      norm = {"params": variables["params"]["out_norm"]}
      return net.out_norm.clone(parent=None).apply(norm, x)

    np.testing.assert_allclose(got, by_hand(variables), atol=1e-5)
    hidden = jax.jit(
      lambda v: net.apply(v, X, M * 2, method=every)
    )(variables)  # fmt: skip
    self.assertGreater(np.abs(hidden - got).max(), 1e-2)

  def test_a_memory_too_many_or_too_few(self):
    blind, net = vit(1, D, H), vit(1, D, H, True)
    with self.assertRaisesRegex(UserError, "looks at a memory: pass"):
      jax.eval_shape(net.init, jax.random.key(0), X)
    with self.assertRaisesRegex(UserError, "no memory: build it with cross"):
      jax.eval_shape(
        lambda key: blind.init(key, M, method="remember"), jax.random.key(0)
      )
    memory = Memory(*jnp.zeros((2, 1, B, H, S, D // H)))
    with self.assertRaisesRegex(UserError, "no memory: build it with cross"):
      jax.eval_shape(
        lambda key: blind.init(key, X, memory=memory), jax.random.key(0)
      )

  def test_one_part_of_a_stack_looks(self):
    make = functools.partial(vit, width=D, heads=H, dropout=0.0)
    first = make(1).clone(out_norm=Identity())
    net = Segments((first, make(2, cross=True)))
    self.assertTrue(net.needs_memory)
    variables = filled(net)
    got = run(net, variables, X, M)

    @jax.jit
    def by_hand(variables):
      memory = net.apply(variables, M, PAD, method="remember")
      self.assertIsNone(memory[0])
      own = lambda i: {"params": variables["params"][f"parts_{i}"]}
      h, _ = net.parts[0].apply(own(0), X, CAUSAL)
      return net.parts[1].apply(own(1), h, CAUSAL, memory=memory[1])[0]

    np.testing.assert_allclose(got, by_hand(variables), atol=1e-5)

  def test_matrices_are_split_in_pairs(self):
    net = llama(2, 128, 4, cross=True, kv_heads=2, multiple_of=128)
    x, m = jnp.zeros((B, T, 128)), jnp.zeros((B, S, 64))
    shapes = jax.eval_shape(
      lambda key: net.init(key, x, m, method=whole), jax.random.key(0)
    )
    mesh = types.SimpleNamespace(shape={"data": 1, "fsdp": 2, "tensor": 2})
    spec = lambda name, p: tuple(parallel._spec(name, p.shape, mesh))
    cross = shapes["params"]["block"]["cross"]
    placed = {
      name: spec(f"params/block/cross/{name}/kernel", cross[name]["kernel"])
      for name in cross
    }
    self.assertEqual(placed["query"][2], "tensor")
    self.assertEqual(placed["key_value"][2], "tensor")
    self.assertEqual(placed["out"][1], "tensor")


class Translator(nn.Module):
  """An encoder of a source, and a decoder that looks at it."""

  encoder: Backbone
  decoder: Backbone
  vocab: int = 11

  def setup(self):
    table = lambda n: nn.Embed(n, D, embedding_init=nn.initializers.normal(1.0))
    self.source, self.units = table(self.vocab), table(self.vocab + 1)
    self.null = NullFeatures(stddev=1.0)
    self.head = nn.Dense(self.vocab)

  def remember(self, source, hidden=None):
    seen = source > 0
    x, _ = self.encoder(self.source(source), seen[:, None, None])
    return self.decoder.remember(self.null(x, hidden), seen)

  def logits(self, source, units, hidden=None):
    """[B, L, V] of units [B, L]; the first is behind a begin."""
    begin = jnp.full((len(units), 1), self.vocab)
    x = self.units(jnp.concatenate([begin, units[:, :-1]], 1))
    mask = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))[None, None]
    memory = self.remember(source, hidden)
    return self.head(self.decoder(x, mask, memory=memory)[0])

  def greedy(self, source, length, scale):
    """[B, L], drawn one by one with a cache, guided."""
    b = len(source)
    memory = self.remember(pairs.double(source), pairs.without(b))
    cache = self.decoder.cache(2 * b, length, D).unstacked()

    def step(net, carry, i):
      units, cache = carry
      x = net.units(pairs.double(units)[:, None])
      h, cache = net.decoder(x, cache.causal(1), cache=cache, memory=memory)
      given, null = pairs.split(net.head(h)[:, 0])
      units = jnp.argmax(null + scale * (given - null), -1)
      return (units, cache), units

    cache = cache.advance(jnp.int32(0))
    carry, drawn = (jnp.full(b, self.vocab), cache), []
    scan = nn.scan(step, variable_broadcast=True, split_rngs={})
    _, drawn = scan(self, carry, jnp.arange(length))
    return drawn.T


class TranslatorTest(absltest.TestCase):
  def test_greedy_draws_are_those_of_the_teacher_forced_pass(self):
    make = functools.partial(vit, width=D, heads=H, dropout=0.0)
    net = Translator(make(1), make(2, cross=True))
    source = jnp.array([[3, 5, 2, 0], [1, 9, 7, 4], [6, 0, 0, 0], [0] * 4])
    units = jnp.zeros((4, 6), jnp.int32)
    init = jax.jit(lambda key: net.init(key, source, units, method="logits"))
    variables = noise(init(jax.random.key(0)))
    # Its null features are learned, though nothing has hidden a source yet.
    self.assertIn("null", variables["params"])

    @jax.jit
    def both(variables):
      bound = net.bind(variables)
      units = bound.greedy(source, 6, 1.5)
      hidden = pairs.without(4)
      double = pairs.double(source), pairs.double(units), hidden
      given, null = pairs.split(bound.logits(*double))
      return units, jnp.argmax(null + 1.5 * (given - null), -1)

    units, want = both(variables)
    np.testing.assert_array_equal(units, want)
    self.assertGreater(len(set(map(tuple, units.tolist()))), 2)

  def test_the_memory_of_some_rows(self):
    k = jnp.arange(2 * 4.0).reshape(2, 4, 1, 1, 1)
    memory = Memory(k, -k, jnp.arange(4)[:, None] > 0)
    half = memory.rows(slice(None, None, 2))
    np.testing.assert_array_equal(half.k[..., 0, 0, 0], [[0, 2], [4, 6]])
    np.testing.assert_array_equal(half.seen[:, 0], [False, True])


if __name__ == "__main__":
  absltest.main()
