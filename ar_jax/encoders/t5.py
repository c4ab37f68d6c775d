"""T5's encoder of texts (arXiv 1910.10683), as of version 1.1 and Flan-T5.

Published files are read by `t5_files`, which also stores the features of the
texts of a data set for `data.text_features`. New in it against other encoders
of texts: scores are not scaled, and know of places only by a learned number for
each bucket of distances and each head, the same in all layers.

Shapes: B batch, P positions, D width, H heads, K features of a head, F hidden
width of the MLP, N layers, V pieces, R buckets.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.encoders.text import right_aligned
from ar_jax.nn.layers.linear import Linear, initial
from ar_jax.nn.layers.norms import RMSNorm

Array = jax.Array

# Published sizes, of Flan-T5 and of version 1.1: arguments of `T5`.
SIZES = {
  "small": dict(width=512, depth=8, heads=6, hidden=1024),
  "base": dict(width=768, depth=12, heads=12, hidden=2048),
  "large": dict(width=1024, depth=24, heads=16, hidden=2816),
  "xl": dict(width=2048, depth=24, heads=32, hidden=5120),
  "xxl": dict(width=4096, depth=24, heads=64, hidden=10_240),
}


def bucket(distance: np.ndarray, buckets: int, furthest: int) -> np.ndarray:
  """Which bucket a distance belongs to.

  Half of them are for keys behind the query. Of either half, the first half
  are one distance each, the others grow by a factor up to `furthest`.

  Args:
    distance: i64[...], place of the key minus that of the query.
    buckets: R.
    furthest: from here on all distances are of the last bucket.
  """
  half = buckets // 2
  exact = half // 2
  far = np.abs(distance)
  # In float32, as published: rounding decides at the borders.
  ratio = np.maximum(far, 1).astype(np.float32) / np.float32(exact)
  grown = np.log(ratio) / np.float32(math.log(furthest / exact))
  grown = exact + (grown * np.float32(half - exact)).astype(np.int64)
  own = np.where(far < exact, far, np.minimum(grown, half - 1))
  return own + half * (distance > 0)


class Layer(nn.Module):
  """Attention and a gated MLP, each behind an RMS norm.

  Attributes:
    heads: H.
    features: K.
    hidden: F.
    gated: whether the MLP is GELU(a) b of two products, as of version 1.1;
      otherwise ReLU of one.
    eps: of the norms.
    dtype: of the computation; norms and softmax are float32.
  """

  heads: int
  features: int
  hidden: int
  gated: bool
  eps: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, inputs: tuple[Array, Array]):
    """x [B, P, D] of (x, (bias f32[H, P, P], seen bool[B, P])), and None."""
    bias, seen = inputs
    width, inner = x.shape[-1], self.heads * self.features
    dense = lambda n, name, fan: Linear(
      n,
      use_bias=False,
      kernel_init=initial(1 / math.sqrt(fan)),
      dtype=self.dtype,
      name=name,
    )
    h = RMSNorm(self.eps, name="norm1")(x).astype(self.dtype)
    split = lambda y: y.reshape(*y.shape[:2], self.heads, self.features)
    # Scores are not scaled; the queries begin the smaller.
    q = split(dense(inner, "query", width * self.features)(h))
    k = split(dense(inner, "key", width)(h))
    v = split(dense(inner, "value", width)(h))
    scores = jnp.einsum(
      "bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32
    )
    scores = jnp.where(seen[:, None, None], scores + bias[None], -1e30)
    weights = jax.nn.softmax(scores, -1).astype(self.dtype)
    out = jnp.einsum("bhqs,bshk->bqhk", weights, v)
    x = x + dense(width, "out", inner)(out.reshape(*x.shape[:2], inner))
    h = RMSNorm(self.eps, name="norm2")(x).astype(self.dtype)
    if self.gated:
      gate = nn.gelu(dense(self.hidden, "gate", width)(h), approximate=True)
      h = gate * dense(self.hidden, "fc1", width)(h)
    else:
      h = nn.relu(dense(self.hidden, "fc1", width)(h))
    return x + dense(width, "fc2", self.hidden)(h), None


class T5(nn.Module):
  """The encoder. Defaults: Flan-T5-XL, which LlamaGen and Infinity read.

  Attributes:
    width: D.
    depth: N.
    heads: H.
    hidden: F.
    features: K.
    vocab: V.
    length: P, to which texts are filled up in front.
    gated: see `Layer`.
    buckets: R.
    furthest: see `bucket`.
    eps: of the norms.
    dtype: of the computation.
  """

  width: int = 2048
  depth: int = 24
  heads: int = 32
  hidden: int = 5120
  features: int = 64
  vocab: int = 32_128
  length: int = 512
  gated: bool = True
  buckets: int = 32
  furthest: int = 128
  eps: float = 1e-6
  dtype: jnp.dtype = jnp.float32

  def example(self) -> Array:
    """A text of the right shape."""
    return jnp.zeros((1, self.length), jnp.int32)

  def align(self, text: Array) -> tuple[Array, Array]:
    """(i32[B, P], bool[B, P]) of pieces i32[B, n], zeros at the end."""
    if not jnp.issubdtype(text.dtype, jnp.integer):
      raise UserError(
        f"text is {text.dtype}: T5 reads the numbers of pieces of text"
      )
    return right_aligned(text, text > 0, self.length)

  @nn.compact
  def __call__(self, text: Array) -> Array:
    """Features f32[B, P, D] of pieces i32[B, n], zeros at the end; zeros where
    there is none."""
    text, seen = self.align(text)
    normal = nn.initializers.normal
    embed = nn.Embed(
      self.vocab, self.width, embedding_init=normal(1.0), name="pieces"
    )
    shape, init = (self.buckets, self.heads), normal(1 / math.sqrt(self.width))
    table = self.param("distances", init, shape)
    place = np.arange(self.length)
    which = bucket(place[None] - place[:, None], self.buckets, self.furthest)
    bias = jnp.moveaxis(table[which], -1, 0)
    stack = nn.scan(
      Layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=nn.broadcast,
      length=self.depth,
    )
    layers = stack(
      self.heads,
      self.features,
      self.hidden,
      self.gated,
      self.eps,
      self.dtype,
      name="layers",
    )
    x, _ = layers(embed(text).astype(self.dtype), (bias, seen))
    x = RMSNorm(self.eps, name="norm")(x).astype(jnp.float32)
    return jnp.where(seen[..., None], x, 0)
