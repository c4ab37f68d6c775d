"""Token-Shuffle: s x s codes of an image folded into one position of a Llama.

Token-Shuffle: Towards High-Resolution Image Generation with Autoregressive
Models (arXiv 2504.17789). New in it:
  - codes need fewer numbers than a position has, so a window of k = s s codes
    is read as one vector, and all are predicted from one hidden state:
      x_w = M(concat_j A e(c_wj)),        h_w = Llama(cond, x_0 .. x_{w-1}),
      p(c_w | before) = prod_j softmax(U norm(G (S M'(h_w))_j)),
    where A maps D to D / k, S cuts into k parts of D / k, G maps these to D,
    and M, M' are residual MLPs; the shift by one is of windows;
  - guidance grows linearly until the middle, `schedule="half_linear"`, since
    the model without a condition knows nothing about the first windows;
  - at the largest size the loss has a term z mean(logsumexp(logits)^2).

No code is public; the MLPs and the order inside a window are ours. The paper
trains on its texts as well, as one vocabulary with the codes; here a text is a
condition, which is read and not predicted.

Shapes: B batch, N codes of an image, W = N / k windows, the units, D width, V
codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.core.plans.entities import cells
from ar_jax.core.system import Array, Batch, Loss, Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import Folded
from ar_jax.families.token.system import prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.unfolded import Unfolded
from ar_jax.nn.layers.norms import Identity
from ar_jax.nn.stacks.llama import llama

# The published model: arguments of `build`. Its number of heads is not known
# here; heads are 128 wide, as in models of its size.
SIZES = {"2.7b": dict(depth=20, width=3072, heads=24)}


@dataclasses.dataclass(frozen=True)
class TokenShuffle(TokenWise):
  """The system. Units are windows i32[B, W, k], row by row, as are the codes in
  each. Variables: `params`, the frozen `tokenizer`, and for texts the constant
  `null`.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes that lie on one grid.
    window: s.
    label_dropout: how often training hides the condition. 0 is a model without
      guidance.
    z_loss: weight of the mean of logsumexp(logits)^2; 0 is off.
  """

  net: NextToken
  tokenizer: nn.Module
  window: int
  label_dropout: float = 0.1
  z_loss: float = 0.0

  @property
  def order(self) -> np.ndarray:
    """i32[N]: which code of the map, row by row, is the next one in windows."""
    plan = cells(*self.tokenizer.grid, self.window)
    return plan["row"] * self.tokenizer.grid[1] + plan["col"]

  def windows(self, codes: Array) -> Array:
    """[B, W, k] of codes [B, N], row by row."""
    shape = len(codes), len(self.plan), self.window**2
    return jnp.asarray(codes)[:, self.order].reshape(shape)

  def codes(self, units: Array) -> Array:
    """[B, N], row by row, of windows [B, W, k]."""
    return units.reshape(len(units), -1)[:, np.argsort(self.order)]

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.windows(super().tokenize(variables, x))

  def decode(self, variables: Vars, units: Array) -> Array:
    return super().decode(variables, self.codes(units))

  def decode_part(
    self, variables: Vars, units: Array, done: Array | int
  ) -> Array:
    """Images of the first `done` windows, as far as their rows are full: what
    a tokenizer can show of a map are its first rows."""
    across = self.tokenizer.grid[1] // self.window
    full = done // across * across * self.window**2
    return super().decode_part(variables, self.codes(units), full)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """`nll` is of a window, the sum over its codes; `value` a mean over
    codes."""
    found = super().loss(variables, batch, key, train=train)
    return dataclasses.replace(found, value=found.value / self.window**2)

  def terms(
    self, variables: Vars, batch: Batch, h: Array, tapped: Mapping[str, Any]
  ) -> dict[str, tuple[float, Array]]:
    if not self.z_loss:
      return {}
    net = self.net.bind(self.net_variables(variables))
    z = jax.nn.logsumexp(net.head.logits(h), -1)
    # `loss` divides by the codes of a window.
    weight = self.z_loss * self.window**2
    return {"z_loss": (weight, jnp.mean(jnp.square(z), (1, 2)))}


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  window: int = 2,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  blocks: int = 2,
  squeeze: int | None = None,
  z_loss: float = 0.0,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> TokenShuffle:
  """Builds Token-Shuffle; see SIZES for the published model.

  Args:
    tokenizer: `{"name": "vq", **arguments}`; its codes lie on one grid.
    depth: layers.
    width: D, a multiple of s s.
    heads: of attention.
    window: s, which divides the sides of the grid; 1 is a plain decoder
      between the two adapters.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`; in
      place of num_classes.
    blocks: residual MLPs of either adapter.
    squeeze: see `Folded`.
    z_loss: see `TokenShuffle`.
    prefix_rope: see `positions.rope`.
    label_dropout: see `TokenShuffle`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or not exactly one of num_classes and
      text is given.
  """
  codec = system.part(tokenizer).tokenizer
  if not hasattr(codec, "grid") or codec.vocab is None:
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: windows are of codes on one grid"
    )
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  cells(*codec.grid, window)  # complains of a window that does not fit
  layers = llama(depth, width, heads, Identity(), **stack)
  of = dict(codes=window**2, blocks=blocks, dtype=layers.dtype)
  net = NextToken(
    makers.raster(*(side // window for side in codec.grid)),
    Folded(codec.vocab, width, squeeze=squeeze, **of),
    width,
    prefix(width, num_classes, text, label_dropout),
    layers,
    Unfolded(vocab=codec.vocab, width=width, **of),
    prefix_rope,
    dropout=token_dropout,
  )
  return TokenShuffle(net, codec, window, label_dropout, z_loss)
