"""Batches as a pure function of (seed, step), on Grain.

The stream is one endless sequence of examples: epoch after epoch, each one
shuffled anew over the whole set, or all in the order of the source. Position
q = step * B + r of that sequence is row r of the batch of that step. So
nothing needs saving to resume, and a batch depends on neither the number of
processes nor that of threads.

B global batch size, R rows of it that this process reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ar_jax.core.system import UserError
from ar_jax.data.dataset import Example, Source, draw
from ar_jax.data.images.transforms import Augment

Batch = dict[str, np.ndarray]
ORDERS = ("shuffled", "given")


def batches(
  source: Source,
  *,
  batch: int,
  seed: int,
  start: int = 0,
  augment: Augment | None = None,
  rows: Sequence[int] | None = None,
  order: str = "shuffled",
  workers: int = 0,
  prefetch: int = 2,
) -> Iterator[Batch]:
  """Training batches without end, from step `start` on.

  Args:
    source: see `dataset.py`.
    batch: B, over all processes.
    seed: of the order and of the augmentation.
    start: the first step; the same batches as a run from 0 sees there.
    augment: (example, rng) -> example, with a generator that depends on the
      seed and the position in the stream only.
    rows: which rows of the batch to read, as `parallel.rows` tells each
      process its own; by default all.
    order: "shuffled", or "given" for the order of the source, epoch after
      epoch: for examples that follow from each other, as windows of one
      picture. `Dataset.order` says what a set was loaded for.
    workers: threads that read and decode, each at a batch of its own; 0 and 1
      both mean one. PIL decodes and resizes outside the interpreter lock.
    prefetch: batches kept ready; 0 reads in the calling thread.

  Yields:
    The fields of the source, as image u8[R, H, W, C] and label i32[R], and
    index i32[R], the position in the stream modulo 2**31.

  Raises:
    UserError: the source is empty, B is less than 1, or there is no such
      order.
  """
  steps = _steps(source, batch, seed, augment, rows, order)
  return read_ahead(steps[start:], workers, prefetch)


def batch_at(
  source: Source,
  step: int,
  *,
  batch: int,
  seed: int,
  augment: Augment | None = None,
  rows: Sequence[int] | None = None,
  order: str = "shuffled",
) -> Batch:
  """The one batch that `batches` yields at `step`; arguments as there."""
  return _steps(source, batch, seed, augment, rows, order)[step]


def epoch(
  source: Source,
  *,
  batch: int,
  rows: Sequence[int] | None = None,
  workers: int = 0,
) -> Iterator[Batch]:
  """One pass in order, without augmentation, for evaluation.

  Args:
    source: see `dataset.py`.
    batch: B, over all processes.
    rows: as in `batches`; every process yields as many batches.
    workers: as in `batches`.

  Yields:
    The fields of the source, index i32[R], the number of the example, and
    mask f32[R]. The last batch is filled up with copies of the last example,
    which have mask 0 and an index past the end.
  """
  import grain

  n, positions = len(source), _positions(source, batch, rows)

  def read(step: int) -> Batch:
    index = positions(step)
    examples = [dict(source[min(q, n - 1)]) for q in index]
    mask = (np.asarray(index) < n).astype(np.float32)
    return {**stack(examples, index), "mask": mask}

  return read_ahead(grain.MapDataset.range(-(-n // batch)).map(read), workers)


def read_ahead(steps: Any, workers: int, prefetch: int = 2) -> Iterator[Batch]:
  """Iterates over a grain.MapDataset, in order, with threads that run ahead."""
  import grain

  threads = max(workers, 1) if prefetch else 0
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(prefetch, threads)
  )
  return iter(steps.to_iter_dataset(options))


def stack(examples: list[Example], index: Sequence[int]) -> Batch:
  """Examples -> batch, with their `index` modulo 2**31."""
  fields = {k: np.stack([e[k] for e in examples]) for k in examples[0]}
  return {**fields, "index": (np.asarray(index) % 2**31).astype(np.int32)}


def _steps(
  source: Source,
  batch: int,
  seed: int,
  augment: Augment | None,
  rows: Sequence[int] | None,
  order: str,
) -> Any:
  """The endless grain.MapDataset: step -> batch."""
  import grain.experimental  # two seconds, so only where it is used

  check_order(order)
  positions = _positions(source, batch, rows)
  # Grain shuffles epoch e with seed + e; hashing ours first keeps the runs of
  # seeds 0 and 1 from being the same one, an epoch apart.
  shuffle = int(np.random.SeedSequence(seed).generate_state(1)[0])
  length = len(source)

  # What `MapDataset.shuffle(seed).repeat()` says, without its layers, which
  # take longer than a small example.
  def number(position: int) -> int:
    turn, place = divmod(position, length)
    if order == "given":
      return place
    return grain.experimental.index_shuffle(
      place, max_index=length - 1, seed=(shuffle + turn) % 2**32, rounds=4
    )

  # A generator takes longer to make than a small example to read.
  drawn = augment is not None or hasattr(source, "draw")

  def example(position: int) -> Example:
    rng = np.random.default_rng((seed, position)) if drawn else None
    one = draw(source, number(position), rng)
    return one if augment is None else augment(one, rng)

  def read(step: int) -> Batch:
    index = positions(step)
    return stack([example(q) for q in index], index)

  return grain.MapDataset.range(2**31).repeat().map(read)


def check_order(order: str) -> None:
  """Raises UserError unless there is such an order."""
  if order not in ORDERS:
    raise UserError(
      f"data.order={order!r}: must be {' or '.join(map(repr, ORDERS))}"
    )


def _positions(
  source: Source, batch: int, rows: Sequence[int] | None
) -> Callable[[int], list[int]]:
  """step -> the positions in the stream that this process reads."""
  if len(source) == 0:
    raise UserError("data: the source holds no example; nothing to read")
  if batch < 1:
    raise UserError(f"batch={batch}: must be at least 1")
  own = [int(r) for r in (range(batch) if rows is None else rows)]
  return lambda step: [step * batch + r for r in own]
