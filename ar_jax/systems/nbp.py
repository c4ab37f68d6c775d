"""NBP: a video block by block, each position saying its own in the next one.

Next Block Prediction: Video Generation via Semi-Autoregressive Modeling (arXiv
2502.07737). New in it:
  - units are drawn a block at a time, a row of a frame as published: the target
    is shifted by a block in place of a unit, attention is whole within a block;
  - the first block is drawn unit by unit, and rows of their own make up the
    first whole one ("hybrid"); or first frames are given, which it goes on
    with ("frames");
  - everything is one vocabulary: codes, the ids of a condition, these rows.
Otherwise it is a GPT with learned positions, and with blocks of one unit it is
just that.

Shapes: B batch, P positions of the prefix, L units, N units of a block, T
frames, D width, V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import clips
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.block import clip_units, ids
from ar_jax.families.block.shifted import NextBlock
from ar_jax.families.block.shifted_program import NextBlockProgram
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import scored, training_noise
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.attention import Attention, check_heads
from ar_jax.nn.layers.mlp import Mlp
from ar_jax.nn.layers.norms import LayerNorm
from ar_jax.nn.stacks.blocks import PlainBlock
from ar_jax.nn.stacks.transformer import Backbone

# The published models: arguments of `build`.
SIZES = {
  "base": dict(depth=24, width=1536, heads=16),
  "xl": dict(depth=24, width=2048, heads=32),
  "3b": dict(depth=32, width=3072, heads=32),
}
POSITIONS = 5120  # rows of the published tables


@dataclasses.dataclass(frozen=True)
class NBP(Prefixed):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  A given clip, `clip` u8[B, k, H, W, c], is gone on with: its frames are the
  first ones of what is drawn, as the tokenizer shows them.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes with `volume`, along time, rows and columns.
    context: of models that go on with frames: how many they read of the
      `video` of an example where no `clip` is given.
    label_dropout: how often training hides the condition. 0 is a model without
      guidance.
  """

  net: NextBlock
  tokenizer: nn.Module
  context: int = 0
  label_dropout: float = 0.0

  takes = ("clip", "bias")

  @property
  def needs(self) -> tuple[str, ...]:
    own = self.net.prefix.fields
    return own if self.net.hybrid else (*own, self.tokenizer.field)

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """What the prefix reads: the frames of a video are units."""
    fields = self.net.prefix.fields
    if not isinstance(cond, Mapping):
      cond = dict.fromkeys(fields, cond)
    return {name: cond[name] for name in fields}

  def embedding(self, variables: Vars) -> Array:
    return super().embedding(variables)[self.net.first :]

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    units = jnp.zeros((1, len(self.plan)), jnp.int32)
    cond = self.net.prefix.example()
    variables = self.net.init(key, cond, units, method="logits")
    return {**variables, "tokenizer": self.init_tokenizer(frozen)}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.codec(variables).encode(x)[:, self.raster()]

  def decode(self, variables: Vars, units: Array) -> Array:
    """Videos f32[B, T, H, W, c] in [0, 1] of units i32[B, L]."""
    return super().decode(variables, units[:, np.argsort(self.raster())])

  def raster(self) -> np.ndarray:
    """i64[L]: where in the raster the unit of every slot is."""
    _, rows, cols = self.tokenizer.volume
    plan = self.plan
    return (plan["frame"] * rows + plan["row"]) * cols + plan["col"]

  def forwards(self, given: int = 0, **options) -> int:
    """Passes of the transformer for one example of which the first `given`
    frames are known; each of two rows if guided."""
    del options
    given = given or self.context
    if not given:
      return self.plan.steps
    return (len(self.plan) - self._known(given)) // self.net.block

  def clip_lengths(self) -> tuple[int, ...]:
    """How many frames a clip may have that samples go on with."""
    return clip_units.lengths(self, self._known)

  def _known(self, frames: int) -> int:
    """Units of the first frames of a video.

    Raises:
      UserError: they end within a block, or nothing is left to draw.
    """
    maps = self.tokenizer.maps(frames)
    total, rows, cols = self.tokenizer.volume
    count, size = maps * rows * cols, self.net.block
    if maps >= total:
      raise UserError(
        f"a clip of {frames} frames: videos of this model have no more, and "
        "one block at least must be left to draw"
      )
    if count % size or np.any(self.plan["frame"][:count] >= maps):
      raise UserError(
        f"a clip of {frames} frames ends within a block of this model; give "
        "more or fewer"
      )
    return count

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit as a code, given the blocks before its own,
    or in a first block that is drawn the units before it; zeros for a first
    block that is given. Arguments as those of `TeacherForced.logits`."""
    logits = self._merged(variables, cond, units, hidden, keys)
    logits = logits[..., self.net.first :]
    first = len(self.plan) - self.net.said
    return jnp.pad(logits, ((0, 0), (first, 0), (0, 0)))

  def _merged(self, variables, cond, units, hidden, keys) -> Array:
    net = self.net.bind(self.net_variables(variables))
    merged = units + self.net.first
    return net.logits(self.condition(cond), merged, hidden, keys)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The cross-entropy of all units but a first block that is given; its law
    is over the whole vocabulary."""
    batch = self.encode(variables, batch)
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    units = batch["units"]
    first = len(self.plan) - self.net.said
    logits = self._merged(variables, batch, units, hidden, keys)
    nll, hit = scored(logits, units[:, first:] + self.net.first)
    value, hits = jnp.mean(nll, 1), {"accuracy": jnp.mean(hit, 1)}
    nll = jnp.pad(nll, ((0, 0), (first, 0)))
    counted = None
    if first:
      counted = jnp.full(len(units), self.net.said, jnp.float32)
    return Loss(value, hits, nll=nll, units=counted)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    merged: bool = False,
    **law: Any,
  ) -> Array:
    """Draws the units of one example per key, i32[B, L], in the order of the
    plan.

    Args:
      variables: as `init` makes them.
      cond: what the system needs; perhaps `clip` u8[B, k, H, W, c], first
        frames, and `bias` f32[B, V], see `pick.biased`.
      keys: Key[B].
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`, over the steps.
      merged: see `NextBlockProgram`.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Raises:
      UserError: an option is out of range, a clip does not fit, or guidance is
        asked of a model built without a null class.
    """
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, self.plan.steps)
    program = NextBlockProgram(
      self.net,
      scales if guidance != 1.0 else None,
      tuple(sorted(law.items())),
      merged,
    )
    known = self.given(variables, cond)
    own, first = self.net_variables(variables), self.net.first
    given = None if known is None else known + first
    drawn = program.run(
      own, self.condition(cond), keys, given, cond.get("bias")
    )
    return jnp.maximum(drawn - first, 0)

  def given(self, variables: Vars, cond: Batch) -> Array | None:
    """i32[B, M]: the units of the frames that a batch gives; None for none.

    Raises:
      UserError: as in `generate`.
    """
    clip = cond.get("clip")
    if clip is None and self.context:
      clip = cond[self.tokenizer.field][:, : self.context]
    if clip is None:
      return None
    count = self._known(clip.shape[1])
    return clip_units.of_clip(self, variables, clip)[:, :count]


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  block: Sequence[int] = (),
  mode: str = "hybrid",
  context: int = 0,
  num_classes: int = 0,
  text: Mapping[str, Any] | None = None,
  label_dropout: float = 0.1,
  positions: int | None = None,
  token_dropout: float = 0.1,
  dropout: float = 0.1,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> NBP:
  """Builds NBP; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "video_fsq", **arguments}`; or of frames `{"name":
      "given", "form": "frames", "frames": T, "tokenizer": {"name": "vq",
      **arguments}}`.
    depth: layers.
    width: D.
    heads: of attention.
    block: units of a block along time, rows and columns; () is a row.
    mode: "hybrid"; or "frames", which goes on with given frames, without a
      condition.
    context: of "frames", how many of an example are given.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without classes.
    text: ids in place of classes, `{"length": P, "words": W, "pad": id,
      "sees_padding": bool}`, see `Ids`: a batch then has `text` i32[B, P]. With
      "names", a .npy file i32[classes, P], they are those of its class.
    label_dropout: see `NBP`.
    positions: see `NextBlock`.
    token_dropout: of the embeddings.
    dropout: of the branches of the layers.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the computation.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together, or units are no codes of videos.
  """
  codes = clip_units.codes(tokenizer, "nbp")
  check_choice("mode", mode, ("hybrid", "frames"))
  if num_classes and text:
    raise UserError("give either num_classes or text, the condition")
  hybrid, shape = mode == "hybrid", tuple(block) or (1, 1, codes.grid[1])
  if not hybrid and (num_classes or text or context < 1):
    raise UserError(
      "mode='frames' reads `context` >= 1 frames of an example and no condition"
    )
  if hybrid and context:
    raise UserError(f"context={context}: is of mode='frames'")
  plan = clips.cells(codes.volume, shape, single=hybrid)
  size = int(np.prod(shape))
  check_heads(width, heads)
  if not (num_classes or text):
    label_dropout = 0.0  # there is nothing to hide
  special = size if hybrid else 0
  words = dict(text or {}).get("words", num_classes)
  first = special + words
  table = Embed(first + codes.vocab, width)
  before = ids.prefix(table, special, num_classes, text, label_dropout > 0)
  products = jnp.dtype(dtype)
  mixer = Attention(heads, bias="qkv", dtype=products, impl=impl)
  mlp = Mlp(4 * width, dtype=products, act="gelu")
  layer = PlainBlock(mixer, mlp, dropout=dropout, rms=False)
  stack = Backbone(
    layer, depth, out_norm=LayerNorm(1e-5), remat=remat, dtype=products
  )
  net = NextBlock(
    plan,
    size,
    hybrid,
    first,
    table,
    width,
    before,
    stack,
    Categorical(first + codes.vocab, bias=False),
    positions,
    token_dropout,
  )
  made = NBP(net, codes, context, label_dropout)
  if positions is not None and positions < net.rows:
    raise UserError(
      f"positions={positions}: this model reads {net.rows} of them"
    )
  if context:
    made.forwards()  # which says whether so many frames can be given
  return made
