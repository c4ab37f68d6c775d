"""Words as fixed vectors that are hashed from their letters: no file, no table,
nothing to train.

A word is a unit vector of random numbers, whose seed is a hash of the word, and
beside it stands where it is in the text, as sines of growing wave lengths. Two
texts share what words they share; what words mean, a model must learn itself.

Shapes: B batch, P positions, C features, n bytes or words of a text.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError

Array = jax.Array


def mixed(x: Array) -> Array:
  """u32: whole numbers u32, each to a number that looks random (the last steps
  of MurmurHash3)."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ (x >> shift)) * jnp.uint32(factor)
  return x ^ (x >> 16)


def hashed(text: Array, length: int) -> tuple[Array, Array]:
  """The words of texts.

  Args:
    text: i32[B, n], UTF-8 bytes, zeros at the end. Spaces and signs of control
      part words; capital letters of ASCII count as small ones.
    length: P.

  Returns:
    u32[B, P], the hash of each word, zeros in front, and bool[B, P], which
    there are. Of more than P words the first P are there.
  """
  apart = text <= 32
  before = jnp.pad(apart, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
  word = jnp.cumsum(before & ~apart, 1) - 1  # the number of a byte's word
  count = jnp.minimum(word[:, -1:] + 1, length)
  at = jnp.arange(text.shape[1])[None]
  start = jax.lax.cummax(jnp.where(before & ~apart, at, 0), axis=1)
  small = jnp.where((text >= 65) & (text <= 90), text + 32, text)
  own = mixed((small + 257 * (at - start)).astype(jnp.uint32) + 1)
  place = jnp.where(apart | (word >= length), length, word)
  total = jax.vmap(
    lambda x, i: jax.ops.segment_sum(x, i, num_segments=length + 1)
  )(own, place)[:, :length]
  # The words stand at the end.
  slot = jnp.arange(length)[None] - (length - count)
  seen = slot >= 0
  found = jnp.take_along_axis(total, jnp.maximum(slot, 0), axis=1)
  return jnp.where(seen, found, 0), seen


class HashedWords(nn.Module):
  """See the module's docstring; no parameters.

  Attributes:
    length: P.
    width: C, even.
    spelled: whether a text is bytes, which are words between spaces; otherwise
      every id but 0 is a word.
    seed: of the vectors.
  """

  length: int = 16
  width: int = 64
  spelled: bool = True
  seed: int = 0

  def example(self) -> Array:
    """A text of the right shape."""
    return jnp.zeros((1, self.length), jnp.int32)

  def align(self, text: Array) -> tuple[Array, Array]:
    """(u32[B, P], bool[B, P]) of a text i32[B, n], zeros at its end: the hash
    of each word, zeros in front, and which are no padding.

    Raises:
      UserError: it is no whole numbers, or there are too many words.
    """
    if text.ndim != 2 or not jnp.issubdtype(text.dtype, jnp.integer):
      raise UserError(
        f"text {text.dtype} of shape {text.shape}: this model reads bytes or "
        "numbers of words; build it with text.name='features' for features"
      )
    if self.spelled:
      return hashed(text, self.length)
    if text.shape[1] > self.length:
      raise UserError(
        f"a text of {text.shape[1]} words: this model has room for "
        f"{self.length}; build it with a larger text.length"
      )
    x = jnp.pad(text, ((0, 0), (self.length - text.shape[1], 0)))
    x = jnp.take_along_axis(x, jnp.argsort(x > 0, axis=1, stable=True), axis=1)
    return mixed(x.astype(jnp.uint32)), x > 0

  def __call__(self, text: Array) -> Array:
    """Features f32[B, P, C], zeros where there is no word."""
    codes, seen = self.align(text)
    key = jax.random.key(self.seed)

    def vector(code):
      x = jax.random.normal(jax.random.fold_in(key, code), (self.width,))
      return x / jnp.linalg.norm(x)

    words = jax.vmap(jax.vmap(vector))(codes)
    place = jnp.maximum(jnp.cumsum(seen, 1) - 1, 0)
    waves = jnp.asarray(_waves(self.length, self.width))[place]
    return jnp.where(seen[..., None], words + waves, 0)


def _waves(length: int, width: int) -> np.ndarray:
  """f32[P, C]: places as unit vectors, wave lengths from 2 pi to 20,000 pi."""
  if width % 2:
    raise UserError(f"text.width={width}: hashed words need an even number")
  half = width // 2
  angle = np.arange(length)[:, None] / 10_000 ** (np.arange(half) / half)
  waves = np.concatenate([np.sin(angle), np.cos(angle)], 1)
  return (waves / np.sqrt(half)).astype(np.float32)
