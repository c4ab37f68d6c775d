"""LlamaGen: images from classes or texts, one token after the other.

Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation
(arXiv 2406.06525). New in it: nothing but the recipe, which makes it the
baseline of all discrete decoders:
  - an unchanged Llama (RMSNorm, SwiGLU, rotary positions, no biases);
  - over the codes of a VQ tokenizer in raster order;
  - behind a prefix of one class, or of the features of a text, which guidance
    replaces by a null class or text.

Shapes: B batch, P positions of the prefix, L units, M known units, D width, V
codes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pick, programs
from ar_jax.core.plans import makers
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.program import TokenProgram
from ar_jax.families.token.system import TokenWise, prefix
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


@dataclasses.dataclass(frozen=True)
class LlamaGen(TokenWise):
  """The system. Variables: `params`, the frozen `tokenizer`, and for texts
  the constant `null`.

  Attributes:
    net: the transformer.
    tokenizer: a module whose units lie on one grid, as `VQ`.
    label_dropout: how often training hides the condition. 0 is a model
      without guidance.
  """

  net: NextToken
  tokenizer: nn.Module
  label_dropout: float = 0.1

  def forwards(self, **options) -> int:
    """Passes of the transformer for one image, each of two rows if guided."""
    del options
    return len(self.plan)

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    size: int | None = None,
    **options,
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1].

    Args:
      variables, cond, keys: as in `generate`.
      size: side to which images are brought bicubically; the published models
        for 384 pixels are measured at 256.
      **options: as in `generate`.
    """
    units = self.generate(variables, cond, keys, **options)
    return _sized(self.decode(variables, units), size)

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws the units of one image per key, i32[B, L].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B] or `text`. Images that are known in part also have
        `prompt` i32[B, M] and `known` i32[B], how many of these M units to
        keep: the batch is ragged.
      keys: Key[B].
      **options: as in `program`.

    Raises:
      UserError: an option is out of range, a prompt leaves nothing to draw,
        or guidance is asked of a model built without a null class.
    """
    program, own = self.program(**options), self.net_variables(variables)
    given = cond[self.needs[0]]
    if "prompt" in cond:
      known = cond["prompt"], cond["known"]
      return program.complete(own, given, *known, keys)
    return program.run(own, given, keys)

  def stream(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    every: int | None = None,
    size: int | None = None,
    **options,
  ) -> Iterator[np.ndarray]:
    """Yields the images while they are drawn; the last ones are `sample`'s.

    Not for use under jit. Three programs are compiled for any number of
    calls: to begin, to go on, to show.

    Args:
      variables, cond, keys: as in `generate`.
      every: units between two previews; a row if None.
      size, **options: as in `sample`.

    Yields:
      f32[B, H, W, c] in [0, 1], grey where nothing is drawn yet.
    """
    program = self.program(**options)
    every = every or self.tokenizer.grid[1]
    own, given = self.net_variables(variables), cond[self.needs[0]]
    drawn = programs.stream(program, own, given, keys, every=every)
    for units, done in drawn:
      yield np.asarray(_show(self, variables, units, np.int32(done), size))

  def program(
    self,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    stop: int | None = None,
    **law: float,
  ) -> TokenProgram:
    """How units are drawn, as a value.

    Args:
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`.
      stop: guidance is off from this unit on, and costs nothing there.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Raises:
      UserError: as in `generate`.
    """
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, len(self.plan), stop=stop)
    guided = guidance != 1.0
    law = tuple(sorted(law.items()))
    return TokenProgram(self.net, scales if guided else None, law)


def _sized(image: Array, size: int | None) -> Array:
  if size is None:
    return image
  return jnp.clip(resize(image, (size, size), "bicubic"), 0.0, 1.0)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _show(system, variables, units, done, size):
  image = system.codec(variables).decode_part(units, done)
  return _sized((image + 1) / 2, size)


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
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> LlamaGen:
  """Builds LlamaGen; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "vq", **arguments}`.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    text: `{"name": "bytes" or "features", **arguments}` of `encoders.text`;
      in place of num_classes.
    prefix_rope: see `positions.rope_grid`.
    label_dropout: see `LlamaGen`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or not exactly one of num_classes
      and text is given.
  """
  codes = system.part(tokenizer).tokenizer
  net = NextToken(
    makers.raster(*codes.grid),
    codes.vocab,
    width,
    prefix(width, num_classes, text, label_dropout),
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    dropout=token_dropout,
  )
  return LlamaGen(net, codes, label_dropout)
