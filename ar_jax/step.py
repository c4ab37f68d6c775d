"""One update and one draw: the two programs that every mode compiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ar_jax import gradients, optim, parallel
from ar_jax.core import processes
from ar_jax.core.system import Batch, System, UserError, Vars


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """What a run must not lose.

  Attributes:
    step: i32[], updates done.
    variables: Linen collections, `params` among them.
    ema: averaged params, or None when `Options.ema` is 0.
    opt: the state of the optimiser.
  """

  step: jax.Array
  variables: Vars
  ema: Any
  opt: Any

  def averaged(self) -> Vars:
    """The variables to sample and evaluate with."""
    if self.ema is None:
      return self.variables
    return {**self.variables, "params": self.ema}

  def items(self) -> dict[str, Any]:
    """The parts of a checkpoint, each of which can be read alone."""
    items = {"variables": self.variables, "optimizer": (self.step, self.opt)}
    return items if self.ema is None else {**items, "ema": self.ema}

  @classmethod
  def from_items(cls, items: Mapping[str, Any]) -> TrainState:
    step, opt = items["optimizer"]
    return cls(step, items["variables"], items.get("ema"), opt)


@dataclasses.dataclass(frozen=True)
class Options:
  """Static choices of the update.

  Attributes:
    ema: decay of the average of the params; 0 keeps none. It warms up as
      (1 + t) / (10 + t), so that short runs are not held by their start.
    accumulate: microbatches per update.
    axis: the pmap axis to sum over, None under jit.
  """

  ema: float = 0.0
  accumulate: int = 1
  axis: str | None = None


def init_state(
  system: System,
  tx: optax.GradientTransformation,
  options: Options,
  key: jax.Array,
  batch: Batch,
  given: Mapping[str, Any] | None = None,
) -> TrainState:
  """The state before the first update; `given` collections are taken as they
  are, and under jit nothing is then drawn for them."""
  given = given or {}
  variables = {**system.init(key, batch), **given}
  if "params" not in given:
    variables = system.ready(variables)
  params = variables["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    variables=variables,
    ema=jax.tree.map(jnp.copy, params) if options.ema else None,
    opt=tx.init(params),
  )


def train_step(
  system: System,
  tx: optax.GradientTransformation,
  options: Options,
  state: TrainState,
  batch: Batch,
  key: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update.

  Groups of the params that the system does not train stay as they are, with
  their averages and moments (`optim.held`). Where a part of the batch, of
  whatever microbatch or device, says `skip`, the whole batch makes no update:
  nothing changes but the step and the schedules.

  Args:
    system: static.
    tx: static; sees the params only.
    options: static.
    state: donated by `jit_step`. On a mesh that is set (`parallel.on`) the
      next one is placed as `parallel.shardings` places it.
    batch: leading axis B, divisible by `options.accumulate`.
    key: the key of the run; the step is folded in here.

  Returns:
    The next state, and f32[] metrics: the batch means of the loss and of its
    metrics, and the global norms of gradient, update and params; `skipped`, 1
    or 0, of systems that may skip.

  Raises:
    UserError: while it is traced: the loss updates what may not change.
  """
  key = jax.random.fold_in(key, state.step)
  size = len(next(iter(batch.values())))
  batch = {**batch, "step": jnp.full((size,), state.step)}
  # Means are over all examples that count, wherever they are: a part of the
  # batch, or a device, may have fewer of them than another.
  total = jnp.sum(batch["mask"]) if "mask" in batch else jnp.float32(size)
  if options.axis:
    total = jax.lax.psum(total, options.axis)
  parts = (system, state.variables, batch, key, jnp.maximum(total, 1.0))
  grads, (metrics, updates) = gradients.of(*parts, options.accumulate)
  if options.axis:
    grads, metrics = jax.lax.psum((grads, metrics), options.axis)
    updates = gradients.mean_of_devices(updates, options.axis)
  grads = parallel.keep(grads)
  params = state.variables["params"]
  groups = gradients.trained(system, params)
  partly = len(groups) < len(params)
  if partly:
    grads = {**jax.tree.map(jnp.zeros_like, params), **grads}
  change, opt = tx.update(grads, state.opt, params)
  if partly:
    opt = optim.held(state.opt, opt, groups)
    none = jax.tree.map(jnp.zeros_like, change)
    change = {k: change[k] if k in groups else none[k] for k in change}
  skip = None
  if "skipped" in metrics:
    skip = metrics["skipped"] > 0
    metrics = {**metrics, "skipped": skip.astype(jnp.float32)}
    stay = lambda old, new: jax.tree.map(
      lambda a, b: jnp.where(skip, a, b), old, new
    )
    change = stay(jax.tree.map(jnp.zeros_like, change), change)
    opt = optim.unless(skip, state.opt, opt)
    updates = stay({k: state.variables[k] for k in updates}, updates)
  new = optax.apply_updates(params, change)
  ema = state.ema
  if options.ema:
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(options.ema, (1 + t) / (10 + t))
    ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, new)
    if partly:
      ema = {k: ema[k] if k in groups else state.ema[k] for k in ema}
    if skip is not None:
      ema = stay(state.ema, ema)
  metrics = {
    **metrics,
    "norm/gradient": optax.tree.norm(grads),
    "norm/update": optax.tree.norm(change),
    "norm/params": optax.tree.norm(new),
  }
  variables = {**state.variables, **updates, "params": new}
  after = TrainState(state.step + 1, variables, ema, opt)
  return parallel.keep(after), metrics


jit_step = jax.jit(train_step, static_argnums=(0, 1, 2), donate_argnums=(3,))


@functools.partial(jax.jit, static_argnums=(0, 4))
def jit_draw(system, variables, cond, keys, options):
  return system.sample(variables, cond, keys, **dict(options))


def made(system: System, drawn) -> dict[str, Any]:
  """What `system.sample` returned, by the names of `system.makes`; what it
  counts beside that is left out.

  Raises:
    UserError: it is not what the system says that it makes.
  """
  if not isinstance(drawn, Mapping):
    return {system.makes[0]: drawn}
  if set(drawn) not in (set(system.makes), {*system.makes, *system.counts}):
    raise UserError(
      f"{type(system).__name__}: sample returns {', '.join(drawn)}; it says "
      f"that it makes {', '.join(system.makes)}"
    )
  return {name: drawn[name] for name in system.makes}


def draw(
  system: System,
  variables: Vars,
  cond: Mapping[str, np.ndarray],
  key: jax.Array,
  *,
  batch: int,
  start: int = 0,
  options: Mapping[str, Any] | None = None,
  put=lambda batch: batch,
  counted=lambda counts: None,
) -> dict[str, np.ndarray]:
  """Draws one example per row of `cond`, in batches of one compiled size.

  Example i uses the key fold_in(key, start + i), so it depends on its index
  and on nothing else.

  Args:
    system, variables: the generator.
    cond: name -> [N, ...], at least one entry, whose rows are counted, and
      those of `system.needs`; of others, those of `system.takes` are read.
    key: the key of the whole draw.
    batch: rows per call; the last batch is padded.
    start: index of the first row.
    options: of `system.sample`; hashable values.
    put: places a batch, of which every process has all rows, on the devices.
    counted: is given, once for each batch, name -> [rows] of `system.counts`.

  Returns:
    name -> [N, ...] for the fields of `system.makes`, as its `sample` returns
    them, on the host, of every process.
  """
  n = len(next(iter(cond.values())))
  names = (*system.needs, *(k for k in system.takes if k in cond))
  cond = {k: np.asarray(cond[k]) for k in names}
  static = tuple(sorted((options or {}).items()))
  out = []
  for i in range(0, n, batch):
    rows = np.minimum(np.arange(i, i + batch), n - 1)  # pad with the last row
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, start + rows)
    # The keys are split with the rows: they are all that some systems need.
    words = put({"keys": np.asarray(jax.random.key_data(keys))})["keys"]
    keys = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
    placed = put({k: v[rows] for k, v in cond.items()}) if cond else {}
    drawn = processes.fetch(jit_draw(system, variables, placed, keys, static))
    out.append({k: v[: n - i] for k, v in made(system, drawn).items()})
    if system.counts:
      counted({k: drawn[k][: n - i] for k in system.counts if k in drawn})
  return {k: np.concatenate([part[k] for part in out]) for k in out[0]}


def means(counts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
  """Of what a system counts, over all samples; and units a forward, of those
  that count both."""
  names = counts[0] if counts else ()
  found = {
    k: float(np.mean(np.concatenate([c[k] for c in counts]))) for k in names
  }
  if found.keys() >= {"units", "forwards"}:
    found["units_per_forward"] = found["units"] / found["forwards"]
  return {k: round(v, 4) for k, v in found.items()}
