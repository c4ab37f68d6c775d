"""What every system keeps, checked on the smoke preset of every config.

A new config is found by itself; `smoke.EXCEPTIONS` alone names systems. Four
programs are compiled for each, see `tests/smoke.py`; what modes and files have
to do with it is for `deep_test`, which looks at some of them.
"""

import collections
import pathlib
import re
import tempfile

import chex
import jax
import numpy as np
from absl.testing import absltest

from ar_jax import show
from tests import smoke

PROGRAMS = ("init_state", "train_step", "seen", "draw")


class Contract:
  """The tests of one config."""

  slug: str

  @property
  def case(self) -> smoke.Case:
    return smoke.case(self.slug)

  def test_loss_is_finite_and_per_example(self):
    c = self.case
    chex.assert_tree_all_finite(c.trained[1])
    by_example = lambda variables, batch: c.system.loss(
      variables, batch, smoke.KEY, train=True
    )
    loss = jax.eval_shape(by_example, c.abstract.variables, c.batch)
    for value in (loss.value, *loss.metrics.values()):
      self.assertEqual(value.shape, (smoke.BATCH,))
    seen = c.seen().loss
    for value in (seen.value, *seen.metrics.values()):
      chex.assert_shape(value, (smoke.BATCH,))
      chex.assert_tree_all_finite(value)

  def test_every_parameter_moves(self):
    # Flow heads take some updates: their output and their gates begin at
    # zero, as published, and each zero keeps what is behind it still for one.
    before = jax.tree_util.tree_leaves_with_path(
      self.case.fresh().variables["params"]
    )
    after = jax.tree.leaves(self.case.trained[0].variables["params"])
    still = [
      jax.tree_util.keystr(path)
      for (path, a), b in zip(before, after, strict=True)
      if np.array_equal(a, b)
    ]
    known = smoke.EXCEPTIONS.still.get(self.slug)
    self.assertEmpty([x for x in still if not (known and re.search(known, x))])

  def test_frozen_collections_stay(self):
    before = self.case.fresh().variables
    after = self.case.trained[0].variables
    self.assertEqual(before.keys(), after.keys())
    moving = self.case.system.moving
    for collection in before.keys() - {"params"} - moving:
      chex.assert_trees_all_equal(before[collection], after[collection])

  def test_one_batch_can_be_overfitted(self):
    losses = [row["loss"] for row in self.case.trained[1]]
    self.assertLess(np.mean(losses[-3:]), 0.9 * losses[0])

  def test_a_batch_is_its_parts(self):
    c = self.case
    whole = c.seen().loss.value
    drawn, units = c.draw()
    for half in ([0, 1], [2, 3]):
      rows = np.array(half * 2)  # as many, so that nothing is compiled
      part = c.seen(rows=rows).loss.value
      np.testing.assert_allclose(part, whole[rows], rtol=2e-4, atol=1e-5)
      part, of_part = c.draw(rows=rows)
      for name, x in part.items():
        np.testing.assert_allclose(x, drawn[name][rows], atol=1e-4)
      if c.discrete:
        np.testing.assert_array_equal(of_part, units[rows])

  def test_samples(self):
    c = self.case
    sample, _ = c.draw()
    self.assertCountEqual(sample, c.system.makes)
    for name, x in sample.items():
      self.assertLen(x, smoke.BATCH)
      if name in c.forms:  # finite, and within its bounds
        c.forms[name].check(x, name)
    chex.assert_trees_all_equal(sample, c.draw()[0])
    other, _ = c.draw(start=smoke.BATCH)
    same = c.discrete or c.slug in smoke.EXCEPTIONS.no_chance
    equal = all(np.array_equal(x, other[name]) for name, x in sample.items())
    self.assertEqual(equal, same)

  def test_samples_are_shown(self):
    """A sample is an example: the forms of the data are its own."""
    c = self.case
    made = jax.device_get(c.draw()[0])
    cond = {k: np.asarray(c.batch[k]) for k in c.system.needs}
    # Some fields of the data have no form and are shown beside others: the
    # parents of joints.
    self.assertContainsSubset(c.system.makes, {*c.forms, *c.batch})
    with tempfile.TemporaryDirectory() as folder:
      shown = show.fields(pathlib.Path(folder), "s", made, c.forms, cond)
      for one in shown:
        self.assertEqual(one.picture.dtype, np.uint8)
        for file in (one.png, *one.files):
          self.assertGreater(file.stat().st_size, 0)
    self.assertEqual({one.name for one in shown}, {*made} & {*c.forms})

  def test_greedy_draws_are_the_best_of_the_training_pass(self):
    """So what is drawn step by step, with a cache, is what was trained."""
    c = self.case
    if not c.discrete:
      return
    _, units = c.draw()
    # In units of logits: what is equally good but for rounding may be drawn.
    np.testing.assert_allclose(c.seen(units=units).behind, 0, atol=1e-3)
    others = np.roll(units, 1, 0)[:, ::-1]
    if np.array_equal(others, units):  # one text for all, of one symbol
      others = np.where(units == 0, 1, 0)
    self.assertGreater(np.max(c.seen(units=others).behind), 0.1)

  def test_steps_do_not_leak(self):
    c = self.case
    before, plan = c.seen(), c.system.plan
    losses = lambda seen: (
      seen.loss.errors if seen.loss.nll is None else seen.loss.nll
    )
    if c.slug in smoke.EXCEPTIONS.no_order:
      self.assertTrue(plan is None or losses(before) is None)
      return
    chex.assert_shape(losses(before), before.units.shape[:2])
    changed = 0
    for s in range(plan.steps):
      at = plan.span(s)
      rolled = c.nowhere.copy()
      rolled[at] = True
      after = c.seen(rolled=rolled)
      changed += int(not np.array_equal(losses(after), losses(before)))
      np.testing.assert_array_equal(
        losses(before)[:, : at.start], losses(after)[:, : at.start]
      )
    self.assertGreater(changed, 0)

  def test_guidance_of_one_is_none(self):
    c = self.case
    if "guidance" not in c.law:
      return

    def program(guidance):
      def draw(variables, cond, keys):
        law = {**c.law, "guidance": guidance}
        return c.system.sample(variables, cond, keys, **law)

      cond = {k: c.batch[k] for k in c.system.needs}
      keys = jax.random.split(smoke.KEY, smoke.BATCH)
      traced = jax.make_jaxpr(draw)(c.abstract.variables, cond, keys)
      return re.sub("0x[0-9a-f]+", "", str(traced))

    self.assertEqual(program(1.0), program(None))

  def test_four_programs(self):
    c = self.case
    c.trained, c.seen(), c.draw()
    c.seen(rows=np.array([3, 2, 1, 0])), c.draw(rows=np.array([3, 2, 1, 0]))
    names = [re.sub(r"^jit\((.*)\)$", r"\1", name) for name in c.compiled]
    more = smoke.EXCEPTIONS.programs.get(c.slug, ())
    # What an earlier module of this process has compiled is not compiled anew.
    new = collections.Counter(names) - collections.Counter((*PROGRAMS, *more))
    self.assertEmpty(new)
    self.assertContainsSubset(("seen", "draw"), names)


# A class for each config, so that workers can share them out.
for config_slug in smoke.slugs():
  kind = f"{config_slug.title().replace('_', '').replace(':', '')}Test"
  bases, of = (Contract, absltest.TestCase), {"slug": config_slug}
  globals()[kind] = type(kind, bases, of)


if __name__ == "__main__":
  absltest.main()
