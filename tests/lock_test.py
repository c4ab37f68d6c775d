"""Two runs in one folder."""

import os
import subprocess
import sys

from absl.testing import absltest

from ar_jax import lock, main
from ar_jax.core.system import UserError
from tests.toy_runs import ToyTest, config

HOLD = (
  "import fcntl, sys, time; f = open(sys.argv[1], 'a+');"
  "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(99)"
)


class LockTest(ToyTest):
  def setUp(self):
    super().setUp()
    self.workdir.mkdir()

  def assert_refused(self, other):
    with self.assertRaisesRegex(
      UserError, f"{self.workdir}: another run .{other}.*--workdir"
    ) as caught:
      main.run(config(), self.workdir)
    self.assertNotIn("\n", str(caught.exception))
    self.assertFalse((self.workdir / "checkpoints").exists())

  def test_one_at_a_time(self):
    with lock.held(self.workdir):
      self.assert_refused(f"process {os.getpid()} on ")
    main.run(config(steps=0), self.workdir)

  def test_released_when_the_process_dies(self):
    child = subprocess.Popen(
      [sys.executable, "-c", HOLD, str(self.workdir / "lock")],
      stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    self.assert_refused("unknown")
    child.kill()
    child.communicate()
    with lock.held(self.workdir):
      self.assertIn(str(os.getpid()), (self.workdir / "lock").read_text())

  def test_released_after_an_error(self):
    with self.assertRaisesRegex(UserError, "frozen"):
      with lock.held(self.workdir):
        raise UserError("frozen")
    with lock.held(self.workdir):
      pass


if __name__ == "__main__":
  absltest.main()
