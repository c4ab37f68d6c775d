"""What happens beside the updates of a run: clocks, pictures, evaluation."""

from __future__ import annotations

import contextlib
import time

from ar_jax import evaluate, metrics, sample
from ar_jax.core import processes
from ar_jax.step import TrainState


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

  def rates(self, step: int) -> dict[str, float]:
    """Rates since the last call; nothing the first time, which compiles."""
    now = time.perf_counter()
    rates = {}
    if self._since:
      steps, seconds = step - self._since[0], now - self._since[1]
      rates = {
        "steps/s": steps / seconds,
        "examples/s": steps * self._config.batch / seconds,
        "input_wait": self._wait / seconds,
      }
    self._since, self._wait = (step, now), 0.0
    return rates

  def look(self, step: int, final: bool, state: TrainState) -> dict:
    """What is due after this step; the results of an evaluation, if one was,
    as `eval/<name>`."""
    train = self._config.train
    due = lambda every: every and (final or step % every == 0)
    if not (due(train.sample_every) or due(train.eval_every)):
      return {}
    system, dataset = self._system, self._dataset
    variables, results = state.averaged(), {}
    if due(train.sample_every):
      images, cond = sample.draw(
        self._config, system, variables, dataset, train.sample_count, self._mesh
      )
      picture = sample.show(system, images, cond, self._config.sample.columns)
      if processes.leads():
        folder = metrics.make_folder(self._workdir / "samples")
        sample.save_png(
          folder / f"{step:08d}.png", picture, self._config.sample.scale
        )
      self._writer.image("samples", picture, step)
    if due(train.eval_every):
      if self._evaluators is None:
        self._evaluators = evaluate.evaluators(
          self._config, dataset, self._mesh
        )
      found = evaluate.evaluate(
        self._config, self._evaluators, system, variables, dataset, self._mesh
      )
      results = {f"eval/{k}": v for k, v in found.items()}
      self._writer.write(step, results)
    self._since = None  # the pause is not the steps' time
    return results
