"""What an update leaves alone: other groups, a batch that is skipped, and
collections that may not change; and programs that take turns."""

import collections
import dataclasses
import shutil
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import checkpoint, optim, train
from ar_jax.core.system import UserError
from ar_jax.step import Options, init_state, jit_step, train_step
from tests import toy
from tests.toy_runs import ToyTest, config, rows

KEY = jax.random.key(0)
GROUPS = {"lr": 1e-2, "schedule": "constant", "groups": {"adversary": {}}}
traces = collections.Counter()


@dataclasses.dataclass(frozen=True)
class Phased(toy.Toy):
  """Trains the one group for `first` steps, then the other, and so on."""

  first: int = 0
  trains: tuple[str, ...] | None = None

  def at(self, step):
    late = step // self.first % 2
    return dataclasses.replace(self, trains=("adversary" if late else "fc1",))

  def loss(self, variables, batch, key, *, train):
    if train:
      traces[self] += 1
    return super().loss(variables, batch, key, train=train)


@dataclasses.dataclass(frozen=True)
class Gated(toy.Toy):
  """Makes no update of a batch with a label of 9 or more."""

  moving = frozenset({"seen"})

  def init(self, key, batch):
    return {**super().init(key, batch), "seen": jnp.zeros(())}

  def loss(self, variables, batch, key, *, train):
    loss = super().loss(variables, batch, key, train=train)
    return dataclasses.replace(
      loss,
      updates={"seen": variables["seen"] + 1},
      skip=jnp.max(batch["label"]) >= 9,
    )


@dataclasses.dataclass(frozen=True)
class Moved(toy.Toy):
  """Updates a collection, which it may or may not."""

  moving: frozenset[str] = frozenset()
  value: str = "count"

  def init(self, key, batch):
    count = {"count": jnp.zeros((), jnp.int32)}
    return {**super().init(key, batch), "state": count}

  def loss(self, variables, batch, key, *, train):
    loss = super().loss(variables, batch, key, train=train)
    new = {self.value: variables["state"]["count"] + 1}
    return dataclasses.replace(loss, updates={"state": new})


def start(system, options, tx):
  return init_state(system, tx, options, KEY, toy.batch(8))


def copied(tree):
  return jax.tree.map(np.array, tree)


class GroupsTest(absltest.TestCase):
  def test_what_is_not_trained_stays(self):
    for settings in (GROUPS, {**GROUPS, "groups": {}, "clip": 1.0}):
      tx, options = optim.make(settings, 10), Options(ema=0.5)
      both, one = Phased(), Phased(trains=("fc1",))
      state = start(both, options, tx)
      for i in range(2):  # so that there are moments that could decay
        batch = toy.batch(8, i)
        state, _ = jit_step(both, tx, options, state, batch, KEY)
      before = copied(state)
      state, metrics = jit_step(one, tx, options, state, toy.batch(8, 2), KEY)
      after = copied(state)
      for a, b in (
        (before.variables["params"], after.variables["params"]),
        (before.ema, after.ema),
      ):
        chex.assert_trees_all_equal(a["adversary"], b["adversary"])
        self.assertFalse(np.array_equal(a["fc1"]["kernel"], b["fc1"]["kernel"]))
      moments = [
        s
        for tree in (before.opt, after.opt)
        for s in jax.tree.leaves(tree, is_leaf=optim._holds_moments)
        if optim._holds_moments(s)
      ]
      own = lambda s: jax.tree.leaves((s.mu["adversary"], s.nu["adversary"]))
      half = len(moments) // 2
      for was, now in zip(moments[:half], moments[half:], strict=True):
        chex.assert_trees_all_equal(own(was), own(now))
        if jax.tree.leaves(now.mu["fc1"]):
          self.assertEqual(int(now.count), 3)
        else:  # a partition without what is trained
          self.assertEqual(int(now.count), 2)
      self.assertGreater(metrics["norm/update"], 0)

  def test_other_groups_do_not_count_in_the_gradient(self):
    """A phase is a run of that group alone, its clip by norm included."""
    settings = {"lr": 1e-2, "schedule": "constant", "clip": 1e-3}
    tx = optim.make({**settings, "frozen": ["adversary"]}, 10)
    phase = optim.make(settings, 10)
    alone = start(toy.Toy(), Options(), tx)
    state = start(toy.Toy(), Options(), phase)
    one = Phased(trains=("fc1",))
    for i in range(3):
      batch = toy.batch(8, i)
      state, metrics = jit_step(one, phase, Options(), state, batch, KEY)
      grads = {**optax_zero(alone), **gradient(alone, batch)}
      change, opt = tx.update(grads, alone.opt, alone.variables["params"])
      params = jax.tree.map(jnp.add, alone.variables["params"], change)
      alone = dataclasses.replace(
        alone, variables={**alone.variables, "params": params}, opt=opt
      )
    chex.assert_trees_all_close(
      state.variables["params"], alone.variables["params"], atol=1e-6
    )

  def test_a_group_that_is_none(self):
    tx = optim.make(GROUPS, 10)
    state = start(toy.Toy(), Options(), tx)
    system = Phased(trains=("fc2",))
    with self.assertRaisesRegex(
      UserError, "Phased.trains: .* no group 'fc2'; there are adversary, fc1"
    ):
      jax.eval_shape(
        lambda s, b: train_step(system, tx, Options(), s, b, KEY),
        state,
        toy.batch(8),
      )


def optax_zero(state):
  return jax.tree.map(jnp.zeros_like, state.variables["params"])


def gradient(state, batch):
  """That of fc1 alone."""
  params = state.variables["params"]

  def objective(fc1):
    variables = {**state.variables, "params": {**params, "fc1": fc1}}
    loss = toy.Toy().loss(variables, batch, KEY, train=True)
    return loss.value.mean()

  return {"fc1": jax.grad(objective)(params["fc1"])}


class SkipTest(absltest.TestCase):
  def bad(self, at=5):
    batch = toy.batch(8, 1)
    return {**batch, "label": batch["label"].at[at].set(9)}

  def run_of(self, batches, **options):
    tx, options = optim.make(GROUPS, 10), Options(**options)
    state, rows = start(Gated(), options, tx), []
    for batch in batches:
      state, metrics = jit_step(Gated(), tx, options, state, batch, KEY)
      rows.append(jax.device_get(metrics))
    return state, rows

  def test_it_is_as_if_the_batch_had_not_been(self):
    good = [toy.batch(8, 0), toy.batch(8, 2)]
    for parts in (1, 4):  # one microbatch decides for all
      options = dict(accumulate=parts)
      with_it, metrics = self.run_of([good[0], self.bad(), good[1]], **options)
      without, _ = self.run_of(good, **options)
      self.assertEqual([int(m["skipped"]) for m in metrics], [0, 1, 0])
      self.assertEqual(float(metrics[1]["norm/update"]), 0)
      self.assertEqual(int(with_it.step), 3)
      chex.assert_trees_all_equal(with_it.variables, without.variables)
      self.assertEqual(float(with_it.variables["seen"]), 2)
      moments = lambda state: [
        s
        for s in jax.tree.leaves(state.opt, is_leaf=optim._holds_moments)
        if optim._holds_moments(s)
      ]
      chex.assert_trees_all_equal(moments(with_it), moments(without))
      # Schedules count the steps of the run.
      counts = [int(x) for x in jax.tree.leaves(with_it.opt) if x.ndim == 0]
      self.assertEqual(sorted(counts), [2, 2, 3, 3, 3, 3])

  def test_averages_stay(self):
    tx, options = optim.make(GROUPS, 10), Options(ema=0.9)
    state = start(Gated(), options, tx)
    state, _ = jit_step(Gated(), tx, options, state, toy.batch(8), KEY)
    before = copied(state.ema)
    state, _ = jit_step(Gated(), tx, options, state, self.bad(), KEY)
    chex.assert_trees_all_equal(before, state.ema)

  def test_one_device_decides_for_all(self):
    """Devices, of which vmap plays two."""
    tx, options = optim.make(GROUPS, 10), Options(axis="d")
    state = start(Gated(), options, tx)
    for batch, skipped in ((toy.batch(8), 0), (self.bad(at=7), 1)):
      split = {k: v.reshape(2, 4, *v.shape[1:]) for k, v in batch.items()}
      mapped, metrics = jax.vmap(
        lambda part: train_step(Gated(), tx, options, state, part, KEY),
        axis_name="d",
      )(split)
      np.testing.assert_array_equal(metrics["skipped"], [skipped] * 2)
      for part in range(2):
        got = jax.tree.map(lambda x, p=part: x[p], mapped.variables)
        same = np.array_equal(
          got["params"]["fc1"]["kernel"],
          state.variables["params"]["fc1"]["kernel"],
        )
        self.assertEqual(same, bool(skipped))


class MovingTest(absltest.TestCase):
  def trace(self, system, options=None):
    tx, options = optim.make(GROUPS, 10), options or Options()
    state = start(system, options, tx)
    step = lambda s, b: train_step(system, tx, options, s, b, KEY)[0]
    batch = toy.batch(8)
    if options.axis:
      split = {k: v.reshape(2, 4, *v.shape[1:]) for k, v in batch.items()}
      mapped = jax.vmap(step, (None, 0), axis_name=options.axis)
      return jax.eval_shape(mapped, state, split)
    return step(state, batch)

  def test_a_collection_must_be_named(self):
    with self.assertRaisesRegex(
      UserError, "Moved: its loss updates state.*add it to Moved.moving"
    ):
      self.trace(Moved())
    may = Moved(moving=frozenset({"state"}))
    for parts in (1, 2):
      state = self.trace(may, Options(accumulate=parts))
      self.assertEqual(int(state.variables["state"]["count"]), 1)

  def test_its_structure_stays(self):
    with self.assertRaisesRegex(UserError, "another structure: state/count"):
      self.trace(Moved(moving=frozenset({"state"}), value="counts"))

  def test_devices_have_no_mean_of_integers(self):
    with self.assertRaisesRegex(
      UserError, "state/count, int32, .* take parallel=jit"
    ):
      self.trace(Moved(moving=frozenset({"state"})), Options(axis="d"))


class RunTest(ToyTest):
  def run_phases(self, workdir, noise, first, **changes):
    c = config(**changes)
    c.model.noise = noise
    c.optim.groups = {"adversary": {}}
    make = lambda noise=0.0: Phased(noise, first)
    with mock.patch.object(toy, "build", make):
      train.run(c, workdir)

  def test_a_run_goes_on_in_another_phase(self):
    whole, part = self.workdir, self.workdir.with_name("part")
    changes = dict(save_every=5, keep=9)
    self.run_phases(whole, 0.1, 7, **changes)
    # As if it had been killed in the first phase, and again in the second.
    for steps in ((10, 15, 20), (15, 20)):
      shutil.copytree(whole, part)
      for step in steps:
        shutil.rmtree(part / "checkpoints" / str(step))
      self.run_phases(part, 0.1, 7, **changes)
      want, got = (checkpoint.load(w)[0] for w in (whole, part))
      chex.assert_trees_all_equal(want, got)
      self.assertEqual(rows(whole)[-1], rows(part)[-1])
      shutil.rmtree(part)

  def test_a_program_is_traced_once(self):
    traces.clear()
    self.run_phases(self.workdir, 0.0625, 1)
    self.assertEqual(sorted(traces.values()), [1, 1])
    groups = {system.trains for system in traces}
    self.assertEqual(groups, {("fc1",), ("adversary",)})


if __name__ == "__main__":
  absltest.main()
