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

from ar_jax import checkpoint, data, metrics, optim, parallel
from ar_jax.core import prng, processes
from ar_jax.core.system import UserError, build
from ar_jax.data.digests import fingerprint
from ar_jax.data.images.transforms import augmentation
from ar_jax.data.wrap import cache
from ar_jax.step import Options, TrainState, init_state, jit_step, train_step
from ar_jax.stop import Preempted, Stop
from ar_jax.watch import Watch

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")


def initial_state(config: Config, system, tx, options, batch, mesh):
  """The first state: jitted init, placed by rule, with `weights` loaded."""
  key = prng.key(config.seed)
  # By value, so that what was traced once is known.
  init = functools.partial(jax.jit, init_state, static_argnums=(0, 1, 2))
  shapes = init().eval_shape(system, tx, options, key, batch, {})
  placed = parallel.shardings(shapes, mesh)
  abstract = parallel.abstract(shapes, placed)

  def fresh():
    given = {
      collection: parallel.put_tree(
        _weights(collection, source, abstract.variables),
        placed.variables[collection],
      )
      for collection, source in config.weights.items()
    }
    make = init(out_shardings=placed)
    return make(system, tx, options, key, batch, given)

  return abstract, fresh


def _weights(collection: str, source: str, variables: dict) -> dict:
  """One collection, from the checkpoint of the run at `source`.

  A tokenizer's own run keeps its params beside those of its adversary, so
  the entry named like the collection is taken where there is one; so is a
  collection of that name beside its params.
  """
  if collection not in variables:
    raise UserError(
      f"weights.{collection}: the model has no such collection; it has "
      f"{', '.join(variables)}"
    )
  run = checkpoint.load(source)[0]
  loaded = run["params"]
  if collection != "params":
    loaded = loaded.get(collection, run.get(collection, loaded))
  differs = checkpoint.mismatch(variables[collection], loaded)
  if differs:
    raise UserError(f"weights.{collection}={source}: another model: {differs}")
  return loaded


def _check_same_model(config: Config, workdir: pathlib.Path) -> None:
  meta = checkpoint.read_meta(workdir)
  if not meta:
    return
  old = meta["config"]
  new = _jsonable(config.to_dict())
  for saved in (old, new):  # says how it is computed, not what
    saved.get("model", {}).pop("remat", None)
  for key in ("system", "model"):
    if key in old and old[key] != new[key]:
      raise UserError(
        f"{workdir}: holds a run with {key}={old[key]}, this config has "
        f"{new[key]}; choose another --workdir, or continue it with its own "
        "config"
      )


def _jsonable(value):
  if isinstance(value, dict):
    return {k: _jsonable(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_jsonable(v) for v in value]
  return value


def run(config: Config, workdir: str | pathlib.Path) -> dict:
  """Trains, or continues, the run in `workdir`.

  The order of beginnings: the run's own newest good checkpoint; else
  `config.weights` (collection -> the workdir of another run); else scratch.

  Returns:
    The last line of `metrics.jsonl`, and the seconds that this call took.

  Raises:
    UserError: see the messages; the last good checkpoint is never touched.
    Preempted: SIGTERM came, the state is saved.
  """
  workdir = metrics.make_folder(workdir)
  _check_same_model(config, workdir)
  started = time.perf_counter()
  system = build(config.system, **config.model.to_dict())
  dataset = data.load(**config.data)
  _check_labels(system, dataset)
  mesh = parallel.make_mesh(config.mesh)
  rows = parallel.rows(mesh, config.batch)
  _check_accumulate(config, mesh)
  _check_best(config)
  tx = optim.make(config.optim.to_dict(), config.train.steps)
  options = Options(config.train.ema, config.train.accumulate)
  augment = augmentation(*config.augment)
  example = data.batch_at(dataset.train, 0, batch=1, seed=config.seed)
  abstract, fresh = initial_state(config, system, tx, options, example, mesh)
  checkpoints = checkpoint.Checkpoints(
    workdir,
    keep=config.train.keep,
    best=config.train.best,
    highest=config.train.best_is == "highest",
  )
  found = checkpoints.restore(abstract.items())
  state = TrainState.from_items(found[0]) if found else fresh()
  start = int(state.step)
  _report(config, system, state, workdir, start)

  source = _source(config, system, state, dataset, augment, workdir, mesh)
  batches = data.batches(
    source,
    batch=config.batch,
    seed=config.seed,
    start=start,
    augment=None if config.cache.views else augment,
    rows=rows,
    **config.loader,
  )
  if config.parallel == "pmap":
    options = dataclasses.replace(options, axis=parallel.PMAP_AXIS)
    update = parallel.pmap_step(train_step, system, tx, options, mesh)
    put = dict  # it takes the rows as they are
  else:
    update = parallel.on(mesh, parallel.together(jit_step))
    update = functools.partial(update, system, tx, options)
    put = functools.partial(parallel.put_batch, mesh=mesh)
  writer = metrics.Writer(workdir, start=start, total=config.train.steps)
  meta = {"config": _jsonable(config.to_dict()), "jax": jax.__version__}
  watch = Watch(config, system, dataset, mesh, workdir, writer)
  key = jax.random.key(config.seed)
  saved = start if found else -1

  def save(step, values):
    nonlocal saved
    _check_finite(values, step, workdir)
    if step != saved:
      checkpoints.save(step, state.items(), meta)
      saved = step

  try:
    if start:
      _finish(config, watch, checkpoints, state, workdir, start)
    with Stop() as stop:
      for step in range(start, config.train.steps):
        with watch.waiting():
          batch = put(next(batches))
        state, values = update(state, batch, key)
        done = step + 1
        writer.advance()
        final = done == config.train.steps
        stopped = stop.after(done)
        if final or done % config.train.log_every == 0:
          row = jax.device_get(values)
          _check_finite(row, done, workdir)
          writer.write(done, {**row, **watch.rates(done)})
        if final or stopped or done % config.train.save_every == 0:
          save(done, jax.device_get(values))
        if stopped:
          checkpoints.wait()
          log.info("SIGTERM: saved step %d of %s", done, workdir)
          raise Preempted
        row = {**values, **watch.look(done, final, state)}
        if config.train.best and done == saved:
          _score(config, checkpoints, done, row)
    if not found and saved < 0:  # a run of no steps still leaves its weights
      save(start, {})
    checkpoints.close()
  except UserError:
    checkpoints.settle()
    raise
  finally:
    writer.close()
  return {
    **metrics.last(workdir),
    "seconds": round(time.perf_counter() - started, 2),
  }


def _source(config, system, state, dataset, augment, workdir, mesh):
  """The training split, or its units: written once, read ever after."""
  if not config.cache.views:
    return dataset.train
  frozen = {k: v for k, v in state.variables.items() if k != "params"}
  encode = jax.jit(system.encode)
  # Without augmentation a view is the example itself, whatever the seed.
  seed = config.seed if config.augment else None
  batch = parallel.rounded(mesh, config.eval_batch)
  return cache.up_to_date(
    workdir / "units",
    dataset.train,
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


def _check_labels(system, dataset) -> None:
  if system.classes is not None and system.classes < dataset.num_classes:
    raise UserError(
      f"{dataset.name} has {dataset.num_classes} classes, the model has "
      f"{system.classes}; set model.num_classes={dataset.num_classes}"
    )


def _check_accumulate(config, mesh) -> None:
  parts, ways = config.train.accumulate, parallel.ways(mesh)
  if parts < 1 or config.batch % (parts * ways):
    raise UserError(
      f"batch={config.batch}: does not divide into train.accumulate={parts} "
      f"parts over {ways} data-parallel devices; choose a multiple of "
      f"{max(parts, 1) * ways}"
    )


def _check_best(config) -> None:
  train = config.train
  if not train.best:
    return
  if train.best_is not in ("lowest", "highest"):
    raise UserError(
      f"train.best_is={train.best_is!r}: must be 'lowest' or 'highest'"
    )
  if train.best_by.startswith("eval/") and not train.eval_every:
    raise UserError(
      f"train.best_by={train.best_by}: nothing is evaluated while training; "
      "set train.eval_every, best to train.save_every"
    )


def _score(config, checkpoints, step: int, values: dict) -> None:
  """Rates the step that was saved, if its metric was taken at it."""
  by = config.train.best_by
  if by in values:
    checkpoints.scores.note(step, float(values[by]))
  elif not by.startswith("eval/") or any(k.startswith("eval/") for k in values):
    raise UserError(
      f"train.best_by={by}: no such metric; there are {', '.join(values)}"
    )


def _finish(config, watch, checkpoints, state, workdir, step: int) -> None:
  """What was due after the step that a run continues from: the one before it
  may have been killed in the midst of it."""
  row = processes.broadcast(metrics.at(workdir, step))
  row |= watch.look(step, step >= config.train.steps, state)
  if config.train.best and step not in checkpoints.scores:
    if config.train.best_by in row:
      checkpoints.scores.note(step, row[config.train.best_by])


def _check_finite(values: dict, step: int, workdir: pathlib.Path) -> None:
  bad = [k for k, v in values.items() if not np.isfinite(v)]
  if bad:
    raise UserError(
      f"step {step}: {', '.join(bad)} is not finite; stopped before saving, "
      f"so {workdir}/checkpoints holds the last good step; lower optim.lr or "
      "set optim.clip and run again"
    )


def _report(config, system, state, workdir, start) -> None:
  count = sum(x.size for x in jax.tree.leaves(state.variables["params"]))
  verb = f"continues at step {start}" if start else "starts"
  log.info(
    "%s: %s %s, %.4gM parameters trained, %d steps of batch %d, jax %s on %s",
    workdir, config.system, verb, count / 1e6, config.train.steps,
    config.batch, jax.__version__, jax.devices()[0].device_kind,
  )  # fmt: skip
