"""What reads or hears a text: the base of CPPD and Paraformer.

Shapes: B batch, L symbols at most with the end, V symbols.
"""

from __future__ import annotations

import abc
from typing import Any

import jax.numpy as jnp

from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.tokenizers.given import Tokens


class Transcriber(Generator):
  """A system that makes the text of what it is given, an image or a sound.

  A subclass has `net` and `tokenizer`, whose `stop` ends a text. Samples count
  the `passes` of the decoder.
  """

  label_dropout = 0.0
  counts = ("passes",)
  tokenizer: Tokens

  @property
  def classes(self) -> None:
    return None

  @property
  @abc.abstractmethod
  def reading(self) -> tuple[str, tuple[int, ...]]:
    """What it reads of files of a person's own: "image" and (H, W, channels);
    or "audio" and (samples, samples a second)."""

  def real(self, units: Array) -> Array:
    """bool[B, L]: the symbols of texts i32[B, L] that count, up to the first
    end and it too."""
    ends = units == self.tokenizer.stop
    return jnp.cumsum(ends, 1) - ends == 0

  def scores(self, logits: Array, units: Array) -> dict[str, Array]:
    """How right the likeliest symbols are, f32[B] each: `accuracy`, the share
    of symbols; `exact`, whether all are; `length`, whether the text ends where
    it should.

    Args:
      logits: f32[B, L, V].
      units: i32[B, L].
    """
    real, found = self.real(units), jnp.argmax(logits, -1)
    hit = (found == units) & real
    ends = self.real(found).sum(1) == real.sum(1)
    numbers = {
      "accuracy": hit.sum(1) / real.sum(1),
      "exact": (hit | ~real).all(1),
      "length": ends,
    }
    return {k: v.astype(jnp.float32) for k, v in numbers.items()}

  @abc.abstractmethod
  def logits(self, variables: Vars, cond: Array, units: Array) -> Array:
    """f32[B, L, V] of each symbol; of a decoder that draws one after the other
    given those before it, else whatever `units` i32[B, L] are."""

  @abc.abstractmethod
  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options: Any
  ) -> tuple[Array, Array]:
    """(ids i32[B, L], which mean nothing behind the first end; and how often
    the decoder was run, i32[B])."""

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options: Any
  ) -> dict[str, Array]:
    """The `text` i32[B, L] of each example, and the `passes` of the decoder
    i32[B]; options as in `generate`."""
    units, passes = self.generate(variables, cond, keys, **options)
    return {"text": self.decode(variables, units), "passes": passes}


def text_tokenizer(tokenizer: Tokens, name: str) -> Tokens:
  """The tokenizer of a transcriber.

  Raises:
    UserError: it is none of texts that end.
  """
  if not isinstance(tokenizer, Tokens) or tokenizer.stop is None:
    raise UserError(
      f"{name}: reads texts that end; tokenizer must be "
      "{'name': 'given', 'form': 'tokens', 'vocab': ..., 'length': ...}"
    )
  return tokenizer
