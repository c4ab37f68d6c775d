"""The masked arm of ELM: cells of several codes, all seen at once, of which
those that are hidden are predicted (Elucidating the design space of language
models for image generation, arXiv 2410.16257; in the line of MaskGIT, arXiv
2202.04200).

Shapes: B batch, L cells, t codes of a cell, V values of a code, D width, T
steps of sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.plan import Plan
from ar_jax.families.token.prefix import ClassPrefix, Cond
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.layers.positions import rope_grid
from ar_jax.nn.stacks.blocks import dropout
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class MaskedCodes(nn.Module):
  """The transformer over a class and all codes.

  Every code is a position of its own, at the place of its cell; the class
  fills as many. The law of a code is linear, GELU, LayerNorm and the product
  with the table of what is read, into which no gradient goes from there.

  As published, the codes of a hidden cell are read as the same and lie at the
  same place, so that the net gives all of them the same law.

  Attributes:
    plan: a raster.
    codes: t.
    vocab: V; the table has one row more, of what is hidden.
    width: D.
    prefix: of one class.
    backbone: the stack.
    distinct: adds a learned vector for each of the t codes, so that a hidden
      cell can tell them apart; not published.
    dropout: of the embeddings, in training.
  """

  plan: Plan
  codes: int
  vocab: int
  width: int
  prefix: ClassPrefix
  backbone: Backbone
  distinct: bool = False
  dropout: float = 0.0

  def setup(self):
    init = nn.initializers.normal(0.02)
    self.units = nn.Embed(self.vocab + 1, self.width, embedding_init=init)
    self.fc = nn.Dense(self.width, kernel_init=init)
    self.norm = LayerNorm(1e-5)
    zeros = nn.initializers.zeros
    self.bias = self.param("bias", zeros, (self.vocab + 1,))
    if self.distinct:
      self.code = self.param("code", init, (self.codes, self.width))

  def rotations(self) -> Array:
    """f32[t (1 + L), K / 2, 2]; those of the class are zero, as in
    `rope_grid`."""
    features = self.width // self.backbone.block.mixer.heads
    table = rope_grid(self.plan, features, prefix=1, prefix_rope="zero")
    return jnp.asarray(np.repeat(table, self.codes, axis=0))

  def logits(
    self,
    cond: Cond,
    units: Array,
    hide: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, t, V] of every code.

    Args:
      cond: what `prefix` takes.
      units: i32[B, L, t]; those of hidden cells are not read.
      hide: bool[B, L], the hidden cells.
      hidden: bool[B], examples whose condition is not visible.
      keys: Key[B] for dropout, or None.
    """
    b, length, t = units.shape
    x = self.units(jnp.where(hide[..., None], self.vocab, units))
    if self.distinct:
      x = x + self.code[None, None]
    before = jnp.repeat(self.prefix(cond, hidden), t, axis=1)
    x = jnp.concatenate([before, x.reshape(b, length * t, -1)], axis=1)
    x = dropout(x, keys, self.dropout, self.backbone.depth)
    h, _ = self.backbone(x, pos=self.rotations(), keys=keys)
    h = self.norm(nn.gelu(self.fc(h[:, t:]), approximate=False))
    table = jax.lax.stop_gradient(self.units.embedding[: self.vocab])
    logits = h @ table.T + self.bias[None, None, : self.vocab]
    return logits.reshape(b, length, t, self.vocab)


def masked_counts(length: int, steps: int) -> np.ndarray:
  """How many cells training hides at each of T steps, i32[T]: a cosine, from
  all cells at the first on."""
  share = np.cos(np.pi / 2 * np.arange(steps) / steps)
  return np.maximum(1, np.floor(length * share + 1e-9)).astype(np.int32)


def confident(
  predict: Callable[[Array, Array, Array], Array],
  keys: Array,
  shape: tuple[int, int],
  scales: Sequence[float],
  *,
  noise: float = 4.5,
  gumbel: Callable[[Array, Array], Array] | None = None,
  **law: float,
) -> tuple[Array, Array]:
  """Draws all cells at once, keeps those of which the law is surest, and does
  so again with the others, in as many steps as there are scales.

  A cell's confidence is the mean over its codes of log p, of the guided law
  before temperature and filters, plus Gumbel noise that falls to 0.

  Args:
    predict: (units i32[B, L, t], hide bool[B, L], scale f32[]) -> guided
      logits f32[B, L, t, V].
    keys: Key[B].
    shape: (L, t).
    scales: of guidance, one for each of T steps.
    noise: of the confidence at the start.
    gumbel: (step i32[], keys) -> f32[B, L, t], in place of noise by the keys.
    **law: see `pick.law`.

  Returns:
    Units i32[B, L, t]; and which cells were hidden again after each step,
    bool[T, B, L], of which the last is without effect.
  """
  length, t = shape
  steps = len(scales)
  ratio = np.arange(1, steps + 1) / steps
  left = np.floor(length * np.cos(np.pi / 2 * ratio) + 1e-9)
  if gumbel is None:
    drawn = lambda key: jax.random.gumbel(key, (length, t))
    gumbel = lambda step, keys: jax.vmap(drawn)(fold(keys, steps + step))

  def step(carry, now):
    units, hide = carry
    s, scale, left, noise = now
    logits = predict(units, hide, scale)
    own = pick.draw(pick.law(logits, **law), fold(keys, s))
    units = jnp.where(hide[..., None], own, units)
    logp = jax.nn.log_softmax(logits, -1)
    sure = jnp.take_along_axis(logp, units[..., None], -1)[..., 0]
    sure = (sure + noise * gumbel(s, keys)).mean(-1)
    sure = jnp.where(hide, sure, jnp.inf)
    count = jnp.clip(left, 1, jnp.maximum(1, hide.sum(1) - 1))
    rank = jnp.argsort(jnp.argsort(sure, axis=1), axis=1)
    hide = rank < count[:, None]
    return (units, hide), hide

  b = len(keys)
  start = jnp.zeros((b, length, t), jnp.int32), jnp.ones((b, length), bool)
  now = (
    jnp.arange(steps),
    jnp.asarray(scales, jnp.float32),
    jnp.asarray(left, jnp.int32),
    jnp.asarray(noise * (1 - ratio), jnp.float32),
  )
  (units, _), hides = jax.lax.scan(step, start, now)
  return units, hides
