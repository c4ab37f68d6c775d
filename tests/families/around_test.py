"""Systems around another one: what passes through, and what is their own."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import optim
from ar_jax.core.system import Loss, System, fits
from ar_jax.families.base import Around, Beside, of_target
from ar_jax.step import Options, init_state, jit_step
from tests import toy

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Target(toy.Toy):
  """A toy that says something of itself in every way there is."""

  late: bool = False

  needs = ("sound",)
  takes = ("text",)
  makes = ("sound", "label")
  ordered = "frames"
  control = "text"
  counts = ("passes",)
  redraws = True
  moving = frozenset({"frozen"})
  trains = ("fc1",)
  classes = 3
  null = 2

  def at(self, step):
    return dataclasses.replace(self, late=step > 4)

  def adopt(self, collection, given):
    return collection, given

  def ready(self, variables):
    return {**variables, "frozen": {"scale": jnp.float32(2)}}

  def fitted(self, variables, source, seed):
    return {**variables, "frozen": {"scale": np.float32(seed)}}

  def encode(self, variables, batch):
    scale = variables["params"]["adversary"]["kernel"].sum()
    return {**batch, "units": batch["index"] * scale}


@dataclasses.dataclass(frozen=True)
class Passing(Around):
  target: System


@dataclasses.dataclass(frozen=True)
class Shift(Beside):
  """Learns what to add to what the target says."""

  target: System

  def own(self, key, variables):
    assert set(variables) == {self.beside, "frozen"}
    return {"shift": jax.random.normal(key, ())}

  def loss(self, variables, batch, key, *, train):
    loss = self.target.loss(self.of_target(variables), batch, key, train=False)
    out = loss.metrics["out"] + variables["params"]["shift"]
    return Loss(jnp.square(out - batch["label"]))


class AroundTest(absltest.TestCase):
  def test_everything_passes_through(self):
    system, target = Passing(Target()), Target()
    public = [n for n in vars(System) if not n.startswith("_")]
    said = ("needs", "takes", "makes", "ordered", "moving", "trains", "classes")
    said += ("control", "counts", "redraws")
    own = {"plan", "at", "fitted", "ready", "adopt"}
    self.assertLessEqual({*said, *own}, {*public})
    for name in (*said, "plan", "null"):
      self.assertEqual(getattr(system, name), getattr(target, name), name)
    plain = Passing(toy.Toy())
    self.assertIs(plain.at(9), plain)
    self.assertEqual(system.at(9), Passing(Target(late=True)))
    self.assertEqual(system.at(1), system)
    self.assertTrue(fits(system))
    self.assertFalse(fits(Passing(toy.Toy())))
    self.assertEqual(system.fitted({}, None, 7)["frozen"]["scale"], 7)
    self.assertEqual(system.ready({})["frozen"]["scale"], 2)
    self.assertEqual(system.adopt("params", 1), ("params", 1))

  def test_beside_a_frozen_one(self):
    system, batch = Shift(Target()), toy.batch(4)
    variables = system.init(KEY, batch)
    self.assertEqual(set(variables), {"params", "target", "frozen"})
    own = Target().init(jax.random.split(KEY)[0], batch)
    chex.assert_trees_all_equal(system.of_target(variables), own)
    chex.assert_trees_all_equal(of_target(variables, "target"), own)
    chex.assert_trees_all_equal(
      system.encode(variables, batch)["units"], 8 * batch["index"]
    )
    # How the target was trained is no matter of who stands beside it.
    self.assertEqual((system.moving, system.trains), (frozenset(), None))
    self.assertIs(system.at(9), system)
    self.assertFalse(fits(system))
    self.assertIs(system.ready(variables), variables)
    # The target's own are what a run is given under another name.
    self.assertEqual(system.adopt("target", 1), ("params", 1))
    self.assertEqual(system.adopt("frozen", 1), ("frozen", 1))
    self.assertEqual(system.adopt("params", 1), 1)
    self.assertEqual(system.makes, ("sound", "label"))
    self.assertEqual(
      dataclasses.replace(system, target=Target(0.5)).target.noise, 0.5
    )

  def test_it_alone_is_trained(self):
    system, batch = Shift(toy.Toy()), toy.batch(4)
    tx = optim.make({"lr": 1e-1}, 3)
    state = init_state(system, tx, Options(), KEY, batch)
    before = jax.tree.map(np.array, state.variables)
    state, _ = jit_step(system, tx, Options(), state, batch, KEY)
    chex.assert_trees_all_equal(before["target"], state.variables["target"])
    self.assertNotEqual(
      before["params"]["shift"], state.variables["params"]["shift"]
    )
    sample = system.sample(state.variables, batch, jax.random.split(KEY, 4))
    self.assertEqual(sample.shape, (4, 4, 4, 1))


if __name__ == "__main__":
  absltest.main()
