"""The decoder of RETRO: some layers look at neighbours of the text so far,
which a small encoder reads (arXiv 2112.04426, 2304.06762).

A chunk is m positions. What was retrieved for chunk u may depend on all of it,
so that the last position of chunk u is the first that looks at its neighbours,
and the last but one of the next chunk the last.

Shapes: B batch, T positions, c chunks that are complete, m positions of one, k
neighbours of a chunk, r positions of a neighbour, D width, H heads, K features
of a head, S = k r.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans import makers
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.cross_attention import CrossAttention, crossing
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import Identity, LayerNorm
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

Array = jax.Array
Memory = tuple[Array, Array]


class LookingLayer(nn.Module):
  """A layer in parts: it mixes positions, looks at a memory, and acts on each
  position; pre-norm, with biases.

  Attributes:
    mixer: self-attention.
    mlp: acts on each position.
    cross: attention to the memory.
    eps: of the norms.
    dropout: share of the features of the branches that training drops.
  """

  mixer: Attention
  mlp: Mlp
  cross: CrossAttention
  eps: float = 1e-5
  dropout: float = 0.0

  def setup(self):
    self.norm1, self.norm2 = LayerNorm(self.eps), LayerNorm(self.eps)
    self.norm3 = LayerNorm(self.eps)

  def mix(self, x, mask=None, *, cache=None, keys=None):
    """([B, T, D], cache) behind self-attention."""
    h, cache = self.mixer(self.norm1(x), mask, cache=cache)
    cache = None if cache is None else cache.advance(x.shape[1])
    return x + dropout(h, keys, self.dropout, 0), cache

  def query(self, x: Array) -> Array:
    """What asks, [B, T, D]."""
    return self.norm3(x)

  def look(self, h: Array, memory: Memory, seen: Array | None = None) -> Array:
    """What `query` finds in a memory, [B, T, D]; see `CrossAttention`."""
    return self.cross(h, memory, seen)

  def feed(self, x: Array, keys: Array | None = None) -> Array:
    """[B, T, D] behind the MLP."""
    return x + dropout(self.mlp(self.norm2(x)), keys, self.dropout, 1)


class NeighbourEncoder(nn.Module):
  """Reads neighbours, both ways, with a look at the chunk that asked.

  Attributes:
    first: the layer that looks at the chunk.
    rest: further layers; None for no more.
    residual: what its look is added to: "raw", the stream itself, as in the
      code of InstructRetro; or "normed", as in Megatron-Core.
  """

  first: LookingLayer
  rest: Backbone | None
  residual: str = "raw"

  def __call__(
    self, e: Array, chunks: Array, keys: Array | None = None
  ) -> Array:
    """[B, c, S, D] of the neighbours.

    Args:
      e: their embeddings, [B, c, k, r, D].
      chunks: [B, c, m, D], states of the decoder.
      keys: Key[B] for dropout, or None.
    """
    b, c, k, r, d = e.shape
    x = e.reshape(-1, r, d)
    if keys is not None:
      keys = jnp.repeat(keys, c * k)
      keys = fold(keys, jnp.arange(len(x), dtype=jnp.int32))
    x, _ = self.first.mix(x, keys=keys)
    kv = self.first.cross.remember(chunks.reshape(b * c, -1, d))
    h = self.first.query(x)
    found = self.first.look(h, tuple(jnp.repeat(y, k, 0) for y in kv))
    x = (h if self.residual == "normed" else x) + found
    x = self.first.feed(x, keys)
    if self.rest is not None:
      x, _ = self.rest(x, keys=keys)
    return x.reshape(b, c, k * r, d)


class RetroStack(nn.Module):
  """The decoder.

  Attributes:
    runs: of plain layers, one before each that looks, and one behind all; the
      last may be None, and so may others.
    layers: those that look.
    encoder: of the neighbours, at the first of them; None without.
    out_norm: the last norm.
    chunk: m.
  """

  runs: Sequence[Backbone | None]
  layers: Sequence[LookingLayer]
  encoder: NeighbourEncoder | None
  out_norm: nn.Module
  chunk: int

  @property
  def depth(self) -> int:
    """Layers of the decoder."""
    plain = sum(run.depth for run in self.runs if run is not None)
    return plain + len(self.layers)

  def __call__(
    self,
    x: Array,
    e: Array | None = None,
    seen: Array | None = None,
    *,
    lead: int = 0,
    first: int | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, lead + T, D] of whole texts.

    Args:
      x: [B, lead + T, D].
      e: embeddings of the neighbours of the complete chunks, [B, c, k, r, D];
        None for none.
      seen: bool[B, c, k], which are there; None for all.
      lead: positions before the first chunk.
      first: positions of the first chunk, if that is the short one.
      keys: Key[B] for dropout, or None.
    """
    mask, memory = makers.blocks(x.shape[1], 1), None
    first = first or self.chunk
    if seen is not None:
      seen = jnp.repeat(seen, e.shape[3], -1)  # [B, c, S]
    own = lambda i: None if keys is None else fold(keys, i)
    for i, run in enumerate(self.runs):
      if run is not None:
        x, _ = run(x, mask, keys=own(2 * i))
      if i == len(self.layers):
        continue
      layer = self.layers[i]
      x, _ = layer.mix(x, mask, keys=own(2 * i + 1))
      if e is not None and e.shape[1]:
        h = layer.query(x)[:, lead:]
        if memory is None:
          chunks = cut(h, e.shape[1], self.chunk, first)
          memory = self.encoder(e, chunks, own(99))
        kv = layer.cross.remember(memory.reshape(-1, *memory.shape[2:]))
        found = self._look(layer, h, kv, seen, e.shape[1], first)
        x = x.at[:, lead:].add(found.astype(x.dtype))
      x = layer.feed(x, own(2 * i + 1))
    return self.out_norm(x).astype(jnp.float32)

  def _look(self, layer, h, kv, seen, c, first) -> Array:
    """Chunked attention, [B, T, D] of h [B, T, D]: zeros for the positions
    before the last one of the first chunk."""
    b, t, d = h.shape
    skip = first - 1
    q = h[:, skip : skip + c * self.chunk]
    q = jnp.pad(q, ((0, 0), (0, c * self.chunk - q.shape[1]), (0, 0)))
    q = q.reshape(b * c, self.chunk, d)
    if seen is not None:
      seen = seen.reshape(b * c, -1)
    found = layer.look(q, kv, seen).reshape(b, -1, d)[:, : t - skip]
    behind = t - skip - found.shape[1]
    return jnp.pad(found, ((0, 0), (skip, behind), (0, 0)))

  # One position after the other.

  def empty(self, batch: int, rows: int, width: int) -> tuple[Cache, ...]:
    """The caches of all parts, in order."""
    made = []
    for i, run in enumerate(self.runs):
      if run is not None:
        made.append(run.cache(batch, rows, width))
      if i < len(self.layers):
        layer = self.layers[i]
        made.append(layer.mixer.empty(1, batch, rows, width, layer.mixer.dtype))
    return tuple(made)

  def blank(self, batch: int, rows: int, width: int) -> tuple[Memory, ...]:
    """What the looking layers remember before there are neighbours."""
    made = []
    for layer in self.layers:
      heads = layer.cross.heads
      zeros = jnp.zeros((batch, heads, rows, width // heads), layer.cross.dtype)
      made.append((zeros, zeros))
    return tuple(made)

  def ask(self, x, caches):
    """(x [B, 1, D], h [B, 1, D], caches): one more position, up to where the
    first looking layer asks; h is what asks. Without such layers up to the
    end."""
    caches = list(caches)
    if self.runs[0] is not None:
      x, caches[0] = self.runs[0](x, cache=caches[0])
    if not self.layers:
      return x, x, tuple(caches)
    at = int(self.runs[0] is not None)
    mask = caches[at].mask(1)
    x, caches[at] = self.layers[0].mix(x, mask, cache=caches[at])
    return x, self.layers[0].query(x), tuple(caches)

  def remember(self, e: Array, chunk: Array) -> tuple[Memory, ...]:
    """What the looking layers read of neighbours e [B, k, r, D] of a chunk
    [B, m, D] of what asked."""
    memory = self.encoder(e[:, None], chunk[:, None])[:, 0]
    return tuple(layer.cross.remember(memory) for layer in self.layers)

  def answer(self, x, h, memory, seen, caches):
    """(hidden states f32[B, 1, D], caches): the rest of what `ask` began.

    Args:
      x, h, caches: as `ask` returned them.
      memory: of each looking layer.
      seen: bool[B, S], which rows of it are there.
    """
    caches, at = list(caches), 0
    for i, run in enumerate(self.runs):
      if run is not None:
        if i:
          x, caches[at] = run(x, cache=caches[at])
        at += 1
      if i == len(self.layers):
        continue
      layer = self.layers[i]
      if i:
        mask = caches[at].mask(1)
        x, caches[at] = layer.mix(x, mask, cache=caches[at])
        h = layer.query(x)
      at += 1
      x = layer.feed(x + layer.look(h, memory[i], seen).astype(x.dtype))
    return self.out_norm(x).astype(jnp.float32), tuple(caches)


def cut(h: Array, c: int, chunk: int, first: int) -> Array:
  """[B, c, m, D]: the first c chunks of h [B, T, D]; the first one, where it is
  short, filled up with zeros at its end."""
  b, _, d = h.shape
  short = jnp.pad(h[:, :first], ((0, 0), (0, chunk - first), (0, 0)))
  rest = h[:, first : first + (c - 1) * chunk]
  return jnp.concatenate([short, rest], 1).reshape(b, c, chunk, d)


def looking(depth: int) -> tuple[int, ...]:
  """The layers that look, counted from 1: from the 6th of at most 15, else
  from the 9th, every third."""
  return tuple(range(6 if depth <= 15 else 9, depth + 1, 3))


def decoder(
  depth: int,
  width: int,
  heads: int,
  layers: Sequence[int],
  *,
  chunk: int,
  encoder_depth: int = 2,
  encoder_residual: str = "raw",
  hidden: int | None = None,
  dropout: float = 0.0,
  final_norm: bool = True,
  eps: float = 1e-5,
) -> RetroStack:
  """A decoder of GPT's layers: pre-norm, GELU, biases everywhere.

  Args:
    depth: layers.
    width: D.
    heads: H.
    layers: those that look, counted from 1, in order; () is a GPT.
    chunk: m.
    encoder_depth: layers of the encoder.
    encoder_residual: see `NeighbourEncoder`.
    hidden: width of the MLPs; 4 D if None.
    dropout: of the branches.
    final_norm: whether there is one behind the last layer.
    eps: of the norms.
  """

  def run(count: int) -> Backbone | None:
    if not count:
      return None
    made = vit(count, width, heads, hidden=hidden, dropout=dropout, eps=eps)
    return made.clone(out_norm=Identity())

  def layer() -> LookingLayer:
    # Xavier-uniform, as the plain layers.
    mixer = Attention(heads, bias="qkv", stddev=None, out_stddev=None)
    mlp = Mlp(hidden or 4 * width, None, None, act="gelu")
    return LookingLayer(mixer, mlp, crossing(width, mixer), eps, dropout)

  ends, encoder = (0, *layers, depth + 1), None
  if layers:
    rest = run(encoder_depth - 1)
    encoder = NeighbourEncoder(layer(), rest, encoder_residual)
  return RetroStack(
    tuple(run(b - a - 1) for a, b in zip(ends, ends[1:], strict=False)),
    tuple(layer() for _ in layers),
    encoder,
    LayerNorm(eps) if final_norm else Identity(),
    chunk,
  )
