"""The transformer of VAR and its kin: one token map of an image per step.

Shapes: B batch, L slots, T slots of one map, C latent channels, D width, K
maps, V codes.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.plans.plan import Plan, Rule
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.attention import Attention, CosineNorm
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import AdaLN, SharedAdaLN
from ar_jax.nn.layers.positions import GridEmbed, SlotEmbed, grid_weights
from ar_jax.nn.stacks.blocks import Block
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
  """Slots that are data: some of a plan's, or those of another list of maps.

  Attributes:
    level: i32[T], the number of a slot's map; it is seen from there on. -1 is
      a pad, which nothing sees.
    place: what the positions of the net take: slots i32[T], or the weights
      f32[T, G] of the rows and of the columns of its table.
  """

  level: Array
  place: tuple[Array, ...]

  def mask(self, rule: Rule) -> Array:
    """bool[1, 1, T, T], by a rule of `core.plans` that reads the step alone."""
    q, k = self.level[:, None], self.level[None]
    return (rule({"step": q}, {"step": k}) & (k >= 0))[None, None]

  def take(self, index: Array, level: Array) -> Slots:
    """The slots `index` i32[T] alone, with other levels i32[T]."""
    return Slots(level, tuple(x[index] for x in self.place))


class NextScale(nn.Module):
  """The transformer over the maps of one image.

  Attributes:
    plan: the scales.
    labels: rows of the class table, the null class among them.
    width: D.
    stddev: initial standard deviation of the embeddings.
    backbone: the stack.
    head: the law of a unit.
    grid: side of the one table of positions that is resized to every map, so
      that no parameter depends on the plan; None has a vector for each slot
      and for each map.
  """

  plan: Plan
  labels: int
  width: int
  stddev: float
  backbone: Backbone
  head: Categorical
  grid: int | None = None

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.start = self.param("start", init, (self.width,))
    self.latent = nn.Dense(self.width, kernel_init=init)
    if self.grid:
      self.slots = GridEmbed(self.grid, self.width)
    else:
      self.slots = SlotEmbed(self.plan, self.width, self.stddev)

  def begin(self, label: Array) -> tuple[Array, tuple[Array, Array]]:
    """The first slot [B, 1, D] and what the stack needs of label i32[B]."""
    cond = self.label(label)
    first = cond + self.start[None]
    return first[:, None], self.backbone.condition(cond)

  def __call__(
    self,
    label: Array,
    embedding: Array,
    keys: Array | None = None,
    *,
    extra: Array | None = None,
    at: Slots | None = None,
    start: bool = True,
  ) -> Array:
    """Hidden states f32[B, L, D] of all slots, for training.

    Args:
      label: i32[B].
      embedding: [B, L, C], the tokenizer's `embed`; the first slot is unused.
      keys: Key[B] for stochastic depth, or None.
      extra: [B | 1, L, D], added to the input of every slot, or None.
      at: the slots, if they are not those of the plan.
      start: whether the first slot is told that it is the first, rather than
        the class alone.
    """
    first, cond = self.begin(label)
    if not start:
      first = self.label(label)[:, None]
    x = jnp.concatenate([first, self.latent(embedding[:, 1:])], axis=1)
    x = x if extra is None else x + extra
    where = self.places() if at is None else self.slots(*at.place)
    mask = self.plan if at is None else at.mask(self.plan.rule)
    return self.backbone(x + where[None], mask, cond=cond, keys=keys)[0]

  def step(
    self, s: int, x: Array, cond: tuple[Array, Array], cache: Cache
  ) -> tuple[Array, Cache]:
    """Hidden states [B, T, D] of scale s for its input [B, T, D]."""
    x = x + self.places(self.plan.span(s))[None]
    return self.backbone(x, cond=cond, cache=cache)

  def places(self, span: slice = slice(None)) -> Array:
    """f32[T, D]: where the slots of the plan are."""
    if not self.grid:
      return self.slots(span)
    return self.slots(*(w[span] for w in self._weights()))

  def plan_slots(self) -> Slots:
    """The slots of the plan as data."""
    level = jnp.asarray(self.plan["step"])
    if self.grid:
      return Slots(level, tuple(map(jnp.asarray, self._weights())))
    return Slots(level, (jnp.arange(len(self.plan)),))

  def cache(self, batch: int) -> Cache:
    """An empty cache for all slots."""
    return self.backbone.cache(batch, len(self.plan), self.width)

  def _weights(self):
    return grid_weights(self.plan, self.grid)


def next_scale(
  plan: Plan,
  vocab: int,
  labels: int,
  *,
  depth: int,
  width: int | None = None,
  heads: int | None = None,
  mlp_ratio: int = 4,
  qk_norm: bool = True,
  shared_ada: bool = False,
  drop_path: float | None = None,
  gate_init: float = 1e-3,
  head_init: float = 0.02,
  grid: int | None = None,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> NextScale:
  """The net with VAR's stack and initial values.

  Args:
    plan: the scales.
    vocab: V.
    labels: rows of the class table.
    depth: layers.
    width: D; 64 * depth if None.
    heads: `depth` if None.
    mlp_ratio: hidden width of the MLP in multiples of D.
    qk_norm: unit queries and keys with learned temperatures; without, scores
      are scaled by 0.25 / sqrt(D / heads).
    shared_ada: one modulation for all layers plus a table (d36-s).
    drop_path: stochastic depth of the last layer; 0.1 * depth / 24 if None.
    gate_init: initial factor on the gates of the blocks.
    head_init: the same on the matrix of the logits.
    grid: see `NextScale`.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation of the blocks.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  width, heads = width or 64 * depth, heads or depth
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  stddev = math.sqrt(1 / (3 * width))
  out_stddev = stddev / math.sqrt(2 * depth)
  dtype = jnp.dtype(dtype)
  mixer = Attention(
    heads,
    scale=1.0 if qk_norm else 0.25 * math.sqrt(heads / width),
    norm=CosineNorm(heads) if qk_norm else None,
    bias="qv",
    stddev=stddev,
    out_stddev=out_stddev,
    dtype=dtype,
    impl=impl,
  )
  mlp = Mlp(mlp_ratio * width, stddev, out_stddev, dtype)
  # Gates, scales, shifts, of the attention and the MLP each.
  parts = (gate_init, gate_init, 0.5, 0.5, 0.5, 0.5)
  scaled = lambda by: tuple(by * part for part in parts)
  ada = (
    SharedAdaLN(depth, stddev, scaled(1 / math.sqrt(width)), dtype)
    if shared_ada
    else AdaLN(depth, scaled(stddev), dtype)
  )
  backbone = Backbone(
    Block(mixer, mlp),
    depth,
    ada,
    AdaLN(1, (0.5 * stddev,) * 2),
    drop=0.1 * depth / 24 if drop_path is None else drop_path,
    remat=remat,
    dtype=dtype,
  )
  head = Categorical(vocab, head_init * stddev)
  return NextScale(plan, labels, width, stddev, backbone, head, grid)
