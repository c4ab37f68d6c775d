"""Runs that are killed, asked to stop, starved of disk or fed damage.

Whatever happens to it, a run that is started again goes on from its last good
state and ends, bit for bit, as one that nothing has happened to.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from unittest import mock

import chex
import jax
import numpy as np
from absl.testing import absltest
from PIL import Image

from ar_jax import checkpoint, main, metrics, train
from ar_jax.core.system import UserError
from tests import toy
from tests.forks import PHASES, Forks, Phases, free_port

# As many in each phase; docs/scale.md was checked with 32.
KILLS = int(os.environ.get("KILLS", 16))
STEPS, EVERY = 200, 10  # of tests/toy.py
TIMES = ("steps/s", "examples/s", "input_wait")


def rows(workdir):
  """Everything that the run says of itself, but how fast it was."""
  text = (workdir / "metrics.jsonl").read_text()
  found = [json.loads(line) for line in text.splitlines()]
  return [{k: v for k, v in r.items() if k not in TIMES} for r in found]


def steps_on_disk(workdir):
  folder = workdir / "checkpoints"
  if not folder.exists():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def last_logged(workdir):
  path = workdir / "metrics.jsonl"
  found = (
    re.findall(r'"step": (\d+),.*\n', path.read_text())
    if (path.exists())
    else []
  )
  return int(found[-1]) if found else 0


class FaultsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    named = {"ar_jax.systems.toy": toy}
    cls.enterClassContext(mock.patch.dict(sys.modules, named))
    cls.forks = cls.enterClassContext(Forks())
    cls.numbers = itertools.count()
    cls.whole = cls.folder / "whole"
    main.run(toy.get_config(), cls.whole)

  def start(self, workdir, *flags, name="toy", **options):
    """A child that runs the config; each has a log of its own."""
    n = next(self.numbers)
    return self.forks.command(
      workdir.with_name(f"{workdir.name}.log{n}"),
      f"--config=tests/{name}.py" if "/" not in name else f"--config={name}",
      f"--workdir={workdir}",
      *flags,
      **{"devices": 1, **options},
    )

  def finish(self, workdir, *flags, **options):
    child = self.start(workdir, *flags, **options)
    self.assertEqual(child.wait(), 0, child.text()[-3000:])
    return child

  def copy(self, name, last=STEPS):
    """A copy of the whole run, as it was when it had saved the step `last`."""
    workdir = self.folder / name
    shutil.copytree(self.whole, workdir)
    for step in steps_on_disk(workdir):
      if step > last:
        shutil.rmtree(workdir / f"checkpoints/{step}")
    return workdir

  def assert_as_if_undisturbed(self, workdir, whole=None):
    whole = whole or self.whole
    self.assertEqual(rows(workdir), rows(whole))
    chex.assert_trees_all_equal(
      checkpoint.load(workdir)[0], checkpoint.load(whole)[0]
    )
    self.assertEqual(steps_on_disk(workdir), steps_on_disk(whole))
    self.assertEmpty(list(workdir.glob("checkpoints/*tmp*")))

  # Killed.

  def test_killed_at_random_moments(self):
    # The programs are stored by a run that ends: JAX does not write them at
    # once, and half a program would be there for all who share the cache.
    self.finish(self.folder / "stored")
    rng = random.Random(0)
    wanted = [phase for phase in PHASES for _ in range(KILLS // len(PHASES))]
    rng.shuffle(wanted)
    killed = collections.Counter()
    runs = 0
    while wanted:
      runs += 1
      workdir = self.folder / f"killed{runs}"
      while wanted and self.killed(workdir, wanted[-1], rng):
        killed[wanted.pop()] += 1
      self.finish(workdir)
      self.assert_as_if_undisturbed(workdir)
      self.assertEmpty(list(workdir.glob("checkpoints/broken-*")))
    self.assertEqual(killed, {phase: KILLS // len(PHASES) for phase in PHASES})

  def killed(self, workdir, phase, rng):
    """Kills a run in the midst of a phase; False if it ended before that."""
    before = steps_on_disk(workdir)
    file = workdir.with_name("phases")
    file.unlink(missing_ok=True)
    phases = Phases(file)
    child = self.start(workdir, phases=str(file))
    # A phase that a run comes to at once, or a while later.
    turn = {"step": rng.randint(1, 15), "save": rng.randint(1, 2)}.get(phase, 1)
    for look in itertools.count(1):
      if phases.count(phase) >= turn:
        break
      # Asking for the child takes longer than looking at a counter.
      if look % 50 == 0 and child.poll() is not None:
        self.assertEqual(child.wait(), 0, child.text()[-3000:])
        return False
      time.sleep(0.001)
    if phase == "compile":
      time.sleep(rng.uniform(0, 1.0))
    else:
      time.sleep(rng.choice((0.01, 0.1)) * rng.random())
    child.kill()
    logged, saved = last_logged(workdir), max(steps_on_disk(workdir), default=0)
    # It began where the one before it had saved last, and lost no more than
    # the save that it was about to finish.
    if began := re.search(r"continues at step (\d+)", child.text()):
      self.assertEqual(int(began[1]), before[-1])
    self.assertGreaterEqual(saved, (logged - 1) // EVERY * EVERY - EVERY)
    return True

  def test_generator_is_killed_and_stopped(self):
    """The same of a real model, by the command line and SIGTERM."""
    flags = (
      "--config.train.steps=40",
      "--config.train.save_every=10",
      "--config.train.log_every=1",
    )
    var = dict(name="configs/var.py:smoke")
    whole, workdir = self.folder / "var_whole", self.folder / "var"
    self.finish(whole, *flags, **var)

    def disturb(step, what):
      child = self.start(workdir, *flags, **var)
      while child.poll() is None and last_logged(workdir) < step:
        time.sleep(0.01)
      child.send(what)
      return child.wait(), child.text()

    code, log = disturb(13, signal.SIGTERM)
    self.assertEqual(code, 0, log)
    saved = steps_on_disk(workdir)[-1]
    self.assertGreaterEqual(saved, 13)  # not only every tenth step
    self.assertEqual(disturb(saved + 8, signal.SIGKILL)[0], -signal.SIGKILL)
    self.finish(workdir, *flags, **var)
    self.assertEqual(rows(workdir), rows(whole))
    chex.assert_trees_all_equal(
      checkpoint.load(workdir)[0], checkpoint.load(whole)[0]
    )

  def test_one_of_two_processes(self):
    """Killed, either of them, or asked to stop."""

    def pair(workdir):
      port = free_port()
      return [
        self.start(
          workdir,
          f"--coordinator=localhost:{port}",
          "--num_processes=2",
          f"--process_id={p}",
          "--heartbeat=20",
          "--config.mesh.fsdp=4",
          "--config.mesh.data=1",
          # The notice takes up to a second to go round.
          "--config.train.steps=400",
          "--config.train.save_every=40",
          "--config.train.eval_every=0",
          devices=2,
        )
        for p in range(2)
      ]

    def finished(children):
      codes = [child.wait() for child in children]
      self.assertEqual(codes, [0, 0], "".join(c.text() for c in children))

    whole, workdir = self.folder / "two_whole", self.folder / "two"
    finished(pair(whole))
    for which, what in (
      (1, signal.SIGTERM),
      (1, signal.SIGKILL),
      (0, signal.SIGKILL),
    ):
      children = pair(workdir)
      step = max(steps_on_disk(workdir), default=0) + 45
      # The bar is drawn when the lines after the last save are removed.
      while children[0].poll() is None and (
        f"/{2 * STEPS} [" not in children[0].text()
        or last_logged(workdir) < step
      ):
        time.sleep(0.05)
      children[which].send(what)
      codes = [child.wait(120) for child in children]
      log = children[1 - which].text()
      if what == signal.SIGTERM:
        self.assertEqual(codes, [0, 0], log)
        self.assertRegex(children[0].text(), "SIGTERM: saved step")
        continue
      self.assertEqual(codes[which], -signal.SIGKILL)
      self.assertNotEqual(codes[1 - which], 0, log)
      if codes[1 - which] > 0:  # else JAX has ended it
        # Threads of JAX may still say something after it.
        self.assertRegex(log, "(?m)^ar_jax: .*resumes")
    finished(pair(workdir))
    self.assert_as_if_undisturbed(workdir, whole)

  # Starved.

  def test_full_disk(self):
    for name, every in (("metrics", 1), ("save", 1000)):
      with self.subTest(name):
        workdir = self.copy(f"full_{name}", STEPS - EVERY)
        saved = steps_on_disk(workdir)
        flags = (f"--config.train.log_every={every}",)
        if every > 1:  # so that the checkpoint is the first to grow
          flags += ("--config.train.eval_every=0",)
          (workdir / "metrics.jsonl").unlink()
        # Its programs would be cut short for all who share the cache.
        env = {"AR_JAX_CACHE": str(self.folder / "full_cache")}
        child = self.start(workdir, *flags, file_size=2000, env=env)
        self.assertEqual(child.wait(), 1, child.text())
        time.sleep(0.5)  # for whoever writes its log
        lines = child.text().strip().split("\n")
        self.assertRegex(lines[-1], "^ar_jax: .*free space")
        # Beside it, how the run began, what has changed, and the bar.
        self.assertLessEqual(len([x for x in lines if x]), 5, child.text())
        self.assertNotRegex(child.text(), "Traceback|Warning")
        self.assertEqual(steps_on_disk(workdir), saved)
        self.finish(workdir, *flags)
        chex.assert_trees_all_equal(
          checkpoint.load(workdir)[0], checkpoint.load(self.whole)[0]
        )
        if every == 1:
          self.assert_as_if_undisturbed(workdir)

  # Fed damage.

  def test_damaged_newest_step(self):
    def truncate(path):
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def flip(path):
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 0xFF
      path.write_bytes(content)

    for damage in (truncate, flip, pathlib.Path.unlink):
      with self.subTest(damage.__name__):
        workdir = self.copy(f"damaged_{damage.__name__}")
        files = (workdir / f"checkpoints/{STEPS}/variables").rglob("d/*")
        damage(max(files, key=lambda p: p.stat().st_size))
        main.run(toy.get_config(), workdir)
        self.assert_as_if_undisturbed(workdir)
        self.assertTrue((workdir / f"checkpoints/broken-{STEPS}").exists())

  def test_seal_that_was_not_finished(self):
    workdir = self.copy("seal")
    newest = workdir / f"checkpoints/{STEPS}"
    (newest / "seal.json").unlink()
    (newest / "seal.json.tmp").write_text("{")
    config = toy.get_config()
    main.run(config, workdir)  # seals it
    main.run(config, workdir)  # and finds it good
    self.assertEmpty(list(workdir.glob("checkpoints/broken-*")))
    (newest / "seal.json").write_text("")
    main.run(config, workdir)
    self.assert_as_if_undisturbed(workdir)
    self.assertTrue((workdir / f"checkpoints/broken-{STEPS}").exists())

  def test_reader_leaves_the_run_alone(self):
    workdir = self.copy("reader")
    working = workdir / "checkpoints/210.orbax-checkpoint-tmp"
    working.mkdir()
    (workdir / f"checkpoints/{STEPS}/variables/_METADATA").write_text("")
    self.assertEqual(checkpoint.load(workdir)[1]["step"], STEPS - EVERY)
    self.assertTrue(working.exists())
    self.assertEqual(steps_on_disk(workdir), [STEPS - EVERY, STEPS])

  def test_damaged_record(self):
    pictures = self.folder / "pictures"
    rng = np.random.default_rng(0)
    for i in range(12):
      path = pictures / f"class{i % 3}" / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(rng.integers(0, 255, (4, 4), np.uint8)).save(path)
    config = toy.get_config()
    config.data = dict(name="folder", size=4, channels=1, path=str(pictures))
    config.train.steps = 40
    whole, workdir = self.folder / "pictures_whole", self.folder / "record"
    main.run(config, whole)
    path = next(pictures.glob("class1/*"))
    good = path.read_bytes()
    advance = metrics.Writer.advance

    def damage(writer):
      advance(writer)
      if last_logged(workdir) == 13:
        path.write_bytes(good[: len(good) // 2])

    with mock.patch.object(metrics.Writer, "advance", damage):
      with self.assertRaisesRegex(UserError, f"{path.name}.*replace it"):
        main.run(config, workdir)
    self.assertGreaterEqual(steps_on_disk(workdir)[-1], EVERY)
    path.write_bytes(good)
    main.run(config, workdir)
    self.assert_as_if_undisturbed(workdir, whole)

  def test_numbers_that_are_not_finite(self):
    workdir = self.copy("nan", STEPS - EVERY)
    calls = []

    def update(*args):
      state, values = train.train_step(*args)
      calls.append(len(calls))
      if len(calls) == 6:
        state, values = jax.tree.map(lambda x: x * np.nan, (state, values))
      return state, values

    with mock.patch.object(train, "jit_step", update):
      with self.assertRaisesRegex(UserError, "step 196: .* finite.*optim.lr"):
        main.run(toy.get_config(), workdir)
    self.assertEqual(steps_on_disk(workdir)[-1], STEPS - EVERY)
    main.run(toy.get_config(), workdir)
    self.assert_as_if_undisturbed(workdir)


class BestTest(absltest.TestCase):
  def test_best_steps_are_kept(self):
    named = {"ar_jax.systems.toy": toy}
    self.enterContext(mock.patch.dict(sys.modules, named))
    workdir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = toy.get_config()
    config.train.update(steps=60, eval_every=10, keep=1, best=2)
    config.train.best_by = "eval/loss"
    # Steps 10 to 60; the third and the fourth are the best.
    losses = iter((5.0, 4.0, 1.0, 2.0, 3.0, 6.0))
    found = lambda *_: {"loss": next(losses)}
    with mock.patch("ar_jax.evaluate.evaluate", found):
      main.run(config, workdir)
    self.assertEqual(steps_on_disk(workdir), [30, 40, 60])
    self.assertEqual(checkpoint.load(workdir, which="best")[1]["step"], 30)
    self.assertEqual(checkpoint.load(workdir)[1]["step"], 60)
    self.assertEqual(checkpoint.load(workdir, which="40")[1]["step"], 40)
    with self.assertRaisesRegex(UserError, "no step 50; there are"):
      checkpoint.load(workdir, which=50)

  def test_metric_that_is_not_there(self):
    named = {"ar_jax.systems.toy": toy}
    self.enterContext(mock.patch.dict(sys.modules, named))
    workdir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    config = toy.get_config()
    config.train.update(steps=10, best=1, best_by="lost")
    with self.assertRaisesRegex(UserError, "best_by=lost: .*there are loss"):
      main.run(config, workdir)
    config.train.update(best_by="eval/loss", eval_every=0)
    with self.assertRaisesRegex(UserError, "set train.eval_every"):
      main.run(config, workdir / "other")


if __name__ == "__main__":
  absltest.main()
