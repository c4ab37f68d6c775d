"""The programs of a config, `train_step` and `sample`, without any array.

They are the very functions that the modes run, traced with shapes that carry
the placement of the arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ar_jax import data, optim, parallel, run_files, step, train
from ar_jax.core.system import System, UserError, build
from ar_jax.encoders import text

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")


@dataclasses.dataclass(frozen=True)
class Program:
  """One program at one batch size on one mesh.

  Attributes:
    name: "train_step", "train_step from STEP" or "sample".
    batch: examples of a call, over all devices.
    trace: makes the `jax.stages.Traced`.
    parameters: that are trained.
    frozen: parameters that are not.
    state: bytes of the arguments but the batch, on one device.
    whole: those of them that fsdp ought to split and does not, for want of a
      side that it divides.
  """

  name: str
  batch: int
  trace: Callable[[], Any]
  parameters: int
  frozen: int
  state: int
  whole: int


def programs(
  config: Config, mesh: jax.sharding.Mesh
) -> dict[str, Callable[[int], Program]]:
  """Name -> the program for a batch size, of a config that trains.

  "train_step", and where the system has others at later steps, each as
  "train_step from STEP"; and "sample".

  Args:
    config: of a system, not of stages.
    mesh: over the devices to compile for.

  Raises:
    UserError: the config asks for what cannot be compiled ahead of time.
  """
  if config.parallel != "jit":
    raise UserError(
      f"parallel={config.parallel}: runs on devices that are attached; compile "
      "it with --config.parallel=jit, which does the same"
    )
  system = build(config.system, **config.model.to_dict())
  tx = optim.make(config.optim.to_dict(), config.train.steps)
  options = step.Options(config.train.ema, config.train.accumulate)
  state = functools.cache(
    lambda: train.initial_state(
      config, system, tx, options, example(config, system, 1), mesh
    )[0]
  )
  key = parallel.everywhere(jax.eval_shape(lambda: jax.random.key(0)), mesh)
  sampling = tuple(sorted(config.sample.options.to_dict().items()))

  def training(name: str, at: System, batch: int) -> Program:
    given = parallel.spread(example(config, system, batch), mesh)
    trace = parallel.on(mesh, step.jit_step.trace)
    call = lambda: trace(at, tx, options, state(), given, key)
    return Program(name, batch, call, *_sizes(state(), state()))

  def sampling_of(batch: int) -> Program:
    batch = parallel.rounded(mesh, batch)
    rows = example(config, system, batch)
    cond = parallel.spread({k: rows[k] for k in system.needs}, mesh)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    keys = parallel.spread(keys, mesh)
    variables = state().averaged()
    trace = parallel.on(mesh, step.jit_draw.trace)
    call = lambda: trace(system, variables, cond, keys, sampling)
    return Program("sample", batch, call, *_sizes(state(), variables))

  updates = {
    f"train_step from {first}" if first else "train_step": at
    for first, at in phases(system, config.train.steps).items()
  }
  return {
    **{k: functools.partial(training, k, at) for k, at in updates.items()},
    "sample": sampling_of,
  }


def phases(system: System, steps: int) -> dict[int, System]:
  """The programs of so many steps of training: first step -> program."""
  found = {system.at(0): 0}
  if type(system).at is not System.at:
    for step in range(1, steps):
      found.setdefault(system.at(step), step)
  return {first: program for program, first in found.items()}


def example(config: Config, system: System, batch: int) -> dict[str, Any]:
  """Shapes of a batch of training. Images and labels need no data; where the
  data are others, or a system reads more, one example of them is read. Where
  they are not here, a text is as long as the encoder of the system reads it.

  Raises:
    UserError: the data cannot be read, and the shape of what is read is not
      known without them.
  """
  struct = lambda shape, dtype: jax.ShapeDtypeStruct((batch, *shape), dtype)
  rows = {"index": struct((), jnp.int32)}
  if images := run_files.of_images(config):
    size, channels = config.data.size, config.data.get("channels", 3)
    rows = {
      "image": struct((size, size, channels), jnp.uint8),
      "label": struct((), jnp.int32),
      **rows,
    }
  made = config.data.get("derive")  # by rules, of the examples
  if not images or made or not set(system.needs) <= set(rows):
    try:
      alone = {**config.data, "peers": 0}
      one = data.load(**alone).train[0]
      rows |= {k: struct(v.shape, v.dtype) for k, v in one.items()}
    except UserError as error:
      encoder = text.encoder_of(system)
      if encoder is not None:
        longest = encoder.example()
        rows["text"] = struct(longest.shape[1:], longest.dtype)
      if not images or made or not set(system.needs) <= set(rows):
        raise
      log.info("texts as long as the model reads them, for %s", error)
  if config.cache.views:
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(system.init, key, rows)
    rows = jax.eval_shape(system.encode, variables, rows)
  if peers := config.data.get("peers"):  # which stand beside stored units, too
    others = {k: v for k, v in rows.items() if k not in ("index", "mask")}
    rows |= {
      f"peer_{k}": struct((peers, *v.shape[1:]), v.dtype)
      for k, v in others.items()
    }
  return dict(rows)


def _sizes(state: step.TrainState, held: Any) -> tuple[int, int, int, int]:
  """(parameters, frozen ones, bytes of `held` on one device, whole ones)."""
  count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  trained = count(state.variables["params"])
  total = whole = 0
  for x in jax.tree.leaves(held):
    here = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    total += here
    if parallel.unsplit(x):
      whole += here
  return trained, count(state.variables) - trained, total, whole
