"""Runs that are killed, asked to stop, starved of disk or fed damage."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time

import chex
from absl.testing import absltest

from ar_jax import checkpoint, main
from ar_jax.core.system import UserError
from configs import var

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 60


def smoke(steps=STEPS, **changes):
  config = var.get_config("smoke")
  config.train.update(steps=steps, save_every=10, log_every=1)
  config.update_from_flattened_dict(changes)
  return config


def command(workdir, *extra):
  return [
    *(sys.executable, "-m", "ar_jax.main"),
    *("--config=configs/var.py:smoke", f"--workdir={workdir}"),
    f"--config.train.steps={STEPS}",
    "--config.train.save_every=10",
    "--config.train.log_every=1",
    *extra,
  ]


def start(workdir, *extra, **kwargs):
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    command(workdir, *extra),
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **kwargs,
  )


def wait_for_step(process, workdir, step):
  """Returns once the run has logged `step`."""
  path = pathlib.Path(workdir) / "metrics.jsonl"
  while process.poll() is None:
    if path.exists() and len(path.read_text().splitlines()) >= step:
      return
    time.sleep(0.02)
  raise AssertionError(process.stderr.read()[-2000:])


def steps_on_disk(workdir):
  folder = pathlib.Path(workdir) / "checkpoints"
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def curve(workdir):
  text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  return [(r["step"], r["loss"], r["norm/params"]) for r in rows]


class FaultsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    cls.whole = pathlib.Path(folder.name) / "whole"
    main.run(smoke(), cls.whole)

  def folder(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    return pathlib.Path(folder.name) / "run"

  def assert_as_if_undisturbed(self, workdir):
    self.assertEqual(curve(workdir), curve(self.whole))
    chex.assert_trees_all_equal(
      checkpoint.load(workdir)[0], checkpoint.load(self.whole)[0]
    )

  def test_killed_and_stopped_it_ends_as_if_undisturbed(self):
    workdir = self.folder()
    stopped = start(workdir)
    wait_for_step(stopped, workdir, 13)
    stopped.send_signal(signal.SIGTERM)
    _, log = stopped.communicate()
    self.assertEqual(stopped.returncode, 0, log)
    saved = steps_on_disk(workdir)[-1]
    self.assertGreaterEqual(saved, 13)  # not only every tenth step
    killed = start(workdir)
    wait_for_step(killed, workdir, saved + 12)
    killed.kill()
    killed.communicate()
    main.run(smoke(), workdir)
    self.assert_as_if_undisturbed(workdir)

  def test_full_disk(self):
    workdir = self.folder()
    main.run(smoke(), workdir)
    for step in steps_on_disk(workdir):
      if step == STEPS:
        os.rename(workdir / f"checkpoints/{step}", workdir / "lost")
    before = steps_on_disk(workdir)

    def small_disk():  # no file may grow beyond 4 KiB
      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
      resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))

    full = start(workdir, preexec_fn=small_disk)
    _, log = full.communicate()
    self.assertEqual(full.returncode, 1, log)
    self.assertRegex(log.splitlines()[-1], "ar_jax: .*free space")
    self.assertEqual(steps_on_disk(workdir), before)
    main.run(smoke(), workdir)
    self.assert_as_if_undisturbed(workdir)

  def test_damaged_newest_step(self):
    for damage in ("truncate", "flip"):
      workdir = self.folder() / damage
      main.run(smoke(), workdir)
      newest = steps_on_disk(workdir)[-1]
      files = (workdir / f"checkpoints/{newest}/variables").rglob("d/*")
      largest = max(files, key=lambda p: p.stat().st_size)
      content = bytearray(largest.read_bytes())
      if damage == "truncate":
        content = content[: len(content) // 2]
      else:
        content[len(content) // 2] ^= 0xFF
      largest.write_bytes(content)
      main.run(smoke(), workdir)
      self.assert_as_if_undisturbed(workdir)
      self.assertTrue((workdir / f"checkpoints/broken-{newest}").exists())

  def test_loss_that_is_not_finite(self):
    workdir = self.folder()
    with self.assertRaisesRegex(UserError, "step .* not finite.*optim.lr"):
      main.run(smoke(**{"optim.lr": 1e30, "optim.clip": 0.0}), workdir)
    main.run(smoke(), workdir)
    self.assert_as_if_undisturbed(workdir)


if __name__ == "__main__":
  absltest.main()
