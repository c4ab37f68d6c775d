"""The decoder-only transformer of LlamaGen and its kin: a prefix that carries
the condition, then one unit of a grid after the other.

Shapes: B batch, P positions of the prefix, L units, T new positions, D width,
C features of a text.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plan import Plan, blocks
from ar_jax.core.system import Vars
from ar_jax.nn.attention import Cache
from ar_jax.nn.heads import Categorical
from ar_jax.nn.linear import TURNED, laid_out
from ar_jax.nn.positions import rope_grid
from ar_jax.nn.transformer import Backbone, dropout

Array = jax.Array


class ClassPrefix(nn.Module):
  """One position: a row of a table, whose last row stands for no class.

  Attributes:
    labels: rows.
    width: D.
    stddev: initial standard deviation.
  """

  labels: int
  width: int
  stddev: float = 0.02
  length = 1

  def example(self) -> Array:
    """A condition of the right shape, for one image."""
    return jnp.zeros((1,), jnp.int32)

  def seen(self, label: Array) -> None:
    """Nothing is padding."""
    del label

  @nn.compact
  def __call__(self, label: Array, hidden: Array | None = None) -> Array:
    """[B, 1, D] of label i32[B]; where `hidden` bool[B], of no class."""
    if hidden is not None:
      label = jnp.where(hidden, self.labels - 1, label)
    init = nn.initializers.normal(self.stddev)
    table = nn.Embed(self.labels, self.width, embedding_init=init, name="label")
    return table(label)[:, None]


class TextPrefix(nn.Module):
  """The features of a text through linear, tanh-GELU, linear; no biases.

  What stands for no text is a constant: the collection `null`, normal noise
  over sqrt(C) that is never trained (LlamaGen, arXiv 2406.06525).

  Attributes:
    encoder: text -> (features [B, P, C], bool[B, P] that are no padding); it
      has `length` P and `width` C.
    width: D.
    stddev: initial standard deviation.
  """

  encoder: nn.Module
  width: int
  stddev: float = 0.02
  labels = None

  @property
  def length(self) -> int:
    return self.encoder.length

  def example(self) -> Array:
    """A condition of the right shape, for one image."""
    return self.encoder.example()

  def seen(self, text: Array) -> Array:
    """bool[B, P]: the positions that are no padding."""
    return self.encoder.align(text)[1]

  @nn.compact
  def __call__(self, text: Array, hidden: Array | None = None) -> Array:
    """[B, P, D] of texts; where `hidden` bool[B], of no text."""
    features = self.encoder(text)
    shape = features.shape[1:]
    null = self.variable(
      "null",
      "features",
      lambda: (
        jax.random.normal(self.make_rng("params"), shape) / jnp.sqrt(shape[-1])
      ),
    )
    if hidden is not None:
      hidden = hidden[:, None, None]
      features = jnp.where(hidden, null.value[None], features)
    dense = lambda name: nn.Dense(
      self.width,
      use_bias=False,
      kernel_init=nn.initializers.normal(self.stddev),
      name=name,
    )
    return dense("fc2")(nn.gelu(dense("fc1")(features), approximate=True))


class NextToken(nn.Module):
  """The transformer over prefix and units.

  Position P - 1 predicts the first unit; the last unit is never read.

  Attributes:
    plan: a raster.
    vocab: of the units.
    width: D.
    prefix: condition -> [B, P, D]; of length P.
    backbone: the stack.
    head: the law of a unit.
    prefix_rope: see `positions.rope_grid`.
    stddev: initial standard deviation of the embedding of units.
    dropout: of the embeddings, in training.
  """

  plan: Plan
  vocab: int
  width: int
  prefix: ClassPrefix | TextPrefix
  backbone: Backbone
  head: Categorical
  prefix_rope: str = "zero"
  stddev: float = 0.02
  dropout: float = 0.0

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.units = nn.Embed(self.vocab, self.width, embedding_init=init)

  @property
  def rows(self) -> int:
    """Positions that are ever computed: P + L - 1."""
    return self.prefix.length + len(self.plan) - 1

  def turns(self) -> Array:
    """The rotations f32[P + L - 1, K / 2, 2] of all positions."""
    features = self.width // self.backbone.block.mixer.heads
    table = rope_grid(
      self.plan,
      features,
      prefix=self.prefix.length,
      prefix_rope=self.prefix_rope,
    )
    return jnp.asarray(table[: self.rows])

  def __call__(
    self,
    cond: Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, L, D] before each unit, for training.

    Arguments are those of `features`.
    """
    h = self.features(cond, units, hidden, keys)
    return h[:, self.prefix.length - 1 :]

  def features(
    self,
    cond: Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Hidden states f32[B, P + L - 1, D] of all positions.

    Args:
      cond: what `prefix` takes.
      units: i32[B, L].
      hidden: bool[B], examples whose condition is not shown; None for none.
      keys: Key[B] for dropout and stochastic depth, or None.
    """
    x = self._embed(cond, units[:, :-1], hidden)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    # A plan where it can be one: its hidden pairs are not computed.
    mask, seen = blocks(self.rows, 1), self.prefix.seen(cond)
    if seen is not None:
      mask = without(jnp.asarray(mask.mask())[None, None], seen)
    return self.backbone(x, mask, pos=self.turns(), keys=keys)[0]

  def ready(self, variables: Vars, rows: int) -> Vars:
    """The variables, made ready for a loop of steps of so many rows."""
    stack = variables["params"]["backbone"]["block"]
    return {**variables, TURNED: {"backbone": laid_out(stack, rows)}}

  def begin(
    self,
    cond: Array,
    units: Array | None = None,
    hidden: Array | None = None,
  ) -> tuple[Array, Cache]:
    """Reads the prefix, and units behind it, into a new cache.

    Arguments are those of `read`.

    Returns:
      Hidden states [B, M + 1, D], before each of these units and the next;
      and the cache.
    """
    h, cache = self.read(cond, units, hidden)
    return h[:, self.prefix.length - 1 :], cache

  def read(
    self,
    cond: Array,
    units: Array | None = None,
    hidden: Array | None = None,
    spare: int = 0,
  ) -> tuple[Array, Cache]:
    """As `begin`, with the hidden states of the prefix.

    Args:
      cond: what `prefix` takes.
      units: i32[B, M], known ones, M < L.
      hidden: as in `features`.
      spare: rows of the cache beyond those of an image.

    Returns:
      Hidden states [B, P + M, D], and the cache, whose index is traced.
    """
    if units is None:
      units = jnp.zeros((len(cond), 0), jnp.int32)
    x = self._embed(cond, units, hidden)
    cache = self.backbone.cache(len(x), self.rows + spare, self.width)
    mask, seen = cache.causal(x.shape[1]), self.prefix.seen(cond)
    if seen is not None:
      mask = without(mask, seen)
    pos = self.turns()[: x.shape[1]]
    h, cache = self.backbone(x, mask, pos=pos, cache=cache)
    cache = Cache(cache.k, cache.v, jnp.asarray(cache.index, jnp.int32))
    if jax.default_backend() == "cpu":
      cache = cache.taken_apart()
    return h, cache

  def step(
    self,
    units: Array,
    cache: Cache,
    seen: Array | None = None,
    tree: tuple[Array, Array] | None = None,
  ) -> tuple[Array, Cache]:
    """One more call.

    Args:
      units: i32[B, T]; each sees the cache and those before it.
      cache: of all before.
      seen: bool[B, P], what `prefix.seen` says.
      tree: which new unit sees which, bool[B, T, T], and how many places each
        lies behind the first, i32[B, T]; None for a line.

    Returns:
      Hidden states [B, T, D] after these units, and the cache with T more
      rows.
    """
    new = units.shape[1]
    mask = cache.causal(new) if tree is None else cache.among(tree[0])
    if seen is not None:
      mask = mask & shown(mask, seen)
    # Clipped only for examples that are finished.
    after = jnp.arange(new) if tree is None else tree[1]
    at = jnp.reshape(cache.index, (-1, 1))
    at = at + (after[None] if after.ndim == 1 else after)
    pos = jnp.take(self.turns(), at, axis=0, mode="clip")
    return self.backbone(self.units(units), mask, pos=pos, cache=cache)

  def _embed(self, cond: Array, units: Array, hidden: Array | None) -> Array:
    prefix = self.prefix(cond, hidden)
    return jnp.concatenate([prefix, self.units(units)], axis=1)


def shown(mask: Array, seen: Array) -> Array:
  """bool[B, 1, 1, S], false where a key is padding of the prefix."""
  rest = mask.shape[-1] - seen.shape[1]
  shown = jnp.pad(seen, ((0, 0), (0, rest)), constant_values=True)
  return shown[:, None, None]


def without(mask: Array, seen: Array) -> Array:
  """`mask` from row 0 on without the padding of the prefix. Padding still
  sees itself, so that no query is left with nothing."""
  own = jnp.eye(*mask.shape[2:], dtype=bool)[None, None]
  return mask & (shown(mask, seen) | own)
