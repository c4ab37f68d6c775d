"""Parts of a network that follows a conversation frame by frame (ARIG, arXiv
2507.00472): what has gone on between the two, in which state the agent is, and
what its next motion is made from.

Each part is called with frames T at once in training, and with one frame and
what a ring has kept of those before in a stream. Frames are counted from the
start of the conversation, and chunk g of c frames ends before frame g c: at
frame t the running chunk holds the frames from c (ceil(t / c) - 1) to t - 1.

Shapes: B batch, T frames, c frames of a chunk, D width.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.domains.conversation import ALLOWED, STATES
from ar_jax.nn.layers import positions
from ar_jax.nn.layers.attention import xavier_attention
from ar_jax.nn.layers.cross_attention import AttentivePool, CrossAttention
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.layers.ring import Ring
from ar_jax.nn.stacks.blocks import Block, modulate
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
_NEVER = -1e30  # a logit of what cannot be: exp of it is exactly 0


def chunk_of(t: Any, size: int) -> Any:
  """The running chunk at frame t: ceil(t / c); chunk 0 is before the first
  frame, and empty."""
  return (t + size - 1) // size


def running(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """(i32[T, c], bool[T, c]): the frames of the running chunk of each frame t,
  and which of them are there, those before t."""
  t = np.arange(length)[:, None]
  at = size * (chunk_of(t, size) - 1) + np.arange(size)
  return np.clip(at, 0, max(length - 1, 0)), (at >= 0) & (at < t)


def recent_chunks(length: int, size: int, window: int) -> np.ndarray:
  """bool[1, 1, T, T]: which rows each frame sees of chunk tokens that every
  frame makes: its own, of the running chunk, and those of the last `window`
  chunks when they were whole."""
  t = np.arange(length)
  chunk = chunk_of(t, size)
  whole = t % size == 0
  back = chunk[:, None] - chunk[None]
  seen = whole[None] & (back > 0) & (back <= window)
  return (seen | np.eye(length, dtype=bool))[None, None]


def band(length: int, window: int) -> np.ndarray:
  """bool[T, T]: itself and the `window` - 1 before it."""
  back = np.subtract.outer(np.arange(length), np.arange(length))
  return (back >= 0) & (back < window)


def _dense(width: int, name: str) -> nn.Dense:
  return nn.Dense(
    width, kernel_init=nn.initializers.xavier_uniform(), name=name
  )


class _Look(nn.Module):
  """Attention from one track to the other; the two ways have matrices each of
  its own, along a leading axis."""

  width: int
  heads: int

  @nn.compact
  def __call__(self, x: Array, other: Array, seen: Array) -> Array:
    cross = CrossAttention(
      self.width, self.heads, stddev=None, out_stddev=None, name="cross"
    )
    return cross(x, cross.remember(other), seen)


class Behaviour(nn.Module):
  """Interactive behaviour understanding, of one chunk: each looks at the
  other, both modulated by what the agent is about to say; then all of it at
  itself, and one token for the chunk.

  Attributes:
    width: D.
    heads: of attention.
    size: c.
  """

  width: int
  heads: int
  size: int

  @nn.compact
  def __call__(
    self, user: Array, agent: Array, seen: Array, now: Array
  ) -> Array:
    """A token for each chunk, [N, D].

    Args:
      user: [N, c, D], sound and motion of the user, merged.
      agent: the same of the agent.
      seen: bool[N, c], frames that are there.
      now: [N, D], the sound of the agent now.
    """
    place = self.param(
      "place", nn.initializers.normal(0.02), (self.size, self.width)
    )
    both = jnp.stack([user, agent]) + place[None, None]
    mod = _dense(4 * self.width, "ada_tracks")(nn.silu(now))
    mod = mod.reshape(1, -1, 4, 1, self.width)
    apply = lambda i: modulate(layer_norm(both), mod[:, :, i], mod[:, :, i + 1])
    look = nn.vmap(
      _Look,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, 0, None),
    )(self.width, self.heads, name="look")
    tracks = apply(0)
    both = both + look(tracks, tracks[::-1], seen)
    tracks = apply(2)
    x = _dense(self.width, "join")(jnp.concatenate([*tracks], -1))
    mod = _dense(6 * self.width, "ada_chunk")(nn.silu(now))
    block = Block(
      xavier_attention(self.width, self.heads),
      Mlp(2 * self.width, None, None, act="gelu"),
      name="block",
    )
    # A frame that is not there sees itself, which nobody reads.
    mask = seen[:, None, None] | np.eye(self.size, dtype=bool)[None, None]
    x, _ = block(x, mod.reshape(-1, 6, self.width), mask)
    return AttentivePool(
      self.width, self.heads, stddev=0.2, out_stddev=0.2, name="pool"
    )(x, seen)


class States(nn.Module):
  """Conversational state understanding: what voices, context and the state
  before say of the state now.

  Attributes:
    width: D.
    context: whether it reads the context and the state before, or the voices
      of this frame alone.
  """

  width: int
  context: bool = True

  @nn.compact
  def __call__(
    self,
    voice_u: Array,
    voice_a: Array,
    before: Array,
    summary: Array | None,
  ) -> tuple[Array, Array]:
    """(features [B, T, D], logits f32[B, T, 7]), where a state that these
    voices rule out has a probability of exactly 0.

    Args:
      voice_u: i32[B, T], whether the user spoke one frame ago.
      voice_a: i32[B, T], whether the agent speaks now.
      before: i32[B, T], the state one frame ago; 7 for none yet.
      summary: [B, T, D], of the interaction; None for none.
    """
    init = nn.initializers.normal(0.2)
    embed = lambda n, name: nn.Embed(
      n, self.width, embedding_init=init, name=name
    )
    known = [embed(2, "voice_u")(voice_u), embed(2, "voice_a")(voice_a)]
    if self.context:
      known.append(embed(len(STATES) + 1, "before")(before))
      if summary is not None:
        known.append(summary)
    x = _dense(2 * self.width, "fc1")(jnp.concatenate(known, -1))
    x = _dense(self.width, "fc2")(nn.gelu(x))
    logits = _dense(len(STATES), "state")(nn.gelu(x)).astype(jnp.float32)
    allowed = jnp.asarray(ALLOWED)[voice_a, voice_u]
    return x, jnp.where(allowed, logits, _NEVER)


class Progress(nn.Module):
  """Progressive motion prediction: the last motion looks at the sound of the
  agent; state and context are added; then the last frames look at each other.

  Attributes:
    stack: of the last part; causal.
    width: D.
    heads: of the first part.
    window: h, frames that each part looks back.
    hideable: whether sound, context and state may be hidden, for guidance.
  """

  stack: Backbone
  width: int
  heads: int
  window: int
  hideable: bool = False

  @nn.compact
  def __call__(
    self,
    motion: Array,
    sound: Array,
    summary: Array | None,
    state: Array | None,
    at: Array,
    *,
    hidden: Array | None = None,
    rings: tuple[Ring, Ring] | None = None,
  ) -> tuple[Array, tuple[Ring, Ring] | None]:
    """Hidden states [B, T, D] from which the motion of each frame is drawn.

    Args:
      motion: [B, T, Ma], of the frame before each; zeros before the first.
      sound: [B, T, A], of the agent now.
      summary: [B, T, D], of the interaction; None for none.
      state: [B, T, D], features of the state; None for none.
      at: i32[T], the number of each frame.
      hidden: bool[B, 3], whether sound, context and state are hidden.
      rings: of a stream, where T = 1: of the sound and of the last part.

    Returns:
      Also the rings with this frame.
    """
    names = ("sound", "summary", "state")
    given = {
      "sound": _dense(self.width, "read_sound")(sound),
      "summary": summary,
      "state": state,
    }
    given = {k: v for k, v in given.items() if v is not None}
    if self.hideable:
      for name in given:
        null = self.param(
          f"no_{name}", nn.initializers.normal(0.2), (self.width,)
        )
        if hidden is not None:
          out = hidden[:, names.index(name), None, None]
          given[name] = jnp.where(out, null[None, None], given[name])
    first = self.param("first", nn.initializers.normal(0.2), (self.width,))
    x = _dense(self.width, "read_motion")(motion)
    x = x + jnp.where(at == 0, 1.0, 0.0)[None, :, None] * first[None, None]
    cross = CrossAttention(
      self.width, self.heads, stddev=None, out_stddev=None, name="coarse"
    )
    turn = positions.line_turns(at, self.width // self.heads)
    k, v = cross.remember(layer_norm(given["sound"]), pos=turn)
    if rings is None:
      seen = jnp.asarray(band(len(at), self.window + 1))[None]
      mask = band(len(at), self.window)[None, None]
      own = None
    else:
      rows = lambda y: jnp.swapaxes(y, 1, 2)
      k, v, ring = rings[0].extend(0, rows(k), rows(v))
      k, v = rows(k), rows(v)
      seen, mask = ring.filled()[None, None], None
      own = rings[1]
    x = x + cross(layer_norm(x), (k, v), seen, pos=turn)
    known = [layer_norm(x)] + [given[k] for k in names[1:] if k in given]
    fine = _dense(2 * self.width, "fine1")(jnp.concatenate(known, -1))
    x = x + _dense(self.width, "fine2")(nn.gelu(fine))
    turn = positions.line_turns(at, self.stack.head_width(self.width))
    h, own = self.stack(x, mask, pos=turn, cache=own)
    return h, None if rings is None else (ring.advance(1), own)

  def empty(self, batch: int) -> tuple[Ring, Ring]:
    """The rings of a stream before its first frame."""
    features = self.width // self.heads
    sound = Ring.empty(1, batch, self.heads, self.window + 1, features)
    return sound, empty_ring(self.stack, batch, self.window, self.width)


def empty_ring(stack: Backbone, batch: int, rows: int, width: int) -> Ring:
  """An empty ring of so many rows for the layers of a stack of D = `width`."""
  mixer = stack.block.mixer
  heads = mixer.kv_heads or mixer.heads
  return Ring.empty(stack.depth, batch, heads, rows, stack.head_width(width))
