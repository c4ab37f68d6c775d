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
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import programs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.placed import Placed
from ar_jax.families.token.readers import CodeVectors, Embed
from ar_jax.families.token.system import order, prefix
from ar_jax.families.token.token_wise import TokenWise, show
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

  def init_net(self, key: Array) -> Vars:
    variables = super().init_net(key)
    variables.pop("codebook", None)  # the tokenizer has it
    return variables

  def adopt(self, collection: str, given: Any) -> Any:
    """The params of a model with a table, whose reader of codes is then new:
    training goes on with it (Distilled Decoding 2, stage 0)."""
    units = self.net.units
    new = isinstance(units, CodeVectors) and "fc1" not in given.get("units", {})
    if collection != "params" or not new:
      return given
    fresh = units.init(jax.random.key(0), units.blank(1, 1))["params"]
    return {**given, "units": fresh}

  def net_variables(self, variables: Vars) -> Vars:
    rest = super().net_variables(variables)
    if not isinstance(self.net.units, CodeVectors):
      return rest
    codes = self.codec(variables).codebook()
    return {**rest, "codebook": {"units": {"codes": codes}}}


_NOISE = 2**20  # of the keys of what the tokenizer draws


@dataclasses.dataclass(frozen=True)
class Previewed(LlamaGen):
  """LlamaGen over a tokenizer whose decoder goes from noise to pixels with each
  group of codes, as `d_ar` (arXiv 2505.23660): there is a preview after each.

  Attributes: as there.
  """

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    groups: int | None = None,
    previews: bool = False,
    size: int | None = None,
    **options,
  ) -> Array:
    """Draws one example per key.

    Args:
      variables, cond, keys: as in `generate`.
      groups: of the codes that are shown; None for all.
      previews: whether to show 1, 2, ... groups side by side.
      size: side to which images are brought bicubically.
      **options: as in `generate`.
    """
    units = self.generate(variables, cond, keys, **options)
    image = self.codec(variables).shown(
      units, fold(keys, _NOISE), groups=groups, previews=previews
    )
    if size is not None and previews:
      raise UserError(f"size={size}: previews are shown as they are")
    return show(image, size)

  def previews(self, variables: Vars, units: Array, keys: Array) -> Array:
    """f32[G, B, H, W, c] in [0, 1]: what units i32[B, L] show after 1, 2, ...
    groups."""
    noise = fold(keys, _NOISE)
    return (self.codec(variables).previews(units, noise) + 1) / 2

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
    """Yields the examples while they are drawn; the last ones are `sample`'s.

    The flow goes on with the codes: each preview is one pass of the decoder.
    Not for use under jit.

    Args:
      variables, cond, keys: as in `generate`; no prompt is read.
      every: units between two previews, whole groups; a group if None.
      size, **options: as in `sample`; all units are drawn.

    Yields:
      As `sample` returns.

    Raises:
      UserError: `every` is not of whole groups.
    """
    group, done = self.tokenizer.group, 0
    every = group if every is None else every
    if every < 1 or every % group:
      raise UserError(f"every={every}: a group has {group} units")
    own, given = self.net_variables(variables), self.condition(cond)
    more = {"bias": cond["bias"]} if "bias" in cond else {}
    program = self.program(**options)
    noise = self.codec(variables).noise(fold(keys, _NOISE), len(keys))
    carry = noise, jnp.zeros_like(noise)
    for units, drawn in programs.stream(
      program, own, given, keys, every=every, **more
    ):
      while done < drawn // group:
        now = np.int32(done)
        carry, image = _go_on(self, variables, units, keys, carry, now)
        done += 1
      yield np.asarray(show(image, size))


@functools.partial(jax.jit, static_argnums=0)
def _go_on(system, variables, units, keys, carry, group):
  codec = system.codec(variables)
  if codec.sees == "all":  # what is known later leads the first step, too
    keys = fold(keys, _NOISE)
    return carry, (codec.decode(units, keys, groups=group + 1) + 1) / 2
  states = codec.states(codec.embed(units))
  carry, image = codec.step(states, carry, group, group + 1)
  return carry, (image + 1) / 2


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
  reader: str = "table",
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
    reader: of the units: "table", a row for each code, or "codes", the codes of
      the tokenizer through an MLP, with which the net takes any vectors: the
      teacher of Distilled Decoding 2.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, not exactly one of num_classes and
      text is given, or there is no such reader or are no such positions.
  """
  check_choice("positions", positions, POSITIONS)
  codes = system.part(tokenizer).tokenizer
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  check_choice("reader", reader, ("table", "codes"))
  if reader == "codes" and not hasattr(codes, "codebook"):
    raise UserError("reader='codes': this tokenizer has no codes of numbers")
  kind = NextToken
  if positions == "learned":
    kind = functools.partial(Placed, stddev=width**-0.5, spare=1)
  net = kind(
    order(codes),
    Embed(codes.vocab, width)
    if reader == "table"
    else CodeVectors(codes.vocab, codes.channels, width),
    width,
    prefix(width, num_classes, text, label_dropout),
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    dropout=token_dropout,
  )
  of = Previewed if getattr(codes, "noisy", False) else LlamaGen
  return of(net, codes, label_dropout)
