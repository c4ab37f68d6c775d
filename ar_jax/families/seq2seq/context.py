"""CPPD's decoder: nodes that count the characters and nodes that hold places,
beside the tokens of an image, which both of them look at (arXiv 2307.12270).

A node is appended to the visual tokens, and keys are the visual tokens alone:
so no node sees another, no visual token sees a node, and what the counting
nodes do for the visual tokens they do by their gradients. They are not there
when words are read.

Shapes: B batch, N visual tokens, D width, C characters with the end, P places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans import makers
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.cross_attention import CrossAttention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import drop_path

Array = jax.Array


class NodeLayer(nn.Module):
  """x = norm(x + attention(x, keys)), then the same with an MLP.

  Attributes:
    width: D.
    heads: of attention.
    scale: of the scores; 1 / sqrt(D / heads) if None.
    stddev: initial standard deviation of linear maps.
  """

  width: int
  heads: int
  scale: float | None = None
  stddev: float = 0.02

  def setup(self):
    std = self.stddev
    self.mixer = CrossAttention(
      self.width, self.heads, scale=self.scale, bias="qkv", stddev=std,
      out_stddev=std,
    )  # fmt: skip
    self.mlp = Mlp(4 * self.width, std, std, act="gelu")
    self.norm1, self.norm2 = LayerNorm(1e-6), LayerNorm(1e-6)

  def __call__(
    self, x: Array, looked_at: Array, stays: Array | None = None, seen=None
  ) -> Array:
    """[B, T, D].

    Args:
      x: [B, T, D].
      looked_at: [B, S, D], which keys and values are made of.
      stays: f32[B, 2] of stochastic depth, or None.
      seen: as of `CrossAttention`.
    """
    factor = lambda i: 1 if stays is None else stays[:, i, None, None]
    h = self.mixer(x, self.mixer.remember(looked_at), seen)
    x = self.norm1(x + factor(0) * h)
    return self.norm2(x + factor(1) * self.mlp(x))


class Read(NamedTuple):
  """What the decoder says.

  Attributes:
    logits: f32[B, P, C], of the character at each place.
    places: f32[B, P, P]: place j's own logit, that something is there, is the
      j-th of its row; or its row is the law of how many are left.
    counts: f32[B, n, K], how often each of the n counted characters comes; of
      none where none is asked for.
  """

  logits: Array
  places: Array
  counts: Array | None


class ContextDecoder(nn.Module):
  """The decoder.

  Attributes:
    width: D.
    vocab: C.
    places: P.
    tokens: N.
    heads: of attention.
    layers: of both stacks of nodes.
    edge_layers: behind them; each second one, counted from the last, looks at
      the visual tokens without a scale, those between at the places so far.
    drop: rate of stochastic depth in the last layer.
    stddev: initial standard deviation of linear maps and places.
  """

  width: int
  vocab: int
  places: int
  tokens: int
  heads: int
  layers: int = 2
  edge_layers: int = 1
  drop: float = 0.1
  stddev: float = 0.02

  def setup(self):
    table = lambda rows: nn.Embed(
      rows,
      self.width,
      embedding_init=nn.initializers.normal(self.width**-0.5),
    )
    init = nn.initializers.truncated_normal(self.stddev)
    self.characters, self.place = table(self.vocab), table(self.places)
    shape = lambda rows: (1, rows, self.width)
    self.place_pos = self.param("place_pos", init, shape(self.places))
    self.visual_pos = self.param("visual_pos", init, shape(self.tokens))
    layer = lambda scale=None: NodeLayer(
      self.width, self.heads, scale, self.stddev
    )
    self.counting = [layer() for _ in range(self.layers)]
    self.placing = [layer() for _ in range(self.layers)]
    self.edges = [
      layer(1.0 if self._looks(i) else None) for i in range(self.edge_layers)
    ]
    self.count_head = Categorical(self.places - 1)
    self.place_head = Categorical(self.places)
    self.head = Categorical(self.vocab)

  def _looks(self, i: int) -> bool:
    return (self.edge_layers - i) % 2 == 1

  def nodes(self, batch: int, ids: Array | None = None) -> Array:
    """[B, n, D] of the characters i32[B, n]; all of them without."""
    if ids is None:
      ids = jnp.broadcast_to(jnp.arange(self.vocab), (batch, self.vocab))
    return math.sqrt(self.width) * self.characters(ids)

  def __call__(
    self,
    visual: Array,
    ids: Array | None = None,
    keys: Array | None = None,
    *,
    counts: bool = True,
  ) -> Read:
    """Reads an image.

    Args:
      visual: [B, N, D], of the encoder.
      ids: i32[B, n], the characters to be counted; None for all.
      keys: Key[B] of stochastic depth; None for none.
      counts: whether they are counted at all: nothing else depends on it.
    """
    b, n = visual.shape[:2]
    depth = self.layers + self.edge_layers
    stays = [(None, None)] * self.layers + [(None,)] * self.edge_layers
    if keys is not None and self.drop:
      both = jax.vmap(jax.random.split, out_axes=1)(keys)
      rates = [drop_path(k, self.drop, depth) for k in both]
      stays = [(rates[0][i], rates[1][i]) for i in range(depth)]
    visual = visual + self.visual_pos
    places = math.sqrt(self.width) * self.place.embedding[None] + self.place_pos
    places = jnp.broadcast_to(places, (b, *places.shape[1:]))
    nodes = self.nodes(b, ids)[:, : None if counts else 0]
    of_counts = jnp.concatenate([nodes, visual], 1)
    of_places = jnp.concatenate([places, visual], 1)
    pairs = zip(self.counting, self.placing, stays, strict=False)
    for counting, placing, own in pairs:
      of_counts = counting(of_counts, of_counts[:, -n:], own[0])
      of_places = placing(of_places, of_places[:, -n:], own[1])
    nodes, visual = of_counts[:, :-n], of_counts[:, -n:]
    x = places = of_places[:, :-n]
    for i, edge in enumerate(self.edges):
      own = stays[self.layers + i][0]
      if self._looks(i):
        x = edge(x, visual, own)
      else:
        x = edge(x, x, own, makers.blocks(self.places, 1))
    return Read(
      self.head.logits(x),
      self.place_head.logits(places),
      self.count_head.logits(nodes) if counts else None,
    )


def counted(ids: Array, real: Array, vocab: int, most: int) -> Array:
  """i32[B, C]: how often each character comes among ids i32[B, P], of those
  that are `real` bool[B, P], the end among them; `most` at most."""
  found = jax.nn.one_hot(ids, vocab, dtype=jnp.int32) * real[..., None]
  return jnp.minimum(found.sum(1), most)


def sampled(keys: Array, counts: Array, n: int) -> Array:
  """i32[B, n], sorted: the characters that are counted in training where there
  are too many of them: all that come (counts i32[B, C]), and others by keys
  Key[B]."""
  chance = jax.vmap(lambda k: jax.random.uniform(k, counts.shape[1:]))(keys)
  _, found = jax.lax.top_k(chance + (counts > 0), n)
  return jnp.sort(found, -1)
