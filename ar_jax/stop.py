"""SIGTERM: a run finishes its step, saves and ends."""

from __future__ import annotations

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Stop:
  """Whether SIGTERM has come, until the end of the `with` block.

  Of several processes one may get it, and all stop after the same step: then
  it is JAX that listens, and finds a step that none has passed.
  """

  def __init__(self):
    self._came = False

  def __enter__(self):
    self._ours = (
      jax.process_count() == 1
      and threading.current_thread() is threading.main_thread()
    )
    if self._ours:
      self._before = signal.signal(signal.SIGTERM, self._come)
    return self

  def _come(self, *_):
    self._came = True

  def after(self, step: int) -> bool:
    """Whether to stop after this step; to be asked once for every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._came

  def __exit__(self, *_):
    if self._ours:
      signal.signal(signal.SIGTERM, self._before)


class Preempted(SystemExit):
  """SIGTERM came: the state is saved and the exit code is 0."""

  def __init__(self):
    super().__init__(0)
