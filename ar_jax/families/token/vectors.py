"""A Llama over vectors, one after the other, each drawn from a law that its
hidden state says.

With a mixture of normal laws it is the causal model of GIVT (Generative
Infinite-Vocabulary Transformers, arXiv 2312.02116), but for guidance, which is
of the numbers of the mixture, so that its law stays a mixture; the paper's is
of densities. The diffusion head of MAR (arXiv 2406.11838) may stand in its
place.

Shapes: B batch, L units, C channels of a unit, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from ar_jax.core import system
from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import Latents
from ar_jax.families.token.system import order, prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.density import Mixture
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.stacks.llama import llama

HEADS = ("mixture", "diffusion")


@dataclasses.dataclass(frozen=True)
class VectorWise(TokenWise):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: of continuous units; see `tokenizers.kl_vae`.
    label_dropout: how often training hides the class. 0 is a model without
      guidance.
  """

  net: NextToken
  tokenizer: nn.Module
  label_dropout: float = 0.1


@system.passes_on(llama)
def vector_wise(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  head: str = "mixture",
  components: int = 16,
  least: float = 1e-3,
  head_depth: int = 3,
  head_width: int = 128,
  levels: int = 1000,
  repeats: int = 4,
  most: float = 0.999,
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> VectorWise:
  """Builds the system.

  Args:
    tokenizer: `{"name": "kl_vae" or "patches", **arguments}`.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    head: "mixture", or "diffusion".
    components: of a mixture.
    least: its smallest deviation, see `Mixture`.
    head_depth: layers of a diffusion head.
    head_width: its width.
    levels: of its noise.
    repeats: noises that every hidden state is trained with.
    most: of its noise that a level adds at most, see `Diffusion`.
    label_dropout: see `VectorWise`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or a name is not one.
  """
  latents = system.part(tokenizer).tokenizer
  check_choice("head", head, HEADS)
  if latents.vocab is not None:
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: its units are codes; this model draws "
      "vectors, as of 'kl_vae' or 'patches'"
    )
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  c = latents.channels
  law = (
    Mixture(c, components, least=least)
    if head == "mixture"
    else Diffusion(
      TokenMLP(c, head_width, head_depth, 2 * c), levels, repeats, most
    )
  )
  net = NextToken(
    order(latents),
    Latents(c, width),
    width,
    prefix(width, num_classes, None, label_dropout),
    llama(depth, width, heads, **stack),
    law,
    dropout=token_dropout,
  )
  return VectorWise(net, latents, label_dropout)
