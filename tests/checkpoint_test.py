"""Which checkpoints are good, what fits them, and which are kept."""

import errno
import logging
import pathlib
from unittest import mock

import chex
import jax
import numpy as np
from absl.testing import absltest

from ar_jax import checkpoint, main, parallel, resume, scores, seal
from ar_jax.core.system import UserError
from tests import toy
from tests.toy_runs import ToyTest, config, rows, steps_on_disk


def optimizer(workdir, step):
  """The stored state of the optimizer, name -> array."""
  found = checkpoint.Checkpoints(workdir, read_only=True)
  tree = jax.tree.map(checkpoint._host, found.tree(step, "optimizer"))
  items, _ = found.restore(lambda _: {"optimizer": tree}, [step])
  leaves = jax.tree_util.tree_leaves_with_path(items["optimizer"])
  name = lambda p: jax.tree_util.keystr(p, simple=True, separator="/")
  return {name(path): leaf for path, leaf in leaves}


class OptimizerTest(ToyTest):
  def test_clip_and_decay_may_change(self):
    """The message about numbers that are not finite says to change them."""
    main.run(config(), self.workdir)
    before = rows(self.workdir)
    c = config(steps=40)
    c.optim.update(clip=0.0, weight_decay=0.0)
    with self.assertLogs("ar_jax", logging.INFO) as said:
      main.run(c, self.workdir)
    self.assertIn("optim.clip 1.0 -> 0.0", "".join(said.output))
    self.assertEqual(rows(self.workdir)[: len(before)], before)
    self.assertEqual(steps_on_disk(self.workdir), [30, 40])
    self.assert_nothing_set_aside()
    counts = optimizer(self.workdir, 40)
    self.assertEqual(
      {int(v) for k, v in counts.items() if k.endswith("count")}, {40}
    )
    c = config(steps=50)
    c.optim.update(clip_value=1.0)
    main.run(c, self.workdir)
    self.assertEqual(steps_on_disk(self.workdir), [40, 50])

  def test_another_structure_is_refused_or_begins_anew(self):
    main.run(config(), self.workdir)
    before = rows(self.workdir)
    c = config(steps=40)
    with c.unlocked():
      c.optim.groups = {"adversary": {"lr": 1e-2}}
    for _ in range(2):
      with self.assertRaisesRegex(
        UserError, "20: another optimizer: .*train.fresh_optimizer=True"
      ) as caught:
        main.run(c, self.workdir)
      self.assertNotIn("\n", str(caught.exception))
      self.assertEqual(steps_on_disk(self.workdir), [10, 20])
      self.assertEqual(rows(self.workdir), before)
    c.train.fresh_optimizer = True
    weights = checkpoint.load(self.workdir)[0]
    c.train.steps = 20  # nothing is left to do: the weights stay
    main.run(c, self.workdir)
    chex.assert_trees_all_equal(checkpoint.load(self.workdir)[0], weights)
    c.train.update(steps=30)
    with self.assertLogs("ar_jax", logging.INFO) as said:
      main.run(c, self.workdir)
    self.assertIn("a fresh one begins", "".join(said.output))
    self.assertEqual(rows(self.workdir)[: len(before)], before)
    self.assertEqual(rows(self.workdir)[-1]["step"], 30)
    found = optimizer(self.workdir, 30)
    # Moments begin anew, the schedule goes on.
    adam = "1/inner_states/rest/inner_state/1/count"
    self.assertEqual(int(found[adam]), 10)
    schedule = "1/inner_states/rest/inner_state/3/count"
    self.assertEqual(int(found[schedule]), 30)
    # The same command resumes that optimizer, though the option stays.
    c.train.steps = 40
    main.run(c, self.workdir)
    self.assertEqual(int(optimizer(self.workdir, 40)[adam]), 20)
    self.assert_nothing_set_aside()

  def test_what_convert_wrote_is_trained(self):
    variables = toy.Toy().init(jax.random.key(1), toy.batch(2))
    written = {"system": "toy", "model": {}}
    checkpoint.export(self.workdir, variables, written)
    with self.assertLogs("ar_jax", logging.INFO) as said:
      main.run(config(steps=0), self.workdir)
    chex.assert_trees_all_equal(checkpoint.load(self.workdir)[0], variables)
    self.assertIn("there is none: a fresh one begins", "".join(said.output))
    main.run(config(), self.workdir)
    self.assertEqual(steps_on_disk(self.workdir), [10, 20])
    self.assert_nothing_set_aside()

  def test_an_average_may_begin_later(self):
    main.run(config(ema=0.0), self.workdir)
    main.run(config(ema=0.9, steps=30), self.workdir)
    self.assertEqual(steps_on_disk(self.workdir), [20, 30])


class DamageTest(ToyTest):
  def setUp(self):
    super().setUp()
    main.run(config(), self.workdir)
    self.before = rows(self.workdir)

  def assert_refused(self, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      main.run(config(steps=30), self.workdir)
    self.assertNotIn("\n", str(caught.exception))
    self.assertEqual(steps_on_disk(self.workdir), [10, 20])
    self.assertEqual(rows(self.workdir), self.before)
    self.assert_nothing_set_aside()

  def test_errors_on_the_way_are_no_damage(self):
    for error, message in (
      (MemoryError("no room"), "no room.*nothing was changed"),
      (OSError(errno.EIO, "Input/output error"), "Input/output"),
      (ValueError("a bad chunk\nin lines"), "a bad chunk"),
      (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3"), "EXHAUSTED"),
    ):
      with self.subTest(message):
        manager = "orbax.checkpoint.CheckpointManager.restore"
        with mock.patch(manager, side_effect=error):
          self.assert_refused(f"20: cannot be read \\(.*{message}")

  def test_a_file_that_is_refused_now_is_no_damage(self):
    error = OSError(errno.EIO, "")
    with mock.patch.object(seal, "_crc", side_effect=error):
      self.assert_refused("cannot be read now .*nothing was changed")
    opened = pathlib.Path.read_text

    def read_text(path, *args):
      if path.name == "seal.json":
        raise error
      return opened(path, *args)

    with mock.patch.object(pathlib.Path, "read_text", read_text):
      self.assert_refused("seal.json: cannot be read now")
    main.run(config(steps=30), self.workdir)

  def test_a_seal_is_not_made_of_what_cannot_be_read(self):
    step = self.workdir / "checkpoints/20"
    (step / "seal.json").unlink()
    error = OSError(errno.EIO, "")
    with mock.patch.object(seal, "_crc", side_effect=error):
      with self.assertRaisesRegex(UserError, "cannot be read now"):
        seal.close(step)
    self.assertFalse(seal.sealed(step))

  def test_what_was_never_sealed_is_not_set_aside(self):
    step = self.workdir / "checkpoints/20"
    (step / "seal.json").unlink()
    (step / "variables/_METADATA").write_text("")
    self.assert_refused("20: cannot be read.*move that folder away")

  def test_a_run_whose_every_step_is_damaged_is_not_begun_anew(self):
    for step in (10, 20):
      (self.workdir / f"checkpoints/{step}/meta/metadata").write_text("{")
    for _ in range(3):
      with self.assertRaisesRegex(UserError, "no step is whole.*broken"):
        main.run(config(), self.workdir)
      self.assertEqual(rows(self.workdir), self.before)
    found = self.workdir.glob("checkpoints/broken-*")
    self.assertEqual({p.name for p in found}, {"broken-10", "broken-20"})

  def test_the_last_save_is_sealed_while_the_run_goes_on(self):
    sealed = []
    look = "ar_jax.watch.Watch.look"

    def see(_, step, *__):
      if step == 38:
        newest = self.workdir / "checkpoints/30"
        sealed.append((newest / "seal.json").exists())
      return {}

    finished = "orbax.checkpoint.CheckpointManager.is_saving_in_progress"
    with mock.patch(look, see), mock.patch(finished, return_value=False):
      main.run(config(steps=39), self.workdir)
    self.assertEqual(sealed, [True])


class PlaceTest(ToyTest):
  def test_no_device_sees_what_is_loaded_to_the_host(self):
    main.run(config(), self.workdir)
    before = len(jax.live_arrays())
    with mock.patch("jax.make_array_from_callback", side_effect=AssertionError):
      variables = checkpoint.load(self.workdir)[0]
    for leaf in jax.tree.leaves(variables):
      self.assertIsInstance(leaf, np.ndarray)
    self.assertEqual(len(jax.live_arrays()), before)

  def test_weights_are_placed_by_rule(self):
    main.run(config(), self.workdir)
    mesh = parallel.make_mesh()
    placed = []
    rule = parallel.shardings

    def shardings(tree, mesh):
      placed.append(tree)
      return rule(tree, mesh)

    wanted = toy.Toy().init(jax.random.key(1), toy.batch(2))
    with mock.patch.object(parallel, "shardings", shardings):
      given = resume._weights(
        toy.Toy(), "params", str(self.workdir), wanted, mesh
      )
    self.assertNotEmpty(placed)
    for leaf in jax.tree.leaves(given):
      self.assertEqual(leaf.sharding.mesh, mesh)


class KeepTest(ToyTest):
  def test_nothing_to_go_on_from_is_refused(self):
    for name, value in (
      ("keep", 0),
      ("save_every", -1),
      ("log_every", -5),
      ("steps", -5),
      ("best", -1),
      ("sample_count", 0),
    ):
      with self.subTest(name):
        message = f"train.{name}={value}: must be at least"
        with self.assertRaisesRegex(UserError, message):
          main.run(config(**{name: value}), self.workdir)
    self.assertFalse((self.workdir / "checkpoints").exists())

  def test_saves_and_rows_at_the_end_alone(self):
    main.run(config(save_every=0, log_every=0), self.workdir)
    self.assertEqual(steps_on_disk(self.workdir), [20])
    self.assertEqual([r["step"] for r in rows(self.workdir)], [20])

  def test_a_step_saved_on_demand_takes_no_place(self):
    none = scores.Scores(self.workdir, best=0)
    self.assertEqual(scores.Keep(none, 2, 10).kept([10, 20, 25]), {20, 25})
    self.assertEqual(scores.Keep(none, 2, 10).kept([20, 25, 30]), {20, 30})
    self.assertEqual(scores.Keep(none, 1, 10).kept([20, 30, 35]), {35})
    self.assertEqual(scores.Keep(none, 2, 0).kept([7, 20, 25]), {25})

  def test_old_steps_that_a_killed_run_left_go(self):
    remove = "_get_old_steps_to_remove"
    manager = "orbax.checkpoint.CheckpointManager"
    with mock.patch(f"{manager}.{remove}", return_value=[]):
      main.run(config(steps=40, keep=2), self.workdir)
    self.assertEqual(steps_on_disk(self.workdir), [30, 40])


class ScoresTest(ToyTest):
  def run_with(self, losses, **changes):
    found = iter(losses)
    evaluated = lambda *_: {"loss": next(found), "gain": -1.0}
    c = config(best=1, keep=1, eval_every=10, **changes)
    with mock.patch("ar_jax.evaluate.evaluate", evaluated):
      main.run(c, self.workdir)

  def test_each_metric_has_its_own_scores(self):
    self.run_with((1.0, 5.0, 6.0), steps=30, best_by="eval/loss")
    self.assertEqual(steps_on_disk(self.workdir), [10, 30])
    self.assertEqual(checkpoint.load(self.workdir, which="best")[1]["step"], 10)
    # By another metric the old numbers say nothing; the logged ones do.
    self.run_with((7.0, 8.0), steps=50, best_by="eval/gain")
    self.assertEqual(steps_on_disk(self.workdir), [50])
    self.assertEqual(checkpoint.load(self.workdir, which="best")[1]["step"], 50)

  def test_the_other_direction(self):
    self.run_with((1.0, 5.0, 3.0), steps=30, best_by="eval/loss")
    self.run_with((4.0, 2.0), steps=50, best_by="eval/loss", best_is="highest")
    # 20 was not kept while low was good; of the others 40 is the highest.
    self.assertEqual(steps_on_disk(self.workdir), [40, 50])

  def test_scores_of_a_branch_that_was_left(self):
    self.workdir.mkdir()
    make = lambda: scores.Scores(self.workdir, best=1, by="eval/loss")
    noted = make()
    for step, value in ((10, 5.0), (20, 1.0)):
      noted.note(step, value)
    self.assertEqual(make().ranked([10, 20]), [20, 10])
    noted.forget_after(10)
    self.assertEqual(make().ranked([10, 20]), [10])


if __name__ == "__main__":
  absltest.main()
