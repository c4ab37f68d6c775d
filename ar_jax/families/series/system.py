"""What every system has that forecasts a series from its history.

B batch, P times of history, L times of the series, D values at each.
"""

from __future__ import annotations

import abc

import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, System, Vars


class Forecaster(System):
  """A system that makes the `series` f32[B, L, D] that comes after a
  `history` f32[B, P, D]. A subclass is a frozen dataclass with this field:

  Attributes:
    length: L of what is drawn, unless `sample` is told another.
  """

  needs = ("history",)
  makes = ("series",)
  ordered = "series"
  length: int

  @property
  def plan(self) -> Plan:
    """One time after the other."""
    return makers.raster(1, self.length)

  @abc.abstractmethod
  def predict(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, L, D]: each value of `series` forecast from all before it, one
    step ahead."""

  def coefficients(self, variables: Vars) -> Array | None:
    """f32[p]: the weights of the last p values, the newest first, where one
    value is forecast as their sum; else None."""
    del variables
    return None


def joined(batch: Batch, least: int) -> Array:
  """f32[B, P + L, D]: history and series, one after the other.

  Raises:
    UserError: the history is shorter than `least`.
  """
  history = checked(batch, least)
  return jnp.concatenate([history, batch["series"]], axis=1)


def checked(batch: Batch, least: int) -> Array:
  """The history f32[B, P, D] of a batch.

  Raises:
    UserError: it is shorter than `least`, or there is none.
  """
  history = batch.get("history")
  if history is None:
    raise UserError(
      f"the examples have no history; set data.history to {least} or more"
    )
  if history.shape[1] < least:
    raise UserError(
      f"data.history={history.shape[1]}: this model reads {least} times before "
      "those that it forecasts; set data.history to that or more"
    )
  return history


def same_length(batch: Batch, length: int) -> None:
  """Raises UserError unless the series has the length of the model."""
  own = batch["series"].shape[1]
  if own != length:
    raise UserError(
      f"data.length={own}, model.length={length}: must be the same"
    )
