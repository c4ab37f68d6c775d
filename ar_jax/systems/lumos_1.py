"""Lumos-1: videos frame by frame in a plain language model.

Lumos-1: On Autoregressive Video Generation from a Unified Model Perspective
(arXiv 2507.08801). New in it:
  - rotations in time, rows and columns whose features take turns, so that each
    axis has the whole range of frequencies (MM-RoPE);
  - a frame is filled from masks in some steps, and training masks the same
    places in all frames ("tube"), since else a later frame copies what an
    earlier one shows;
  - what is drawn is shown to later frames with 70 % of it masked again, as
    training had it.
Otherwise it is a Llama over one vocabulary of text and codes, with LayerNorm on
queries and keys.

Shapes: B batch, P ids of a text, T frames of N codes, C content of a frame, L =
T N units, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.errors import check_choice
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.block import clip_units
from ar_jax.families.block import frame_layout as layouts
from ar_jax.families.block.framed import Caption, Framed
from ar_jax.families.block.framed_program import FramedProgram
from ar_jax.families.block.tubes import KINDS, hidden
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import training_noise
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.layers.attention import HeadNorm
from ar_jax.nn.layers.volume_positions import channel_axes
from ar_jax.nn.stacks.llama import llama

# The published models: arguments of `build`. The depth and the width of both
# are known from the totals alone.
SIZES = {
  "1b": dict(depth=16, width=2048, heads=32, kv_heads=8, hidden=8192),
  "3b": dict(depth=28, width=3072, heads=24, kv_heads=8, hidden=8192),
}
# The vocabulary of Chameleon, behind which the codes are.
WORDS = 65_536
SPECIAL = dict(
  image_start=8197,
  image_end=8196,
  line_end=8803,
  video_start=9004,
  mask=9003,
)
_NUMBER = 8804  # the id of the number 0
_CELL = 32  # pixels of the unit in which sides are told


@dataclasses.dataclass(frozen=True)
class Lumos1(Prefixed):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  A given clip, `clip` u8[B, k, H, W, c], is gone on with: its frames are the
  first ones of what is drawn, as the tokenizer shows them.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes with `volume`, along time, rows and columns.
    masks: of training, one of `tubes.KINDS`.
    least: the least share that is masked.
    label_dropout: how often training hides the condition. 0 is a model without
      guidance.
  """

  net: Framed
  tokenizer: nn.Module
  masks: str = "tube"
  least: float = 0.7
  label_dropout: float = 0.1

  takes = ("clip", "bias")

  @property
  def plan(self) -> None:
    """None: every example has an order of its own within a frame."""
    return None

  def embedding(self, variables: Vars) -> Array:
    return super().embedding(variables)[self.net.layout.first :]

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The layout and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    layout, cond = self.net.layout, self.net.prefix.example()
    content = jnp.zeros((1, layout.frames, layout.content), jnp.int32)
    variables = self.net.init(key, cond, content, method="every")
    return {**variables, "tokenizer": self.init_tokenizer(frozen)}

  def by_frame(self, units: Array) -> Array:
    """i32[B, T, N] of units i32[B, L]."""
    return units.reshape(len(units), self.net.layout.frames, -1)

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
    hide: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit at its own place, given the frames before and
    what is shown of its own.

    Args:
      variables, cond, units, hidden, keys: as of `TeacherForced.logits`.
      hide: bool[B, T, C], the content that is masked; all if None.
    """
    net = self.net.bind(self.net_variables(variables))
    content = net.content(self.by_frame(units))
    if hide is None:
      hide = jnp.ones(content.shape, bool)
    content = net.masked(content, hide)
    h = net.states(self.condition(cond), content, hidden, keys)
    logits = net.logits(net.of_frames(h))
    return logits.reshape(len(units), -1, logits.shape[-1])

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean cross-entropy of an example's masked codes. The metrics `first`
    and `last` are those of its first and of its last frame."""
    batch = self.encode(variables, batch)
    untold, keys = None, None
    fresh = system.example_keys(jax.random.fold_in(key, 1), batch)
    if train:
      untold, keys = training_noise(key, batch, self.label_dropout)
    layout, units = self.net.layout, batch["units"]
    hide = hidden(self.masks, fresh, layout.frames, layout.content, self.least)
    logits = self.logits(variables, batch, units, untold, keys, hide)
    each = self.by_frame(cross_entropy(logits, units))
    asked = hide[:, :, layout.codes]
    right = self.by_frame(jnp.argmax(logits, -1) == units)

    def mean(x, axes):
      count = jnp.maximum(jnp.sum(asked, axes), 1)
      return jnp.sum(jnp.where(asked, x, 0), axes) / count

    frames = mean(each, 2)
    metrics = {
      "accuracy": mean(right, (1, 2)),
      "first": frames[:, 0],
      "last": frames[:, -1],
    }
    return Loss(mean(each, (1, 2)), metrics)

  def clip_lengths(self) -> tuple[int, ...]:
    """How many frames a clip may have that samples go on with."""
    return clip_units.lengths(self, self._known)

  def _known(self, frames: int) -> int:
    """Frames of codes of the first frames of a video.

    Raises:
      UserError: there are too many, or they end within one of codes.
    """
    count = self.tokenizer.maps(frames)
    if count >= self.net.layout.frames:
      raise UserError(
        f"a clip of {frames} frames: videos of this model have no more, and "
        "one frame at least must be left to draw"
      )
    return count

  def forwards(self, *, steps: int = 50, given: int = 0, **options) -> int:
    """Passes of the transformer for one example, each of two rows if guided:
    one that reads the text, one for each step of a frame, and one that shows it
    to later ones."""
    del options
    known = self._known(given) if given else 0
    left = self.net.layout.frames - known
    return 1 + known + left * (steps + 1)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 50,
    guidance: float | None = 1.0,
    noise: float = 1.0,
    decay: str = "linear",
    history: float = 0.7,
    given_clean: bool = False,
    blind: bool = False,
    **law: Any,
  ) -> Array:
    """Draws the units of one example per key, i32[B, L].

    Args:
      variables: as `init` makes them.
      cond: what the system needs; perhaps `clip` u8[B, k, H, W, c], first
        frames, and `bias` f32[B, V], see `pick.biased`.
      keys: Key[B].
      guidance: scale; 1.0 or None is off.
      steps, noise, decay, history, given_clean, blind: see `FramedProgram`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Raises:
      UserError: an option is out of range, a clip does not fit, or guidance is
        asked of a model built without a null class.
    """
    program = FramedProgram(
      self.net,
      steps,
      self.scale(guidance),
      noise,
      decay,
      history,
      given_clean,
      blind,
      tuple(sorted(law.items())),
    )
    clip, known = cond.get("clip"), None
    if clip is not None:
      count = self._known(clip.shape[1])
      known = clip_units.of_clip(self, variables, clip)
      known = self.by_frame(known)[:, :count]
    codes = program.run(
      self.net_variables(variables),
      self.condition(cond),
      keys,
      known,
      cond.get("bias"),
    )
    return codes.reshape(len(keys), -1)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int = 0,
  text: Mapping[str, Any] | None = None,
  special: Mapping[str, int] | None = None,
  lines: bool = True,
  strides: Sequence[int] = (4, 8, 8),
  rope: str = "interleaved",
  base: float = 1e4,
  masks: str = "tube",
  least: float | None = None,
  label_dropout: float = 0.1,
  **stack,
) -> Lumos1:
  """Builds Lumos-1; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "video_fsq", **arguments}`; or of frames `{"name":
      "given", "form": "frames", "frames": T, "tokenizer": {"name": "vq",
      **arguments}}`.
    depth: layers.
    width: D.
    heads: of attention; D / heads is a multiple of 32.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without classes.
    text: in place of classes `{"length": P, "words": W, "pad": id}`: a batch
      then has ids `text` i32[B, P]; with "names", a .npy file i32[classes, P],
      they are those of its class.
    special: the ids of `frame_layout.SPECIAL` among the words; behind them if
      None.
    lines: whether the lines of a frame have an end.
    strides: of the places in time, rows and columns.
    rope: see `volume_positions.channel_axes`.
    base: of its frequencies.
    masks: see `Lumos1`.
    least: see `Lumos1`; if None 0.7, or 0.2 of "independent", as published.
    label_dropout: see `Lumos1`.
    **stack: kv_heads, features, hidden, eps, multiple_of, dropout, drop_path,
      remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or units are no codes of videos.
  """
  codes = clip_units.codes(tokenizer, "lumos_1")
  check_choice("masks", masks, KINDS)
  if num_classes and text:
    raise UserError("give either num_classes or text, the condition")
  if not (num_classes or text):
    label_dropout = 0.0  # there is nothing to hide
  if least is None:
    least = 0.2 if masks == "independent" else 0.7
  if not 0 < least <= 1:
    raise UserError(f"least={least}: a share that is masked, above 0")
  caption = Caption.of(num_classes, text, label_dropout > 0)
  words = caption.words
  if special is None:
    ids, first = layouts.own_special(words), words + len(layouts.SPECIAL)
  else:
    ids, first = layouts.named_special(special), words
    if not all(0 <= i < words for i in ids):
      raise UserError(f"special={dict(special)}: must be below words={words}")
  layout = layouts.FrameLayout(
    caption.count, tuple(codes.volume), ids, first, lines, tuple(strides)
  )
  stack = dict(head_norm=HeadNorm("layer", eps=1e-5), dropout=0.0) | stack
  made = llama(depth, width, heads, **stack)
  channel_axes(made.head_width(width), rope)
  net = Framed(
    layout,
    Embed(first + codes.vocab, width),
    width,
    caption,
    made,
    Categorical(first + codes.vocab, bias=False),
    rope,
    base,
  )
  return Lumos1(net, codes, masks, least, label_dropout)


def published_special(
  height: int, width: int, duration: int, rate: int
) -> dict[str, int]:
  """The ids of `frame_layout.SPECIAL` in the published vocabulary.

  Args:
    height, width: of the video in pixels.
    duration: in seconds.
    rate: frames a second.
  """
  numbers = dict(duration=duration, rate=rate)
  numbers |= dict(height=height // _CELL, width=width // _CELL)
  return SPECIAL | {k: _NUMBER + n for k, n in numbers.items()}
