"""The network of the SpeakerVid-5M baseline (arXiv 2507.09862): somebody who
answers, chunk by chunk, each of some tokens of speech and one map of latents.

A transformer over chunks sees what was asked, all chunks before, and its own
chunk whole; what it says at a chunk is of the next one. A spatial transformer
then fills the map of that chunk a set of tokens at a time.

Shapes: B batch, C chunks, m speech tokens and n map tokens of a chunk, p
numbers of a map token, P rows of the prefix, D width, V speech tokens, S
tokens and F frames of what was asked.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice, check_positive
from ar_jax.core.plans import makers
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.layers import positions
from ar_jax.nn.layers.cache import Cache
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

Array = jax.Array
Cond = dict[str, Array]

# Condition -> the parts of what was asked that are shown.
CONDITIONS = {
  "dyadic": ("video", "speech"),
  "text": ("text",),
  "all": ("text", "video", "speech"),
}


def _dense(width: int, name: str) -> nn.Dense:
  return nn.Dense(
    width, kernel_init=nn.initializers.xavier_uniform(), name=name
  )


class Asked(nn.Module):
  """What was asked, and how the one looks who answers, as rows before the
  first chunk. What is not shown has rows of its own, so that a run may go on
  with another condition.

  Attributes:
    width: D.
    vocab: of speech and of the text.
    sizes: rows of the text, the video and the speech.
    thinker: (rows, numbers of each) of features of a frozen network that read
      the question, as a file has them; (0, 0) for none.
    condition: a key of CONDITIONS.
  """

  width: int
  vocab: tuple[int, int]
  sizes: tuple[int, int, int]
  thinker: tuple[int, int] = (0, 0)
  condition: str = "dyadic"

  @property
  def length(self) -> int:
    """P."""
    return 1 + sum(self.sizes) + self.thinker[0]

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, P, D].

    Args:
      cond: `face` f32[B, n p] and `ask_units` f32[B, F, n p], maps of latents;
        `ask_speech` i32[B, S], `text` i32[B, S']; perhaps `thinker` f32.
      hidden: bool[B], examples whose question is not shown; the face is.
    """
    speech, text = self.vocab
    init = nn.initializers.normal(0.2)
    embed = lambda n, name: nn.Embed(
      n, self.width, embedding_init=init, name=name
    )
    parts = {
      "text": embed(text, "text")(cond["text"]),
      "video": _dense(self.width, "video")(cond["ask_units"]),
      "speech": embed(speech, "speech")(cond["ask_speech"]),
    }
    shown = CONDITIONS[self.condition]
    rows, size = [], self.length - 1
    for name, x in parts.items():
      rows.append(x if name in shown else jnp.zeros_like(x))
    count = sum(self.sizes)
    known = jnp.concatenate(
      [
        jnp.full(n, name in shown)
        for n, name in zip(self.sizes, parts, strict=True)
      ]
    )[None]
    if self.thinker[0]:
      rows.append(_dense(self.width, "thinker")(cond["thinker"]))
      known = jnp.pad(known, ((0, 0), (0, size - count)), constant_values=True)
    if hidden is not None:
      known = known & ~hidden[:, None]
    null = self.param("null", init, (size, self.width))
    asked = jnp.where(known[..., None], jnp.concatenate(rows, 1), null[None])
    place = self.param("place", nn.initializers.normal(0.02), null.shape)
    face = _dense(self.width, "face")(cond["face"])[:, None]
    return jnp.concatenate([face, asked + place[None]], 1)


class Refiner(nn.Module):
  """The spatial transformer: map tokens that are known, and a row for those
  that are not, given what the chunks say of the map.

  Attributes:
    stack: sees all of a map.
    width: D.
  """

  stack: Backbone
  width: int

  @nn.compact
  def __call__(self, z: Array, units: Array, known: Array) -> Array:
    """Features [N, n, D] of the tokens of N maps.

    Args:
      z: [N, n, D].
      units: f32[N, n, p]; those that are not known are not read.
      known: bool[N, n].
    """
    init = nn.initializers.normal(0.02)
    hidden = self.param("hidden", init, (self.width,))
    slots = self.param("slots", init, (units.shape[1], self.width))
    x = _dense(self.width, "latent")(units)
    x = jnp.where(known[..., None], x, hidden[None, None])
    x = x + _dense(self.width, "map")(z) + slots[None]
    return self.stack(x)[0]


class DialogueNet(nn.Module):
  """Speech and maps, chunk by chunk.

  Attributes:
    prefix: what was asked.
    backbone: over chunks.
    refiner: within a map.
    width: D.
    chunks: C.
    slots: m.
    tokens: n.
    channels: p.
    vocab: V.
    speech: the law of a token of speech.
    latent: the law of a token of a map.
  """

  prefix: Asked
  backbone: Backbone
  refiner: Refiner
  width: int
  chunks: int
  slots: int
  tokens: int
  channels: int
  vocab: int
  speech: Categorical
  latent: Diffusion

  def setup(self):
    init = nn.initializers.normal(0.2)
    self.embed = nn.Embed(self.vocab, self.width, embedding_init=init)
    self.read_map = nn.Dense(
      self.width, kernel_init=nn.initializers.xavier_uniform()
    )
    shape = (self.size, self.width)
    small = nn.initializers.normal(0.02)
    self.start = self.param("start", small, shape)
    self.place = self.param("place", small, shape)

  @property
  def size(self) -> int:
    """Rows of a chunk, m + n."""
    return self.slots + self.tokens

  def read(self, speech: Array, units: Array) -> Array:
    """Rows [B, k (m + n), D] of k chunks.

    Args:
      speech: i32[B, k m].
      units: f32[B, k n, p].
    """
    b, k = len(speech), speech.shape[1] // self.slots
    each = lambda x, n: x.reshape(b, k, n, self.width)
    x = jnp.concatenate(
      [
        each(self.embed(speech), self.slots),
        each(self.read_map(units), self.tokens),
      ],
      2,
    )
    return (x + self.place[None, None]).reshape(b, -1, self.width)

  def __call__(
    self,
    cond: Cond,
    speech: Array,
    units: Array,
    hidden: Array | None = None,
  ) -> Array:
    """What is said of each chunk by the prefix and the chunks before it,
    [B, C, m + n, D], all chunks at once.

    Args:
      cond: see `Asked`.
      speech: i32[B, C m].
      units: f32[B, C n, p], perhaps with noise.
      hidden: bool[B]; see `Asked`.
    """
    before = self.prefix(cond, hidden)
    b, last = len(speech), self.chunks - 1
    x = self.read(
      speech[:, : last * self.slots], units[:, : last * self.tokens]
    )
    start = jnp.broadcast_to(self.start[None], (b, *self.start.shape))
    x = jnp.concatenate([before, start, x], 1)
    plan = makers.blocks(self.chunks * self.size, self.size)
    mask = makers.prefixed(plan, self.prefix.length)
    h, _ = self.backbone(x, mask, pos=self._turn(jnp.arange(x.shape[1])))
    h = h[:, self.prefix.length :]
    return h.reshape(b, self.chunks, self.size, self.width)

  def parts(self, h: Array) -> tuple[Array, Array]:
    """What is said of the speech [..., m, D] and of the map [..., n, D]."""
    return h[..., : self.slots, :], h[..., self.slots :, :]

  def begin(self, cond: Cond, hidden: Array | None = None) -> Cache:
    """A cache with the rows of the prefix."""
    x = self.prefix(cond, hidden)
    rows = self.prefix.length + self.chunks * self.size
    cache = self.backbone.cache(len(x), rows, self.width)
    pos = self._turn(jnp.arange(x.shape[1]))
    _, cache = self.backbone(x, None, pos=pos, cache=cache)
    return dataclasses.replace(cache, index=jnp.asarray(cache.index, jnp.int32))

  def step(
    self, speech: Array, units: Array, chunk: Array, cache: Any
  ) -> tuple[Array, Any]:
    """What is said of chunk number `chunk`, [B, m + n, D], by the chunk before
    it, i32[B, m] and f32[B, n, p], and by the cache; and the cache with that
    one. Before chunk 0 there is none."""
    x = self.read(speech, units)
    x = jnp.where(chunk == 0, self.start[None], x)
    at = self.prefix.length + chunk * self.size + jnp.arange(self.size)
    return self.backbone(x, None, pos=self._turn(at), cache=cache)

  def _turn(self, at: Array) -> Array:
    return positions.line_turns(at, self.backbone.head_width(self.width))


def dialogue_net(
  latent: Diffusion,
  maps: tuple[int, int, int],
  *,
  slots: int = 4,
  vocab: int = 16,
  ask_frames: int = 12,
  ask_speech: int = 4,
  text: int = 4,
  text_vocab: int | None = None,
  thinker: tuple[int, int] = (0, 0),
  condition: str = "dyadic",
  width: int = 1024,
  depth: int = 16,
  heads: int = 16,
  refine_depth: int = 6,
  remat: bool | str = False,
  dtype: str = "float32",
) -> DialogueNet:
  """The network.

  Args:
    latent: the law of a token of a map.
    maps: C, one a chunk, of n tokens of p numbers each.
    slots: m: speech tokens per second over frames per second.
    vocab: of the speech.
    ask_frames, ask_speech, text: F frames, speech tokens and ids of text of a
      question.
    text_vocab: of the text; that of the speech if None.
    thinker: rows and numbers of the features of a frozen network that read
      the question; (0, 0) for none.
    condition: what of a question is shown: "dyadic", its video and speech;
      "text", the text alone; or "all".
    width: D.
    depth: layers over chunks.
    heads: of attention.
    refine_depth: layers within a map.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the stacks.

  Raises:
    UserError: a size or a name is none of these.
  """
  chunks, tokens, channels = maps
  check_choice("condition", condition, CONDITIONS)
  check_positive(
    chunks=chunks, slots=slots, ask_frames=ask_frames, text=text, vocab=vocab
  )
  if width % (2 * heads):
    raise UserError(f"width={width}: must be a multiple of 2 x heads={heads}")
  stack = lambda depth: vit(
    depth, width, heads, dropout=0.0, remat=remat, dtype=dtype
  )
  known = (text, ask_frames, ask_speech)
  vocabs = (vocab, text_vocab or vocab)
  return DialogueNet(
    Asked(width, vocabs, known, tuple(thinker), condition),
    stack(depth),
    Refiner(stack(refine_depth), width),
    width,
    chunks,
    slots,
    tokens,
    channels,
    vocab,
    Categorical(vocab),
    latent,
  )
