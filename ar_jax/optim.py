"""Optimisers from a config: schedules, decay masks, clipping, partitions, and
what of a state stays where an update is not meant for all."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ar_jax.core import trees
from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError

# Matrices and tables decay; biases, norm scales, positions, temperatures and
# gains do not. Layers are stacked, so the rank of a parameter says nothing.
DECAY = ("kernel$", "embedding$")

KINDS = ("adamw", "adam", "sgd")
SCHEDULES = (
  "constant",
  "cosine",
  "late_cosine",
  "late_linear",
  "linear",
  "one_cycle",
  "steps",
  "tenths",
  "var",
  "wsd",
)
_FROZEN = "(frozen)"  # the partition of what stays


def lr_factor(
  name: str,
  *,
  steps: int,
  warmup: int | float = 0,
  end: float = 0.0,
) -> Callable[[jax.Array], jax.Array]:
  """A factor in [0, 1] as a function of the step.

  Args:
    name: after a linear warm-up, `constant`; `cosine` or `linear` down to
      `end`; or `var` (VAR, arXiv 2404.02905): warm-up from 0.5 %, flat for 5 %
      of the rest, then linear to `end`; `steps` (NAR, arXiv 2503.10696): times
      0.2 at 1/2, 2/3 and 5/6 of the run; `late_cosine` (xAR, arXiv
      2502.20388): constant for 3/4 of the run, then `cosine`; `late_linear`
      (D-AR, arXiv 2505.23660): constant for 5/6 of the run, then `linear`;
      `tenths` (AR-Net, arXiv 1911.12436): times 0.9 after each tenth of the
      run; `one_cycle`: a cosine from 1/25 up to 1 in a quarter of the run, and
      down to 1e-4; `wsd` (GigaTok, arXiv 2504.08736): warm-up from 1 %,
      constant, and in the last fifth of the run 1 - sqrt(share of the fifth).
    steps: updates of the whole run, from 0 to `steps` - 1.
    warmup: in steps, or a share of `steps` when below 1.
    end: the factor of the last update.
  """
  check_choice("optim.schedule", name, SCHEDULES)
  warm = round(warmup * steps) if warmup < 1 else int(warmup)
  floor = {"var": 0.005, "wsd": 0.01}.get(name, 0.0)

  def share(step, first):  # from `first` to the last update
    return jnp.clip((step - first) / max(steps - 1 - first, 1), 0.0, 1.0)

  def factor(step):
    rise = floor + (1 - floor) * (step + 1) / max(warm, 1)
    progress = share(step, warm)
    if name == "cosine":
      fall = end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif name == "late_cosine":
      late = share(step, 0.75 * steps)
      fall = end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * late))
    elif name == "late_linear":
      fall = 1 - (1 - end) * share(step, 5 / 6 * steps)
    elif name == "linear":
      fall = end + (1 - end) * (1 - progress)
    elif name == "var":
      rest = 1 - progress
      fall = jnp.where(rest > 0.95, 1.0, end + (1 - end) * rest / 0.95)
    elif name == "steps":
      after = (step - warm) / max(steps - warm, 1)
      passed = sum(after >= part / 6 for part in (3, 4, 5))
      fall = jnp.power(0.2, passed)
    elif name == "tenths":
      tenths = 10 * (step - warm) // max(steps - warm, 1)
      fall = jnp.power(0.9, jnp.clip(tenths, 0, 9))
    elif name == "wsd":
      late = (step + 1 - 0.8 * steps) / (0.2 * steps)
      fall = 1 - jnp.sqrt(jnp.clip(late, 0.0, 1.0))
    elif name == "one_cycle":
      wave = lambda x: 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.clip(x, 0.0, 1.0))
      up = 0.04 + 0.96 * wave(4 * progress)
      down = 1 - (1 - 1e-4) * wave((progress - 0.25) / 0.75)
      fall = jnp.where(progress < 0.25, up, down)
    else:
      fall = jnp.ones_like(progress)
    return jnp.where(step < warm, rise, fall)

  return factor


def rate(config: dict[str, Any], steps: int) -> Callable[[int], float]:
  """The learning rate of the update number `step`, from 0; of `make`, without
  what its groups override."""
  names = ("warmup", "end")
  factor = lr_factor(
    config.get("schedule", "cosine"),
    steps=steps,
    **{k: config[k] for k in names if k in config},
  )
  return lambda step: config["lr"] * float(factor(step))


def _path(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def decay_mask(params: Any, patterns: tuple[str, ...] = DECAY) -> Any:
  """True for the parameters whose path matches one of the patterns."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: any(re.search(p, _path(path)) for p in patterns), params
  )


def single(
  steps: int,
  *,
  lr: float,
  kind: str = "adamw",
  schedule: str = "cosine",
  warmup: float = 0,
  end: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.95,
  eps: float = 1e-8,
  momentum: float = 0.0,
  weight_decay: float = 0.0,
  weight_decay_end: float | None = None,
  decay: tuple[str, ...] = DECAY,
  clip: float = 0.0,
  clip_value: float = 0.0,
) -> optax.GradientTransformation:
  """The optimiser of one group.

  Args:
    steps: see `make`, as for the next two.
    lr: of the first full step.
    kind: "adamw"; "adam", whose decay is a part of the gradient; or "sgd", the
      same with `momentum`, which without it is plain gradient descent.
    schedule, warmup, end: see `lr_factor`.
    b1, b2, eps: of the first two kinds.
    momentum: of "sgd".
    weight_decay: of what `decay` names.
    weight_decay_end: its last value, which a cosine leads to.
    decay: regular expressions of paths.
    clip: of the global norm; 0 is off.
    clip_value: of every number; 0 is off.
  """
  check_choice("optim.kind", kind, KINDS)
  factor = lr_factor(schedule, steps=steps, warmup=warmup, end=end)
  last = weight_decay if weight_decay_end is None else weight_decay_end

  def decay_rate(step):  # cosine from the first value to the last one
    progress = jnp.clip(step / max(steps - 1, 1), 0.0, 1.0)
    return last + (weight_decay - last) * 0.5 * (1 + jnp.cos(jnp.pi * progress))

  # Every part has its place, used or not: a run goes on with another clip or
  # decay, for a state has the same structure whatever the numbers are.
  whole = optax.clip_by_global_norm(clip) if clip else optax.identity()
  each = optax.clip(clip_value) if clip_value else optax.identity()
  mask = lambda params: decay_mask(params, tuple(decay))
  decayed = optax.add_decayed_weights(decay_rate, mask)
  decayed = decayed if weight_decay or last else _idle(decayed)
  if kind == "sgd":
    body = optax.trace(momentum) if momentum else optax.identity()
  else:
    body = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
  parts = (body, decayed) if kind == "adamw" else (decayed, body)
  return optax.chain(
    optax.chain(whole, each),
    *parts,
    optax.scale_by_learning_rate(lambda step: lr * factor(step)),
  )


def _idle(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  """Counts on as `tx` does, a schedule, and changes nothing."""

  def update(updates, state, params=None):
    del params
    return updates, jax.tree.map(lambda count: count + 1, state)

  return optax.GradientTransformation(tx.init, update)


def at_step(state: Any, step: jax.Array) -> Any:
  """A first state of `make` for a run that has made `step` updates: schedules
  go on from there, moments are zero and are corrected for it."""
  counts = lambda s: getattr(s, "_fields", ()) == ("count",)
  return jax.tree.map(
    lambda s: s._replace(count=step) if counts(s) else s, state, is_leaf=counts
  )


def make(
  config: dict[str, Any], steps: int
) -> optax.GradientTransformationExtraArgs:
  """The optimiser that the config says, one partition per named group.

  Args:
    config: the arguments of `single`; `groups`: a part of the params ->
      overrides (`{"discriminator": {"lr": 2e-4}}`), each group with its own
      clip, a part being a path or a pattern, see `core.trees`; of several
      that name an array, the longest counts; `frozen`: parts that stay.
    steps: length of the run, for the schedules.

  Raises:
    UserError: an unknown or missing key, or an unknown schedule. From `init`:
      a group that is no part of the model.
  """
  # One object for equal settings, so that a program that was traced for one
  # run serves the next in the same process.
  return _made(json.dumps(config, sort_keys=True), steps)


@functools.cache
def _made(settings: str, steps: int) -> optax.GradientTransformationExtraArgs:
  config = json.loads(settings)
  groups = config.pop("groups", None) or {}
  frozen = config.pop("frozen", None) or ()
  frozen = (frozen,) if isinstance(frozen, str) else tuple(frozen)
  try:
    parts = {"rest": single(steps, **config)}
    for name, overrides in groups.items():
      parts[_label(name)] = single(steps, **{**config, **overrides})
  except TypeError as e:
    raise UserError(f"optim: {str(e).replace('single() ', '')}") from e
  if not groups and not frozen:
    return optax.with_extra_args_support(parts["rest"])
  parts |= {_FROZEN: optax.set_to_zero()} if frozen else {}

  def labels(params):
    leaves = dict.fromkeys(trees.paths(params), "rest")
    for name in sorted(groups, key=len):
      leaves |= dict.fromkeys(_part(leaves, name, "groups"), _label(name))
    for name in frozen:
      leaves |= dict.fromkeys(_part(leaves, name, "frozen"), _FROZEN)
    return jax.tree_util.tree_map_with_path(
      lambda path, _: leaves[_path(path)], params
    )

  return optax.multi_transform(parts, labels)


def _label(group: str) -> str:
  """The name of a group in the state: a part of the path of a file."""
  return group.replace("/", ".")


def _part(leaves: dict[str, str], name: str, where: str) -> set[str]:
  """The arrays that a group names."""
  found = trees.named(leaves, name)
  if found:
    return found
  if set(name) & set("/*?["):
    raise UserError(f"optim.{where}: {trees.missing(leaves, name)}")
  tops = sorted({leaf.split("/")[0] for leaf in leaves})
  raise UserError(
    f"optim.{where}.{name}: the model has no such part; there are "
    f"{', '.join(tops)}"
  )


def _holds_moments(state: Any) -> bool:
  return isinstance(state, optax.ScaleByAdamState | optax.TraceState)


def held(old: Any, new: Any, groups: Collection[str]) -> Any:
  """The state after an update of some groups of the params alone.

  Moments of the others are as they were, and so is the count of a partition
  that has none of these groups; so these go on, when their time has come, as if
  nothing had been. Schedules go on: they count the steps of the run.

  Args:
    old, new: states of `make`, before and after an update of all params.
    groups: keys of the params that the update is meant for.
  """

  def one(was, now):
    if not _holds_moments(was):
      return now
    whole, moved = {}, False
    for field in was._fields:
      before, after = getattr(was, field), getattr(now, field)
      if isinstance(before, Mapping):
        mine = {k: after[k] for k in before if k in groups}
        moved |= bool(jax.tree.leaves(mine))
        whole[field] = {**before, **mine}
    return (now if moved else was)._replace(**whole)

  return jax.tree.map(one, old, new, is_leaf=_holds_moments)


def unless(skip: jax.Array, old: Any, new: Any) -> Any:
  """The state `new`, or where `skip` bool[] is set its moments and their counts
  as in `old`; schedules go on."""

  def one(was, now):
    if not _holds_moments(was):
      return now
    return jax.tree.map(lambda a, b: jnp.where(skip, a, b), was, now)

  return jax.tree.map(one, old, new, is_leaf=_holds_moments)
