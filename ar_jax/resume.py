"""How a run begins: where it was, from given weights, or from nothing."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ar_jax import checkpoint, optim, parallel
from ar_jax.core import json_text, prng, processes
from ar_jax.core.system import UserError, fits
from ar_jax.core.trees import mismatch
from ar_jax.step import TrainState, init_state

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")


def initial_state(
  config: Config, system, tx, options, batch, mesh, source=None
):
  """The first state: jitted init, placed by rule, with `weights` loaded, and
  fitted to a `source` of examples, if there is one.

  Returns:
    (its shapes, with shardings; a function that makes it).
  """
  key = prng.key(config.seed)
  # By value, so that what was traced once is known.
  init = functools.partial(jax.jit, init_state, static_argnums=(0, 1, 2))
  shapes = init().eval_shape(system, tx, options, key, batch, {})
  placed = parallel.shardings(shapes, mesh)
  abstract = parallel.abstract(shapes, placed)

  def fresh():
    given = {
      collection: jax.device_put(
        _weights(system, collection, source, abstract.variables, mesh),
        placed.variables[collection],
      )
      for collection, source in config.weights.items()
    }
    make = init(out_shardings=placed)
    state = make(system, tx, options, key, batch, given)
    if source is None or not fits(system):
      return state
    return _fitted(config, system, state, source)

  return abstract, fresh


def _fitted(config: Config, system, state: TrainState, source) -> TrainState:
  """The state with what `System.fitted` makes of the source.

  The first process computes it; the others get what has changed.

  Raises:
    UserError: the variables are then others, or as in `fitted`.
  """
  now = processes.fetch(state.variables)
  new, failed = now, ""
  if processes.leads():
    try:
      new = system.fitted(now, source, config.seed)
      new = {**new, **{k: now[k] for k in config.weights if k in now}}
      if differs := mismatch(now, new):
        failed = f"{config.system}: fitted to something else: {differs}"
    except UserError as error:
      failed = str(error)
  if failed := processes.broadcast(failed):  # or the others wait for ever
    raise UserError(failed)
  old, structure = jax.tree.flatten(state.variables)
  before, after = jax.tree.leaves(now), jax.tree.leaves(new)
  changed = [i for i, x in enumerate(after) if x is not before[i]]
  changed = processes.broadcast(changed)
  values = processes.of_first(
    [np.asarray(after[i]).astype(before[i].dtype) for i in changed]
  )
  for i, value in zip(changed, values, strict=True):
    old[i] = parallel.put_tree(value, old[i].sharding)
  variables = jax.tree.unflatten(structure, old)
  ema = state.ema
  if ema is not None:
    ema = jax.tree.map(jnp.copy, variables["params"])
  return dataclasses.replace(state, variables=variables, ema=ema)


def _weights(
  system, collection: str, source: str, variables: dict, mesh
) -> dict:
  """One collection, from the checkpoint of the run at `source`, placed by rule
  on the mesh of this run, so that no device holds more than its share.

  A tokenizer's own run keeps its params beside those of its adversary, so
  the entry named like the collection is taken where there is one; so is a
  collection of that name beside its params.
  """
  if collection not in variables:
    raise UserError(
      f"weights.{collection}: the model has no such collection; it has "
      f"{', '.join(variables)}"
    )
  place = functools.partial(parallel.shardings, mesh=mesh)
  run = checkpoint.load(source, place)[0]
  loaded = run["params"]
  if collection != "params":
    loaded = loaded.get(collection, run.get(collection, loaded))
  loaded = system.adopt(collection, loaded)
  differs = mismatch(variables[collection], loaded)
  if differs:
    raise UserError(f"weights.{collection}={source}: another model: {differs}")
  return loaded


def check_same_model(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """Compares the config with that of the run in `workdir`, if there is one.

  Returns:
    What else differs: name -> (old, new).

  Raises:
    UserError: the run is of another system or model.
  """
  old = (checkpoint.read_meta(workdir) or {}).get("config", {})
  new = json_text.plain(config.to_dict())
  for saved in (old, new):  # says how it is computed, not what
    saved.get("model", {}).pop("remat", None)
  if "train" not in old:  # as `convert` writes it: what it knows of a model
    new["model"] = _common(new["model"], old.get("model", {}))
  for key in ("system", "model"):
    if key in old and old[key] != new[key]:
      raise UserError(
        f"{workdir}: holds a run with {key}={old[key]}, this config has "
        f"{new[key]}; choose another --workdir, or continue it with its own "
        "config"
      )
  old, new = _flat(old) if "train" in old else {}, _flat(new)
  return {k: (v, new.get(k)) for k, v in old.items() if v != new.get(k)}


def _common(value, like):
  """The dict, without the entries that `like` lacks."""
  if not isinstance(value, dict) or not isinstance(like, dict):
    return value
  return {k: _common(v, like[k]) for k, v in value.items() if k in like}


def _flat(tree: dict, name: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{name}{key}.")
    else:
      flat[f"{name}{key}"] = value
  return flat


def restored(
  config: Config,
  checkpoints: checkpoint.Checkpoints,
  abstract: TrainState,
  tx: optax.GradientTransformation,
) -> TrainState | None:
  """The state of the newest good checkpoint, or None if there is none.

  Weights that `convert` wrote have no optimizer and no average: these begin
  anew. So does an optimizer of another structure, where
  `train.fresh_optimizer` asks for it: its moments are zero, its schedules go
  on from the step.

  Args:
    config: of the run.
    checkpoints: of the run.
    abstract: shapes and shardings of the state.
    tx: the optimizer of the config.

  Raises:
    UserError: the checkpoint is of another model or another optimizer.
  """

  def want(step: int) -> dict[str, Any]:
    items, where = abstract.items(), f"{checkpoints.folder}/{step}"
    for item in ("variables", "ema"):
      have = checkpoints.tree(step, item)
      if item == "ema" and not have:
        items.pop(item, None)
      if item in items and (differs := mismatch(items[item], have)):
        raise UserError(
          f"{where}: another model: {item} {differs}; use its config or "
          "another --workdir"
        )
    have = checkpoints.tree(step, "optimizer")
    if differs := mismatch(items["optimizer"], have):
      if have and not config.train.fresh_optimizer:
        raise UserError(
          f"{where}: another optimizer: {differs}; continue with the "
          "optim.groups of its config, or set train.fresh_optimizer=True to "
          "keep the weights and begin with a fresh optimizer"
        )
      why = "is another one" if have else "is none"
      log.info("%s: the optimizer there %s: a fresh one begins", where, why)
      del items["optimizer"]
    return items

  found = checkpoints.restore(want)
  if found is None:
    return None
  items, meta = found
  params = items["variables"]["params"]
  if "optimizer" not in items:
    placed = jax.tree.map(lambda x: x.sharding, (abstract.step, abstract.opt))
    items["optimizer"] = _fresh(tx, placed, params, meta["step"])
  if abstract.ema is not None and "ema" not in items:
    log.info("the average of the weights begins at step %d", meta["step"])
    items["ema"] = jax.tree.map(jnp.copy, params)
  return TrainState.from_items(items)


def _fresh(tx, placed, params, step: int):
  """(the step, an optimizer that begins there), placed."""

  @functools.partial(jax.jit, out_shardings=placed)
  def make(params):
    now = jnp.asarray(step, jnp.int32)
    return now, optim.at_step(tx.init(params), now)

  return make(params)
