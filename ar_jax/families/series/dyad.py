"""The network of ARIG (arXiv 2507.00472): one motion a frame, of all frames of
a conversation at once, or as a stream.

Index discipline: the motion of frame t is made from the user's sound, voice
and motion up to t - 1, from the agent's motion up to t - 1, and from the
agent's sound and voice up to t, which are known a frame ahead because they are
synthesised.

Shapes: B batch, T frames, A numbers of sound, Mu and Ma of motion, D width, c
frames of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.domains import conversation
from ar_jax.core.errors import UserError, check_choice, check_positive
from ar_jax.families.series import interaction
from ar_jax.families.series.interaction import Behaviour, Progress, States
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.mean import Mean
from ar_jax.nn.layers import positions
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.nn.stacks.vit import vit

Array = jax.Array

USER = ("audio_u", "motion_u")
AGENT = ("audio_a", "motion_a")
NONE = len(conversation.STATES)  # the state before the first frame
MEMORIES = ("long", "chunk", "none")
STATES = ("context", "voice", "none")


def late(x: Array) -> Array:
  """[B, T, ...] one frame later, zeros first."""
  return jnp.pad(x, ((0, 0), (1, 0), *((0, 0),) * (x.ndim - 2)))[:, :-1]


class DyadNet(nn.Module):
  """What is known of a conversation -> what the next motion is drawn from.

  Attributes:
    width: D.
    heads: of attention.
    chunk: c.
    chunks: w, chunks that the context reaches back.
    window: h, frames that motion and sound reach back.
    progress: the last part.
    head: draws the motion.
    memory: the stack over chunk tokens; None where the running chunk is all.
    behaviour: whether there is a context at all.
    states: the state classifier; None for none.
  """

  width: int
  heads: int
  chunk: int
  chunks: int
  window: int
  progress: Progress
  head: Diffusion | Mean
  memory: Backbone | None
  behaviour: bool
  states: States | None

  def setup(self):
    dense = lambda: nn.Dense(
      self.width, kernel_init=nn.initializers.xavier_uniform()
    )
    if self.behaviour:
      self.merge_u, self.merge_a, self.hear = dense(), dense(), dense()
      self.pool = Behaviour(self.width, self.heads, self.chunk)

  def __call__(
    self,
    known: Mapping[str, Array],
    *,
    before: Array | None = None,
    mixed: Array | None = None,
    hidden: Array | None = None,
  ) -> tuple[Array, Array | None]:
    """(hidden states [B, T, D], logits of states f32[B, T, 7] or None).

    Args:
      known: the fields of a conversation, as read: sound and motion f32
        [B, T, ...], voice i32[B, T].
      before: i32[B, T], the state one frame before each; NONE before the
        first.
      mixed: bool[B, T], where the state that is predicted takes the place of
        that one.
      hidden: bool[B, 3]; see `Progress`.
    """
    length = known["audio_a"].shape[1]
    at = jnp.arange(length)
    summary = self._summary(known) if self.behaviour else None
    feature = logits = None
    if self.states is not None:
      voices = late(known["voice_u"]), known["voice_a"]
      feature, logits = self.states(*voices, before, summary)
      if mixed is not None:
        said = late(jnp.argmax(logits, -1) - NONE) + NONE  # NONE comes first
        before = jnp.where(mixed, said, before)
        feature, logits = self.states(*voices, before, summary)
    z, _ = self.progress(
      late(known["motion_a"]),
      known["audio_a"],
      summary,
      feature,
      at,
      hidden=hidden,
    )
    return z, logits

  def _summary(self, known: Mapping[str, Array]) -> Array:
    """[B, T, D]: what has gone on before each frame."""
    b, t = known["audio_a"].shape[:2]
    user, agent = self._merged(known)
    frames, seen = interaction.running(t, self.chunk)
    flat = lambda x: x.reshape(b * t, *x.shape[2:])
    token = self.pool(
      flat(user[:, frames]),
      flat(agent[:, frames]),
      flat(jnp.broadcast_to(seen[None], (b, *seen.shape))),
      flat(self.hear(known["audio_a"])),
    ).reshape(b, t, -1)
    if self.memory is None:
      return token
    mask = interaction.recent_chunks(t, self.chunk, self.chunks)
    turn = self._turn(interaction.chunk_of(jnp.arange(t), self.chunk))
    return self.memory(token, jnp.asarray(mask), pos=turn)[0]

  def _merged(self, known: Mapping[str, Array]) -> tuple[Array, Array]:
    """Sound and motion of the user and of the agent, [B, T, D] each."""
    join = lambda names: jnp.concatenate([known[k] for k in names], -1)
    return self.merge_u(join(USER)), self.merge_a(join(AGENT))

  def _turn(self, chunk: Array) -> Array:
    features = self.memory.head_width(self.width)
    return positions.line_turns(chunk, features)

  def begin(self, batch: int, guided: bool = False) -> dict[str, Any]:
    """What a stream knows before its first frame, in arrays of fixed size."""
    carry = {
      "at": jnp.int32(0),
      "state": jnp.full(batch, NONE, jnp.int32),
      "rings": self.progress.empty(batch * (1 + guided)),
    }
    if self.behaviour:
      rows = jnp.zeros((batch, self.chunk, self.width))
      carry |= {"user": rows, "agent": rows}
    if self.memory is not None:
      rows = self.chunks + 1
      carry["chunks"] = interaction.empty_ring(
        self.memory, batch, rows, self.width
      )
    return carry

  def listen(
    self,
    carry: dict[str, Any],
    heard: Mapping[str, Array],
    said: Mapping[str, Array],
  ) -> tuple[dict[str, Any], Array | None, Array | None, Array | None]:
    """The first half of a frame: what goes on, and in which state the agent
    may be.

    Args:
      carry: of the frame before, or of `begin`.
      heard: of the frame before, sound and motion of both and the user's voice
        [B, ...]; at the first frame nobody reads it.
      said: `audio_a` and `voice_a` of this frame.

    Returns:
      (carry, context [B, 1, D], features of the state [B, 1, D], logits of
      the states f32[B, 7]); None for what there is not.
    """
    at, c = carry["at"], self.chunk
    summary = feature = logits = None
    if self.behaviour:
      new = self._merged({k: heard[k][:, None] for k in USER + AGENT})
      for name, row in zip(("user", "agent"), new, strict=True):
        place = (0, (at - 1) % c, 0)
        carry = carry | {
          name: jax.lax.dynamic_update_slice(carry[name], row, place)
        }
      filled = jnp.where(at == 0, 0, (at - 1) % c + 1)
      seen = jnp.broadcast_to(jnp.arange(c) < filled, (len(new[0]), c))
      now = self.hear(said["audio_a"])
      token = self.pool(carry["user"], carry["agent"], seen, now)
      summary = token[:, None]
      if self.memory is not None:
        number = interaction.chunk_of(at, c)
        ring = carry["chunks"].at(number)
        turn = self._turn(number[None])
        summary, ring = self.memory(summary, pos=turn, cache=ring)
        carry = carry | {"chunks": ring}
    if self.states is not None:
      voice = jnp.where(at == 0, 0, heard["voice_u"])
      feature, logits = self.states(
        voice[:, None],
        said["voice_a"][:, None],
        carry["state"][:, None],
        summary,
      )
      logits = logits[:, 0]
    return carry, summary, feature, logits

  def move(
    self,
    carry: dict[str, Any],
    motion: Array,
    sound: Array,
    summary: Array | None,
    feature: Array | None,
    hidden: Array | None = None,
  ) -> tuple[dict[str, Any], Array]:
    """The second half: (carry of the next frame, hidden states [B, 1, D]).

    Args:
      carry: from `listen`.
      motion: [B, Ma], of the agent one frame before; at the first frame zeros.
      sound: [B, A], of the agent now.
      summary, feature: from `listen`.
      hidden: bool[B, 3]; see `Progress`.
    """
    at = carry["at"]
    z, rings = self.progress(
      motion[:, None],
      sound[:, None],
      summary,
      feature,
      at[None],
      hidden=hidden,
      rings=carry["rings"],
    )
    return carry | {"rings": rings, "at": at + 1}, z


def dyad_net(
  head: Diffusion | Mean,
  hideable: bool,
  *,
  width: int = 256,
  heads: int = 4,
  depth: int = 2,
  memory_depth: int = 2,
  chunk: int = 10,
  chunks: int = 8,
  window: int = 25,
  memory: str = "long",
  states: str = "context",
  dtype: str = "float32",
) -> DyadNet:
  """The network.

  Args:
    head: draws the motion.
    hideable: see `Progress`.
    width: D.
    heads: of attention.
    depth: layers over the last frames.
    memory_depth: layers over chunk tokens.
    chunk: c, frames of a chunk.
    chunks: w, chunks that the context reaches back.
    window: h, frames that motion and sound reach back.
    memory: "long", the window of chunks; "chunk", the running chunk alone; or
      "none", no summary of the interaction.
    states: "context", by voices, summary and the state before; "voice", by the
      voices of this frame alone; or "none", no states.
    dtype: of the stacks.

  Raises:
    UserError: a size or a name is none of these.
  """
  check_choice("memory", memory, MEMORIES)
  check_choice("states", states, STATES)
  check_positive(chunk=chunk, chunks=chunks, window=window)
  if width % (2 * heads):
    raise UserError(f"width={width}: must be a multiple of 2 x heads={heads}")
  stack = lambda depth: vit(depth, width, heads, dropout=0.0, dtype=dtype)
  return DyadNet(
    width,
    heads,
    chunk,
    chunks,
    window,
    Progress(stack(depth), width, heads, window, hideable),
    head,
    stack(memory_depth) if memory == "long" else None,
    memory != "none",
    None if states == "none" else States(width, states == "context"),
  )
