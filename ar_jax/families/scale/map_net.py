"""What a poor image says of the first maps of a good one: NSARM's
transformation network (arXiv 2510.00820).

Each map has a small transformer of its own over a common trunk of convolutions,
without places: what is where it reads from norms whose scales belong to places.

Shapes: B batch, H W sides of the latent of the poor image, d its channels, n
side of a map, D width of its transformer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.signals.resize import resize
from ar_jax.nn.layers.conv2d import conv3
from ar_jax.nn.layers.linear import Linear
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

Array = jax.Array
_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class MapSizes:
  """The sizes of the network, one of each for every map; as published.

  Attributes:
    dims: D.
    layers: of the transformers.
    heads: of their attention.
    trunk: widths of the common convolutions.
    dropout: of the branches of the layers.
  """

  dims: tuple[int, ...] = (64, 128, 256, 384, 512, 768, 1024)
  layers: tuple[int, ...] = (4, 6, 8, 10, 12, 14, 16)
  heads: tuple[int, ...] = (4, 4, 8, 8, 8, 12, 16)
  trunk: tuple[int, int] = (64, 128)
  dropout: float = 0.1

  def __post_init__(self):
    if not len(self.dims) == len(self.layers) == len(self.heads):
      raise UserError(
        f"maps: {len(self.dims)} dims, {len(self.layers)} layers and "
        f"{len(self.heads)} heads; give one of each for every map"
      )

  @classmethod
  def of(cls, **given: int | float | Sequence[int]) -> MapSizes:
    """Of what a config holds.

    Raises:
      UserError: there is no such size.
    """
    hashed = {
      k: v if isinstance(v, int | float) else tuple(v) for k, v in given.items()
    }
    try:
      return cls(**hashed)
    except TypeError as e:
      raise UserError(f"maps: {e}") from e


class PlaceNorm(nn.Module):
  """LayerNorm over all of an image [B, H, W, C], whose scale and bias belong to
  place and channel."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = x.shape[1:]
    scale = self.param("scale", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    x = x - jnp.mean(x, (1, 2, 3), keepdims=True)
    variance = jnp.mean(jnp.square(x), (1, 2, 3), keepdims=True)
    return x * jax.lax.rsqrt(variance + _EPS) * scale[None] + bias[None]


class Convolved(nn.Module):
  """3x3 convolutions of these widths, each with a `PlaceNorm` and a GELU."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i, width in enumerate(self.widths):
      x = conv3(width, jnp.float32, f"conv_{i}")(x)
      x = nn.gelu(PlaceNorm(name=f"norm_{i}")(x), approximate=False)
    return x


class MapEnd(nn.Module):
  """Linear, norm, GELU, linear: [B, T, D] -> f32[B, T, d]."""

  bits: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = Linear(x.shape[-1] // 2, name="fc1")(x)
    x = nn.gelu(LayerNorm(_EPS, name="norm")(x), approximate=False)
    return Linear(self.bits, name="fc2")(x)


class MapNet(nn.Module):
  """The network.

  Attributes:
    shapes: (h, w) of the maps, in cells.
    bits: d.
    stacks: the transformer of each map.
    sizes: see `MapSizes`.
    raw: whether what a transformer says of its positions is read as channels,
      then places, as the published weights have it: no transposition, but the
      same numbers in the same order.
  """

  shapes: tuple[tuple[int, int], ...]
  bits: int
  stacks: tuple[Backbone, ...]
  sizes: MapSizes
  raw: bool = False

  @nn.compact
  def __call__(self, latent: Array, keys: Array | None = None) -> list[Array]:
    """What is left to say at each map, f32[B, h, w, d] in cells.

    Args:
      latent: of the poor image, f32[B, H, W, d].
      keys: Key[B] for dropout, or None.
    """
    found = []
    x = Convolved((*self.sizes.trunk, self.bits), name="trunk")(latent)
    for i, (shape, width) in enumerate(
      zip(self.shapes, self.sizes.dims, strict=True)
    ):
      h = Convolved((width // 2, width), name=f"front_{i}")(x)
      h = resize(h, shape, "area").reshape(len(x), -1, width)
      own = None
      if keys is not None:
        own = jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys)
      h = self.stacks[i](h, keys=own)[0]
      found.append(self.placed(MapEnd(self.bits, name=f"end_{i}")(h), shape))
    return found

  def placed(self, y: Array, shape: tuple[int, int]) -> Array:
    """What is said of positions, [B, h w, d], as a map."""
    if self.raw:
      return jnp.moveaxis(y.reshape(len(y), self.bits, *shape), 1, -1)
    return y.reshape(len(y), *shape, self.bits)


def map_net(
  shapes: tuple[tuple[int, int], ...],
  bits: int,
  sizes: MapSizes,
  raw: bool = False,
) -> MapNet:
  """The network of these sizes, one of each for every map; arguments as the
  attributes of `MapNet`."""
  # Made here, not in the module: there their parts would be named anew.
  stacks = tuple(
    vit(
      layers, width, heads, act="relu", order="post", dropout=sizes.dropout,
      eps=_EPS,
    )
    for layers, width, heads in zip(
      sizes.layers, sizes.dims, sizes.heads, strict=True
    )
  )  # fmt: skip
  return MapNet(shapes, bits, stacks, sizes, raw)
