"""CPPD: words in images, all characters at once.

Context Perception Parallel Decoder for Scene Text Recognition (arXiv
2307.12270).
New in it:
  - nodes of the alphabet count how often each character comes, nodes of the
    places say which of them are taken; both only look at the tokens of the
    image, so that these come to know of the whole word;
  - the nodes of the places then read the characters from the tokens that the
    counting has shaped, by attention without a scale, in one pass;
  - the alphabet's nodes are not there when a word is read: nothing depends on
    them.

Baselines, of the same encoder: `side=0`, the same layers without the two side
losses, a plain parallel decoder; and `decoder="ar"`, character by character.

Shapes: B batch, H x W pixels, N tokens, C characters with the end, P places,
the last of which is for the end of the longest word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ar_jax.core import forms, system
from ar_jax.core.decoding import pick
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.seq2seq import decoders
from ar_jax.families.seq2seq.context import (
  ContextDecoder,
  Read,
  counted,
  sampled,
)
from ar_jax.families.seq2seq.system import Transcriber, text_tokenizer
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.stacks.svtr import Svtr, svtr
from ar_jax.nn.stacks.vit import vit

DECODERS = ("context", "ar")
PLACES = ("taken", "left")
# Published: arguments of `build`. What the sheet marks as unverified is so.
SIZES = {
  "tiny": dict(
    widths=(64, 128, 256), depths=(3, 6, 3), heads=(2, 4, 8), convolutions=6,
    layers=2,
  ),
  "base": dict(
    widths=(128, 256, 384), depths=(6, 6, 4), heads=(4, 8, 12),
    convolutions=8, layers=3,
  ),
}  # fmt: skip
_STATS = "batch_stats"


class Net(nn.Module):
  """An encoder and a decoder.

  Attributes:
    encoder: see `svtr`.
    decoder: what reads its tokens.
  """

  encoder: Svtr
  decoder: ContextDecoder | decoders.Causal

  def visual(self, image: Array, keys=None, train: bool = False) -> Array:
    """[B, N, D] of images u8[B, H, W, c]."""
    shape = (*self.encoder.size, image.shape[-1])
    if image.shape[1:] != shape:
      raise UserError(
        f"images of {image.shape[1]}x{image.shape[2]}: this model reads "
        f"{shape[0]}x{shape[1]}; change data.height and data.width, or "
        "model.size"
      )
    return self.encoder(forms.raw(image), keys, train=train)

  def read(
    self, image: Array, ids=None, keys=None, train: bool = False, counts=False
  ) -> Read:
    """What the context decoder says; arguments as there."""
    own = (None, None) if keys is None else _split(keys)
    visual = self.visual(image, own[0], train)
    return self.decoder(visual, ids, own[1], counts=counts)

  def spell(self, image: Array, ids: Array, keys=None, train=False) -> Array:
    """Logits f32[B, P, C] of the AR decoder, of each of ids i32[B, P]."""
    visual = self.visual(image, keys, train)
    return self.decoder(ids, self.decoder.remember(visual))


def _split(keys: Array) -> Array:
  return jax.vmap(jax.random.split, out_axes=1)(keys)


@dataclasses.dataclass(frozen=True)
class CPPD(Transcriber):
  """The system. Variables: `params`, an empty `tokenizer`, and with the stem
  "batch" the running `batch_stats`.

  Attributes:
    net: the network.
    tokenizer: of the words.
    channels: of the images.
    side: the weight of both side losses; 0 is a plain parallel decoder.
    place_target: what a place says of itself: whether it is "taken", or how
      many characters are "left".
    nodes: so many characters are counted in training, all that come among
      them; 0 for the whole alphabet.
    smoothing: of the labels, as published: 1 - it for the character, the rest
      shared by all others.
  """

  net: Net
  tokenizer: nn.Module
  channels: int = 1
  side: float = 1.0
  place_target: str = "taken"
  nodes: int = 0
  smoothing: float = 0.1

  needs = ("image",)

  @property
  def reading(self) -> tuple[str, tuple[int, int, int]]:
    """See `Transcriber.reading`."""
    return "image", (*self.net.encoder.size, self.channels)

  @property
  def parallel(self) -> bool:
    """Whether all characters are read at once."""
    return isinstance(self.net.decoder, ContextDecoder)

  @property
  def plan(self) -> Plan:
    places = self.tokenizer.length
    return makers.blocks(places, places if self.parallel else 1)

  @property
  def moving(self) -> frozenset[str]:
    batch = self.net.encoder.stem == "batch"
    return frozenset({_STATS} if batch else ())

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    key, own = jax.random.split(key)
    image = jnp.zeros((1, *self.net.encoder.size, self.channels), jnp.uint8)
    if self.parallel:
      made = self.net.init(key, image, counts=True, method="read")
    else:
      ids = jnp.zeros((1, self.tokenizer.length), jnp.int32)
      made = self.net.init(key, image, ids, method="spell")
    return {**made, "tokenizer": self.init_tokenizer(own)}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    units, keys, updates = batch["units"], None, {}
    own = self.net_variables(variables)
    noted = sorted(self.moving) if train else []
    if train:
      keys = system.example_keys(key, batch)
    apply = lambda *args, **more: self.net.apply(
      own, batch["image"], *args, keys=keys, train=train, mutable=noted, **more
    )
    if not self.parallel:
      logits, updates = apply(units, method="spell")
      return self._said(logits, units, {}, updates)
    ids, counts = None, self.counts_of(units)
    if self.nodes and train:
      ids = sampled(_split(keys)[0], counts, self.nodes)
      counts = jnp.take_along_axis(counts, ids, 1)
    counts = counts if self.side else None
    read, updates = apply(ids, counts=bool(self.side), method="read")
    return self._said(
      read.logits, units, self.sides(read, units, counts), updates
    )

  def counts_of(self, units: Array) -> Array:
    """i32[B, C]: how often each character comes in words i32[B, P]; the end
    comes once."""
    most = self.tokenizer.length - 2
    return counted(units, self.real(units), self.tokenizer.vocab, most)

  def sides(
    self, read: Read, units: Array, counts: Array | None
  ) -> dict[str, Array]:
    """Both side losses, f32[B] each."""
    if counts is None:
      return {}
    real, rows = self.real(units), read.places
    if self.place_target == "taken":
      own = jnp.diagonal(rows, axis1=1, axis2=2)
      each = optax.sigmoid_binary_cross_entropy(own, real.astype(jnp.float32))
      place = each.mean(1)
    else:
      left = real.sum(1, keepdims=True) - 1 - jnp.arange(rows.shape[1])[None]
      each = cross_entropy(rows, jnp.maximum(left, 0))
      place = jnp.sum(each * real, 1) / real.sum(1)
    return {
      "count": cross_entropy(read.counts, counts).mean(1),
      "place": place,
    }

  def _said(self, logits, units, sides, updates) -> Loss:
    real, vocab = self.real(units), self.tokenizer.vocab
    count = real.sum(1).astype(jnp.float32)
    # Published: what is smoothed away goes to the others alone.
    smoothing = self.smoothing * vocab / (vocab - 1)
    each = cross_entropy(logits, units, smoothing=smoothing)
    edge = jnp.sum(each * real, 1) / count
    value = edge + self.side * sum(sides.values(), jnp.zeros_like(edge))
    metrics = {"edge": edge, **sides, **self.scores(logits, units)}
    nll = cross_entropy(logits, units) * real
    return Loss(value, metrics, dict(updates), nll=nll, units=count)

  def logits(self, variables: Vars, cond: Array, units: Array) -> Array:
    own = self.net_variables(variables)
    if self.parallel:
      return self.net.apply(own, cond, method="read").logits
    return self.net.apply(own, cond, units, method="spell")

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    temperature: float = 0.0,
  ) -> tuple[Array, Array]:
    """See `Transcriber.generate`.

    Args:
      variables: as `init` makes them.
      cond: `image` u8[B, H, W, c].
      keys: Key[B].
      temperature: 0 reads the likeliest characters.
    """
    image = self.condition(cond)
    if self.parallel:
      logits = self.logits(variables, image, None)
      ids = pick.draw(pick.law(logits, temperature=temperature), keys)
      return ids, jnp.ones(len(keys), jnp.int32)
    net = self.net.bind(self.net_variables(variables))
    memory = net.decoder.remember(net.visual(image))
    found = decoders.draw(
      net.decoder, memory, keys, stop=self.tokenizer.stop,
      temperature=temperature,
    )  # fmt: skip
    return found.units, found.count


@system.passes_on(svtr)
def build(
  *,
  tokenizer: Mapping[str, Any],
  in_channels: int = 3,
  decoder: str = "context",
  layers: int = 3,
  edge_layers: int = 1,
  node_heads: int | None = None,
  side: float = 1.0,
  place_target: str = "taken",
  nodes: int = 0,
  smoothing: float = 0.1,
  **encoder,
) -> CPPD:
  """Builds CPPD; see SIZES for the published models.

  Args:
    tokenizer: of words that end with id 0: `{"name": "given", "form": "tokens",
      "vocab": C, "length": P}`.
    in_channels: of an image, 1 or 3.
    decoder: "context", or "ar", the baseline that reads a character after the
      other, of `layers` pre-norm layers.
    layers: of the two stacks of nodes.
    edge_layers: see `ContextDecoder`.
    node_heads: of the decoder's attention; one for 32 features if None.
    side: the weight of the two side losses.
    place_target: "taken" or "left".
    nodes: characters that are counted in training; 0 for all.
    smoothing: of the labels.
    **encoder: size (H, W) of an image, widths, depths, heads, convolutions,
      stem, drop, stddev and dtype of the encoder, see `svtr.Svtr`; drop and
      stddev are also those of the decoder.

  Raises:
    UserError: an option is unknown, or sizes do not fit together.
  """
  for name, value, known in (
    ("decoder", decoder, DECODERS), ("place_target", place_target, PLACES)
  ):  # fmt: skip
    check_choice(name, value, known)
  tokens = text_tokenizer(system.part(tokenizer).tokenizer, "cppd")
  if tokens.length < 3:
    raise UserError(f"tokenizer.length={tokens.length}: must be at least 3")
  if nodes and not tokens.length <= nodes <= tokens.vocab:
    raise UserError(
      f"nodes={nodes}: from {tokens.length}, the places of a word, to "
      f"{tokens.vocab}, the characters; or 0 for all"
    )
  if side < 0 or not 0 <= smoothing < 1:
    raise UserError(f"side={side} or smoothing={smoothing}: out of range")
  reader = svtr(**encoder)
  width = reader.width
  own = node_heads or max(1, width // 32)
  if width % own:
    raise UserError(f"node_heads={own}: {width} is no multiple of it")
  if decoder == "ar":
    stack = vit(layers, width, own, cross=True, dropout=0.0)
    reads = decoders.Causal(stack, width, tokens.vocab, tokens.length)
  else:
    reads = ContextDecoder(
      width, tokens.vocab, tokens.length, reader.tokens, own, layers,
      edge_layers, reader.drop, reader.stddev,
    )  # fmt: skip
  return CPPD(
    Net(reader, reads), tokens, in_channels, float(side), place_target, nodes,
    smoothing,
  )  # fmt: skip
