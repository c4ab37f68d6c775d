"""The transformer of Infinity and its kin: a map of bits a step, of a text.

Infinity (arXiv 2412.04431), over the net of VAR: every layer looks at the text,
one vector of the text modulates all layers and is the first input, places turn
queries and keys on one fixed grid, and of a list of maps no parameter depends.

Shapes: B batch, L slots, T slots of one map, K bits of a slot, D width, S rows
of a text, C features of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.encoders import text as encoders
from ar_jax.nn.heads.codes import Bitwise
from ar_jax.nn.layers.attention import Attention, CosineNorm
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.layers.cross_attention import AttentivePool, CrossAttention
from ar_jax.nn.layers.linear import Linear, initial
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import AdaLN, LayerNorm, RMSNorm, SharedAdaLN
from ar_jax.nn.layers.positions import rope_on_grid
from ar_jax.nn.stacks.blocks import Block
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
Cond = Mapping[str, Array]


class TextMemory(nn.Module):
  """What the layers look at of a text, and one vector of it.

  Where a text is hidden, its features are learned rows, as many as it has.

  Attributes:
    encoder: text -> features [B, S, C]; it has `width` C, `length` S, `example`
      and `align`, see `encoders.text`.
    width: D.
    length: rows that are learned for no text; at least S.
    stddev: initial standard deviation of the matrices.
    dtype: of the computation.
  """

  encoder: nn.Module
  width: int
  length: int
  stddev: float = 0.02
  dtype: jnp.dtype = jnp.float32

  @property
  def pool_heads(self) -> int:
    """Heads of the pool: 128 features of the text each, of wide nets 64."""
    each = 64 if self.width > 4096 else 128
    return max(1, self.encoder.width // each)

  @nn.compact
  def __call__(
    self, given: Array, hidden: Array | None = None
  ) -> tuple[Array, Array, Array]:
    """The vector [B, D], the features [B, S, D], and bool[B, S] which of them
    are no padding.

    Args:
      given: the text as the encoder reads it.
      hidden: bool[B], whose text is not shown; None for nobody.
    """
    features = self.encoder(given).astype(jnp.float32)
    seen = self.encoder.align(given)[1]
    shape = self.length, self.encoder.width
    init = nn.initializers.normal(1 / math.sqrt(shape[1]))
    null = self.param("null", init, shape)
    if hidden is not None:
      # Row n of them for row n of the text, wherever its padding lies.
      place = jnp.maximum(jnp.cumsum(seen, 1) - 1, 0)
      rows = jnp.take(null, place, axis=0)
      features = jnp.where(hidden[:, None, None], rows, features)
    x = RMSNorm(1e-6, name="norm")(features).astype(self.dtype)
    pool = AttentivePool(
      self.width,
      self.pool_heads,
      self.stddev,
      self.stddev,
      self.dtype,
      name="pool",
    )
    dense = lambda name: Linear(
      self.width,
      kernel_init=initial(self.stddev),
      dtype=self.dtype,
      name=name,
    )
    memory = dense("fc2")(nn.gelu(dense("fc1")(x), approximate=True))
    return pool(x, seen).astype(jnp.float32), memory, seen


class PromptedScales(nn.Module):
  """The transformer over the maps of one image, of a text.

  A condition is a mapping with `text` and perhaps `hidden` bool[B], whose text
  is not shown.

  Attributes:
    plan: the maps.
    shapes: (h, w) of each.
    ground: (H, W), the grid on which places are counted; see
      `positions.rope_on_grid`.
    levels: rows of the table of maps, as many as there may be.
    text: reads the condition.
    width: D.
    stddev: initial standard deviation of the embeddings.
    backbone: the stack.
    head: the law of a unit.
  """

  plan: Plan
  shapes: tuple[tuple[int, int], ...]
  ground: tuple[int, int]
  levels: int
  text: TextMemory
  width: int
  stddev: float
  backbone: Backbone
  head: Bitwise

  labels = None

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.start = self.param("start", init, (self.width,))
    self.level = self.param("level", init, (self.levels, self.width))
    self.latent = nn.Dense(self.width, kernel_init=init)

  def example(self) -> dict[str, Array]:
    """A condition of the right shape, of one example."""
    return {"text": self.text.encoder.example()}

  def silent(self, batch: int) -> dict[str, Array]:
    """The condition of no text, for so many examples: the learned rows, all of
    them."""
    text = jnp.ones_like(self.example()["text"])
    text = jnp.broadcast_to(text, (batch, *text.shape[1:]))
    return {"text": text, "hidden": jnp.ones(batch, bool)}

  def begin(self, cond: Cond) -> tuple[Array, Any]:
    """The first slot [B, 1, D] and what the stack needs of a condition."""
    pooled, features, seen = self.text(cond["text"], cond.get("hidden"))
    memory = self.backbone.remember(features, seen)
    first = pooled + self.start[None]
    return first[:, None], (self.backbone.condition(pooled), memory)

  def __call__(
    self,
    cond: Cond,
    embedding: Array,
    keys: Array | None = None,
    **run: Any,
  ) -> Array:
    """Hidden states f32[B, L, D] of all slots, for training.

    Args:
      cond: see above.
      embedding: [B, L, K], what is known before each map; the first slot is
        unused.
      keys: Key[B] for stochastic depth, or None.
      **run: of `Backbone`.
    """
    first, (ada, memory) = self.begin(cond)
    x = jnp.concatenate([first, self.latent(embedding[:, 1:])], axis=1)
    x = x + self.places()[None]
    return self.backbone(
      x, self.plan, pos=self.turns(), cond=ada, memory=memory, keys=keys, **run
    )[0]

  def step(
    self, s: int, x: Array, cond: Any, cache: Cache, **run: Any
  ) -> tuple[Array, Cache]:
    """Hidden states [B, T, D] of map s for its input [B, T, D]; `run` as of
    `Backbone`."""
    return self.read(self.plan.span(s), x, cond, cache, **run)

  def read(
    self, span: slice, x: Array, cond: Any, cache: Cache, **run: Any
  ) -> tuple[Array, Cache]:
    """As `step`, of the slots `span`, which are those of whole maps behind
    the filled rows of the cache; of several, a map sees none behind it."""
    ada, memory = cond
    mask, level = None, self.plan["step"][span]
    if level[0] != level[-1]:
      sees = self.plan.mask(span)[:, : span.stop]
      mask = jnp.asarray(sees)[None, None]
    x = x + self.places(span)[None]
    turns = self.turns()[span]
    return self.backbone(
      x, mask, pos=turns, cond=ada, memory=memory, cache=cache, **run
    )

  def places(self, span: slice = slice(None)) -> Array:
    """f32[T, D]: of which map the slots of the plan are."""
    return jnp.take(self.level, jnp.asarray(self.plan["step"])[span], axis=0)

  def turns(self) -> np.ndarray:
    """f32[L, E / 2, 2]: the rotations of all slots, of heads of E features."""
    features = self.backbone.head_width(self.width)
    return rope_on_grid(self.shapes, self.ground, features)

  def on(
    self,
    shapes: tuple[tuple[int, int], ...],
    ground: tuple[int, int] | None = None,
  ) -> PromptedScales:
    """The same net on other maps, and perhaps another ground."""
    plan, ground = makers.scales(shapes), ground or self.ground
    return self.clone(plan=plan, shapes=shapes, ground=ground)

  def cache(self, batch: int) -> Cache:
    """An empty cache for all slots."""
    return self.backbone.cache(batch, len(self.plan), self.width)


def prompted_scales(
  shapes: tuple[tuple[int, int], ...],
  bits: int,
  *,
  depth: int,
  width: int,
  heads: int,
  text: Mapping[str, Any] | None = None,
  ground: tuple[int, int] | None = None,
  levels: int = 15,
  null_length: int | None = None,
  mlp_ratio: int = 4,
  drop_path: float = 0.1,
  gate_init: float = 5e-6,
  pairs: bool = False,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> PromptedScales:
  """The net with Infinity's stack and initial values.

  Args:
    shapes: (h, w) of the maps, in units.
    bits: K.
    depth: layers.
    width: D.
    heads: of attention.
    text: `{"name": an encoder, **its arguments}`, see `encoders.text`; bytes if
      None.
    ground: see `PromptedScales`; the finest of the maps if None.
    levels: rows of the table of maps.
    null_length: rows that are learned for no text; as many as a text may have
      if None.
    mlp_ratio: hidden width of the MLP in multiples of D, in steps of 256.
    drop_path: stochastic depth of the last layer.
    gate_init: initial size of the gates of the blocks, over sqrt(D).
    pairs: see `heads.codes.Bitwise`.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation of the blocks.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  if len(shapes) > levels:
    raise UserError(f"{len(shapes)} maps: the table of maps has {levels} rows")
  encoder = encoders.make(**(text or {}))
  rows = null_length or encoder.length
  if rows < encoder.length:
    raise UserError(
      f"null_length={rows}: a text may have {encoder.length} positions"
    )
  stddev = math.sqrt(1 / (3 * width))
  out_stddev = stddev / math.sqrt(2 * depth)
  dtype = jnp.dtype(dtype)
  common = dict(
    bias="qv", stddev=stddev, out_stddev=out_stddev, dtype=dtype, impl=impl
  )
  mixer = Attention(heads, scale=1.0, norm=CosineNorm(heads), **common)
  # As published; narrower nets than these have no step of 256.
  hidden = 256 * round(mlp_ratio * width / 256) or mlp_ratio * width
  block = Block(
    mixer,
    Mlp(hidden, stddev, out_stddev, dtype),
    cross=CrossAttention(width, heads, **common),
    cross_norm=LayerNorm(1e-6),
  )
  parts = (gate_init, gate_init, 1e-3, 1e-3, 1e-3, 1e-3)
  table = tuple(part / math.sqrt(width) for part in parts)
  backbone = Backbone(
    block,
    depth,
    SharedAdaLN(depth, stddev, table, dtype),
    AdaLN(1, (1e-3 * stddev,) * 2),
    drop=drop_path,
    remat=remat,
    dtype=dtype,
  )
  memory = TextMemory(encoder, width, rows, stddev, dtype)
  if width % memory.pool_heads:
    raise UserError(
      f"width={width} is not a multiple of the {memory.pool_heads} heads that "
      "pool the text"
    )
  return PromptedScales(
    makers.scales(shapes),
    shapes,
    ground or shapes[-1],
    levels,
    memory,
    width,
    stddev,
    backbone,
    Bitwise(bits, 0.02 * stddev, pairs),
  )
