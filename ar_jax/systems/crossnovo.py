"""CrossNovo: a peptide from its spectrum, residue by residue, with an eye on
all of it at once.

Bidirectional Representations Augmented Autoregressive Biological Sequence
Generation: Application in De Novo Peptide Sequencing (arXiv 2510.08169).
New in it:
  - one encoder of the spectrum, and two decoders: slots, all at once, by CTC;
    and residue after residue;
  - the second also looks at the last hidden states of the first, through which
    no gradient goes;
  - training moves from the loss of the slots to that of the residues; then the
    slots rest.

Residues are drawn by a beam that ends where the mass of the precursor is
reached; slots by a knapsack of that mass. The baselines are each decoder alone,
`decoders="residues"` and "slots". The parents are PrimeNovo (the slots) and
ContraNovo (the residues). Sequences are read from their C-terminus.

Shapes: B batch, P peaks, S rows of the memory, T slots, L residues and a stop,
D width, V = 29 symbols.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import mass_beam
from ar_jax.core.errors import UserError, check_choice, check_positive
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, Vars
from ar_jax.families.base import Generator
from ar_jax.families.seq2seq import peptide_draw, peptide_net, residues
from ar_jax.families.seq2seq.peptide_net import Net, slot_loss
from ar_jax.families.seq2seq.spectra import Waves
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.tokenizers.given import Tokens

CROSSINGS = ("late", "always")
SEARCHES = ("draw", "beam", "slots", "greedy")
_CLEAN = {"token": (1.0, 6500.0, 1.0), "peaks": (50.5, 4500.0, 2.0)}


@dataclasses.dataclass(frozen=True)
class CrossNovo(Generator):
  """The system. Variables: `params`.

  Attributes:
    net: the network.
    tokenizer: of peptides, ids of symbols.
    crossing: when the residues look at the slots: "late", behind the first
      `switch` updates, behind which the slots rest; or "always".
    switch: updates in which the objective moves, evenly, from the loss of the
      slots to that of the residues.
    bins: Da that a peptide may weigh, for the knapsack.
    released: the loss of the residues is that of probabilities, as published,
      by a second softmax; and the searches are as published.
    peaks: of a spectrum of a person's own, at most.
    stage: of training: "first" or "second", set by `at`; None as built.
  """

  net: Net
  tokenizer: Tokens
  crossing: str = "late"
  switch: int = 1000
  bins: int = 6500
  released: bool = False
  peaks: int = 300
  stage: str | None = None
  label_dropout: float = 0.0

  needs = ("peaks", "mz", "precursor")
  counts = ("fits",)
  classes = None

  @property
  def plan(self) -> Plan:
    return makers.blocks(self.tokenizer.length + 1, 1)

  @property
  def reading(self) -> tuple[str, tuple[float, ...]]:
    """Of files of a person's own: spectra, their most peaks, the range of m/z
    and what is the precursor's, as the parents clean them."""
    return "peaks", (self.peaks, *_CLEAN[self.net.encoder.front])

  @property
  def trains(self) -> tuple[str, ...] | None:
    """In the second stage the slots rest."""
    return ("encoder", "residues", "kind") if self.stage == "second" else None

  def at(self, step: int) -> CrossNovo:
    both = self.net.slots is not None and self.net.residues is not None
    if not both or self.crossing == "always":
      return self
    stage = "first" if step < self.switch else "second"
    return dataclasses.replace(self, stage=stage)

  def init(self, key: Array, batch: Batch) -> Vars:
    # Of one example: shapes of peaks are those of the data.
    cond = {k: jnp.zeros((1, *batch[k].shape[1:])) for k in self.needs}
    units = jnp.ones((1, len(self.plan)), jnp.int32)
    return {"params": self.net.init(key, cond, units)["params"]}

  def condition(self, cond: Batch) -> Batch:
    return {k: jnp.asarray(cond[k]) for k in self.needs}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """With `units` i32[B, L]: the peptide from its C-terminus and a stop, 0
    behind it."""
    del variables
    rest = dict(batch)
    if self.tokenizer.field not in rest:
      return rest
    ids = self.tokenizer.encode(rest.pop(self.tokenizer.field))
    return {**rest, "units": residues.backwards(ids)}

  def decode(self, variables: Vars, units: Array) -> Array:
    """Peptides i32[B, L - 1] from their N-terminus, 0 behind the end."""
    del variables
    return residues.forwards(units)

  def logits(self, variables: Vars, cond: Batch, units: Array) -> Array:
    """f32[B, L, V] of each of units i32[B, L] given those before it."""
    return self.net.apply(variables, self.condition(cond), units)[1]

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    del key
    batch = self.encode(variables, batch)
    units, crossed = batch["units"], self.stage != "first"
    slots, said = self.net.apply(
      variables, self.condition(batch), units, crossed
    )
    metrics, nll, counted = {}, None, None
    if slots is not None:
      metrics["slots"], metrics["impossible"] = slot_loss(slots, units)
    if said is not None:
      real = units > 0
      counted = real.sum(1).astype(jnp.float32)
      law = jax.nn.softmax(said) if self.released and train else said
      nll = jnp.where(real, cross_entropy(law, units), 0.0)
      hit = jnp.where(real, jnp.argmax(said, -1) == units, False)
      metrics["residues"] = nll.sum(1) / counted
      metrics["accuracy"] = hit.sum(1) / counted
    share = float(said is None)
    if slots is not None and said is not None:
      share = self._share(batch, train)
    own = metrics.get("slots", 0.0), metrics.get("residues", 0.0)
    value = share * own[0] + (1 - share) * own[1]
    return Loss(value, metrics, nll=nll, units=counted)

  def _share(self, batch: Batch, train: bool) -> Array | float:
    """Of the loss of the slots in the objective."""
    if not train or self.stage == "second":
      return 0.0
    if "step" not in batch:
      return 0.5
    if self.stage is None and self.crossing == "late":
      return 0.5  # no phase is said
    return jnp.clip(1 - batch["step"] / max(self.switch, 1), 0.0, 1.0)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    search: str | None = None,
    beams: int = 5,
    ppm: float = 50.0,
    isotopes: int = 2,
    **law: Any,
  ) -> Array:
    """Symbols i32[B, L] from the C-terminus, which mean nothing behind the
    first stop or 0; arguments as in `sample`."""
    search = search or ("slots" if self.net.residues is None else "beam")
    check_choice("search", search, SEARCHES)
    lacks = self.net.residues if search in ("draw", "beam") else self.net.slots
    if lacks is None:
      raise UserError(
        f"search={search!r}: this model has no such decoder; build it with "
        "decoders='both'"
      )
    cond = self.condition(cond)
    net = self.net.bind(variables)
    memory, there = net.read(cond)
    states = None
    if self.net.slots is not None:
      states = net.slot_states(cond, memory, there)
    p, length = cond["precursor"], len(self.plan)
    if search in ("slots", "greedy"):
      logits, neutral = net.slots.logits(states), p[:, 0] + p[:, 1]
      known = dict(beams=beams, bins=self.bins, released=self.released)
      if search == "greedy":
        return peptide_draw.greedy(logits, length)
      return peptide_draw.of_mass(logits, neutral, length, **known)
    seen = net.looked_at(memory, there, states)
    if search == "draw":
      return peptide_draw.drawn(net.residues, p, seen, keys, **law)
    target = self.sought(cond, ppm, isotopes)
    known = dict(beams=beams, released=self.released)
    return peptide_draw.beam(net.residues, p, seen, target, **known)

  def sought(
    self, cond: Batch, ppm: float = 50.0, isotopes: int = 2
  ) -> mass_beam.Target:
    """What the peptides of these spectra ought to weigh."""
    masses = residues.split_masses(self.released).sum(-1)
    p = cond["precursor"]
    return mass_beam.Target(
      jnp.asarray(masses), p[:, 3], p[:, 2], ppm, isotopes
    )

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    search: str | None = None,
    beams: int = 5,
    ppm: float = 50.0,
    isotopes: int = 2,
    **law: Any,
  ) -> dict[str, Array]:
    """Reads spectra.

    Args:
      variables: as `init` makes them.
      cond: the fields of `needs`.
      keys: Key[B]; "draw" alone is random.
      search: "beam", residue by residue until the mass is right; "slots", the
        likeliest of the right mass of all slots; "greedy", the likeliest of
        each slot; "draw", residues from their law. None is "beam", or "slots"
        of a model without the other decoder.
      beams: of "beam", and of the prefix beam of "slots".
      ppm: how far m/z may be from the precursor's, in millionths.
      isotopes: of the precursor that may have been measured.
      **law: of "draw", see `pick.law`.

    Returns:
      `peptide` i32[B, L - 1] from its N-terminus, 0 behind the end, and `fits`
      f32[B], whether it has the mass.

    Raises:
      UserError: there is no such search or decoder, or an option is out of
        range.
    """
    if beams < 1 or ppm <= 0 or isotopes < 1:
      raise UserError(
        f"beams={beams}, ppm={ppm}, isotopes={isotopes}: must be positive"
      )
    units = self.generate(
      variables, cond, keys, search=search, beams=beams, ppm=ppm,
      isotopes=isotopes, **law,
    )  # fmt: skip
    peptide = self.decode(variables, units)
    target = self.sought(self.condition(cond), ppm, isotopes)
    fits = target.fits(target.masses[peptide].sum(1))
    return {"peptide": peptide, "fits": fits.astype(jnp.float32)}


@system.passes_on(peptide_net.peptide_net)
def build(
  *,
  length: int = 30,
  crossing: str = "late",
  switch: int = 100_000,
  bins: int = 6500,
  released: bool = False,
  least: float = 1e-3,
  terms: Sequence[Sequence[float]] = (),
  peaks: int = 300,
  **net,
) -> CrossNovo:
  """Builds the system; by default as wide as its parent of slots, for the width
  of CrossNovo itself is not published.

  Args:
    length: residues of a peptide, at most.
    crossing, switch, bins, released, peaks: see `CrossNovo`.
    least: wavelength of m/z and masses; a larger one is easier to learn.
    terms: of published waves, see `Waves.exact`.
    **net: slots, width, heads, hidden, encoder_layers, slot_layers,
      residue_layers, order, decoders, front, masses, remat and dtype; see
      `peptide_net`.

  Raises:
    UserError: a size or a name is none of these.
  """
  check_choice("crossing", crossing, CROSSINGS)
  check_positive(length=length, bins=bins)
  exact = tuple(map(tuple, terms))
  waves = functools.partial(Waves, least=least, released=released, exact=exact)
  made = peptide_net.peptide_net(length, waves, **net)
  tokenizer = Tokens(residues.STOP, length, 0, "peptide")
  return CrossNovo(made, tokenizer, crossing, switch, bins, released, peaks)
