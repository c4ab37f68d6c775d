"""Optimisers from a config: schedules, decay masks, clipping, partitions."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ar_jax.core.system import UserError

# Matrices and tables decay; biases, norm scales, positions, temperatures and
# gains do not. Layers are stacked, so the rank of a parameter says nothing.
DECAY = ("kernel$", "embedding$")

SCHEDULES = ("constant", "cosine", "late_cosine", "linear", "steps", "var")


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
      2502.20388): constant for 3/4 of the run, then `cosine`.
    steps: updates of the whole run, from 0 to `steps` - 1.
    warmup: in steps, or a share of `steps` when below 1.
    end: the factor of the last update.
  """
  if name not in SCHEDULES:
    raise UserError(
      f"optim.schedule={name!r}: choose one of {', '.join(SCHEDULES)}"
    )
  warm = round(warmup * steps) if warmup < 1 else int(warmup)
  floor = 0.005 if name == "var" else 0.0

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
    elif name == "linear":
      fall = end + (1 - end) * (1 - progress)
    elif name == "var":
      rest = 1 - progress
      fall = jnp.where(rest > 0.95, 1.0, end + (1 - end) * rest / 0.95)
    elif name == "steps":
      after = (step - warm) / max(steps - warm, 1)
      passed = sum(after >= part / 6 for part in (3, 4, 5))
      fall = jnp.power(0.2, passed)
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


def adamw(
  steps: int,
  *,
  lr: float,
  schedule: str = "cosine",
  warmup: float = 0,
  end: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.95,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  weight_decay_end: float | None = None,
  decay: tuple[str, ...] = DECAY,
  clip: float = 0.0,
  clip_value: float = 0.0,
) -> optax.GradientTransformation:
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
  return optax.chain(
    optax.chain(whole, each),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    decayed if weight_decay or last else _idle(decayed),
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
  """AdamW as the config says, one partition per named group.

  Args:
    config: `lr` and the other arguments of AdamW, of the schedule and of
      clipping; `groups`: first component of a parameter's path -> overrides
      (`{"discriminator": {"lr": 2e-4}}`), each group with its own clip.
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
  try:
    parts = {"rest": adamw(steps, **config)}
    for name, overrides in groups.items():
      parts[name] = adamw(steps, **{**config, **overrides})
  except TypeError as e:
    raise UserError(f"optim: {str(e).replace('adamw() ', '')}") from e
  if not groups:
    return optax.with_extra_args_support(parts["rest"])

  def labels(params):
    if strange := sorted(set(groups) - set(params)):
      raise UserError(
        f"optim.groups.{strange[0]}: the model has no such part; there are "
        f"{', '.join(sorted(params))}"
      )
    return {
      k: jax.tree.map(lambda _, k=k: k if k in groups else "rest", v)
      for k, v in params.items()
    }

  return optax.multi_transform(parts, labels)
