"""ELM: a Llama over codes of bits, several small codes of a cell in parallel.

Elucidating the design space of language models for image generation (arXiv
2410.16257). New in it, beside what was found by ablation:
  - the units are K bits of a binary autoencoder, all of whose codes are in
    use; they are drawn anew in every epoch;
  - the bits of a cell are cut into t codes, each with a table and a head of its
    own, so that vocabularies are small; all are drawn from one hidden state;
  - guidance grows linearly, and the filter keeps almost everything.

The masked arm that it is compared with in the paper is here, too.

Shapes: B batch, L cells, K bits of a cell, t codes of b = K / t bits, V = 2^b
values of a code, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.token.masked import MaskedCodes, confident, masked_counts
from ar_jax.families.token.modulated import Modulated
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.packed import Packed, bits_of
from ar_jax.families.token.system import prefix, training_noise
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.heads.codes import SubCodeEmbed, SubCodes
from ar_jax.nn.layers.norms import AdaLN
from ar_jax.nn.quantize.bits import code_bits
from ar_jax.nn.quantize.vq import unit
from ar_jax.nn.stacks.blocks import Block
from ar_jax.nn.stacks.llama import llama
from ar_jax.nn.stacks.transformer import Backbone

# The published models: arguments of `build`. A published model is a size and
# "t-b", its codes.
SIZES = {
  "l": dict(depth=24, width=1024, heads=16),
  "xl": dict(depth=36, width=1280, heads=20),
  "xxl": dict(depth=48, width=1536, heads=24),
  "2b": dict(depth=48, width=1792, heads=28),
}


@dataclasses.dataclass(frozen=True)
class ELM(Packed, TokenWise):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: of bits, on one grid.
    codes: t.
    label_dropout: how often training hides the class. 0 is a model without
      guidance.
  """

  net: NextToken
  tokenizer: nn.Module
  codes: int
  label_dropout: float = 0.1

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """`nll` is of a cell, the sum over its codes; `value` the mean over cells
    and codes, as published, which does not compare between different t."""
    if train:  # Bits are drawn anew wherever they are not stored.
      fresh = jax.random.fold_in(key, 1)
      keys = system.example_keys(fresh, batch)
      batch = self.coded(variables, batch, keys)
    batch = self.encode(variables, batch)
    cond, units = self.condition(batch), batch["units"]
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    net = self.net.bind(self.net_variables(variables))
    h = net(cond, units, hidden, keys)
    nll = net.head.each(h, units)
    hits = jnp.argmax(net.head.logits(h), -1) == units
    metrics = {"accuracy": jnp.mean(hits.astype(jnp.float32), (1, 2))}
    return Loss(jnp.mean(nll, (1, 2)), metrics, nll=nll.sum(-1))


@dataclasses.dataclass(frozen=True)
class MaskedELM(Packed, Prefixed):
  """The masked arm, which has no `plan`: every image has an order of its own.

  Attributes:
    net: the transformer.
    tokenizer, codes, label_dropout: as in `ELM`.
    steps: T of training: as many different numbers of hidden cells.
    smoothing: of the targets.
  """

  net: MaskedCodes
  tokenizer: nn.Module
  codes: int
  label_dropout: float = 0.1
  steps: int = 10
  smoothing: float = 0.1

  plan = None
  schedule = "linear"

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    key, frozen = jax.random.split(key)
    length = self.tokenizer.length
    units = jnp.zeros((1, length, self.codes), jnp.int32)
    hide = jnp.ones((1, length), bool)
    cond = self.net.prefix.example()
    params = self.net.init(key, cond, units, hide, method="logits")["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hide: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, t, V]; arguments as those of `MaskedCodes.logits`."""
    net = self.net.bind({"params": variables["params"]})
    return net.logits(self.condition(cond), units, hide, hidden, keys)

  def errors(
    self, variables: Vars, batch: Batch, hide: Array, **given
  ) -> tuple[Array, Array]:
    """The loss of each example f32[B], of the cells `hide` bool[B, L], and how
    many of their codes are the likeliest; the rest as in `logits`."""
    cond, units = self.condition(batch), batch["units"]
    logits = self.logits(variables, cond, units, hide, **given)
    each = cross_entropy(logits, units, smoothing=self.smoothing)
    hits = (jnp.argmax(logits, -1) == units).astype(jnp.float32)
    some = hide.astype(jnp.float32)
    mean = lambda x: jnp.sum(x.mean(-1) * some, 1) / jnp.sum(some, 1)
    return mean(each), mean(hits)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Cross-entropy of hidden cells: how many is drawn for each example, from
    a cosine."""
    fresh, key = jax.random.split(key)
    if train:
      keys = system.example_keys(fresh, batch)
      batch = self.coded(variables, batch, keys)
    batch = self.encode(variables, batch)
    length, given = self.tokenizer.length, {}
    counts = jnp.asarray(masked_counts(length, self.steps))

    def hides(key):
      few, many = jax.random.split(key)
      count = counts[jax.random.randint(few, (), 0, self.steps)]
      return jax.random.permutation(many, length) < count

    hide = jax.vmap(hides)(system.example_keys(key, batch))
    if train:
      noise = jax.random.fold_in(key, 1)
      hidden, keys = training_noise(noise, batch, self.label_dropout)
      given = dict(hidden=hidden, keys=keys)
    value, accuracy = self.errors(variables, batch, hide, **given)
    return Loss(value, {"accuracy": accuracy})

  def forwards(self, *, steps: int = 10, **options) -> int:
    """Passes of the transformer for one image."""
    del options
    return steps

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 10,
    guidance: float | None = 1.0,
    schedule: str = "linear",
    noise: float = 4.5,
    gumbel: Any = None,
    **law: float,
  ) -> Array:
    """Draws the units of one image per key, i32[B, L, t].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      steps: passes; the cells that are known grow by a cosine.
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`.
      noise, gumbel: see `masked.confident`.
      **law: see `pick.law`.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        without a null class.
    """
    return self.revealed(
      variables, cond, keys, steps, guidance, schedule,
      noise=noise, gumbel=gumbel, **law,
    )[0]  # fmt: skip

  def revealed(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    steps: int,
    guidance: float | None,
    schedule: str,
    **options,
  ) -> tuple[Array, Array]:
    """As `generate`, and which cells each step hid again, bool[T, B, L]."""
    guidance = self.scale(guidance)
    scales, guided = pick.schedule(schedule, guidance, steps), guidance != 1.0
    both = pairs.double(self.condition(cond), guided)
    hidden = pairs.without(len(keys)) if guided else None

    def predict(units, hide, scale):
      rows = pairs.double(units, guided), pairs.double(hide, guided)
      logits = self.logits(variables, both, *rows, hidden)
      if not guided:
        return logits
      return pick.guide(*pairs.split(logits), scale)

    shape = self.tokenizer.length, self.codes
    return confident(predict, keys, shape, scales, **options)


class UnitNorm(nn.Module):
  """Queries and keys of unit length, for attention by cosines."""

  def __call__(self, q: Array, k: Array) -> tuple[Array, Array]:
    """q and k [B, T, H, K], normalised in float32."""
    return unit(q.astype(jnp.float32)), unit(k.astype(jnp.float32))


def _stack(stack: Backbone, adaln: bool, cosine: bool) -> Backbone:
  """A Llama with those of the paper's options that are off by default."""
  block = stack.block
  mixer = block.mixer
  if cosine:
    mixer = mixer.clone(norm=UnitNorm(), scale=1.0)
  if not adaln:
    return stack.clone(block=block.clone(mixer=mixer))
  layer = Block(mixer, block.mlp, block.eps, rms=True, dropout=block.dropout)
  ada = AdaLN(stack.depth, (0.0,) * 6, stack.dtype)
  return stack.clone(block=layer, ada=ada)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  codes: int,
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  masked: Mapping[str, Any] | None = None,
  adaln: bool = False,
  cosine: bool = False,
  soften: int = 0,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> ELM | MaskedELM:
  """Builds ELM; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "bits", **arguments}`, or any other whose units are
      codes of one grid and as many as a power of two.
    codes: t, the codes into which the bits of a cell are cut.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    masked: options of the masked arm, or None for the other: `steps` and
      `smoothing`, see `MaskedELM`, and `distinct`, see `MaskedCodes`.
    adaln: whether the class modulates the layers, see `Modulated`.
    cosine: attention by cosines, without a temperature.
    soften: see `SubCodes`.
    prefix_rope: see `positions.rope`.
    label_dropout: see `ELM`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes or options do not fit together.
  """
  codec = system.part(tokenizer).tokenizer
  vocab = 2 ** code_bits(bits_of(codec), codes)
  plan = makers.raster(*codec.grid)
  before = prefix(width, num_classes, None, label_dropout)
  layers = _stack(llama(depth, width, heads, **stack), adaln, cosine)
  if masked is not None:
    known = {"steps", "smoothing", "distinct"}
    unknown = sorted(set(masked) - known)
    if adaln or soften or unknown:
      raise UserError(
        f"masked: takes {sorted(known)}, not "
        + (str(unknown) if unknown else "adaln or soften, of the other arm")
      )
    own = dict(masked)
    net = MaskedCodes(
      plan, codes, vocab, width, before, layers,
      own.pop("distinct", False), dropout=token_dropout,
    )  # fmt: skip
    return MaskedELM(net, codec, codes, label_dropout, **own)
  make = Modulated if adaln else NextToken
  net = make(
    plan,
    SubCodeEmbed(codes, vocab, width),
    width,
    before,
    layers,
    SubCodes(codes, vocab, soften=soften),
    prefix_rope,
    dropout=token_dropout,
  )
  return ELM(net, codec, codes, label_dropout)
