"""One update and one draw: the two programs that every mode compiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ar_jax import parallel
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


def _gradients(system, variables, batch, key, total):
  """The share of these examples in the means over `total` of them.

  Args:
    system, variables, key: of the update.
    batch: of the update, or a part of it; `mask` weighs its examples.
    total: f32[], the sum of the mask over all parts.

  Returns:
    (gradients, (metrics, updates)); those of the parts of a batch add up, but
    for the updates.
  """
  frozen = {k: v for k, v in variables.items() if k != "params"}

  def objective(params):
    loss = system.loss({"params": params, **frozen}, batch, key, train=True)
    mask = batch.get("mask", jnp.ones_like(loss.value))
    mean = lambda x: jnp.sum(x * mask) / total
    means = {k: mean(v) for k, v in loss.metrics.items()}
    value = mean(loss.value)
    return value, ({"loss": value, **means}, loss.updates)

  return jax.grad(objective, has_aux=True)(variables["params"])


def _accumulated(system, variables, batch, key, total, n):
  """As `_gradients`, in n parts; their examples are interleaved, so that a
  sharded batch axis stays where it is."""
  split = {
    k: jnp.swapaxes(v.reshape(-1, n, *v.shape[1:]), 0, 1)
    for k, v in batch.items()
  }
  first, rest = (
    jax.tree.map(lambda v: v[0], split),
    jax.tree.map(lambda v: v[1:], split),
  )
  grads, (metrics, updates) = _gradients(system, variables, first, key, total)
  grads = parallel.keep(grads)

  def add(so_far, microbatch):
    grads, (metrics, updates) = _gradients(
      system, variables, microbatch, key, total
    )
    grads = parallel.keep(grads)
    return jax.tree.map(jnp.add, so_far, (grads, metrics)), updates

  (grads, metrics), later = jax.lax.scan(add, (grads, metrics), rest)
  updates = jax.tree.map(_mean_of_parts, updates, later)
  return grads, (metrics, updates)


def _mean_of_parts(first: jax.Array, later: jax.Array) -> jax.Array:
  """Running means are updated by every part; counts by the last one."""
  if not jnp.issubdtype(first.dtype, jnp.floating):
    return later[-1]
  return (first + later.sum(0)) / (1 + len(later))


def train_step(
  system: System,
  tx: optax.GradientTransformation,
  options: Options,
  state: TrainState,
  batch: Batch,
  key: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update.

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
    metrics, and the global norms of gradient, update and params.
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
  if options.accumulate > 1:
    grads, (metrics, updates) = _accumulated(*parts, options.accumulate)
  else:
    grads, (metrics, updates) = _gradients(*parts)
  if options.axis:
    grads, metrics = jax.lax.psum((grads, metrics), options.axis)
    updates = jax.lax.pmean(updates, options.axis)
  grads = parallel.keep(grads)
  params = state.variables["params"]
  change, opt = tx.update(grads, state.opt, params)
  new = optax.apply_updates(params, change)
  ema = state.ema
  if options.ema:
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(options.ema, (1 + t) / (10 + t))
    ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, new)
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
  """What `system.sample` returned, by the names of `system.makes`.

  Raises:
    UserError: it is not what the system says that it makes.
  """
  if not isinstance(drawn, Mapping):
    return {system.makes[0]: drawn}
  if set(drawn) != set(system.makes):
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
  return {k: np.concatenate([part[k] for part in out]) for k in out[0]}
