"""What a text says, as features per position.

Encoders with one contract: `align(text)` moves the padding to the front, so
that the last position is the end of the text, and tells it from the rest;
calling the encoder gives features. One that reads texts of a form of its own,
whatever the data have, has it as `form`.

  Bytes        reads UTF-8; small, trained together with what it conditions
  Features     takes the features of a large frozen encoder (T5) as they are;
               `data.text_features` reads them from a folder
  HashedWords  fixed vectors of words, which need no file; see `words.py`

Shapes: B batch, P positions, C features, n bytes or rows of a text.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Text
from ar_jax.encoders.words import HashedWords
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


def right_aligned(x: Array, real: Array, length: int) -> tuple[Array, Array]:
  """Moves padding to the front, and brings rows to one length.

  Args:
    x: [B, n, ...].
    real: bool[B, n], what is no padding.
    length: P.

  Returns:
    [B, P, ...], zeros in front, and bool[B, P], what is no padding.

  Raises:
    UserError: n > P.
  """
  n = x.shape[1]
  if n > length:
    raise UserError(
      f"a text of {n} positions: this model has room for {length}; cut the "
      "texts (data.text) or build it with a larger text.length"
    )
  order = jnp.argsort(real, axis=1, stable=True)
  tail = lambda y: (1,) * (y.ndim - 2)

  def move(y):
    y = jnp.take_along_axis(y, order.reshape(order.shape + tail(y)), axis=1)
    return jnp.pad(y, ((0, 0), (length - n, 0)) + ((0, 0),) * (y.ndim - 2))

  seen = move(real)
  return jnp.where(seen.reshape(seen.shape + tail(x)), move(x), 0), seen


class Bytes(nn.Module):
  """A small bidirectional transformer over the UTF-8 bytes of a text.

  Attributes:
    length: P.
    width: C.
    depth: layers.
    heads: of attention.
  """

  length: int = 32
  width: int = 64
  depth: int = 2
  heads: int = 4

  form = Text()  # of the texts that it reads

  def example(self) -> Array:
    """A text of the right shape."""
    return jnp.zeros((1, self.length), jnp.int32)

  def align(self, text: Array) -> tuple[Array, Array]:
    """(i32[B, P], bool[B, P]) of bytes i32[B, n], zeros at the end."""
    if not jnp.issubdtype(text.dtype, jnp.integer):
      raise UserError(
        f"text is {text.dtype}: this model reads bytes, integers; build it "
        "with text.name='features' for features"
      )
    return right_aligned(text, text > 0, self.length)

  @nn.compact
  def __call__(self, text: Array) -> Array:
    """Features f32[B, P, C] of bytes i32[B, n], zeros at the end."""
    text, seen = self.align(text)
    init = nn.initializers.normal(0.02)
    x = nn.Embed(256, self.width, embedding_init=init, name="bytes")(text)
    where = self.param("position", init, (self.length, self.width))
    block = PlainBlock(
      Attention(self.heads, out_bias=False), SwiGLU(2 * self.width)
    )
    stack = Backbone(block, self.depth, out_norm=RMSNorm(), name="stack")
    own = jnp.eye(self.length, dtype=bool)[None, None]
    return stack(x + where[None], seen[:, None, None] | own)[0]


class Features(nn.Module):
  """Features that were computed before, for example by T5; no parameters.

  Attributes:
    length: P; 120 in LlamaGen.
    width: C; 2048 for the T5-XL that LlamaGen reads.
  """

  length: int = 120
  width: int = 2048

  def example(self) -> Array:
    """A text of the right shape."""
    return jnp.zeros((1, self.length, self.width))

  def align(self, text: Array) -> tuple[Array, Array]:
    """(f32[B, P, C], bool[B, P]) of features [B, n, C]; rows of zeros are
    padding."""
    if text.ndim != 3 or text.shape[-1] != self.width:
      raise UserError(
        f"text of shape {text.shape}: this model takes features "
        f"[batch, positions, {self.width}]; see data.text_features"
      )
    text = text.astype(jnp.float32)
    return right_aligned(text, jnp.any(text != 0, -1), self.length)

  def __call__(self, text: Array) -> Array:
    """Features f32[B, P, C]."""
    return self.align(text)[0]


ENCODERS = {"bytes": Bytes, "features": Features, "words": HashedWords}


def encoder_of(part: Any) -> nn.Module | None:
  """The encoder of texts within a system, or a part of one; None without."""
  if isinstance(part, tuple(ENCODERS.values())):
    return part
  if not dataclasses.is_dataclass(part):
    return None
  inner = (
    getattr(part, field.name, None)
    for field in dataclasses.fields(part)
    if field.name != "parent"  # of a module, the way back
  )
  return next(filter(None, map(encoder_of, inner)), None)


def make(*, name: str = "bytes", **kwargs) -> Bytes | Features | HashedWords:
  """The encoder `name` of ENCODERS.

  Raises:
    UserError: there is no such encoder, or it takes no such argument.
  """
  check_choice("text.name", name, ENCODERS)
  try:
    return ENCODERS[name](**kwargs)
  except TypeError as e:
    raise UserError(f"text: {e}") from e
