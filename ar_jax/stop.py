"""SIGTERM: a run finishes its step, saves and ends."""

from __future__ import annotations

import itertools
import signal
import threading

import jax
from jax.experimental import multihost_utils

# How often this process has asked, over all its runs: JAX names the question
# at which all processes stop by its number, and one that comes at the end of a
# stage is answered in the next.
_asked = itertools.count(1)


class Stop:
  """Whether SIGTERM has come, until the end of the `with` block.

  Of several processes one may get it, and all stop at the same question: then
  it is JAX that listens, and finds a question that none has asked yet.
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

  def now(self) -> bool:
    """Whether to stop now; all processes ask equally often."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(next(_asked))
    return self._came

  def __exit__(self, *_):
    if self._ours:
      signal.signal(signal.SIGTERM, self._before)


class Preempted(SystemExit):
  """SIGTERM came: the state is saved and the exit code is 0."""

  def __init__(self):
    super().__init__(0)
