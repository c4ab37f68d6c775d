"""What happens beside the updates of a run: clocks, pictures, evaluation."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable

import jax

from ar_jax import evaluate, metrics, rebuilt, sample
from ar_jax.core import processes
from ar_jax.step import TrainState

# Steps of a run that is more than a try of the machinery.
_LONG = 100


class Pace:
  """Bounds how far the host runs ahead of the devices.

  Steps are dispatched before they are done. One that waits keeps the devices
  busy while the host reads the next batch; more would only make a run late to
  see that it is asked to stop, and its bar a guess.

  Args:
    finished: is called for every step that is done.
    ahead: steps that may wait behind the one that is computed.
  """

  def __init__(self, finished: Callable[[], None], ahead: int = 1):
    self._finished, self._ahead = finished, ahead
    self._pending: collections.deque = collections.deque()

  def began(self, values) -> None:
    """A step was dispatched; `values` are what it computes."""
    self._pending.append(values)
    self._wait(self._ahead)

  def catch_up(self) -> None:
    """Waits for all steps."""
    self._wait(0)

  def _wait(self, left: int) -> None:
    while len(self._pending) > left:
      jax.block_until_ready(self._pending.popleft())
      self._finished()


class Watch:
  """Measures a run and, on schedule, draws from it and evaluates it.

  Args:
    config: `train` says how often.
    system, dataset, mesh, workdir, writer: of the run.
  """

  def __init__(self, config, system, dataset, mesh, workdir, writer):
    self._config, self._system, self._dataset = config, system, dataset
    self._mesh, self._workdir, self._writer = mesh, workdir, writer
    self._wait = 0.0
    self._since: tuple[int, float] | None = None
    self._evaluators: dict | None = None

  @contextlib.contextmanager
  def waiting(self):
    start = time.perf_counter()
    yield
    self._wait += time.perf_counter() - start

  def begin(self, step: int) -> None:
    """The clocks run from the end of this step on."""
    self._since, self._wait = (step, time.perf_counter()), 0.0

  def rates(self, step: int) -> dict[str, float]:
    """Rates since the last call; nothing at the first step, which compiles."""
    if not self._since or step == self._since[0]:
      return {}
    steps = step - self._since[0]
    seconds = time.perf_counter() - self._since[1]
    rates = {
      "steps/s": steps / seconds,
      "examples/s": steps * self._config.batch / seconds,
      "input_wait": self._wait / seconds,
    }
    self.begin(step)
    return rates

  @contextlib.contextmanager
  def _pause(self, state: TrainState):
    """What is done within is no time of the steps."""
    jax.block_until_ready(state.step)
    start = time.perf_counter()
    yield
    if self._since:
      step, since = self._since
      self._since = step, since + time.perf_counter() - start

  def look(self, step: int, final: bool, state: TrainState) -> dict:
    """What is due after this step.

    A run may have been killed in the midst of it: then the next one, which
    continues from this step, calls it again, and what is done is left alone.

    Returns:
      The results of an evaluation, if one was due, as `eval/<name>`.
    """
    train = self._config.train
    due = lambda every: every and (final or step % every == 0)
    results = {}
    if due(self._sample_every()):
      path = self._workdir / "samples" / f"{step:08d}.png"
      if not processes.broadcast(path.exists()):
        with self._pause(state):
          self._sample(step, path, state.averaged())
    if due(train.eval_every):
      row = metrics.at(self._workdir, step)
      results = {k: v for k, v in row.items() if k.startswith("eval/")}
      if not results:
        with self._pause(state):
          results = self._evaluate(step, state.averaged())
    return results

  def _sample_every(self) -> int:
    """As the config says; by default a tokenizer, which is cheap to look at,
    shows what it makes of test images whenever a longer run saves."""
    train = self._config.train
    cheap = rebuilt.can(self._system) and train.steps >= _LONG
    return train.sample_every or (train.save_every if cheap else 0)

  def _rebuild(self, step, variables):
    """The same for a tokenizer: (its images u8, the true ones); what is known
    of its codebook is written."""
    count = self._config.train.sample_count
    true, images, found = rebuilt.rebuild(
      self._system, variables, self._dataset, count, self._mesh
    )
    if found:
      self._writer.write(step, found)
    return sample.to_uint8(images), {"image": true}

  def _sample(self, step, path, variables) -> None:
    config, system = self._config, self._system
    if rebuilt.can(system):
      images, cond = self._rebuild(step, variables)
      return self._save(step, path, images, cond)
    images, cond = sample.draw(
      config,
      system,
      variables,
      self._dataset,
      config.train.sample_count,
      self._mesh,
    )
    self._save(step, path, images, cond)

  def _save(self, step, path, images, cond) -> None:
    config, system = self._config, self._system
    if processes.leads():
      picture = sample.show(system, images, cond, config.sample.columns)
      metrics.make_folder(path.parent)
      sample.save_png(path, picture, config.sample.scale)
      self._writer.image("samples", picture, step)

  def _evaluate(self, step, variables) -> dict:
    config, dataset, mesh = self._config, self._dataset, self._mesh
    if self._evaluators is None:
      self._evaluators = evaluate.evaluators(config, dataset, mesh)
    found = evaluate.evaluate(
      config, self._evaluators, self._system, variables, dataset, mesh
    )
    results = {f"eval/{k}": v for k, v in found.items()}
    self._writer.write(step, results)
    return results
