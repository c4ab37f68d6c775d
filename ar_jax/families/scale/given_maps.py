"""Maps of bits that another network says, and what they leave to those behind
(NSARM, arXiv 2510.00820): sums, errors, targets.

What is said of a map is a vector for every cell, whose signs are its bits.

Shapes: B batch, L units of all maps, K bits of a unit, M given maps, h w sides
of a map in cells, d bits of a cell, F latents f32[B, h, w, d].
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ar_jax.core.signals.resize import resize
from ar_jax.nn.quantize.scaled_bits import Coded, ScaledBits
from ar_jax.nn.quantize.vq import unit

Array = jax.Array
_CERTAIN = 30.0  # logit of a bit that is given


def bits_of(said: Sequence[Array]) -> tuple[Array, ...]:
  """The bits i32[B, h, w, d] of what is said of maps f32[B, h, w, d]."""
  return tuple((x > 0).astype(jnp.int32) for x in said)


def units_of(maps: ScaledBits, said: Sequence[Array]) -> Array:
  """The units i32[B, n, K] of the given maps."""
  return jnp.concatenate([maps.folded(bits) for bits in bits_of(said)], axis=1)


def certain(logits: Array, units: Array) -> Array:
  """Logits f32[B, L, K, 2] with the units i32[B, n, K] of the first maps for
  certain."""
  sure = _CERTAIN * jax.nn.one_hot(units, 2)
  return jnp.concatenate([sure, logits[:, units.shape[1] :]], axis=1)


def left(maps: ScaledBits, f: Array, count: int) -> list[Array]:
  """What the good image itself leaves to its first maps, behind the bits of
  those before."""
  return maps.code(f).residuals[:count]


def unquantised(maps: ScaledBits, f: Array, count: int) -> list[Array]:
  """The same behind those before as they are, not their bits."""
  total, found = maps.start(len(f)), []
  for k in range(count):
    rest = maps.residual(f, total, k)
    total = maps.add_cells(total, rest)
    found.append(rest)
  return found


def sums(maps: ScaledBits, said: Sequence[Array]) -> list[Array]:
  """The sum of what is said, as each map sees it when it has been added."""
  total, found = maps.start(len(said[0])), []
  for k, own in enumerate(said):
    total = maps.add_cells(total, own)
    found.append(resize(total, maps.grids[k], "area"))
  return found


def errors(
  maps: ScaledBits, f: Array, said: Sequence[Array], sums_too: bool
) -> dict[str, Array]:
  """Mean squared errors f32[B] over all numbers of the given maps: "maps", of
  what is said against what is left; and perhaps "consistency", of the sums of
  what is said against those of maps that are not quantised."""
  found = {"maps": _error(said, left(maps, f, len(said)))}
  if sums_too:
    true = sums(maps, unquantised(maps, f, len(said)))
    found["consistency"] = _error(sums(maps, said), true)
  return found


def _error(xs: Sequence[Array], ys: Sequence[Array]) -> Array:
  squares = [jnp.square(x - y) for x, y in zip(xs, ys, strict=True)]
  total = sum(x.sum((1, 2, 3)) for x in squares)
  return total / sum(x[0].size for x in squares)


def coded_behind(maps: ScaledBits, f: Array, said: Sequence[Array]) -> Coded:
  """Units and inputs of all maps, those behind the given ones counting from
  their bits; in the inputs is the gradient of what is said (straight
  through)."""
  coded = maps.code(f, given=bits_of(said))
  total, soft = maps.start(len(f)), []
  for k in range(len(maps.shapes)):
    soft.append(maps.seen(total, k))
    if k < len(said):
      total = maps.add_cells(total, unit(said[k]))
  soft = jnp.concatenate(soft, 1)
  return coded._replace(
    inputs=coded.inputs + soft - jax.lax.stop_gradient(soft)
  )
