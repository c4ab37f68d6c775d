"""What every generator over the units of a frozen tokenizer has, and every
system around another one."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import forms
from ar_jax.core.decoding import pairs
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars


def hidden_conditions(keys: Array, rate: float) -> Array | None:
  """bool[B], whose condition training hides, by keys Key[B] and at this rate;
  None if it never does."""
  if not rate:
    return None
  return jax.vmap(jax.random.bernoulli, (0, None))(keys, rate)


def of_target(variables: Vars, name: str) -> Vars:
  """The variables of a system whose `params` are the frozen collection `name`
  beside the `params` of the system around it."""
  rest = {k: v for k, v in variables.items() if k not in ("params", name)}
  return {"params": variables[name], **rest}


class Generator(System):
  """A system that draws units, which a frozen tokenizer turns into examples:
  images, or whatever its `field` holds.

  Its variables hold the tokenizer's weights as the collection `tokenizer`. A
  subclass has these fields:

  Attributes:
    net: the network that draws; where it reads a label it has `labels`, the
      rows of its table of classes, the last of which stands for no class if
      there is guidance.
    tokenizer: a module with `field`, which field of a batch it reads;
      `example()`, zeros [1, ...] as it reads one of them; `encode` and
      `decode`; of continuous units also with `moments`.
    label_dropout: how often training hides the condition. 0 builds nothing
      that stands for none, and then there is no guidance.
    schedule: of guidance, if no other is asked for; a key of `pick.SCHEDULES`.
  """

  net: Any
  tokenizer: Any
  label_dropout: float
  schedule = "constant"

  @property
  def makes(self) -> tuple[str, ...]:
    return (self.tokenizer.field,)

  @property
  def classes(self) -> int | None:
    return self.net.labels - (self.label_dropout > 0)

  @property
  def null(self) -> int | None:
    """The label that stands for no label."""
    return self.net.labels - 1 if self.label_dropout else None

  def init_tokenizer(self, key: Array) -> Vars:
    """Fresh weights of the tokenizer."""
    t = self.tokenizer
    return t.init(key, t.example()).get("params", {})

  def net_variables(self, variables: Vars) -> Vars:
    """The variables of the net."""
    return {k: v for k, v in variables.items() if k != "tokenizer"}

  def embedding(self, variables: Vars) -> Array:
    """f32[V, C]: what the net reads of every discrete unit."""
    return self.codec(variables).codebook()

  def codec(self, variables: Vars) -> Any:
    """The tokenizer, bound; no gradient goes into it."""
    frozen = jax.lax.stop_gradient(variables["tokenizer"])
    return self.tokenizer.bind({"params": frozen})

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    rest = dict(batch)
    if self.tokenizer.field not in rest:
      return rest
    x = forms.raw(rest.pop(self.tokenizer.field))
    return {**rest, "units": self.tokenize(variables, x)}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    """Units [B, L, ...] of examples [B, ...] as `forms.raw` has them: images
    are f32[B, H, W, c] in [-1, 1]."""
    return self.codec(variables).encode(x)

  def decode(self, variables: Vars, units: Array) -> Array:
    """Examples of units [B, L, ...]: images f32[B, H, W, c] in [0, 1]."""
    x = self.codec(variables).decode(units)
    return forms.shown(forms.named(self.tokenizer.field), x)

  def condition(self, cond: Batch) -> Any:
    """What `logits` takes as the condition of a batch, [B, ...]; where there
    are several arrays, a tree of them."""
    return jnp.asarray(cond[self.needs[0]])

  def on(self, cond: Batch) -> Generator:
    """The system, of the same variables, that draws what a condition asks for:
    another one where the sides of a picture say how many units there are."""
    del cond
    return self

  @abc.abstractmethod
  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Any:
    """Draws the units of one example per key; arguments as in `sample`."""

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one example per key, [B, ...] as `decode` makes it; options as in
    `generate`."""
    units = self.generate(variables, cond, keys, **options)
    return self.decode(variables, units)

  def drop_labels(self, label: Array, keys: Array) -> Array:
    """Labels i32[B], the null label in place of some, by keys Key[B]."""
    hidden = hidden_conditions(keys, self.label_dropout)
    return label if hidden is None else jnp.where(hidden, self.null, label)

  def with_null(self, label: Array) -> Array:
    """i32[2 B]: `pairs` of a label and none."""
    return pairs.join(label, jnp.full_like(label, self.null))

  def scale(self, guidance: float | None) -> float:
    """The scale of guidance; None is 1.0, off.

    Raises:
      UserError: it is asked of a model without a null class.
    """
    guidance = 1.0 if guidance is None else guidance
    if guidance != 1.0 and not self.label_dropout:
      raise UserError(
        f"guidance={guidance}: this {type(self).__name__} has no null class; "
        "build it with label_dropout > 0, or sample with guidance=1.0"
      )
    return guidance


class Prefixed(Generator):
  """A generator whose condition stands before its units.

  Its `net` has a `prefix`, see `families.token.prefix`, which says what it
  reads of a batch.
  """

  @property
  def needs(self) -> tuple[str, ...]:
    memory = getattr(self.net, "memory", None)
    return self.net.prefix.fields + (memory.fields if memory else ())

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """The fields of a batch that the prefix reads; what is no batch is the
    first of them."""
    if not isinstance(cond, Mapping):
      cond = dict.fromkeys(self.needs[:1], cond)
    return {name: cond[name] for name in self.needs}

  @property
  def plan(self) -> Plan:
    return self.net.plan

  @property
  def classes(self) -> int | None:
    labels = self.net.prefix.labels
    return labels and labels - (self.label_dropout > 0)

  def embedding(self, variables: Vars) -> Array:
    return self.net.bind(self.net_variables(variables)).units.embedding


class Around(System):
  """A system around another, whose variables are its own: it trains it or
  draws from it in a way of its own, and leaves the rest as it is. A subclass
  is a frozen dataclass.

  Attributes:
    target: the other system.
  """

  target: System

  @property
  def needs(self) -> tuple[str, ...]:
    return self.target.needs

  @property
  def takes(self) -> tuple[str, ...]:
    return self.target.takes

  @property
  def control(self) -> str | None:
    return self.target.control

  @property
  def makes(self) -> tuple[str, ...]:
    return self.target.makes

  @property
  def counts(self) -> tuple[str, ...]:
    return self.target.counts

  @property
  def ordered(self) -> str:
    return self.target.ordered

  @property
  def moving(self) -> frozenset[str]:
    return self.target.moving

  @property
  def trains(self) -> tuple[str, ...] | None:
    return self.target.trains

  @property
  def redraws(self) -> bool:
    return self.target.redraws

  @property
  def plan(self) -> Plan | None:
    return self.target.plan

  @property
  def classes(self) -> int | None:
    return self.target.classes

  @property
  def null(self) -> int | None:
    """The label that stands for no label, where there is one."""
    return getattr(self.target, "null", None)

  @property
  def fitted(self) -> Callable[..., Vars]:
    """As the target's, whose variables these are; see `System.fitted`."""
    return self.target.fitted

  def at(self, step: int) -> System:
    target = self.target.at(step)
    if target is self.target:
      return self
    return dataclasses.replace(self, target=target)

  def of_target(self, variables: Vars) -> Vars:
    """The variables of the target."""
    return variables

  def init(self, key: Array, batch: Batch) -> Vars:
    return self.target.init(key, batch)

  def adopt(self, collection: str, given: Any) -> Any:
    return self.target.adopt(collection, given)

  def ready(self, variables: Vars) -> Vars:
    return self.target.ready(variables)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    return self.target.loss(variables, batch, key, train=train)

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    return self.target.encode(variables, batch)

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    return self.target.sample(variables, cond, keys, **options)


class Beside(Around):
  """A system around a frozen one. Its own `params` are trained; those of the
  target are a collection of their own beside them, which a run is given by
  `config.weights`. What else the target has (its tokenizer) is as it was.

  Attributes:
    beside: the name of the collection.
  """

  beside = "target"

  # The target's are of how it was trained itself.
  moving = System.moving
  trains = System.trains
  fitted = System.fitted

  @abc.abstractmethod
  def own(self, key: Array, variables: Vars) -> Any:
    """Fresh `params`; `variables` are those beside them."""

  def of_target(self, variables: Vars) -> Vars:
    return of_target(variables, self.beside)

  def init(self, key: Array, batch: Batch) -> Vars:
    key, own = jax.random.split(key)
    rest = self.target.init(key, batch)
    rest = {self.beside: rest.pop("params"), **rest}
    return self.ready({"params": self.own(own, rest), **rest})

  def adopt(self, collection: str, given: Any) -> Any:
    if collection == "params":
      return given
    name = "params" if collection == self.beside else collection
    return self.target.adopt(name, given)

  def ready(self, variables: Vars) -> Vars:
    return variables

  def at(self, step: int) -> System:
    del step
    return self

  @abc.abstractmethod
  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The objective of the own `params`."""

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    return self.target.encode(self.of_target(variables), batch)

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """As the target draws; systems with another way have their own."""
    return self.target.sample(self.of_target(variables), cond, keys, **options)
