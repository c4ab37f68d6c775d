"""Videos as codes, and clips that samples go on with.

Shapes: B batch, k frames of a clip, L units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import forms, system
from ar_jax.core.errors import UserError
from ar_jax.core.system import Vars
from ar_jax.families.base import Generator

Array = jax.Array


def codes(tokenizer: Mapping[str, Any], name: str) -> Any:
  """The tokenizer of videos that a config of the system `name` asks for.

  Raises:
    UserError: its units are no codes of videos.
  """
  made = system.part(tokenizer).tokenizer
  if not isinstance(made.vocab, int) or not hasattr(made, "volume"):
    raise UserError(
      f"{name}: the units of {dict(tokenizer)['name']!r} are no codes of "
      "videos: take 'video_fsq', or 'given' with form='frames'"
    )
  return made


def of_clip(own: Generator, variables: Vars, clip: Array) -> Array:
  """The units i32[B, L] of a video that begins with a clip u8[B, k, H, W, c].
  What is behind it may be anything, as no frame knows of later ones."""
  more = own.tokenizer.frames - clip.shape[1]
  last = jnp.repeat(jnp.asarray(clip)[:, -1:], more, axis=1)
  whole = jnp.concatenate([jnp.asarray(clip), last], axis=1)
  return own.tokenize(variables, forms.raw(whole))


def lengths(own: Generator, known: Callable[[int], int]) -> tuple[int, ...]:
  """The numbers of frames of which `known` says how many units they are, and
  raises no error."""

  def fits(frames):
    try:
      return bool(known(frames))
    except UserError:
      return False

  return tuple(filter(fits, range(1, own.tokenizer.frames)))
