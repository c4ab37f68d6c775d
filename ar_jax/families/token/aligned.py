"""What of a decoder's hidden states is aligned with the feature of an image,
and how (ARRA, arXiv 2503.07334).

Shapes: B batch, L units, T = L - 1 units that are read, D width, C numbers of
a feature.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.core.system import Batch, System
from ar_jax.families.token.prompts.layout import Layout
from ar_jax.nn.losses.alignment import Projector, alignment, pooled

Array = jax.Array
POSITIONS = ("image", "hybrid", "last")
_OWN = 2**22  # of the keys of what is drawn here


@dataclasses.dataclass(frozen=True)
class Align:
  """What is aligned, and how strongly.

  Attributes:
    weight: lambda; 0 trains as without, to the bit, and reports the term.
    layer: behind which hidden states are taken, 1 being the first.
    positions: "image", all codes of the image, as released; "hybrid", a unit
      of its own, which stands in the input in place of one code, at a place
      that is drawn, and is to predict the next code all the same, as in the
      paper; "last", the last k positions, whatever is there.
    last: k.
    pool: whether hidden states are averaged before they are projected, in
      place of their cosines behind it.
    hybrid: the unit of "hybrid"; None for the first that nothing else is.
  """

  weight: float = 1.0
  layer: int = 1
  positions: str = "image"
  last: int = 1024
  pool: bool = False
  hybrid: int | None = None

  def read(
    self, units: Array, layout: Layout, keys: Array | None
  ) -> tuple[Array, Array | None]:
    """The units i32[B, L] as they are read, and which of the first T are
    aligned, bool[B | 1, T]; None for none.

    Args:
      units: i32[B, L].
      layout: tells where the codes are.
      keys: Key[B]; None outside of training, where no code is replaced.
    """
    count = units.shape[1] - 1
    if self.positions == "image":
      return units, jnp.asarray(layout.template[:count] < 0)[None]
    if self.positions == "last":
      return units, jnp.arange(count)[None] >= count - self.last
    if keys is None:
      return units, None
    places = jnp.asarray(layout.places[layout.places < count])
    draw = lambda key: jax.random.randint(key, (), 0, len(places))
    at = places[jax.vmap(draw)(fold(keys, _OWN))]
    mask = jnp.arange(count)[None] == at[:, None]
    wide = jnp.pad(mask, ((0, 0), (0, 1)))
    return jnp.where(wide, self.hybrid, units), mask

  def term(
    self, projector: Projector, params: Any, h: Array, mask: Array, y: Array
  ) -> Array:
    """1 - the cosine, f32[B].

    Args:
      projector, params: of it.
      h: [B, T, D], hidden states.
      mask: bool[B | 1, T], the positions that are aligned.
      y: f32[B, C], of the image.
    """
    apply = lambda x: projector.apply({"params": params}, x)
    if self.pool:
      value = alignment(apply(pooled(h, mask)), y)
    else:
      value = alignment(apply(h), y, mask)
    return value if self.weight else jax.lax.stop_gradient(value)


def checked(align: Align) -> Align:
  """Itself.

  Raises:
    UserError: there are no such positions.
  """
  if align.positions not in POSITIONS or align.last < 1:
    raise UserError(
      f"align.positions={align.positions!r}, last={align.last}: choose one of "
      f"{', '.join(POSITIONS)}, and at least 1"
    )
  return align


def feature(batch: Batch, count: int) -> Array:
  """The `feature` f32[B, C] of a batch.

  Raises:
    UserError: there is none, or one of other numbers than `count`.
  """
  found = batch.get("feature")
  if found is not None and found.shape[1:] == (count,):
    return found
  what = "there is no `feature` of the images"
  if found is not None:
    what = f"feature of shape {found.shape}: this model reads {count} numbers"
  raise UserError(
    f"{what}; set model.teacher, or data.image_features to a folder of them"
  )


def example(codec: Any) -> dict[str, Array]:
  """A batch of one image, as a tokenizer and so a teacher sees it."""
  return {"image": jnp.zeros(codec.example().shape, jnp.uint8)}


def numbers(teacher: System, codec: Any) -> int:
  """C, what a teacher makes of an image."""

  def seen():  # of shapes alone, so that no device is asked for
    image = example(codec)
    return teacher.pooled(teacher.init(jax.random.key(0), image), image)

  return jax.eval_shape(seen).shape[-1]
