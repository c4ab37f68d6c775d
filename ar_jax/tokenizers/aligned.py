"""Tokenizers in training, some of whose states are held to what a frozen
teacher sees: GigaTok, D-AR.

Shapes: B batch, H image side, c image channels, F numbers of a feature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ar_jax.core import system
from ar_jax.core.system import Batch, System, UserError, Vars
from ar_jax.nn.losses.alignment import alignment
from ar_jax.tokenizers.autoencoder import Autoencoder, Reconstruction

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Aligned(Autoencoder):
  """A tokenizer in training with a semantic term: 1 - the cosine of its states
  and the features of a teacher.

  Its `tokenizer` says with how many places it is compared, `cells`, and brings
  them as `more["aligned"]` of its `Reconstruction`, f32[B, cells, F].

  Variables: as of any; and the frozen `teacher`, where there is one.

  Attributes:
    teacher: an encoder with `grid`, as `encoders.classifier` or `vit`; None
      for no semantic term.
    semantic: its weight.
  """

  teacher: System | None = None
  semantic: float = 0.5

  def init(self, key: Any, batch: Batch) -> Vars:
    variables = super().init(key, batch)
    if self.teacher is not None:
      own = self.teacher.init(jax.random.fold_in(key, 1), batch)
      variables["teacher"] = own["params"]
    return variables

  def further(
    self, variables: Vars, batch: Batch, x: Array, out: Reconstruction
  ) -> dict[str, tuple[Any, Array]]:
    if self.teacher is None:
      return {}
    frozen = {"params": variables["teacher"]}
    seen = self.teacher.grid(frozen, {"image": batch["image"]})
    seen = seen.reshape(len(seen), -1, seen.shape[-1])
    if seen.shape[1] != self.tokenizer.cells:
      raise UserError(
        f"teacher: it sees {seen.shape[1]} places and the tokenizer has "
        f"{self.tokenizer.cells}"
      )
    return {"semantic": (self.semantic, alignment(out.more["aligned"], seen))}


def teacher_of(
  spec: Mapping[str, Any] | None, size: int, in_channels: int
) -> tuple[System | None, tuple[int, int] | None]:
  """The teacher that a config names, and the side and F of what it sees of
  images of H = `size`; None twice without one.

  Raises:
    UserError: there is no such system, or it takes no such argument.
  """
  if spec is None:
    return None, None
  seer = system.part(spec)
  batch = {"image": np.zeros((1, size, size, in_channels), np.uint8)}
  # The key is made inside, so that no device is asked for.
  see = lambda: seer.grid(seer.init(jax.random.key(0), batch), batch)
  shape = jax.eval_shape(see).shape
  return seer, (shape[1], shape[-1])


def with_teacher(
  kind: type[Aligned], base: Autoencoder, **more: Any
) -> Aligned:
  """The tokenizer `base` in training as this kind, with its further
  attributes."""
  fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
  return kind(**fields, **more)
