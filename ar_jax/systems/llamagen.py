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
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.encoders import text as encoders
from ar_jax.families.base import Prefixed
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import ClassPrefix, TextPrefix
from ar_jax.families.token.program import TokenProgram
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.norms import RMSNorm
from ar_jax.nn.stacks.transformer import Backbone, PlainBlock

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
class LlamaGen(Prefixed):
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

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan, the encoder and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    cond = self.net.prefix.example()
    units = jnp.zeros((1, len(self.plan)), jnp.int32)
    every = lambda net, *args: net.head.logits(net(*args))
    variables = self.net.init(key, cond, units, method=every)
    return {**variables, "tokenizer": self.frozen(frozen)}

  def logits(
    self,
    variables: Vars,
    cond: Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit, given those before it.

    Args:
      variables: as `init` makes them.
      cond: label i32[B] or text, see `encoders.text`.
      units: i32[B, L].
      hidden: bool[B], examples whose condition is not shown.
      keys: Key[B] for dropout, or None.
    """
    net = self.net.bind(self.own(variables))
    return net.head.logits(net(cond, units, hidden, keys))

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    cond, units = batch[self.needs[0]], batch["units"]
    hidden, keys = None, None
    if train:
      keys = system.example_keys(key, batch)
      keys, hide = jax.vmap(jax.random.split, out_axes=1)(keys)
      hidden = self.hiding(hide)
    logits = self.logits(variables, cond, units, hidden, keys)
    nll = cross_entropy(logits, units)
    hits = jnp.argmax(logits, -1) == units
    metrics = {"accuracy": jnp.mean(hits.astype(jnp.float32), 1)}
    return Loss(jnp.mean(nll, 1), metrics, nll=nll)

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
    program, own = self.program(**options), self.own(variables)
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
    own, given = self.own(variables), cond[self.needs[0]]
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


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  multiple_of: int = 256,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  dropout: float = 0.1,
  token_dropout: float = 0.1,
  drop_path: float = 0.0,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
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
    multiple_of: the hidden width of the MLP is 8 D / 3 rounded up to it.
    prefix_rope: see `positions.rope_grid`.
    label_dropout: see `LlamaGen`.
    dropout: of the branches of the layers; 0 with `drop_path`, as published.
    token_dropout: of the embeddings.
    drop_path: stochastic depth of the last layer.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation of the blocks.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together, or not exactly one of num_classes
      and text is given.
  """
  tokenizer = dict(tokenizer)
  codes = system.build(tokenizer.pop("name"), **tokenizer).tokenizer
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  if (num_classes is None) == (text is None):
    raise UserError("give either num_classes or text, the condition")
  if text is None:
    prefix = ClassPrefix(num_classes + (label_dropout > 0), width)
  else:
    prefix = TextPrefix(encoders.build(**text), width)
  dtype = jnp.dtype(dtype)
  mixer = Attention(heads, out_bias=False, dtype=dtype, impl=impl)
  hidden = -(-int(8 * width / 3) // multiple_of) * multiple_of
  block = PlainBlock(
    mixer,
    SwiGLU(hidden, dtype=dtype),
    dropout=0.0 if drop_path else dropout,
  )
  backbone = Backbone(
    block,
    depth,
    out_norm=RMSNorm(),
    drop=drop_path,
    remat=remat,
    dtype=dtype,
  )
  net = NextToken(
    makers.raster(*codes.grid),
    codes.vocab,
    width,
    prefix,
    backbone,
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    dropout=token_dropout,
  )
  return LlamaGen(net, codes, label_dropout)
