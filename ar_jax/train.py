"""Mode train: config -> state -> steps. One loop for every system.

Data and randomness are functions of the step, so a checkpoint is the state
and nothing else, and a run that is killed ends as if it had not been.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
import time

import jax
import ml_collections
import numpy as np

from ar_jax import (
  checkpoint,
  data,
  lock,
  metrics,
  optim,
  parallel,
  quiet,
  run_files,
)
from ar_jax.command.values import accumulate, check_values
from ar_jax.core import json_text, processes
from ar_jax.core.system import UserError, build
from ar_jax.data.digests import fingerprint
from ar_jax.data.images.transforms import augmentation
from ar_jax.data.wrap import cache, peers, turns
from ar_jax.resume import check_same_model, initial_state, restored
from ar_jax.step import Options, jit_step, train_step
from ar_jax.stop import Preempted, Stop
from ar_jax.watch import Pace, Watch

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")


def run(config: Config, workdir: str | pathlib.Path) -> dict:
  """Trains, or continues, the run in `workdir`.

  The order of beginnings: the run's own newest good checkpoint; else
  `config.weights` (collection -> the workdir of another run); else scratch.

  Returns:
    What `metrics.jsonl` says of the last step, and the seconds that this call
    took.

  Raises:
    UserError: see the messages; the last good checkpoint is never touched.
    Preempted: SIGTERM came, the state is saved.
  """
  started = time.perf_counter()
  quiet.libraries()
  workdir = metrics.make_folder(workdir)
  check_values(config)
  with lock.held(workdir):
    _run(config, workdir)
  return {  # all that was written of the last step, perhaps in several lines
    **metrics.at(workdir, metrics.last(workdir).get("step", 0)),
    "seconds": round(time.perf_counter() - started, 2),
  }


def _run(config: Config, workdir: pathlib.Path) -> None:
  changed = check_same_model(config, workdir)
  system = build(config.system, **config.model.to_dict())
  dataset = data.load(**config.data)
  _check_labels(system, dataset)
  run_files.write_data(workdir, dataset)
  mesh = parallel.make_mesh(config.mesh)
  rows = parallel.rows(mesh, config.batch)
  accumulate(config, mesh)
  tx = optim.make(config.optim.to_dict(), config.train.steps)
  rate = optim.rate(config.optim.to_dict(), config.train.steps)
  options = Options(config.train.ema, config.train.accumulate)
  augment = augmentation(*config.augment)
  example = data.batch_at(dataset.train, 0, batch=1, seed=config.seed)
  abstract, fresh = initial_state(
    config, system, tx, options, example, mesh, dataset.train
  )
  checkpoints = checkpoint.Checkpoints(
    workdir,
    keep=config.train.keep,
    best=config.train.best,
    by=config.train.best_by,
    highest=config.train.best_is == "highest",
    every=config.train.save_every,
  )
  found = restored(config, checkpoints, abstract, tx)
  state = found or fresh()
  start, total = int(state.step), config.train.steps
  _report(config, system, state, workdir, start, changed)

  source = _source(config, system, state, dataset, augment, workdir, mesh)
  batches = data.batches(
    source,
    batch=config.batch,
    seed=config.seed,
    start=start,
    augment=None if config.cache.views else augment,
    rows=rows,
    order=dataset.order,
    **config.loader,
  )
  update_of, put = _updates(config, tx, options, mesh)
  writer = metrics.Writer(workdir, start=start, total=total)
  meta = {"config": json_text.plain(config.to_dict()), "jax": jax.__version__}
  watch = Watch(config, system, dataset, mesh, workdir, writer)
  pace = Pace(writer.advance)
  key = jax.random.key(config.seed)
  saved = start if found else -1
  begun = set()  # the programs so far

  try:
    checkpoints.scores.forget_after(start)
    if start:
      _finish(config, watch, checkpoints, state, workdir, start)
    # Until here SIGTERM ends the process, and loses nothing. From here on what
    # is being done is finished and the run ends: also after its last step, for
    # another stage may follow.
    with Stop() as stop:
      for step in range(start, total):
        with watch.waiting():
          batch = put(next(batches))
        update = update_of(system.at(step))
        state, values = update(state, batch, key)
        done = step + 1
        pace.began(values)
        if update not in begun:  # it was compiled; the clocks run from here
          begun.add(update)
          pace.catch_up()
          watch.begin(done)
        stopped = stop.now()
        due = _due(config, done)
        if due or stopped or done % (config.train.log_every or total) == 0:
          pace.catch_up()
          row = jax.device_get(values)
          _check_finite(row, done, workdir)
          lr = {"lr": rate(step)}
          writer.write(done, {**row, **lr, **watch.rates(done)})
          checkpoints.seal_finished()
        if due or stopped:
          checkpoints.save(done, state.items(), meta)
          saved = done
        if due:
          _score(config, checkpoints, done, row)
        if stopped:
          checkpoints.wait()
          log.info("SIGTERM: saved step %d of %s", done, workdir)
          raise Preempted
        results = watch.look(done, done == total, state)
        if due and results:
          _score(config, checkpoints, done, results)
      if saved < 0:  # a run of no steps still leaves its weights
        checkpoints.save(start, state.items(), meta)
      checkpoints.close()
      if stop.now():
        log.info("SIGTERM: %s is complete", workdir)
        raise Preempted
  except UserError:
    checkpoints.settle()
    raise
  finally:
    writer.close()


def _updates(config, tx, options, mesh):
  """(system -> its update of (state, batch, key); what places a batch). A
  system is compiled once, however often it comes."""
  if config.parallel == "pmap":
    options = dataclasses.replace(options, axis=parallel.PMAP_AXIS)

    @functools.cache
    def of(system):
      return parallel.pmap_step(train_step, system, tx, options, mesh)

    return of, dict  # it takes the rows as they are

  @functools.cache
  def update_of(system):
    # Each of its own: the processes meet before each program starts.
    update = parallel.on(mesh, parallel.together(jit_step))
    return functools.partial(update, system, tx, options)

  return update_of, functools.partial(parallel.put_batch, mesh=mesh)


def _source(config, system, state, dataset, augment, workdir, mesh):
  """The training split, or its units: written once, read ever after. Other
  examples stand beside stored units, not in them."""
  if not config.cache.views:
    return dataset.train
  frozen = {k: v for k, v in state.variables.items() if k != "params"}
  encode = parallel.on(mesh, jax.jit(system.encode))
  # The one view without augmentation is the example itself, whatever the seed.
  random = config.augment or config.cache.views > 1
  seed = config.seed if random else None
  batch = parallel.rounded(mesh, config.eval_batch)
  each = turns.alone(dataset.train)  # once, however often it comes
  units = cache.up_to_date(
    workdir / "units",
    peers.alone(each),
    lambda batch: processes.fetch(
      encode(state.variables, parallel.put_batch(batch, mesh))
    ),
    batch=batch,
    rows=parallel.rows(mesh, batch),
    views=config.cache.views,
    augment=augment,
    seed=config.seed,
    digest={
      "data": dataset.digest or fingerprint(config.data.to_dict()),
      "augmentation or views": fingerprint(
        [config.augment, config.cache.views, seed]
      ),
      "tokenizer": fingerprint(processes.fetch(frozen)),
    },
  )
  return turns.around(peers.around(units, each), dataset.train)


def _check_labels(system, dataset) -> None:
  if system.classes is not None and system.classes < dataset.num_classes:
    raise UserError(
      f"{dataset.name} has {dataset.num_classes} classes, the model has "
      f"{system.classes}; set model.num_classes={dataset.num_classes}"
    )


def _due(config, step: int) -> bool:
  """Whether an undisturbed run saves after this step."""
  every, total = config.train.save_every, config.train.steps
  return step == total or bool(every) and step % every == 0


def _score(config, checkpoints, step: int, values: dict) -> None:
  """Rates a step by its row of metrics, or by its evaluation.

  Raises:
    UserError: the metric ought to be in these values, and is not.
  """
  by = config.train.best_by
  if not config.train.best:
    return
  if by in values:
    checkpoints.scores.note(step, float(values[by]))
  elif by.startswith("eval/") == any(k.startswith("eval/") for k in values):
    raise UserError(
      f"train.best_by={by}: no such metric; there are {', '.join(values)}"
    )


def _finish(config, watch, checkpoints, state, workdir, step: int) -> None:
  """What was due after the step that a run continues from: the one before it
  may have been killed in the midst of it. And what steps are rated by may have
  changed since they were saved."""
  watch.look(step, step >= config.train.steps, state)
  if not config.train.best:
    return
  for saved in processes.broadcast(checkpoints.steps()):
    if _due(config, saved) and saved not in checkpoints.scores:
      value = metrics.at(workdir, saved).get(config.train.best_by)
      if isinstance(value, int | float):
        checkpoints.scores.note(saved, value)


def _check_finite(values: dict, step: int, workdir: pathlib.Path) -> None:
  bad = [k for k, v in values.items() if not np.isfinite(v)]
  if bad:
    raise UserError(
      f"step {step}: {', '.join(bad)} is not finite; stopped before saving, "
      f"so {workdir}/checkpoints holds the last good step; lower optim.lr or "
      "set optim.clip and run again"
    )


def _report(config, system, state, workdir, start, changed) -> None:
  count = sum(x.size for x in jax.tree.leaves(state.variables["params"]))
  verb = f"continues at step {start}" if start else "starts"
  log.info(
    "%s: %s %s, %.4gM parameters trained, %d steps of batch %d, jax %s on %s",
    workdir, config.system, verb, count / 1e6, config.train.steps,
    config.batch, jax.__version__, jax.devices()[0].device_kind,
  )  # fmt: skip
  if changed:
    log.info("since it was saved: %s", _said(changed))


def _said(changed: dict) -> str:
  return ", ".join(f"{k} {old} -> {new}" for k, (old, new) in changed.items())
