"""An encoder of frames with a decoder of symbols: all at once, each from a
vector of its own that the frames fire, or one after the other.

Shapes: B batch, T frames, F features of one, D width, P symbols at most with
the end, V symbols.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.system import passes_on
from ar_jax.families.seq2seq.decoders import Causal, Parallel
from ar_jax.families.seq2seq.front import Front
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers import cif
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.stacks.sanm import EPS, SanmEncoder, sanm_decoder
from ar_jax.nn.stacks.vit import vit

Array = jax.Array

DECODERS = ("sanm", "plain", "ar")


class Heard(NamedTuple):
  """What there is of a sound.

  Attributes:
    hidden: [B, T, D].
    there: bool[B, T].
    alphas: f32[B, T]; None where a decoder draws symbol after symbol.
    memory: what the decoder reads of it.
  """

  hidden: Array
  there: Array
  alphas: Array | None
  memory: Memory


class SpeechNet(nn.Module):
  """The network.

  Attributes:
    encoder: of frames.
    decoder: of symbols.
    predictor: of the weights of frames; None with a `Causal` decoder.
    vocab: V; symbol 0 is also the blank of CTC.
    width: D.
    ctc: whether there is a head for CTC.
  """

  encoder: SanmEncoder
  decoder: Parallel | Causal
  predictor: cif.Predictor | None
  vocab: int
  width: int
  ctc: bool = True

  def setup(self):
    if self.predictor is not None:
      self.symbols = nn.Embed(
        self.vocab, self.width,
        embedding_init=nn.initializers.normal(self.width**-0.5),
      )  # fmt: skip
    if self.ctc:
      self.ctc_head = Categorical(self.vocab)

  def __call__(self, frames: Array, count: Array, ids: Array) -> Array:
    """Every parameter once; for initialisation. Arguments as in `hear`, and
    ids i32[B, P]."""
    heard = self.hear(frames, count)
    made = self.said_by_ctc(heard) if self.ctc else 0.0
    if self.predictor is None:
      return self.decoder(ids, heard.memory), made
    x, _ = self.counted(heard, ids.shape[1])
    return self.decoder(x + self.symbols(ids), heard.memory), made

  def hear(
    self, frames: Array, count: Array, keys: Array | None = None
  ) -> Heard:
    """Reads frames f32[B, T, F], of which `count` i32[B] are there; keys Key[B]
    are of dropout."""
    there = jnp.arange(frames.shape[1])[None] < count[:, None]
    hidden = self.encoder(frames, there, keys)
    alphas, exact = None, False
    if self.predictor is not None:
      alphas = self.predictor(hidden, there, keys)
      exact = self.predictor.released
    if not exact:
      hidden = hidden * there[..., None]
    memory = self.decoder.remember(hidden, there)
    return Heard(hidden, there, alphas, memory)

  def given(self, heard: Heard, count: Array, places: int) -> Array:
    """f32[B, P, D]: the vectors of a known number of symbols i32[B]."""
    sums = cif.scaled(heard.alphas, count, heard.there)
    return cif.fire(heard.hidden, sums, places)

  def counted(
    self, heard: Heard, places: int, tail: float = cif.TAIL
  ) -> tuple[Array, Array]:
    """(vectors f32[B, P, D], how many i32[B] of them there are, P at most)."""
    hidden, sums, count = cif.tailed(
      heard.hidden, heard.alphas, heard.there, tail
    )
    return cif.fire(hidden, sums, places), jnp.minimum(count, places)

  def said_by_ctc(self, heard: Heard) -> Array:
    """Logits f32[B, T, V] of the head for CTC."""
    return self.ctc_head.logits(heard.hidden)


def glanced(
  acoustic: Array, embedded: Array, rank: Array, count: Array
) -> Array:
  """f32[B, P, D]: the embedded target in place of what is heard at the first
  `count` i32[B] places by their rank i32[B, P] (glancing, arXiv 2008.07905)."""
  taken = rank < count[:, None]
  return jnp.where(taken[..., None], embedded, acoustic)


def ranks(keys: Array, real: Array) -> Array:
  """i32[B, P]: places in a random order by keys Key[B], those that are `real`
  bool[B, P] before all others."""
  draw = lambda key: jax.random.uniform(key, real.shape[1:])
  chance = jnp.where(real, jax.vmap(draw)(keys), 2.0)
  return jnp.argsort(jnp.argsort(chance, -1), -1)


def speech_net(
  vocab: int,
  places: int,
  ctc: bool,
  *,
  width: int = 512,
  heads: int = 4,
  hidden: int | None = None,
  depth: int = 50,
  layers: int = 16,
  kernel: int = 11,
  drop: float = 0.1,
  decoder: str = "sanm",
  depthwise: bool = False,
  released: bool = False,
  remat: bool | str = False,
  dtype: str = "float32",
) -> SpeechNet:
  """The network.

  Args:
    vocab: V.
    places: P.
    ctc: whether there is a head for CTC.
    width: D.
    heads: of attention.
    hidden: width of the MLPs; 4 D if None.
    depth: layers of the encoder.
    layers: of the decoder.
    kernel: of the memories.
    drop: share of the features of branches that training drops.
    decoder: "sanm", the parallel one of the large recipe; "plain", pre-norm
      with self-attention; or "ar", such layers symbol after symbol.
    depthwise, released: see `cif.Predictor`.
    remat: of the encoder; see `transformer.Backbone`.
    dtype: of the layers.

  Raises:
    UserError: an option is unknown, or sizes do not fit together.
  """
  check_choice("decoder", decoder, DECODERS)
  if depth < 2 or width % heads or kernel % 2 == 0:
    raise UserError(
      f"depth={depth} must be at least 2, width={width} a multiple of "
      f"heads={heads}, kernel={kernel} odd"
    )
  hidden = hidden or 4 * width
  encoder = SanmEncoder(
    width, depth, heads, hidden, kernel, drop, remat, jnp.dtype(dtype)
  )
  own = dict(hidden=hidden, dtype=dtype)
  plain = dict(cross=True, act="relu", eps=EPS, dropout=drop)
  predictor = cif.Predictor(width, depthwise, dropout=drop, released=released)
  if decoder == "sanm":
    stack = sanm_decoder(layers, width, heads, kernel=kernel, drop=drop, **own)
    reads = Parallel(stack, vocab)
  elif decoder == "plain":
    reads = Parallel(vit(layers, width, heads, **plain, **own), vocab)
  else:
    stack, predictor = vit(layers, width, heads, **plain, **own), None
    reads = Causal(stack, width, vocab, places)
  return SpeechNet(encoder, reads, predictor, vocab, width, ctc)


@passes_on(speech_net)
def front_and_net(
  vocab: int,
  places: int,
  ctc: bool,
  *,
  samples: int = 480_000,
  rate: int = 16_000,
  bands: int = 80,
  window: int = 0,
  hop: int = 0,
  stack: int = 7,
  skip: int = 6,
  augment: tuple[int, int] | None = None,
  **net: Any,
) -> tuple[Front, SpeechNet]:
  """The network, and before it the front that makes its frames.

  Args:
    vocab, places, ctc: see `speech_net`.
    samples: N of a sound.
    rate: of the samples, in Hz.
    bands: of mel.
    window, hop: in samples; 25 and 10 ms if 0.
    stack, skip, augment: see `Front`.
    **net: see `speech_net`.

  Raises:
    UserError: an option is unknown, or sizes do not fit together.
  """
  front = Front(
    samples, rate, bands, window or rate // 40, hop or rate // 100, stack, skip,
    None if augment is None else tuple(augment),
  )  # fmt: skip
  if min(samples, rate, stack, skip) < 1 or front.features % 2:
    raise UserError(
      f"stack={stack} x bands={bands} features of a frame: must be even, and "
      "samples, rate, stack and skip positive"
    )
  return front, speech_net(vocab, places, ctc, **net)
