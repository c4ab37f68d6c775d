"""What the processes of one run tell each other, on the host.

All processes run the same program and come to each of these calls in the same
order. With one process they cost nothing.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its barrier has no public name
from jax.experimental import multihost_utils

_numbers = itertools.count()


def leads() -> bool:
  """Whether this process writes the files that there is one of."""
  return jax.process_index() == 0


def fetch(tree: Any) -> Any:
  """The whole arrays, on the host of every process.

  Args:
    tree: of arrays; those that are split over processes are gathered.
  """

  def whole(x):
    if isinstance(x, jax.Array) and not (
      x.is_fully_addressable or x.is_fully_replicated
    ):
      return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)

  return jax.tree.map(whole, tree)


def gather(x: np.ndarray) -> np.ndarray:
  """[P, ...]: what each of the P processes passes, all of one shape."""
  if jax.process_count() == 1:
    return np.asarray(x)[None]
  return np.asarray(multihost_utils.process_allgather(np.asarray(x)))


def agree(yes: bool) -> bool:
  """Whether all processes say yes."""
  return bool(gather(np.int32(yes)).all())


def broadcast(value: Any) -> Any:
  """What the first process says: its `value`, which JSON can hold."""
  if jax.process_count() == 1:
    return value
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  length = int(gather(np.int32(len(text)))[0])
  padded = np.zeros(length, np.uint8)
  padded[: len(text[:length])] = text[:length]
  return json.loads(gather(padded)[0].tobytes())


def of_first(arrays: list[np.ndarray]) -> list[np.ndarray]:
  """What the first process has: arrays of shapes and types that all know."""
  if jax.process_count() == 1:
    return arrays
  return [np.asarray(multihost_utils.broadcast_one_to_all(x)) for x in arrays]


def meet(name: str) -> None:
  """Returns when every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def ready(seconds: int = 3600) -> None:
  """As `meet`, before the devices have ever met: to be called when a program
  is compiled. Devices that wait for one another at its start give up soon, on
  a CPU after half a minute, and one process may compile longer than that."""
  if jax.process_count() > 1:
    client = distributed.global_state.client
    client.wait_at_barrier(f"ar_jax_ready_{next(_numbers)}", seconds * 1000)
