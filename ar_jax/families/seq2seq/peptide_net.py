"""An encoder of spectra and two decoders of peptides, of which the second looks
at the first (CrossNovo, arXiv 2510.08169).

Shapes: B batch, S rows of the memory, T slots, L symbols, V = 29 of them, D
width.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError, check_choice, check_positive
from ar_jax.core.system import Array, Batch
from ar_jax.families.seq2seq import residues
from ar_jax.families.seq2seq.residues import BLANK, STOP
from ar_jax.families.seq2seq.spectra import FRONTS, PeakEncoder, Waves
from ar_jax.nn.heads import ctc
from ar_jax.nn.layers.cross_attention import Memory
from ar_jax.nn.stacks.vit import vit

DECODERS = ("both", "residues", "slots")


class Net(nn.Module):
  """The encoder and the decoders, None for one that is not there."""

  encoder: PeakEncoder
  slots: residues.Slots | None
  residues: residues.Residues | None

  def setup(self):
    if self.slots is not None and self.residues is not None:
      init = nn.initializers.normal(0.02)
      self.kind = self.param("kind", init, (self.encoder.width,))

  def read(self, cond: Batch) -> tuple[Array, Array]:
    """(the memory f32[B, S, D], which rows are there, bool[B, S])."""
    mass = cond["precursor"][:, :2]
    return self.encoder(cond["mz"], cond["peaks"][..., 1], mass)

  def slot_states(self, cond: Batch, memory: Array, there: Array) -> Array:
    """The last hidden states of the slots, f32[B, T, D]."""
    p = cond["precursor"]
    own = self.slots.remember(memory, there)
    return self.slots(p[:, :2], p[:, 2], own)

  def looked_at(
    self, memory: Array, there: Array, states: Array | None
  ) -> Memory:
    """What the residues look at: the spectrum, and the slots where they are
    given, through which no gradient goes."""
    if states is not None:
      states = jax.lax.stop_gradient(states) + self.kind[None, None]
      memory = jnp.concatenate([memory, states], 1)
      ones = jnp.ones(states.shape[:2], bool)
      there = jnp.concatenate([there, ones], 1)
    return self.residues.remember(memory, there)

  def __call__(
    self, cond: Batch, units: Array, crossed: bool = True
  ) -> tuple[Array | None, Array | None]:
    """(logits f32[B, T, 28] of slots, f32[B, L, V] of each of units i32[B, L]
    given those before it); `crossed` is whether the second sees the first."""
    memory, there = self.read(cond)
    states = said = slot_logits = None
    if self.slots is not None:
      states = self.slot_states(cond, memory, there)
      slot_logits = self.slots.logits(states)
    if self.residues is not None:
      seen = self.looked_at(memory, there, states if crossed else None)
      p = cond["precursor"]
      h = self.residues.features(units[:, :-1], p[:, :2], p[:, 2], seen)
      said = self.residues.logits(h)
    return slot_logits, said


def slot_loss(logits: Array, units: Array) -> tuple[Array, Array]:
  """-log p f32[B] of targets, over their length; 0, and 1 in the second, where
  they do not fit into the slots."""
  real = (units > 0) & (units != STOP)
  target = jnp.where(real, units - 1, 0)
  count = real.sum(1)
  repeats = jnp.sum((units[:, 1:] == units[:, :-1]) & real[:, 1:], 1)
  fits = count + repeats <= logits.shape[1]
  there = jnp.ones(logits.shape[:2], bool)
  loss = ctc.loss(logits, there, target, real, blank=BLANK)
  loss = jnp.where(fits, loss / jnp.maximum(count, 1), 0.0)
  return loss, (~fits).astype(jnp.float32)


def peptide_net(
  length: int,
  waves: Callable[[int], Waves],
  *,
  slots: int = 40,
  width: int = 400,
  heads: int = 8,
  hidden: int = 1024,
  encoder_layers: int = 9,
  slot_layers: int = 9,
  residue_layers: int = 9,
  order: str = "post",
  decoders: str = "both",
  front: str = "token",
  masses: bool = False,
  remat: bool | str = False,
  dtype: str = "float32",
) -> Net:
  """The network.

  Args:
    length: residues of a peptide, at most.
    waves: of m/z and masses, by their width.
    slots: T.
    width: D.
    heads: of attention.
    hidden: width of the MLPs.
    encoder_layers, slot_layers, residue_layers: of the three.
    order: "post", as published, or "pre"; see `blocks.PlainBlock`.
    decoders: "both"; "residues" or "slots" alone.
    front: see `PeakEncoder`.
    masses: see `residues.Residues`.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the layers.

  Raises:
    UserError: a size or a name is none of these.
  """
  check_choice("decoders", decoders, DECODERS)
  check_choice("front", front, FRONTS)
  check_positive(slots=slots)
  if width % 4:
    raise UserError(f"width={width} must be a multiple of 4")
  stack = lambda depth, cross: vit(
    depth, width, heads, cross, hidden=hidden, act="relu", order=order,
    dropout=0.0, eps=1e-5, remat=remat, dtype=dtype,
  )  # fmt: skip
  own, read = waves(width), waves(width // 2 if masses else width)
  return Net(
    PeakEncoder(stack(encoder_layers, False), width, own, front),
    None
    if decoders == "residues"
    else residues.Slots(stack(slot_layers, True), width, slots, own),
    None
    if decoders == "slots"
    else residues.Residues(
      stack(residue_layers, True), width, length + 1, read, masses
    ),
  )
