"""What stands before the units: a class, a text, other units, or nothing.

Every prefix is a module of one contract. A condition is a dict of the fields
of a batch that the prefix names.

  fields          what it reads of a batch; the needs of the system
  length          P, its positions
  causal          whether each of them sees only those before it; if not, all
                  see each other
  labels          rows of its table of classes, None where there is none
  slots           for each position the slot of the plan at whose place it
                  lies, -1 for none; () for none at all
  example()       a condition of the right shape, of one example
  valid(cond)     bool[B, P], which positions are no padding; None for all
  (cond, hidden)  [B, P, D], of no condition where `hidden` bool[B] is set;
                  [1, P, D] where it is the same for every example

The last position says what the first unit may be.

Shapes: B batch, P positions of the prefix, C channels of features, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError

Array = jax.Array
Cond = dict[str, Array]


class Prefix(nn.Module):
  """What prefixes have in common, see above. Abstract."""

  causal = True
  slots = ()

  def valid(self, cond: Cond) -> Array | None:
    """bool[B, P]: the positions that are no padding; None for all."""
    del cond
    return None

  def _rows(self, name: str, count: int) -> Array:
    """[count, D], learned."""
    init = nn.initializers.normal(self.stddev)
    return self.param(name, init, (count, self.width))


def shown(x: Array, hidden: Array | None, null: Array) -> Array:
  """x [B, P, D], but where `hidden` bool[B] is set, null [1 | P, D]."""
  if hidden is None:
    return x
  return jnp.where(hidden[:, None, None], null[None], x)


class Start(Prefix):
  """One learned row, for systems without a condition.

  Attributes:
    width: D.
    stddev: initial standard deviation.
  """

  width: int
  stddev: float = 0.02
  fields = ()
  length = 1
  labels = None

  def example(self) -> Cond:
    return {}

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[1, 1, D]; there is nothing to hide."""
    del cond, hidden
    return self._rows("start", 1)[None]


class Nothing(Prefix):
  """No position, for nets of `width` D whose first unit needs none before."""

  width: int
  fields = ()
  length = 0
  labels = None

  def example(self) -> Cond:
    return {}

  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[1, 0, D]."""
    del cond, hidden
    return jnp.zeros((1, 0, self.width))


class ClassPrefix(Prefix):
  """One position: a row of a table, whose last row stands for no class.

  Attributes:
    labels: rows.
    width: D.
    stddev: initial standard deviation.
  """

  labels: int
  width: int
  stddev: float = 0.02
  fields = ("label",)
  length = 1

  def example(self) -> Cond:
    return {"label": jnp.zeros((1,), jnp.int32)}

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, 1, D] of `label` i32[B]; where `hidden` bool[B], of no class."""
    label = cond["label"]
    if hidden is not None:
      label = jnp.where(hidden, self.labels - 1, label)
    init = nn.initializers.normal(self.stddev)
    table = nn.Embed(self.labels, self.width, embedding_init=init, name="label")
    return table(label)[:, None]


class TextPrefix(Prefix):
  """The features of a text through linear, tanh-GELU, linear; no biases.

  What stands for no text is a constant: the collection `null`, normal noise
  over sqrt(C) that is never trained (LlamaGen, arXiv 2406.06525).

  Attributes:
    encoder: text -> (features [B, P, C], bool[B, P] that are no padding); it
      has `length` P and `width` C.
    width: D.
    stddev: initial standard deviation.
  """

  encoder: nn.Module
  width: int
  stddev: float = 0.02
  fields = ("text",)
  labels = None

  @property
  def length(self) -> int:
    return self.encoder.length

  def example(self) -> Cond:
    return {"text": self.encoder.example()}

  def valid(self, cond: Cond) -> Array:
    return self.encoder.align(cond["text"])[1]

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D] of `text`; where `hidden` bool[B], of no text."""
    features = self.encoder(cond["text"])
    shape = features.shape[1:]
    null = self.variable(
      "null",
      "features",
      lambda: (
        jax.random.normal(self.make_rng("params"), shape) / jnp.sqrt(shape[-1])
      ),
    )
    features = shown(features, hidden, null.value)
    dense = lambda name: nn.Dense(
      self.width,
      use_bias=False,
      kernel_init=nn.initializers.normal(self.stddev),
      name=name,
    )
    return dense("fc2")(nn.gelu(dense("fc1")(features), approximate=True))


class Units(Prefix):
  """A class and, behind it, given units, which are read by the table of the
  units that follow and marked by a learned row. They lie at the places of the
  first units of the plan.

  Attributes:
    labels: rows of the table of classes, the last of which stands for none.
    count: k, the given units.
    reader: of units, the very module that the net has.
    width: D.
    field: where the given units [B, k, ...] are in a batch.
    hides: whether what hides the class hides the units, too, behind another
      learned row.
    stddev: initial standard deviation.
  """

  labels: int
  count: int
  reader: nn.Module
  width: int
  field: str = "peer_units"
  hides: bool = True
  stddev: float = 0.02

  @property
  def fields(self) -> tuple[str, ...]:
    return ("label", self.field)

  @property
  def length(self) -> int:
    return 1 + self.count

  @property
  def slots(self) -> tuple[int, ...]:
    return (-1, *range(self.count))

  def example(self) -> Cond:
    label = jnp.zeros((1,), jnp.int32)
    return {"label": label, self.field: self.reader.blank(1, self.count)}

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, 1 + k, D]."""
    given = cond[self.field]
    if given.shape[1] != self.count:
      raise UserError(
        f"{self.field} of shape {given.shape}: this prefix has room for "
        f"{self.count} units"
      )
    front = ClassPrefix(self.labels, self.width, self.stddev, name="front")
    x = self.reader(given) + self._rows("segment", 1)[None]
    if self.hides:
      x = shown(x, hidden, self._rows("null", 1))
    return jnp.concatenate([front(cond, hidden), x], axis=1)


class Words(Prefix):
  """The ids of a text, each a row of a table plus a row for its place.

  A text stands at the front and is filled up with `stop`, which nothing sees;
  the last position sees all of the text.

  Attributes:
    length: P, ids at most.
    width: D.
    reader: of the ids: the very module that reads the units of the net, where
      text and units share a vocabulary, or one of its own.
    field: where the ids i32[B, n] are in a batch, n at most P.
    stop: the id that ends a text.
    causal: see the contract.
    stddev: initial standard deviation.
  """

  length: int
  width: int
  reader: nn.Module
  field: str = "text"
  stop: int = 0
  causal: bool = False
  stddev: float = 0.02
  labels = None

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  def example(self) -> Cond:
    return {self.field: jnp.full((1, self.length), self.stop, jnp.int32)}

  def valid(self, cond: Cond) -> Array:
    return jnp.cumsum(self._ids(cond) == self.stop, axis=1) == 0

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]; where `hidden` bool[B], of no text."""
    x = shown(self.reader(self._ids(cond)), hidden, self._rows("null", 1))
    return x + self._rows("places", self.length)[None]

  def _ids(self, cond: Cond) -> Array:
    ids = cond[self.field]
    spare = self.length - ids.shape[1]
    if spare < 0 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise UserError(
        f"{self.field}: {ids.dtype} of {ids.shape[1]} positions; this model "
        f"reads at most {self.length} ids of symbols"
      )
    return jnp.pad(ids, ((0, 0), (0, spare)), constant_values=self.stop)


class Given(Prefix):
  """Vectors through a linear map, each with a row for its place: features of
  another network, latents, numbers.

  Attributes:
    field: where they are in a batch, f32[B, P, C], or f32[B, C] where P is 1.
    length: P.
    channels: C.
    width: D.
    padded: whether vectors of zeros are padding.
    causal: see the contract.
    stddev: initial standard deviation.
  """

  field: str
  length: int
  channels: int
  width: int
  padded: bool = False
  causal: bool = False
  stddev: float = 0.02
  labels = None

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,)

  def example(self) -> Cond:
    return {self.field: jnp.zeros((1, self.length, self.channels))}

  def valid(self, cond: Cond) -> Array | None:
    return jnp.any(self._vectors(cond) != 0, -1) if self.padded else None

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D]; where `hidden` bool[B], of nothing."""
    init = nn.initializers.normal(self.stddev)
    linear = nn.Dense(self.width, kernel_init=init, name="linear")
    x = linear(self._vectors(cond))
    x = shown(x, hidden, self._rows("null", 1))
    return x + self._rows("places", self.length)[None]

  def _vectors(self, cond: Cond) -> Array:
    x = jnp.asarray(cond[self.field], jnp.float32)
    x = x[:, None] if x.ndim == 2 else x
    if x.shape[1:] != (self.length, self.channels):
      raise UserError(
        f"{self.field} of shape {x.shape}: this model reads {self.length} "
        f"vectors of {self.channels} numbers"
      )
    return x


def rows(prefix: Any, cond: Cond, hidden: Array | None, batch: int) -> Array:
  """[batch, P, D]: the positions of a prefix, for so many examples."""
  x = prefix(cond, hidden)
  return jnp.broadcast_to(x, (batch, *x.shape[1:]))
