"""What happens beside the updates of a run: clocks, pictures, evaluation."""

from __future__ import annotations

import collections
import contextlib
import logging
import time
from collections.abc import Callable

import jax
from jax.errors import JaxRuntimeError

from ar_jax import evaluate, metrics, rebuilt, sample, show
from ar_jax.core import forms, processes
from ar_jax.core.errors import UserError
from ar_jax.step import TrainState

log = logging.getLogger("ar_jax")

# Steps of a run that is more than a try of the machinery.
_LONG = 100
# How often such a run shows what it draws, unless it is told.
_TIMES = 4
# Samples that get a file of their own then, as sounds do.
_FILES = 4


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
    self._draws = True  # until it is seen that it does not

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
    """As the config says. By default, 0, a run that is longer than a try shows
    four times what it draws, the last time at its end; a tokenizer, which is
    cheap to look at, shows what it makes of test examples whenever it saves.
    Never for -1."""
    train = self._config.train
    if train.sample_every:
      return max(0, train.sample_every)
    shown = set(self._system.makes) & set(self._dataset.forms)
    if train.steps < _LONG or not shown or not self._draws:
      return 0
    if rebuilt.can(self._system):
      return train.save_every
    return -(-train.steps // _TIMES)

  def _rebuild(self, step, variables) -> sample.Samples:
    """The same for a tokenizer: what it makes of test examples; what is known
    of its codebook is written."""
    count = self._config.train.sample_count
    true, made, found = rebuilt.rebuild(
      self._system, variables, self._dataset, count, self._mesh
    )
    if found:
      self._writer.write(step, found)
    return sample.Samples(forms.stored(made, self._dataset.forms), true, true)

  def _sample(self, step, path, variables) -> None:
    config, system = self._config, self._system
    if rebuilt.can(system):
      return self._save(step, path, self._rebuild(step, variables))
    try:
      drawn = sample.draw(
        config,
        system,
        variables,
        self._dataset,
        config.train.sample_count,
        self._mesh,
      )
    except (UserError, NotImplementedError, JaxRuntimeError) as e:
      memory = "RESOURCE_EXHAUSTED" in str(e) and jax.process_count() == 1
      broken = isinstance(e, JaxRuntimeError) and not memory
      if config.train.sample_every or broken:
        raise
      self._draws = False  # nobody asked for them
      why = str(e).split("\n")[0]
      log.info("no samples are shown while training: %s", why)
      return None
    return self._save(step, path, drawn)

  def _save(self, step, path, drawn: sample.Samples) -> None:
    if not processes.leads():
      return
    shown = show.fields(
      metrics.make_folder(path.parent),
      path.stem,
      drawn.made,
      self._dataset.forms,
      drawn.cond,
      columns=self._config.sample.columns,
      scale=self._config.sample.scale,
      most=_FILES,
      truth=drawn.truth,
      names=self._dataset.class_names,
    )
    for i, one in enumerate(shown):
      name = "samples" if i == 0 else f"samples/{one.name}"
      self._writer.image(name, one.picture, step)
      for file in one.files:  # as samples/wav/000
        *_, number, end = ["", *file.name.removeprefix(path.stem).split(".")]
        number = f"/{number}" if number.isdigit() else ""
        self._writer.file(f"{name}/{end}{number}", file, step)

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
