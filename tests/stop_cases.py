"""What the processes of `stop_test` run; forks import it."""

import errno
import os
import pathlib
import signal
import time

from ar_jax import launch, main, seal, watch
from ar_jax.core.system import UserError
from configs import common
from tests.toy_runs import config

STEPS = 200  # of the second stage


def stopped_in_last_look(workdir, coordinator, which):
  """One of two processes; the second is asked to stop in the last look of the
  first stage."""
  launch.join(coordinator, 2, which, heartbeat=20)
  workdir = pathlib.Path(workdir)
  look = watch.Watch.look

  def late(self, step, final, state):
    if final and self._workdir.name == "first":
      if which == 1:
        os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(3)  # the notice takes up to a second to go round
    return look(self, step, final, state)

  watch.Watch.look = late
  stages = common.stages(
    first=config(eval_every=20), second=config(steps=STEPS)
  )
  main.run(stages, workdir)


def went_on(workdir, coordinator, which):
  """One of two processes that go on in a folder whose newest step is damaged.
  First a file cannot be read by the second of them."""
  launch.join(coordinator, 2, which, heartbeat=20)
  workdir, read = pathlib.Path(workdir), seal._crc

  def refused(path):
    if which == 1:
      raise OSError(errno.EIO, "")
    return read(path)

  seal._crc = refused
  try:
    main.run(config(), workdir)
    raise AssertionError("it went on")
  except UserError as e:
    print(f"process {which}: {e}")
  assert not list(workdir.glob("checkpoints/broken-*"))
  seal._crc = read
  main.run(config(eval_every=20), workdir)
