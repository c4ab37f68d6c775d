"""What the numbers of a field of an example mean, whatever system reads or
makes it.

A data set says the form of each of its fields, and *a sample is an example*:
what a system makes has the names and the forms of the data. So what is true
stands, for an evaluator, in the field of the same name, and every form knows
its bounds, how it is stored, and (in `ar_jax.show`) how it is shown.

N samples, T time, J joints, P peaks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError


class Form:
  """What a field means; abstract. Subclasses are frozen dataclasses; their
  attributes are what JSON can hold, so that a run can store them."""

  rank: int | None = None  # axes of one example; None where any will do

  def stored(self, x: np.ndarray) -> np.ndarray:
    """What `sample` returned, as files hold it."""
    return np.asarray(x, np.float32)

  def check(self, x: np.ndarray, where: str = "sample") -> None:
    """Raises UserError unless x, [B, ...] as returned or stored, is such data;
    `where` names it in the message."""
    x = np.asarray(x)
    if self.rank is not None and x.ndim != self.rank + 1:
      raise UserError(
        f"{where}: shape {x.shape}, not a batch of {type(self).__name__}, "
        f"which has {self.rank} axes"
      )
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
      raise UserError(f"{where}: holds NaN or infinity")
    self._check(x, where)

  def _check(self, x: np.ndarray, where: str) -> None:
    """Further bounds."""


def _check_range(x: np.ndarray, low: float, high: float, where: str) -> None:
  if x.size and (x.min() < low or x.max() > high):
    raise UserError(
      f"{where}: {x.min():.6g} to {x.max():.6g}, must lie between {low:g} and "
      f"{high:g}"
    )


def to_uint8(x: np.ndarray) -> np.ndarray:
  """[0, 1] -> 0..255, rounded to nearest."""
  x = np.asarray(x)
  if x.dtype == np.uint8:
    return x
  return np.floor(np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


class _Pixels(Form):
  def stored(self, x: np.ndarray) -> np.ndarray:
    return to_uint8(x)

  def _check(self, x: np.ndarray, where: str) -> None:
    if x.dtype != np.uint8:
      _check_range(x, 0.0, 1.0, where)


@dataclasses.dataclass(frozen=True)
class Image(_Pixels):
  """u8[H, W, C] in the data; f32 in [0, 1] when it is sampled."""

  rank = 3


@dataclasses.dataclass(frozen=True)
class Video(_Pixels):
  """u8[T, H, W, C]; f32 in [0, 1] when it is sampled.

  Attributes:
    rate: frames per second.
  """

  rate: float = 8.0
  rank = 4


@dataclasses.dataclass(frozen=True)
class Audio(Form):
  """f32[N] in [-1, 1], one channel.

  Attributes:
    rate: of the samples, in Hz.
  """

  rate: int = 16_000
  rank = 1

  def stored(self, x: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(x, np.float32), -1.0, 1.0)

  def _check(self, x: np.ndarray, where: str) -> None:
    _check_range(x, -1.0, 1.0, where)


@dataclasses.dataclass(frozen=True)
class Text(Form):
  """i32[N] ids of symbols; `stop` ends a text and fills it up.

  Attributes:
    symbols: what each id stands for; without any, ids are UTF-8 bytes.
    joint: what stands between two symbols when they are read.
    stop: the id that ends a text.
  """

  symbols: tuple[str, ...] = ()
  joint: str = ""
  stop: int = 0
  rank = 1

  @property
  def vocab(self) -> int:
    """Ids lie in [0, vocab)."""
    return len(self.symbols) or 256

  def stored(self, x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.int32)

  def read(self, ids: Sequence[int]) -> str:
    """The text that these ids spell, up to the first `stop`."""
    ids = np.asarray(ids).tolist()
    if self.stop in ids:
      ids = ids[: ids.index(self.stop)]
    if not self.symbols:
      return bytes(ids).decode("utf-8", errors="replace")
    return self.joint.join(self.symbols[i] for i in ids)

  def ids(self, text: str, length: int | None = None) -> np.ndarray:
    """i32[N]: the ids of a text, filled up with `stop` to `length`.

    Raises:
      UserError: a symbol is not in the vocabulary, or the text is longer.
    """
    if not self.symbols:
      found = list(text.encode("utf-8"))
    else:
      index = {s: i for i, s in enumerate(self.symbols)}
      parts = text.split(self.joint) if self.joint else list(text)
      unknown = [p for p in parts if p not in index]
      if unknown:
        raise UserError(
          f"text {text[:40]!r}: {unknown[0]!r} is not among the "
          f"{len(self.symbols)} symbols of this vocabulary"
        )
      found = [index[p] for p in parts]
    if length is None:
      return np.asarray(found, np.int32)
    if len(found) > length:
      raise UserError(
        f"text {text[:40]!r}: {len(found)} symbols, there is room for {length}"
      )
    filled = found + [self.stop] * (length - len(found))
    return np.asarray(filled, np.int32)

  def _check(self, x: np.ndarray, where: str) -> None:
    if not np.issubdtype(x.dtype, np.integer):
      raise UserError(f"{where}: {x.dtype}, text is of integers")
    _check_range(x, 0, self.vocab - 1, where)


@dataclasses.dataclass(frozen=True)
class Series(Form):
  """f32[T, D], D values at each time.

  Attributes:
    names: of the D values; () where they have none.
    rate: times per unit of time.
    mean, scale: D each, of the training part, where the values are
      standardised; () where they are as they came.
  """

  names: tuple[str, ...] = ()
  rate: float = 1.0
  mean: tuple[float, ...] = ()
  scale: tuple[float, ...] = ()
  rank = 2

  def original(self, x: np.ndarray) -> np.ndarray:
    """Values [..., D] in the unit in which they came."""
    x = np.asarray(x, np.float64)
    return x * self.scale + self.mean if self.scale else x

  def standard(self, x: np.ndarray) -> np.ndarray:
    """f32[..., D]: such values as models read them."""
    x = np.asarray(x, np.float64)
    x = (x - self.mean) / self.scale if self.scale else x
    return x.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Skeleton(Form):
  """f32[J, 3], places of joints. Beside it in the example stand `parent`
  i32[J] (itself for a root) and `count` i32[], how many joints there are."""

  rank = 2


@dataclasses.dataclass(frozen=True)
class Peaks(Form):
  """f32[P, 2], mass over charge and intensity; 0 where there is none."""

  rank = 2


FORMS = {
  form.__name__.lower(): form
  for form in (Image, Video, Audio, Text, Series, Skeleton, Peaks)
}


def named(field: str) -> Form | None:
  """The form that a field of this name has where nothing else is said."""
  return FORMS[field]() if field in FORMS else None


def stored(
  fields: Mapping[str, np.ndarray], forms: Mapping[str, Form]
) -> dict[str, np.ndarray]:
  """Fields that `sample` returned, as files hold them; those without a form
  as they are."""
  return {
    name: forms[name].stored(x) if name in forms else np.asarray(x)
    for name, x in fields.items()
  }


def described(form: Form) -> dict[str, Any]:
  """A form as JSON holds it; `made` reads it."""
  return {"form": type(form).__name__.lower(), **dataclasses.asdict(form)}


def made(description: Mapping[str, Any]) -> Form:
  """The form that `described` described."""
  rest = dict(description)
  make = FORMS[rest.pop("form")]
  return make(
    **{k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()}
  )


def raw(x: jax.Array) -> jax.Array:
  """What a network reads of a stored field: pixels u8 as f32 in [-1, 1], and
  everything else as it is."""
  if x.dtype == jnp.uint8:
    return x.astype(jnp.float32) / 127.5 - 1
  return x


def shown(form: Form | None, x: jax.Array) -> jax.Array:
  """What `sample` returns of what a decoder gave back: pixels in [-1, 1] as
  f32 in [0, 1], and everything else as it is."""
  return (x + 1) / 2 if isinstance(form, _Pixels) else x
