"""What LlamaGen, NAR and their kin share: a condition before the units of one
example, and a law of every unit given those of earlier steps.

Shapes: B batch, L units in the order of the plan, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders import text as encoders
from ar_jax.families.base import Prefixed, hidden_conditions
from ar_jax.families.token.prefix import ClassPrefix, Prefix, Start, TextPrefix
from ar_jax.nn.heads.categorical import cross_entropy


class TeacherForced(Prefixed):
  """A `Prefixed` generator of discrete units, trained on all of them at once.

  Its `net` has `prefix`, `plan` and `logits`, as a `NextToken`. Variables:
  `params`, the frozen `tokenizer`, and for texts the constant `null`.
  """

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan, the encoder and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    variables = self.init_net(key)
    return {**variables, "tokenizer": self.init_tokenizer(frozen)}

  def init_net(self, key: Array) -> Vars:
    """Fresh variables of the net."""
    units = jnp.zeros((1, len(self.plan)), jnp.int32)
    return self.net.init(key, self.net.prefix.example(), units, method="logits")

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit, given those of the steps before its own.

    Args:
      variables: as `init` makes them.
      cond: the fields that the system needs, or the first one alone: label
        i32[B] or text, see `encoders.text`.
      units: i32[B, L].
      hidden: bool[B], examples whose condition is not shown.
      keys: Key[B] for dropout, or None.
    """
    net = self.net.bind(self.net_variables(variables))
    return net.logits(self.condition(cond), units, hidden, keys)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    units = batch["units"]
    logits = self.logits(variables, batch, units, hidden, keys)
    nll, hit = scored(logits, units)
    return Loss(jnp.mean(nll, 1), {"accuracy": jnp.mean(hit, 1)}, nll=nll)


def scored(logits: Array, units: Array) -> tuple[Array, Array]:
  """-log p of units i32[B, L], and 1 where they are the likeliest, f32[B, L]
  both."""
  hits = jnp.argmax(logits, -1) == units
  return cross_entropy(logits, units), hits.astype(jnp.float32)


def coded(spec: Mapping[str, Any], why: str) -> Any:
  """The tokenizer `{"name": "vq", **arguments}`, whose units must be codes.

  Raises:
    UserError: they are none; `why` says what asks for them.
  """
  codes = system.part(spec).tokenizer
  if codes.vocab is None:
    raise UserError(f"tokenizer={spec['name']!r}: {why}")
  return codes


def order(tokenizer: Any) -> Plan:
  """One unit of a tokenizer a step: row by row where it has a `grid`, else its
  `length` units on a line."""
  if hasattr(tokenizer, "grid"):
    return makers.raster(*tokenizer.grid)
  return makers.blocks(tokenizer.length, 1)


def prefix(
  width: int,
  num_classes: int | None,
  text: Mapping[str, Any] | None,
  label_dropout: float,
) -> Prefix:
  """The prefix of a net of this width.

  Args:
    width: D.
    num_classes: labels are 0 .. num_classes - 1; the next one is null, if
      `label_dropout` is not 0. Without any class, 0, there is no condition.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    label_dropout: how often training hides the condition.

  Raises:
    UserError: not exactly one of num_classes and text is given.
  """
  if (num_classes is None) == (text is None):
    raise UserError("give either num_classes or text, the condition")
  if num_classes == 0:
    return Start(width)
  if text is None:
    return ClassPrefix(num_classes + (label_dropout > 0), width)
  return TextPrefix(encoders.make(**text), width)


def training_noise(
  key: Array, batch: Batch, rate: float
) -> tuple[Array | None, Array]:
  """What is random in a training step, example by example.

  Args:
    key: of the step.
    batch: see `system.example_keys`.
    rate: how often the condition is hidden.

  Returns:
    bool[B], whose condition is hidden, None if the rate is 0; and Key[B] for
    the rest.
  """
  keys, hide = jax.vmap(jax.random.split, out_axes=1)(
    system.example_keys(key, batch)
  )
  return hidden_conditions(hide, rate), keys
