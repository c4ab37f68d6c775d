import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax import optim
from ar_jax.step import (
  Options,
  TrainState,
  draw,
  init_state,
  jit_step,
  train_step,
)
from tests import toy

KEY = jax.random.key(0)


def run(options, batches, tx=None, noise=0.1):
  system = toy.Toy(noise)
  tx = tx or optim.make({"lr": 1e-2, "clip": 1.0}, 10)
  state = init_state(system, tx, options, KEY, batches[0])
  for batch in batches:
    state, metrics = jit_step(system, tx, options, state, batch, KEY)
  return state, metrics


@dataclasses.dataclass(frozen=True)
class Running(toy.Toy):
  """Keeps a running mean of its pixels."""

  moving = frozenset({"running"})

  def init(self, key, batch):
    return {**super().init(key, batch), "running": jnp.zeros(())}

  def loss(self, variables, batch, key, *, train):
    loss = super().loss(variables, batch, key, train=train)
    now = batch["image"].astype(jnp.float32).mean()
    mean = 0.9 * variables["running"] + 0.1 * now
    return dataclasses.replace(loss, updates={"running": mean})


class TrainStepTest(absltest.TestCase):
  def test_accumulated_is_whole(self):
    batches = [toy.batch(8, s) for s in range(3)]
    whole, m1 = run(Options(), batches)
    parts, m2 = run(Options(accumulate=4), batches)
    chex.assert_trees_all_close(whole.variables, parts.variables, atol=1e-6)
    np.testing.assert_allclose(m1["loss"], m2["loss"], rtol=1e-6)

  def test_masked_examples_do_not_count(self):
    batch = toy.batch(8)
    short = {k: v[:5] for k, v in batch.items()}
    padded = {**batch, "mask": jnp.arange(8) < 5}
    a, _ = run(Options(), [short])
    b, _ = run(Options(), [padded])
    chex.assert_trees_all_close(a.variables, b.variables, atol=1e-6)

  def test_masked_examples_count_alike_in_all_parts(self):
    """Parts of a batch have unequal numbers of examples that count."""
    batch = {**toy.batch(8), "mask": jnp.array([1, 0, 1, 0, 1, 0, 1, 1.0])}
    whole, m1 = run(Options(), [batch])
    parts, m2 = run(Options(accumulate=2), [batch])
    chex.assert_trees_all_close(whole.variables, parts.variables, atol=1e-6)
    chex.assert_trees_all_close(m1, m2, rtol=1e-5)
    # The same over devices, of which vmap plays two.
    system, tx = toy.Toy(0.1), optim.make({"lr": 1e-2, "clip": 1.0}, 10)
    state = init_state(system, tx, Options(), KEY, batch)
    split = {k: v.reshape(2, 4, *v.shape[1:]) for k, v in batch.items()}
    split["mask"] = split["mask"].at[0].set(jnp.array([1, 0, 0, 0]))
    batch["mask"] = split["mask"].reshape(8)
    whole, m1 = run(Options(), [batch])
    mapped, m2 = jax.vmap(
      lambda part: train_step(system, tx, Options(axis="d"), state, part, KEY),
      axis_name="d",
    )(split)
    one = lambda tree: jax.tree.map(lambda x: x[0], tree)
    chex.assert_trees_all_close(
      whole.variables, one(mapped.variables), atol=1e-6
    )
    chex.assert_trees_all_close(m1, one(m2), rtol=1e-5)

  def test_running_means_are_of_all_parts(self):
    system = Running()
    tx = optim.make({"lr": 1e-2}, 10)
    batch = toy.batch(8)
    found = []
    for parts in (1, 4):
      options = Options(accumulate=parts)
      state = init_state(system, tx, options, KEY, batch)
      state, _ = jit_step(system, tx, options, state, batch, KEY)
      found.append(state.variables["running"])
    chex.assert_trees_all_close(*found, rtol=1e-5)

  def test_average(self):
    state, _ = run(Options(ema=0.9), [toy.batch(4)])
    start = init_state(
      toy.Toy(), optim.make({"lr": 1.0}, 1), Options(), KEY, toy.batch(4)
    )
    # At t = 0 the decay is (1 + 0) / (10 + 0).
    expected = jax.tree.map(
      lambda s, n: 0.1 * s + 0.9 * n,
      start.variables["params"],
      state.variables["params"],
    )
    chex.assert_trees_all_close(state.ema, expected, atol=1e-6)
    self.assertIs(state.averaged()["params"], state.ema)
    self.assertIs(state.averaged()["frozen"], state.variables["frozen"])

  def test_other_collections_are_carried(self):
    state, _ = run(Options(), [toy.batch(4)])
    self.assertEqual(float(state.variables["frozen"]["scale"]), 1.0)

  def test_items_round_trip(self):
    state, _ = run(Options(ema=0.5), [toy.batch(4)])
    chex.assert_trees_all_equal(TrainState.from_items(state.items()), state)

  def test_one_trace(self):
    system, tx = toy.Toy(0.5), optim.make({"lr": 1e-2}, 10)
    state = init_state(system, tx, Options(), KEY, toy.batch(4))
    before = jit_step._cache_size()
    for s in range(3):
      state, _ = jit_step(system, tx, Options(), state, toy.batch(4, s), KEY)
    self.assertEqual(jit_step._cache_size() - before, 1)


class DrawTest(absltest.TestCase):
  def test_depends_on_the_index_only(self):
    cond = {"label": np.zeros(5, np.int32)}
    whole = draw(toy.Toy(), {}, cond, KEY, batch=5)["image"]
    parts = draw(toy.Toy(), {}, cond, KEY, batch=2)["image"]
    tail = draw(
      toy.Toy(), {}, {"label": np.zeros(2, np.int32)}, KEY, batch=2, start=3
    )["image"]
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole[3:], tail)
    self.assertEqual(whole.shape, (5, 4, 4, 1))
    self.assertEqual(len(np.unique(whole[:, 0, 0, 0])), 5)

  def test_options_reach_the_system(self):
    cond = {"label": np.zeros(1, np.int32)}
    plain = draw(toy.Toy(), {}, cond, KEY, batch=1)
    light = draw(toy.Toy(), {}, cond, KEY, batch=1, options={"bright": 1.0})
    np.testing.assert_allclose(light["image"], plain["image"] + 1.0)


class OptimTest(absltest.TestCase):
  def test_schedules(self):
    var = optim.lr_factor("var", steps=1000, warmup=100, end=0.1)
    self.assertAlmostEqual(float(var(99)), 1.0, places=6)
    self.assertAlmostEqual(float(var(0)), 0.005 + 0.995 / 100, places=6)
    self.assertAlmostEqual(float(var(100 + 44)), 1.0)  # flat for 5 %
    half = 0.1 + 0.9 * (449 / 899) / 0.95
    self.assertAlmostEqual(float(var(550)), half, places=6)
    cosine = optim.lr_factor("cosine", steps=111, warmup=10, end=0.2)
    self.assertAlmostEqual(float(cosine(10)), 1.0)
    self.assertAlmostEqual(float(cosine(60)), 0.6, places=6)
    late = optim.lr_factor("late_cosine", steps=804, warmup=100, end=0.1)
    np.testing.assert_allclose(
      [late(s) for s in (49, 100, 603, 703)], [0.5, 1, 1, 0.55]
    )
    late = optim.lr_factor("late_linear", steps=1206, end=0.1)
    np.testing.assert_allclose(
      [late(s) for s in (0, 1005, 1105, 1205)], [1, 1, 0.55, 0.1], rtol=1e-5
    )
    linear = optim.lr_factor("linear", steps=101)
    self.assertAlmostEqual(float(linear(25)), 0.75, places=6)
    thirds = optim.lr_factor("steps", steps=600)
    np.testing.assert_allclose(
      [thirds(s) for s in (299, 300, 400, 500)], [1, 0.2, 0.04, 0.008], 1e-5
    )
    tenths = optim.lr_factor("tenths", steps=70)
    np.testing.assert_allclose(
      [tenths(s) for s in (0, 6, 7, 62, 69)],
      0.9 ** np.array([0, 0, 1, 8, 9]),
      1e-5,
    )
    cycle = optim.lr_factor("one_cycle", steps=101)
    np.testing.assert_allclose(
      [cycle(s) for s in (0, 25, 100)], [0.04, 1, 1e-4], rtol=1e-3
    )
    self.assertAlmostEqual(float(cycle(12.5)), 0.52, places=6)

  def test_schedules_end_with_the_last_update(self):
    for name in ("cosine", "late_cosine", "late_linear", "linear", "var"):
      factor = optim.lr_factor(name, steps=50, warmup=5, end=0.1)
      self.assertAlmostEqual(float(factor(49)), 0.1, places=6)
      self.assertGreater(float(factor(48)), 0.1)
    config = {"lr": 1.0, "schedule": "constant", "weight_decay": 0.5}
    tx = optim.make({**config, "weight_decay_end": 0.0}, 3)
    params = {"kernel": jnp.ones(2)}
    zero, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
    for _ in range(3):
      change, state = tx.update(zero, state, params)
    np.testing.assert_allclose(change["kernel"], 0.0, atol=1e-7)

  def test_matrices_decay_and_nothing_else(self):
    params = {
      "fc": {"kernel": 0, "bias": 0},
      "pos": 0,
      "class": {"embedding": 0},
    }
    mask = optim.decay_mask(params)
    self.assertEqual(
      mask,
      {
        "fc": {"kernel": True, "bias": False},
        "pos": False,
        "class": {"embedding": True},
      },
    )

  def test_decay_moves_matrices_only(self):
    tx = optim.make({"lr": 1.0, "weight_decay": 0.5, "schedule": "constant"}, 4)
    params = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    zero = jax.tree.map(jnp.zeros_like, params)
    change, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(change["a"]["kernel"], -0.5)
    np.testing.assert_allclose(change["a"]["bias"], 0.0)

  def test_groups_have_their_own_rate_and_clip(self):
    tx = optim.make(
      {
        "lr": 1.0,
        "schedule": "constant",
        "clip": 1.0,
        "groups": {"adversary": {"lr": 0.1}},
      },
      4,
    )
    params = {
      "fc1": {"kernel": jnp.ones(2)},
      "adversary": {"kernel": jnp.ones(2)},
    }
    grads = jax.tree.map(lambda x: 100 * x, params)
    change, _ = tx.update(grads, tx.init(params), params)
    ratio = change["fc1"]["kernel"] / change["adversary"]["kernel"]
    np.testing.assert_allclose(ratio, 10.0, rtol=1e-5)

  def test_is_adamw(self):
    tx = optim.make(
      {"lr": 0.1, "schedule": "constant", "weight_decay": 0.3, "b2": 0.9}, 4
    )
    oracle = optax.adamw(0.1, b1=0.9, b2=0.9, weight_decay=0.3)
    params = {"kernel": jnp.linspace(-1, 1, 6)}
    a, b = tx.init(params), oracle.init(params)
    for i in range(3):
      grads = {"kernel": jnp.cos(jnp.arange(6.0) * i)}
      one, a = tx.update(grads, a, params)
      two, b = oracle.update(grads, b, params)
      chex.assert_trees_all_close(one, two, atol=1e-6)

  def test_is_adam_or_gradient_descent(self):
    params = {"kernel": jnp.linspace(-1, 1, 6)}
    coupled = optax.add_decayed_weights(0.3)
    for given, oracle in (
      ({}, optax.sgd(0.1)),
      ({"weight_decay": 0.3}, optax.chain(coupled, optax.sgd(0.1))),
      ({"momentum": 0.9}, optax.sgd(0.1, 0.9)),
      (
        {"kind": "adam", "weight_decay": 0.3, "b2": 0.9},
        optax.chain(coupled, optax.adam(0.1, b2=0.9)),
      ),
    ):
      settings = {"kind": "sgd", "lr": 0.1, "schedule": "constant", **given}
      tx = optim.make(settings, 4)
      a, b = tx.init(params), oracle.init(params)
      for i in range(3):
        grads = {"kernel": jnp.cos(jnp.arange(6.0) * i)}
        one, a = tx.update(grads, a, params)
        two, b = oracle.update(grads, b, params)
        chex.assert_trees_all_close(one, two, atol=1e-6)
    with self.assertRaisesRegex(optim.UserError, "kind='adams': choose one"):
      optim.make({"kind": "adams", "lr": 0.1}, 4)

  def test_groups_and_frozen_parts_by_pattern(self):
    params = {
      "net": {
        name: {"kernel": jnp.ones(2), "bias": jnp.ones(2)} for name in "ab"
      },
      "net_b": {"kernel": jnp.ones(2)},
    }
    settings = {
      "lr": 1.0,
      "schedule": "constant",
      "groups": {"net/*": {"lr": 0.1}, "net/b": {"lr": 0.01}},
    }
    change = lambda tx: tx.update(params, tx.init(params), params)[0]
    steps = change(optim.make(settings, 4))
    size = lambda tree: -float(tree["kernel"][0])
    self.assertAlmostEqual(size(steps["net"]["a"]), 0.1, places=4)
    self.assertAlmostEqual(size(steps["net"]["b"]), 0.01, places=4)
    self.assertAlmostEqual(size(steps["net_b"]), 1.0, places=4)
    frozen = change(optim.make({**settings, "frozen": ["*/bias"]}, 4))
    self.assertEqual(float(jnp.abs(frozen["net"]["a"]["bias"]).sum()), 0)
    self.assertAlmostEqual(size(frozen["net"]["a"]), 0.1, places=4)
    for changes, message in (
      ({"groups": {"net/[cd]": {}}}, "optim.groups: no part is named"),
      ({"frozen": ["nets"]}, "optim.frozen.nets: .* there are net, net_b"),
    ):
      with self.assertRaisesRegex(optim.UserError, message):
        optim.make({**settings, **changes}, 4).init(params)

  def test_misspelt_key(self):
    with self.assertRaisesRegex(optim.UserError, "warmupp"):
      optim.make({"lr": 1.0, "warmupp": 3}, 4)
    with self.assertRaisesRegex(optim.UserError, "schedule='cosin'"):
      optim.make({"lr": 1.0, "schedule": "cosin"}, 4)

  def test_misspelt_group(self):
    tx = optim.make({"lr": 1.0, "groups": {"adversry": {}}}, 4)
    params = toy.Toy().init(KEY, toy.batch(2))["params"]
    with self.assertRaisesRegex(
      optim.UserError, "groups.adversry: .* there are adversary, fc1"
    ):
      tx.init(params)

  def test_state_does_not_depend_on_the_numbers(self):
    params = {"kernel": jnp.ones(2)}
    states = [
      optim.make({"lr": 1.0, **changes}, 4).init(params)
      for changes in (
        {},
        {"clip": 1.0},
        {"clip_value": 1.0},
        {"weight_decay": 0.1, "weight_decay_end": 0.0},
        {"schedule": "constant"},
      )
    ]
    self.assertLen({str(jax.tree.leaves(s)) for s in states}, 1)

  def test_fresh_state_at_a_step(self):
    tx = optim.make({"lr": 1.0, "weight_decay": 0.1}, 9)
    state = optim.at_step(tx.init({"kernel": jnp.ones(2)}), jnp.int32(7))
    counts = [int(x) for x in jax.tree.leaves(state) if x.ndim == 0]
    self.assertEqual(sorted(counts), [0, 7, 7])


class OptionsTest(absltest.TestCase):
  def test_static(self):
    self.assertEqual(hash(Options()), hash(dataclasses.replace(Options())))


if __name__ == "__main__":
  absltest.main()
