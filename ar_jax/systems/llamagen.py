"""LlamaGen: images from classes or texts, one token after the other.

Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation
(arXiv 2406.06525). New in it: nothing but the recipe, which makes it the
baseline of all discrete decoders:
  - an unchanged Llama (RMSNorm, SwiGLU, rotary positions, no biases);
  - over the codes of a VQ tokenizer in raster order;
  - behind a prefix of one class, or of the features of a text, which guidance
    replaces by a null class or text.

Without a condition, over the symbols of a text, it is a language model.

Shapes: D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.errors import UserError
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.placed import Placed
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import order, prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.stacks.llama import llama

# The published models: arguments of `build`. The text-conditional ones have
# the widths of XL (released), 1B and 7B.
SIZES = {
  "b": dict(depth=12, width=768, heads=12),
  "l": dict(depth=24, width=1024, heads=16),
  "xl": dict(depth=36, width=1280, heads=20),
  "xxl": dict(depth=48, width=1536, heads=24),
  "3b": dict(depth=24, width=3200, heads=32),
  "1b": dict(depth=22, width=2048, heads=32),
  "7b": dict(depth=32, width=4096, heads=32),
}
POSITIONS = ("rope", "learned")


@dataclasses.dataclass(frozen=True)
class LlamaGen(TokenWise):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts
  the constant `null`.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes that lie on one grid, as `VQ`, or on a line.
    label_dropout: how often training hides the condition. 0 is a model
      without guidance.
  """

  net: NextToken
  tokenizer: nn.Module
  label_dropout: float = 0.1


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  prefix_rope: str = "zero",
  positions: str = "rope",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> LlamaGen:
  """Builds LlamaGen; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "vq", **arguments}`; `{"name": "given", ...}` for
      text.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    prefix_rope: see `positions.rope`.
    positions: "rope", or "learned": a table that is added to what is read, as
      the transformers over GigaTok's codes have it (arXiv 2504.08736).
    label_dropout: see `LlamaGen`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, not exactly one of num_classes and
      text is given, or there are no such positions.
  """
  if positions not in POSITIONS:
    raise UserError(
      f"positions={positions!r}: choose one of {', '.join(POSITIONS)}"
    )
  codes = system.part(tokenizer).tokenizer
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  net = (Placed if positions == "learned" else NextToken)(
    order(codes),
    Embed(codes.vocab, width),
    width,
    prefix(width, num_classes, text, label_dropout),
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    dropout=token_dropout,
  )
  return LlamaGen(net, codes, label_dropout)
