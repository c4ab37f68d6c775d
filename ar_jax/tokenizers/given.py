"""Units that are the data: tokenizers with nothing to train.

  tokens   ids of symbols are the units: text
  levels   levels of pixels, or of small cells of them, as codes
  pixels   the levels of every channel of every pixel
  series   the vectors of a series
  frames   a video: the units of every frame by a tokenizer of images, one
           frame behind the other

Each answers as a trained tokenizer does. `patches` has pixels as vectors.

Shapes: B batch, L units, V codes, T times or frames, D values at a time, H
image side, c image channels, p side of a cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.errors import check_choice
from ar_jax.core.system import Batch, Loss, System, UserError, Vars
from ar_jax.tokenizers.frames import Frames
from ar_jax.tokenizers.levels import Levels, Pixels

Array = jax.Array
_MOST = 2**20  # codes of a cell


class Tokens(nn.Module):
  """The ids of a text.

  Attributes:
    vocab: V.
    length: L.
    stop: the id that ends a text and fills it up; None where nothing does.
    field: of a batch.
  """

  vocab: int
  length: int
  stop: int | None = 0
  field: str = "text"

  def example(self) -> Array:
    return jnp.zeros((1, self.length), jnp.int32)

  def encode(self, x: Array) -> Array:
    """i32[B, L] of ids i[B, L].

    Raises:
      UserError: they are no ids, or of another length.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer) or x.shape[1:] != (
      self.length,
    ):
      raise UserError(
        f"{self.field}: {x.dtype} of shape {x.shape[1:]}; this tokenizer takes "
        f"{self.length} ids: change its length or that of the data"
      )
    return x.astype(jnp.int32)

  def decode(self, units: Array) -> Array:
    """Ids i32[B, L]; behind the first `stop` there is nothing else."""
    if self.stop is None:
      return units
    ends = jnp.cumsum(units == self.stop, axis=1) > 0
    return jnp.where(ends, self.stop, units)

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))


class Vectors(nn.Module):
  """The vectors of a series, (x - shift) * scale.

  Attributes:
    length: T.
    channels: D.
    shift: the mean of the data.
    scale: 1 / their standard deviation.
    field: of a batch.
  """

  length: int
  channels: int
  shift: float = 0.0
  scale: float = 1.0
  field: str = "series"
  vocab = None

  def example(self) -> Array:
    return jnp.zeros((1, self.length, self.channels))

  def encode(self, x: Array) -> Array:
    """f32[B, T, D].

    Raises:
      UserError: it is of another shape.
    """
    if x.shape[1:] != (self.length, self.channels):
      raise UserError(
        f"{self.field} of shape {x.shape[1:]}: this tokenizer takes "
        f"({self.length}, {self.channels}); change its length and channels"
      )
    return (x - self.shift) * self.scale

  def decode(self, units: Array) -> Array:
    """f32[B, T, D]."""
    return units / self.scale + self.shift

  def moments(self, x: Array) -> Array:
    """f32[B, T, 2 D]: the units, and log-variances that leave them alone."""
    units = self.encode(x)
    return jnp.concatenate([units, jnp.full_like(units, -30.0)], -1)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units f32[B, T, D] of moments; keys change nothing."""
    del keys
    return jnp.split(moments, 2, -1)[0]

  def __call__(self, x: Array) -> Array:
    return self.decode(self.encode(x))


@dataclasses.dataclass(frozen=True)
class Given(System):
  """A tokenizer of this file as a system: what it makes is what it is given.

  Attributes:
    tokenizer: the module.
  """

  tokenizer: nn.Module

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.tokenizer.field,)

  @property
  def makes(self) -> tuple[str, ...]:
    return (self.tokenizer.field,)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    made = self.tokenizer.init(key, self.tokenizer.example())
    return {"params": {"tokenizer": made.get("params", {})}}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean squared error of what comes back; nothing is trained."""
    del key, train
    x = forms.raw(jnp.asarray(batch[self.tokenizer.field]))
    error = jnp.square((x - self._back(variables, x)).astype(jnp.float32))
    return Loss(error.reshape(len(x), -1).mean(1))

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """What comes back of the examples themselves."""
    if options:
      raise UserError(f"a reconstruction takes no options: {sorted(options)}")
    del keys  # nothing random
    field = self.tokenizer.field
    back = self._back(variables, forms.raw(jnp.asarray(cond[field])))
    return (back + 1) / 2 if field in ("image", "video") else back

  def _back(self, variables: Vars, x: Array) -> Array:
    own = {"params": variables["params"]["tokenizer"]}
    codec = self.tokenizer.bind(own)
    return codec.decode(codec.encode(x))


def build(
  *,
  form: str = "tokens",
  vocab: int | None = None,
  length: int | None = None,
  stop: int | None = 0,
  levels: int = 256,
  size: int = 8,
  in_channels: int = 1,
  patch: int = 1,
  channels: int = 1,
  shift: float = 0.0,
  scale: float = 1.0,
  frames: int | None = None,
  tokenizer: Mapping[str, Any] | None = None,
) -> Given:
  """The data as units, for generators over them.

  Args:
    form: "tokens", "levels", "pixels", "series" or "frames".
    vocab: V of tokens; those of the data.
    length: of tokens L, of series T.
    stop: the id that ends a text; None for texts that only end with the last
      unit.
    levels: of a channel of a pixel, at least 2.
    size: H.
    in_channels: c.
    patch: p.
    channels: D.
    shift, scale: see `Vectors`.
    frames: T.
    tokenizer: of frames: `{"name": "vq", **arguments}`.

  Raises:
    UserError: the form is unknown, or something that it needs is not there.
  """
  needs = dict(
    tokens=dict(vocab=vocab, length=length),
    levels={},
    pixels={},
    series=dict(length=length),
    frames=dict(frames=frames, tokenizer=tokenizer),
  )
  check_choice("form", form, needs)
  missing = [name for name, value in needs[form].items() if not value]
  if missing:
    raise UserError(f"form={form!r}: say {' and '.join(missing)}")
  if form == "tokens":
    if stop is not None and not 0 <= stop < vocab:
      raise UserError(f"stop={stop}: must be an id below vocab={vocab}")
    return Given(Tokens(vocab, length, stop))
  if form == "series":
    return Given(Vectors(length, channels, shift, scale))
  if form == "frames":
    return Given(Frames(system.part(tokenizer).tokenizer, frames))
  if form == "pixels":
    if not 2 <= levels <= 256 or patch != 1:
      raise UserError(
        f"levels={levels}, patch={patch}: a channel of a pixel has 2 to 256 "
        "levels, and form='pixels' takes pixels one by one"
      )
    return Given(Pixels(levels, size, in_channels))
  if size % patch:
    raise UserError(f"size={size} is not a multiple of patch={patch}")
  made = Levels(levels, size, in_channels, patch)
  if levels < 2 or made.vocab > _MOST:
    raise UserError(
      f"levels={levels}: a cell of {patch} x {patch} pixels of {in_channels} "
      f"channels has {made.vocab} codes; there may be 2 to {_MOST}"
    )
  return Given(made)
