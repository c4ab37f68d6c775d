"""SIGTERM, whenever it comes: the run saves, ends and goes on."""

import functools
import itertools
import json
import os
import pathlib
import random
import signal
import tempfile
import threading
import time
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import checkpoint, main, metrics, train, watch
from ar_jax.stop import Preempted
from configs import common
from tests import stop_cases
from tests.forks import Forks, free_port
from tests.toy_runs import ToyTest, config, rows, steps_on_disk

TRIALS = 20


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


def scored(workdir):
  return json.loads((workdir / "checkpoints/scores.json").read_text())


class StopTest(ToyTest):
  def stopped_at(self, place, name, when, c):
    """Runs c; SIGTERM comes after a call of place.name, as `when` says."""
    function = getattr(place, name)

    def call(*args, **kwargs):
      value = function(*args, **kwargs)
      if when(*args):
        terminate()
      return value

    with mock.patch.object(place, name, call):
      with self.assertRaises(Preempted):
        main.run(c, self.workdir)

  def test_in_the_last_look_of_a_stage(self):
    stages = common.stages(first=config(), second=config())
    last = lambda _, step, *__: step == 20
    self.stopped_at(watch.Watch, "look", last, stages)
    self.assertEqual(steps_on_disk(self.workdir / "first"), [10, 20])
    self.assertFalse((self.workdir / "second").exists())
    report = main.run(stages, self.workdir)
    self.assertEqual(list(report["stages"]), ["first", "second"])
    self.assertEqual(steps_on_disk(self.workdir / "second"), [10, 20])

  def test_while_the_last_save_is_finished(self):
    close = lambda *_: True
    self.stopped_at(checkpoint.Checkpoints, "close", close, config())
    self.assertEqual(steps_on_disk(self.workdir), [10, 20])

  def test_steps_saved_between_log_steps(self):
    """Each has a row; those on schedule are rated, whenever the run stops."""
    changes = dict(steps=60, log_every=50, best=1, best_is="highest", keep=1)
    whole = self.workdir.with_name("whole")
    main.run(config(**changes), whole)
    self.assertEqual([r["step"] for r in rows(whole)], [10, 20, 30, 40, 50, 60])
    for step in (13, 20, 37, 40):
      # A run is asked after a step is dispatched, so that the one before it
      # is the last that the bar has counted.
      start = max(steps_on_disk(self.workdir), default=0)
      count = itertools.count(start + 1)
      before = lambda *_, count=count, step=step: next(count) == step - 1
      self.stopped_at(metrics.Writer, "advance", before, config(**changes))
      self.assertEqual(steps_on_disk(self.workdir)[-1], step)
      self.assertIn(step, [r["step"] for r in rows(self.workdir)])
    main.run(config(**changes), self.workdir)
    own = {r["step"]: r for r in rows(self.workdir)}
    for row in rows(whole):
      self.assertEqual(own[row["step"]], row)
    self.assertEqual(scored(self.workdir), scored(whole))
    self.assertEqual(steps_on_disk(self.workdir), steps_on_disk(whole))
    chex.assert_trees_all_equal(
      checkpoint.load(self.workdir)[0], checkpoint.load(whole)[0]
    )

  def test_at_random_moments_a_save_begins_within_two_steps(self):
    """The steps are slow for the host, which would be far ahead of them."""
    begun = []

    @functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(3,))
    def slow(system, tx, options, state, batch, key):
      state, values = train.train_step(system, tx, options, state, batch, key)
      x = jnp.full((256, 256), values["loss"])
      x = jax.lax.fori_loop(0, 8, lambda _, x: jnp.tanh(x @ x), x)
      return state, {**values, "slow": x.sum()}

    def update(*args):
      state, values = slow(*args)
      begun.append(values["slow"])
      return state, values

    rng = random.Random(0)
    late = []
    for trial in range(TRIALS):
      workdir = self.workdir.with_name(f"run{trial}")
      begun.clear()
      seen: list[int] = []

      def send(seen=seen):
        while len(begun) < 3:  # it compiles
          time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        terminate()
        seen.append(sum(x.is_ready() for x in begun))

      sender = threading.Thread(target=send)
      sender.start()
      with mock.patch.object(train, "jit_step", update):
        with self.assertRaises(Preempted):
          main.run(config(steps=10_000, save_every=0, log_every=0), workdir)
      sender.join()
      late.append(steps_on_disk(workdir)[-1] - seen[0])
    self.assertLen(late, TRIALS)
    self.assertLessEqual(max(late), 2, late)

  def test_the_bar_counts_what_is_done(self):
    counted = []
    pace = watch.Pace(lambda: counted.append(1), ahead=2)
    for step in range(5):
      pace.began(np.float32(step))
      self.assertLen(counted, max(0, step - 1))
    pace.catch_up()
    self.assertLen(counted, 5)


class ProcessesTest(absltest.TestCase):
  def pair(self, function, workdir):
    """Two processes; their logs."""
    address = f"localhost:{free_port()}"
    children = [
      self.forks.start(
        workdir.with_name(f"{function}{p}"),
        f"tests.stop_cases:{function}",
        str(workdir),
        address,
        p,
        devices=1,
      )
      for p in range(2)
    ]
    codes = [child.wait(120) for child in children]
    text = [child.text() for child in children]
    self.assertEqual(codes, [0, 0], "".join(text))
    return text

  def test_two(self):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.forks = self.enterContext(Forks())
    self.pair("stopped_in_last_look", folder / "run")
    first, second = folder / "run/first", folder / "run/second"
    self.assertEqual(steps_on_disk(first), [10, 20])
    saved = max(steps_on_disk(second), default=0)
    self.assertLess(saved, stop_cases.STEPS)
    # They agree on what is damage, and on what is not.
    before = rows(first)
    with (first / "metrics.jsonl").open("a") as file:
      file.write('{"step": 21, "lo')
    path = first / "checkpoints/20/meta/metadata"
    path.write_bytes(path.read_bytes()[:-3])
    for text in self.pair("went_on", first):
      self.assertRegex(text, "process .: .*cannot be read now")
    self.assertEqual(steps_on_disk(first), [10, 20])
    self.assertTrue((first / "checkpoints/broken-20").exists())
    self.assertEqual(rows(first), before)


if __name__ == "__main__":
  absltest.main()
