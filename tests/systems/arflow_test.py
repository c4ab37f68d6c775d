"""ARFlow: the official model's outputs, and "It works when", line by line."""

import functools
import importlib
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import arflow as convert
from ar_jax.core.flows import solvers
from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.gated_attention import GatedAttention, States
from ar_jax.systems.arflow import SIZES
from tests import filled, golden_weights

MODEL = dict(
  tokenizer=dict(name="patches", patch=1, size=8, in_channels=4), patch=2,
  depth=2, width=64, heads=4, num_classes=10,
)  # fmt: skip
N, C = 16, 16
KEYS = jax.random.split(jax.random.key(0), 2)
tensor = golden_weights.tensor


def patches(x: np.ndarray) -> np.ndarray:
  """[..., 16, 16] of latents [..., 4, 8, 8]."""
  flat = np.moveaxis(x.reshape(-1, 4, 8, 8), 1, -1)
  return np.asarray(cut(flat, 2)).reshape(*x.shape[:-3], N, C)


def latents(x: np.ndarray) -> np.ndarray:
  """[..., 4, 8, 8] of patches [..., 16, 16]."""
  flat = join(np.asarray(x).reshape(-1, 4, 4, C), 2)
  return np.moveaxis(flat, -1, 1).reshape(*x.shape[:-2], 4, 8, 8)


@functools.cache
def golden():
  """(system, its params, description, outputs)."""
  description, outputs = golden_weights.load("arflow")
  params = convert.to_ours(golden_weights.weights(description))
  return build("arflow", **MODEL), params, description, outputs


@functools.cache
def program():
  """Velocities and the states behind them, compiled for a chain."""
  net = golden()[0].net

  @jax.jit
  def call(params, x, label, t):
    return net.apply({"params": params}, x, label, t, net.cache(len(x)))

  return call


def chain():
  _, params, _, outputs = golden()
  label = jnp.array([3, 7])
  x = jnp.asarray(patches(tensor("chain", (2, 5, 4, 8, 8))))
  return params, x, label, jnp.asarray(outputs["times"])


close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


class GoldenTest(absltest.TestCase):
  def test_velocities_and_states_of_a_chain(self):
    outputs = golden()[3]
    v, cache = program()(*chain())
    close(latents(v), outputs["velocity_chain"])
    close(cache.state[1], outputs["state_layer1_after_chain"])

  def test_attention(self):
    _, params, _, outputs = golden()
    own = jax.tree.map(lambda x: x[0], params["backbone"]["block"]["mixer"])
    x, c = (tensor(n, (1, 32, 64)) for n in ("attn_x", "attn_c"))
    mixer, c = GatedAttention(4), c.reshape(1, 2, N, 64)
    call = lambda x, c, cache=None: mixer.apply(
      {"params": own}, x, pos=c, cache=cache
    )
    close(jax.jit(call)(x, c)[0], outputs["attention_two_images"])

    @jax.jit
    def by_parts(x, c):
      cache, parts = mixer.empty(1, 1, 0, 64, None), []
      for k in range(2):
        given = x[:, N * k : N * (k + 1)], c[:, k : k + 1]
        part, cache = call(*given, cache)
        parts.append((part, cache.state[0]))
      return parts

    parts, states = zip(*by_parts(x, c), strict=True)
    for k, state in enumerate(states):
      close(state, outputs[f"attention_state_{k + 1}"])
    close(np.concatenate(parts, 1), outputs["attention_two_images"])

  def test_loss(self):
    system, params, _, outputs = golden()
    _, x, label, t = chain()
    noise = jnp.asarray(patches(tensor("eps", (2, 5, 4, 8, 8))))
    moments = jnp.concatenate([x, jnp.full_like(x, -30.0)], -1)
    batch = dict(units=moments[:, 0], peer_units=moments[:, 1:], label=label)
    with (
      mock.patch.object(solvers, "noise", lambda *_: noise),
      mock.patch.object(jnp, "sort", lambda _: t[0]),
    ):
      # One chain at a time: each has times of its own.
      run = jax.jit(functools.partial(system.loss, train=False))
      loss = run({"params": params, "tokenizer": {}}, batch, KEYS[0])
    np.testing.assert_allclose(
      loss.value[0], outputs["loss_per_chain"][0], rtol=1e-4
    )

  def test_guided_samples(self):
    system, params, _, outputs = golden()
    names = ["init", *(f"step{k}" for k in range(6))]
    table = jnp.asarray(
      np.stack([patches(tensor(n, (2, 4, 8, 8))) for n in names])
    )
    given = lambda keys, shape, step=0: table[step]
    with mock.patch.object(solvers, "noise", given):
      draw = functools.partial(
        system.generate, steps=6, guidance=1.5, guided_channels=3, trail=True
      )
      label = {"label": jnp.array([3, 7])}
      way = np.asarray(jax.jit(draw)({"params": params}, label, KEYS))
    close(latents(way[:, :, 0]), outputs["sde_after_first_step"])
    sample = outputs["sde_sample"]
    close(latents(way[:, :, -1]), sample, atol=1e-4 * np.abs(sample).max())

  def test_there_and_back_bit_for_bit(self):
    description = golden()[2]
    state = golden_weights.weights(description)
    places = {"pos_embed": np.zeros((1, N, 64), np.float32)}
    back = convert.to_official(convert.to_ours(state | places))
    self.assertEqual(back.keys(), state.keys())
    for key, value in state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)
    model = convert.config(state | places)["model"]
    self.assertEqual(model["tokenizer"]["size"], 64)
    want = dict(depth=2, width=64, heads=4, num_classes=10, patch=2)
    self.assertEqual({k: model[k] for k in want}, want)
    with self.assertRaisesRegex(UserError, "not a network of ARFlow"):
      convert.config({"x": np.zeros(3)})
    with self.assertRaisesRegex(UserError, "missing: final_layer.linear.bias"):
      some = {k: v for k, v in state.items() if k != "final_layer.linear.bias"}
      convert.to_ours(some)


class ChainTest(parameterized.TestCase):
  @parameterized.parameters("cumsum", "none")
  def test_a_chain_is_its_images_one_after_the_other(self, query_decay):
    system = build("arflow", **MODEL, query_decay=query_decay)
    params, x, label, t = chain()
    net = system.net
    call = jax.jit(
      lambda x, t, cache: net.apply({"params": params}, x, label, t, cache)
    )
    want, last = call(x, t, net.cache(2))
    cache, parts = net.cache(2), []
    for k in range(5):
      v, cache = call(x[:, k : k + 1], t[:, k : k + 1], cache)
      parts.append(v)
    np.testing.assert_allclose(
      np.concatenate(parts, 1), want, rtol=1e-5, atol=2e-5
    )
    np.testing.assert_allclose(cache.state, last.state, rtol=1e-5, atol=1e-5)
    self.assertEqual(cache.state.shape, (2, 2, 4, 16, 16))  # of any chain

  def test_an_image_sees_itself_and_those_before(self):
    params, x, label, t = chain()
    before = np.asarray(program()(params, x, label, t)[0])
    after = program()(params, x.at[:, 2, 5].add(1.0), label, t)[0]
    moved = (np.asarray(after) != before).any(-1)  # [2, 5, n]
    self.assertFalse(moved[:, :2].any())
    self.assertTrue(moved[:, 2].all())
    self.assertTrue(moved[:, 3:].any(-1).all())

  def test_one_image_is_gated_softmax_attention(self):
    mixer, rng = GatedAttention(2), np.random.default_rng(0)
    x, c = (rng.normal(size=(1, 6, 8)).astype(np.float32) for _ in range(2))
    c = c[:, None]
    variables = mixer.init(KEYS[0], x, pos=c)
    w = {k: np.asarray(v["kernel"]) for k, v in variables["params"].items()}
    norm = lambda y: y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)
    q, k, v = (norm(x[0] @ w[n]).reshape(6, 2, 4) for n in "qkv")
    score = np.einsum("nhk,mhk->hnm", q, k) / 2
    score = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    o = norm(np.einsum("hnm,mhk->nhk", score, v)).reshape(6, 8)
    gate = x[0] @ w["gate"]
    want = (gate / (1 + np.exp(-gate)) * o) @ w["out"]
    got = mixer.apply(variables, x, pos=c)[0][0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  def test_decay_of_gates_at_zero(self):
    mixer = GatedAttention(1)
    x = jnp.ones((1, 4, 4))
    variables = jax.tree.map(
      jnp.zeros_like, mixer.init(KEYS[0], x, pos=x[:, None])
    )
    state = States(jnp.ones((1, 1, 1, 4, 4)))
    after = mixer.apply(variables, x, pos=x[:, None], cache=state)[1]
    np.testing.assert_allclose(after.state, 0.95760, atol=5e-6)

  def test_fresh_weights(self):
    system = build("arflow", **MODEL)
    variables = jax.jit(lambda key: system.init(key, {}))(KEYS[0])
    label = jnp.zeros(300, int)
    x = 2.0 * jax.random.normal(KEYS[1], (300, 5, N, C))
    moments = jnp.concatenate([x, jnp.full_like(x, -30.0)], -1)
    batch = dict(units=moments[:, 0], peer_units=moments[:, 1:], label=label)
    loss = jax.jit(functools.partial(system.loss, train=True))(
      variables, batch, KEYS[0]
    )
    np.testing.assert_allclose(loss.value.mean(), 1 + 4.0, rtol=0.02)
    v, _ = program()(variables["params"], *chain()[1:])
    np.testing.assert_array_equal(v, 0)

  def test_times_rise_along_a_chain(self):
    system = build("arflow", **MODEL)
    variables, seen = filled.variables(system), []

    def spy(self, x, label, t, *_):
      seen.append(t)
      return 0 * x, None

    units = jnp.zeros((2, N, 2 * C))
    batch = dict(units=units, peer_units=units[:, None].repeat(4, 1))
    batch["label"] = jnp.array([0, 1])
    with mock.patch.object(type(system.net), "__call__", spy):
      system.loss(variables, batch, KEYS[0], train=True)
      self.assertTrue((jnp.diff(seen[0]) > 0).all())
      with self.assertRaisesRegex(UserError, "set data.peers=4"):
        system.loss(
          variables, {**batch, "peer_units": units[:, None]}, KEYS[0],
          train=True,
        )  # fmt: skip

  def test_a_draw_calls_the_network_once_a_step(self):
    for more in ({}, dict(chain=1, hybrid=False)):
      system = build("arflow", **MODEL | more)
      variables, calls = filled.variables(system, stddev=0.05), []
      net = type(system.net)
      own = net.__call__

      def counted(self, *args, own=own, calls=calls):
        jax.debug.callback(lambda: calls.append(0))
        return own(self, *args)

      with mock.patch.object(net, "__call__", counted):
        options = dict(steps=4, guidance=2.0)
        label = {"label": jnp.array([1, 2])}
        x = system.generate(variables, label, KEYS, **options)
        jax.effects_barrier()
      self.assertTrue(np.isfinite(x).all())
      self.assertLen(calls, system.forwards(steps=4))


class CostTest(parameterized.TestCase):
  @parameterized.parameters(
    ("s", 34.6, 32.9), ("b", 137.5, 130.3), ("l", 483.3, 457.8),
    ("xl", 712.4, 674.8),
  )  # fmt: skip
  def test_published_sizes(self, size, millions, sit):
    codes = dict(name="kl_vae", channels=4, mult=(1, 2, 4, 4), attention=())
    model = dict(tokenizer=codes, patch=2, num_classes=1000, **SIZES[size])
    for more, want in (({}, millions), (dict(hybrid=False, chain=1), sit)):
      system = build("arflow", **model | more)
      made = jax.eval_shape(lambda key, s=system: s.init(key, {}), KEYS[0])
      leaves = jax.tree.leaves(made["params"])
      count = sum(math.prod(x.shape) for x in leaves) / 1e6
      self.assertAlmostEqual(count, want, delta=0.25)

  def test_a_step_costs_what_it_costs_sit(self):
    """Within 10 % of the operations of a layer, at the width and length of B/2
    at 256 px; of S/2 they are 10.1 % more."""
    codes = dict(name="patches", size=32, in_channels=4)
    size = dict(tokenizer=codes, patch=2, num_classes=10)
    size |= SIZES["b"] | dict(depth=1)
    found = []
    for more in ({}, dict(hybrid=False, chain=1)):
      net = build("arflow", **size | more).net
      x = jax.ShapeDtypeStruct((1, 1, 256, 16), jnp.float32)
      label = jax.ShapeDtypeStruct((1,), jnp.int32)
      t = jax.ShapeDtypeStruct((1, 1), jnp.float32)
      params = jax.eval_shape(net.init, KEYS[0], x, label, t)
      step = lambda params, x, label, t, net=net: net.apply(
        params, x, label, t, net.cache(1)
      )
      lowered = jax.jit(step).lower(params, x, label, t)
      found.append(lowered.cost_analysis()["flops"])
    self.assertBetween(found[0] / found[1], 1.0, 1.1)

  def test_the_published_config(self):
    config = importlib.import_module("configs.arflow").get_config("paper")
    system = build(config.system, **config.model.to_dict())
    self.assertEqual(config.data.peers, system.chain - 1)
    self.assertEqual(system.forwards(**config.sample.options), 250)

  def test_wrong_values(self):
    series = dict(name="given", form="series", length=4)
    for values, message in (
      (dict(chain=0), "chain=0"),
      (dict(hybrid=False), "hybrid=False"),
      (dict(tokenizer=series, patch=1), "units on a grid"),
      (dict(heads=3), "not a multiple of heads=3"),
      (dict(query_decay="all"), "query_decay='all'"),
    ):
      with self.assertRaisesRegex(UserError, message):
        system = build("arflow", **MODEL | values)
        jax.eval_shape(lambda key, s=system: s.init(key, {}), KEYS[0])
    system = build("arflow", **MODEL, label_dropout=0.0)
    for options, message in (
      (dict(steps=1), "steps=1"),
      (dict(last=1.0), "last=1.0"),
      (dict(guidance=2.0), "no null class"),
    ):
      with self.assertRaisesRegex(UserError, message):
        system.generate({}, {"label": jnp.zeros(2, int)}, KEYS, **options)


if __name__ == "__main__":
  absltest.main()
