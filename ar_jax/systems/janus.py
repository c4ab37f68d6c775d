"""Janus: images from prompts by a language model, one code after the other.

Janus: Decoupling Visual Encoding for Unified Multimodal Understanding and
Generation (arXiv 2410.13848), and Janus-Pro (arXiv 2501.17811); the half of it
that draws. New in it:
  - a decoder of text reads the prompt and goes on with the codes of an image,
    on one line of positions;
  - codes come in through a small perceptron from the short rows of the
    tokenizer, and go out through another one, so that the words keep their own
    table and their own head (the latter is not needed here);
  - guidance compares with a prompt whose inner ids are padding.

It is the model of which EAR erases concepts. What Janus understands of images,
its second encoder and its head of text, is left out.

Shapes: D width, V words, P positions of a prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.errors import UserError
from ar_jax.core.plans import makers
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prompts.prompt import Prompt
from ar_jax.families.token.readers import Embed, Projected
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Hidden
from ar_jax.nn.stacks.llama import llama

# The published models: arguments of `build`.
SIZES = {
  "1b": dict(depth=24, width=2048, heads=16, hidden=5632),
  "7b": dict(depth=30, width=4096, heads=32, hidden=11008),
}
# Of both: the ids of DeepSeek's tokenizer, whose texts bring the frame of a
# conversation and the tag of an image with them.
WORDS = dict(vocab=102_400, length=128, framed=False, pad=100_015, fill=-1)


@dataclasses.dataclass(frozen=True)
class Janus(TokenWise):
  """The system. Variables: `params` and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes that lie on one grid, as `VQ`.
    label_dropout: how often training hides the prompt. 0 is a model without
      guidance.
  """

  net: NextToken
  tokenizer: nn.Module
  label_dropout: float = 0.1


def _prompt(
  width: int,
  *,
  vocab: int,
  length: int,
  framed: bool = True,
  pad: int = 0,
  fill: int = 0,
) -> Prompt:
  """What reads a prompt.

  Args:
    width: D.
    vocab: V, ids of words.
    length: ids of a text at most.
    framed: whether a beginning and a tag are put around every text, with rows
      of their own behind V, and one more for padding. If not, texts bring
      what they need, and `pad` is one of their ids.
    pad: id of the padding of an empty prompt.
    fill: id that fills texts up.
  """
  if vocab < 1 or length < 1:
    raise UserError(
      f"words.vocab={vocab}, words.length={length}: must be at least 1"
    )
  more = dict(pad=pad, fill=fill)
  if framed:
    more = dict(pad=vocab, fill=fill, begin=vocab + 1, tag=vocab + 2)
  rows = vocab + 3 * framed
  if not 0 <= more["pad"] < rows:
    raise UserError(f"words.pad={pad}: must be one of {vocab} ids")
  return Prompt(length + 2 * framed, width, Embed(rows, width), **more)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  words: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  channels: int = 8,
  head_width: int | None = None,
  label_dropout: float = 0.1,
  **stack,
) -> Janus:
  """Builds Janus; see SIZES and WORDS for the published models.

  Args:
    tokenizer: `{"name": "vq", **arguments}`, of codes on one grid.
    words: `{"vocab": V, "length": ids of a text, ...}`; also framed, pad and
      fill, see `_prompt`.
    depth: layers.
    width: D.
    heads: of attention.
    channels: of the rows of the codes that the net reads.
    head_width: of the hidden layer of the head; D if None.
    label_dropout: see `Janus`.
    **stack: hidden, multiple_of, dropout, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together.
  """
  codes = system.part(tokenizer).tokenizer
  if not hasattr(codes, "grid"):
    raise UserError("janus: the tokenizer must have codes on one grid")
  rows, columns = codes.grid
  stack = {"eps": 1e-6, "dropout": 0.0} | stack
  dtype = jnp.dtype(stack.get("dtype", "float32"))
  try:
    prompt = _prompt(width, **words)
  except TypeError as e:
    raise UserError(f"words: {str(e).replace('_prompt() ', '')}") from e
  net = NextToken(
    makers.blocks(rows * columns, 1),  # a line, as of text
    Projected(codes.vocab, width, channels=channels, dtype=dtype),
    width,
    prompt,
    llama(depth, width, heads, **stack),
    Hidden(codes.vocab, width=head_width or width),
    "line",
  )
  return Janus(net, codes, label_dropout)
