"""An encoder of images that predicts their patches in any order, by two streams
(SemAIM, arXiv 2312.10457).

Shapes: B batch, H image side, c channels, p side of a patch, n = H / p, L = n^2
patches, D width, N layers, C numbers that are predicted of a patch.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.plans import ranks
from ar_jax.core.signals.patches import cut
from ar_jax.encoders.vit import Labelled
from ar_jax.nn.layers.norms import LayerNorm, layer_norm
from ar_jax.nn.layers.positions import sine_grid
from ar_jax.nn.stacks.two_streams import TwoStreams

Array = jax.Array


class TwoStreamViT(nn.Module):
  """The two streams over the patches of images f32[B, H, H, c].

  Attributes:
    streams: the layers.
    width: D.
    patch: p.
    side: n.
    outputs: C.
    hidden: width of the MLP that predicts; 0 for a linear map.
    eps: of the last norm, which both streams share.
  """

  streams: TwoStreams
  width: int
  patch: int
  side: int
  outputs: int
  hidden: int
  eps: float = 1e-6

  def setup(self):
    xavier = nn.initializers.xavier_uniform()
    self.embed = nn.Dense(self.width, kernel_init=xavier)
    self.token = self.param(
      "token", nn.initializers.normal(0.02), (1, self.width)
    )
    self.norm = LayerNorm(self.eps)
    dense = lambda n: nn.Dense(n, kernel_init=xavier)
    self.fc2 = dense(self.outputs)
    if self.hidden:
      self.fc1 = dense(self.hidden)

  def __call__(self, x: Array, rank: Array) -> Array:
    """f32[B, 1 + L, C], what is predicted for each patch from those before it
    by rank f32[B, L], the class token first, whose row is nothing."""
    content, query = ranks.masks(rank)
    g = jnp.broadcast_to(self.places()[None], (len(x), *self.places().shape))
    g = self.streams.answers(g, self.content(x, content), query)
    g = self.norm(g).astype(jnp.float32)
    if self.hidden:
      g = nn.gelu(self.fc1(g), approximate=False)
    return self.fc2(g)

  def places(self) -> Array:
    """f32[1 + L, D], fixed: that of the class token is 0."""
    table = sine_grid(self.side, self.side, self.width)
    return jnp.asarray(np.pad(table, ((1, 0), (0, 0))))

  def content(self, x: Array, sees: Array | None = None) -> Array:
    """[N, B, 1 + L, D], after every layer; see `TwoStreams.content`."""
    h = self.embed(cut(x, self.patch)).reshape(len(x), -1, self.width)
    token = jnp.broadcast_to(self.token[None], (len(x), 1, self.width))
    h = jnp.concatenate([token, h], axis=1) + self.places()[None]
    return self.streams.content(h, sees)

  def tokens(self, x: Array) -> Array:
    """f32[B, 1 + L, D], what a plain vision transformer makes of images."""
    return self.norm(self.content(x)[-1]).astype(jnp.float32)

  def attention(self, x: Array) -> Array:
    """f32[B, L]: how far the class token looks at each patch in the last layer,
    a mean over the heads; of all it sees the sum is 1, itself among it."""
    block = self.streams.block
    every = self.variables["params"]["streams"]["block"]
    own = jax.tree.map(lambda w: w[-1], every)
    h = self.content(x)[-2].astype(jnp.float32)
    norm, mixer = own["norm1"], own["mixer"]
    row = lambda x: x[None, None]
    h = layer_norm(h, block.eps) * row(norm["scale"]) + row(norm["bias"])
    count = block.mixer.heads
    kernel = jnp.split(mixer["qkv"]["kernel"], 3, axis=1)
    heads = lambda y: y.reshape(*y.shape[:2], count, -1)
    q = heads(h[:, :1] @ kernel[0] + row(mixer["bias_q"]))
    k = heads(h @ kernel[1] + row(mixer["bias_k"]))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    return jnp.mean(jax.nn.softmax(scores, -1), 1)[:, 0, 1:]


def similar(tokens: Array, of: str = "class") -> Array:
  """f32[B, L]: cosines of the patches of tokens [B, 1 + L, D] with the class
  token, or with the mean of the patches, as shares of 1 by a softmax."""
  patches = tokens[:, 1:]
  whole = tokens[:, :1] if of == "class" else patches.mean(1, keepdims=True)
  return jax.nn.softmax(jnp.sum(unit(whole) * unit(patches), -1), -1)


def unit(x: Array) -> Array:
  """x [..., D] of length 1."""
  return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def centred(patches: Array) -> tuple[Array, Array, Array]:
  """Patches f32[B, L, C] with a mean of 0 and a deviation of 1 each, and what
  these were, f32[B, L, 1]."""
  mean = jnp.mean(patches, -1, keepdims=True)
  variance = jnp.var(patches, -1, keepdims=True, ddof=1)
  deviation = jnp.sqrt(variance + 1e-6)
  return (patches - mean) / deviation, mean, deviation


def seen_tokens(net: Labelled, images: Array, side: int) -> Array:
  """f32[B, 1 + L, E]: what another encoder, bound, sees in images u8[B, H, W,
  c] as a whole and in each patch, as it is published: normed, and in the space
  of texts where there is one.

  Raises:
    UserError: it does not see side x side patches.
  """
  seen, encoder = net(images)[0], net.encoder
  grid = seen.grid
  if encoder.style == "clip":
    grid = encoder.norm(grid)
  if encoder.projection:
    grid = encoder.project(grid)
  if grid.shape[1:3] != (side, side):
    raise UserError(
      f"teacher: it sees {grid.shape[1]}x{grid.shape[2]} patches, this model "
      f"{side}x{side}"
    )
  patches = grid.reshape(len(grid), -1, grid.shape[-1])
  return jnp.concatenate([seen.pooled[:, None], patches], axis=1)
