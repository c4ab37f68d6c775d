"""SDAR: a trained autoregressive model made to fill blocks of units at once.

SDAR: A Synergistic Diffusion-AutoRegression Paradigm for Scalable Sequence
Generation (arXiv 2510.06303). New in it:
  - the weights and layers of a model of one unit a step, which goes on training
    with another mask: all of a block of N units sees itself and the blocks
    before it, and what is hidden of it is predicted where it is, nothing being
    shifted;
      L = 1/L_i sum_{i hidden} -log p(x_i | block, blocks before) / p,
    where units are hidden with probability p = (1 - 10^-3) t + 10^-3, t ~ U;
  - a block is filled in a few forwards, in which all units are committed that
    are sure enough.

A model of one unit a step is taken over by `weights.params`: `llamagen` of the
same sizes, over texts or images.

Shapes: B batch, L units, N units of a block, R tries, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.block.net import BlockNet
from ar_jax.families.block.system import BlockWise
from ar_jax.families.token.prefix import Nothing
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import (
  coded,
  order,
  prefix,
  training_noise,
)
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.stacks.llama import llama

# The published models, whose code is that of Qwen3: arguments of `build`. The
# one of experts, 30B-A3B, has layers that are not here.
QWEN = dict(features=128, head_norm="rms", eps=1e-6, base=1e6, start=False)
SIZES = {
  "1.7b": dict(depth=28, width=2048, heads=16, kv_heads=8, hidden=6144),
  "4b": dict(depth=36, width=2560, heads=32, kv_heads=8, hidden=9728),
  "8b": dict(depth=36, width=4096, heads=32, kv_heads=8, hidden=12288),
}
VOCAB, MASK_ID = 151_936, 151_669
_LEAST = 1e-3  # the least probability of being hidden


@dataclasses.dataclass(frozen=True)
class SDAR(BlockWise):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts
  that are conditions the constant `null`.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes, on a grid or on a line.
    label_dropout: how often training hides the condition. 0 is a model without
      guidance.
    each_block: whether every block has a probability of its own, rather than
      every example.
    redraws: how often units are hidden again where none was, before one is
      forced. Published: 10, over a row of 20,480. Of short examples it makes
      the loss too large, at 64 units by 4 %, so 0 is none: the loss of such an
      example is 0.
  """

  net: BlockNet
  tokenizer: nn.Module
  label_dropout: float = 0.1
  each_block: bool = False
  redraws: int = 0

  def noise(self, keys: Array) -> tuple[Array, Array]:
    """What is hidden of each example, bool[B, L], and with which probability,
    f32[B, L]."""
    return jax.vmap(self._noise)(keys)

  def _noise(self, key: Array) -> tuple[Array, Array]:
    length, size = len(self.plan), self.net.block
    many = -(-length // size) if self.each_block else 1
    time, units, forced = jax.random.split(key, 3)
    p = (1 - _LEAST) * jax.random.uniform(time, (many,)) + _LEAST
    p = jnp.repeat(p, size if self.each_block else length)[:length]
    tries = jax.random.uniform(units, (1 + self.redraws, length)) < p[None]
    hide = tries[jnp.argmax(jnp.any(tries, 1))]
    if self.redraws:
      one = jnp.arange(length) == jax.random.randint(forced, (), 0, length)
      hide = jnp.where(jnp.any(hide), hide, one)
    return hide, p

  def counted(self, units: Array) -> Array | None:
    """Which units i32[B, L] count: up to the block in which an example ends,
    whose rest is what the model must draw; None for all."""
    if self.stop is None:
      return None
    ends = units == self.stop
    first = jnp.argmax(ends, 1) // self.net.block
    first = jnp.where(jnp.any(ends, 1), first, len(self.plan))
    block = jnp.arange(len(self.plan)) // self.net.block
    return block[None] <= first[:, None]

  def bound(
    self,
    logits: Array,
    units: Array,
    hide: Array,
    p: Array,
    counted: Array | None,
  ) -> Array:
    """f32[B]: the sum over hidden units of -log p(x) / p, divided by the units
    that count, hidden or not.

    Args:
      logits: f32[B, L, V] where they are hidden.
      units: i32[B, L].
      hide, p: as in `noise`.
      counted: as there.
    """
    each = jnp.where(hide, cross_entropy(logits, units) / p, 0.0)
    if counted is None:
      return jnp.mean(each, 1)
    return jnp.sum(jnp.where(counted, each, 0.0), 1) / jnp.sum(counted, 1)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """`value` is a draw of the bound of -log p of a unit; outside of training
    `nll` is that of the law of one unit after the other, from the left."""
    batch = self.encode(variables, batch)
    cond, units = self.condition(batch), batch["units"]
    net = self.net.bind(self.net_variables(variables))
    hidden, keys = None, None
    fresh = system.example_keys(jax.random.fold_in(key, 1), batch)
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    hide, p = self.noise(fresh)
    h = net.noisy(cond, units, hide[:, None], hidden, keys)[:, 0]
    logits, counted = net.head.logits(h), self.counted(units)
    value = self.bound(logits, units, hide, p, counted)
    seen = hide if counted is None else hide & counted
    hits = jnp.sum(seen & (jnp.argmax(logits, -1) == units), 1)
    metrics = {"accuracy": hits / jnp.maximum(jnp.sum(seen, 1), 1)}
    if train:
      return Loss(value, metrics)
    nll = cross_entropy(self.logits(variables, cond, units), units)
    if counted is None:
      return Loss(value, metrics, nll=nll)
    nll = jnp.where(counted, nll, 0.0)
    count = jnp.sum(counted, 1).astype(jnp.float32)
    return Loss(value, metrics, nll=nll, units=count)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  block: int = 4,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  start: bool = True,
  mask_id: int | None = None,
  base: float = 1e4,
  each_block: bool = False,
  redraws: int = 0,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> SDAR:
  """Builds SDAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "given", ...}` for text; `{"name": "vq", **arguments}`.
    depth: layers.
    width: D.
    heads: of attention.
    block: N.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    start: whether a model without a condition has a position before the first
      unit, as those of one unit a step must have.
    mask_id: see `BlockNet`.
    base: see `positions.rope`.
    each_block, redraws: see `SDAR`.
    prefix_rope: see `positions.rope`.
    label_dropout: see `SDAR`.
    token_dropout: of the embeddings.
    **stack: kv_heads, features, head_norm, hidden, eps, multiple_of, dropout,
      drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or not exactly one of num_classes and
      text is given.
  """
  codes = coded(tokenizer, "blocks are filled with codes")
  plan = order(codes)
  if not 1 <= block <= len(plan):
    raise UserError(f"block={block}: must be in 1..{len(plan)}, the units")
  if mask_id is not None and not 0 <= mask_id < codes.vocab:
    raise UserError(f"mask_id={mask_id}: must be below vocab={codes.vocab}")
  if redraws < 0:
    raise UserError(f"redraws={redraws}: must be at least 0")
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  before = prefix(width, num_classes, text, label_dropout)
  if not start:
    if num_classes != 0:
      raise UserError("start=False: only without a condition, num_classes=0")
    before = Nothing(width)
  net = BlockNet(
    plan,
    block,
    Embed(codes.vocab, width),
    width,
    before,
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    base,
    token_dropout,
    mask_id,
  )
  return SDAR(net, codes, label_dropout, each_block, redraws)
