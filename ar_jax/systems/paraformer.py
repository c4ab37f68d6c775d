"""Paraformer: speech to text, all symbols in one pass of the decoder.

Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive
End-to-End Speech Recognition (arXiv 2206.08317). New in it:
  - frames have weights whose sum is the number of symbols, and fire a vector
    for each (continuous integrate-and-fire), so a parallel decoder knows how
    many there are and what is heard of each;
  - in training some of these vectors are replaced by the symbols themselves,
    the more the worse a first pass has been (glancing), so the decoder learns
    what goes together;
  - a second stage weighs candidates of one pass by their errors ("mwer").

Baseline, of the same encoder: `decoder="ar"`, symbol after symbol. The AISHELL
recipe's conformer and rescoring by prefixes of CTC are not here.

Shapes: B batch, N samples, T frames, F features of one, P symbols at most with
the end, V symbols, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.signals import mel
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.seq2seq import decoders, speech
from ar_jax.families.seq2seq.front import Front
from ar_jax.families.seq2seq.system import Transcriber, text_tokenizer
from ar_jax.nn.heads import ctc
from ar_jax.nn.heads.categorical import cross_entropy, smoothed_divergence
from ar_jax.nn.layers import cif
from ar_jax.nn.losses import mwer

STAGES = ("glance", "mwer")
PER = ("row", "symbol")
# Published: arguments of `build`.
SIZES = {
  "large": dict(
    width=512, heads=4, hidden=2048, depth=50, layers=16, kernel=11,
    ctc_weight=0.0, stack=7, skip=6, bands=80,
  )
}  # fmt: skip
_FRAMES = ("frames", "frames_count")


@dataclasses.dataclass(frozen=True)
class Paraformer(Transcriber):
  """The system. Variables: `params` and an empty `tokenizer`.

  Attributes:
    net: the network.
    tokenizer: of the texts.
    front: from the samples of a sound to frames.
    end: whether the end of a text is a symbol that is heard, too.
    glance: which share of the errors of the first pass is replaced; 0 is no
      glancing.
    ctc_weight: of CTC beside the decoder.
    length_weight: of the error of the number of symbols.
    smoothing: of the labels.
    per: what losses are of: a "row", summed over its symbols, or a "symbol".
    stage: "glance", or "mwer".
    candidates, flips, keep: of that stage: see `mwer`; and the weight of the
      cross-entropy in it.
  """

  net: speech.SpeechNet
  tokenizer: nn.Module
  front: Front
  end: bool = False
  glance: float = 0.75
  ctc_weight: float = 0.3
  length_weight: float = 1.0
  smoothing: float = 0.1
  per: str = "row"
  stage: str = "glance"
  candidates: int = 4
  flips: int = 2
  keep: float = 0.01

  needs = ("audio", "audio_length")

  @property
  def reading(self) -> tuple[str, tuple[int, int]]:
    """See `Transcriber.reading`."""
    return "audio", (self.front.samples, self.front.rate)

  @property
  def parallel(self) -> bool:
    """Whether all symbols are heard at once."""
    return self.net.predictor is not None

  @property
  def plan(self) -> Plan:
    places = self.tokenizer.length
    return makers.blocks(places, places if self.parallel else 1)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    key, own = jax.random.split(key)
    frames = jnp.zeros((1, self.front.frames, self.front.features))
    ids = jnp.zeros((1, self.tokenizer.length), jnp.int32)
    made = self.net.init(key, frames, jnp.array([self.front.frames]), ids)
    return {**made, "tokenizer": self.init_tokenizer(own)}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `frames` f32[B, T, F] and `frames_count` i32[B] in place
    of the sound, and `units` in place of the text."""
    rest = dict(batch)
    if "audio" in rest:
      audio, count = rest.pop("audio"), rest.pop("audio_length")
      if audio.shape[1:] != (self.front.samples,):
        raise UserError(
          f"audio of {audio.shape[1]} samples: this model hears "
          f"{self.front.samples}; set --config.model.samples={audio.shape[1]}"
        )
      found = self.front(audio, jnp.maximum(count, 1))
      rest |= dict(zip(_FRAMES, found, strict=True))
    return super().encode(variables, rest)

  def condition(self, cond: Batch) -> dict[str, Array]:
    """Frames of an encoded batch."""
    return {name: cond[name] for name in _FRAMES}

  def targets(self, units: Array) -> tuple[Array, Array]:
    """(bool[B, P] of the symbols that are heard, the end among them if `end`;
    and bool[B, P] without it)."""
    inner = self.real(units) & (units != self.tokenizer.stop)
    return (self.real(units) if self.end else inner), inner

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    net = self.net.bind(self.net_variables(variables))
    units, frames = batch["units"], batch["frames"]
    real, inner = self.targets(units)
    keys = system.example_keys(key, batch) if train else None
    drop = None if keys is None else fold(keys, 0)
    if train and self.front.augment:
      times, bands = self.front.augment
      hide = fold(keys, 1)
      frames = mel.masked(frames, hide, times=times, bands=bands)
    heard = net.hear(frames, batch["frames_count"], drop)
    count = jnp.maximum(real.sum(1), 1).astype(jnp.float32)
    per = count if self.per == "symbol" else 1.0
    terms = {}
    if self.ctc_weight:
      loss = ctc.loss(net.said_by_ctc(heard), heard.there, units, inner)
      terms["ctc"] = (self.ctc_weight, loss / per)
    if self.parallel:
      logits, more = self.glancing(net, heard, units, real, keys)
      terms |= more
    else:
      logits, real = net.decoder(units, heard.memory), self.real(units)
    nll = cross_entropy(logits, units) * real
    smooth = real * smoothed_divergence(logits, units, self.smoothing)
    weight = (1 - self.ctc_weight) * (self.keep if "mwer" in terms else 1.0)
    terms["decoder"] = (weight, smooth.sum(1) / per)
    if "length" in terms:
      terms["length"] = (self.length_weight, terms["length"][1] / per)
    value = sum(w * x for w, x in terms.values())
    metrics = {k: x for k, (_, x) in terms.items()}
    hit = (jnp.argmax(logits, -1) == units) & real
    metrics["accuracy"] = hit.sum(1) / count
    return Loss(value, metrics, nll=nll, units=count)

  def glancing(
    self, net: Any, heard: speech.Heard, units: Array, real: Array, keys: Any
  ) -> tuple[Array, dict[str, tuple[float, Array]]]:
    """(logits f32[B, P, V] of the second pass, further terms of the loss:
    `length`, and `mwer` in its stage).

    Of `net`, bound, and what it has heard; units i32[B, P], those that are real
    bool[B, P], and keys Key[B] of training: None has no second pass.
    """
    count = real.sum(1)
    acoustic = net.given(heard, count, units.shape[1])
    off = jnp.abs(count - heard.alphas.sum(1))
    terms = {"length": (self.length_weight, off)}
    if keys is not None and self.stage == "mwer":
      logits = net.decoder(acoustic, heard.memory, real)
      value, _ = mwer.loss(
        logits, units, real, fold(keys, 2), count=self.candidates,
        flips=self.flips,
      )  # fmt: skip
      return logits, {**terms, "mwer": (1.0, value)}
    if keys is not None and self.glance:
      still = jax.lax.stop_gradient
      first = net.decoder(still(acoustic), still(heard.memory), real)
      wrong = (jnp.argmax(still(first), -1) != units) & real
      replaced = jnp.floor(self.glance * wrong.sum(1)).astype(jnp.int32)
      acoustic = speech.glanced(
        acoustic, net.symbols(units), speech.ranks(fold(keys, 3), real),
        replaced,
      )  # fmt: skip
    return net.decoder(acoustic, heard.memory, real), terms

  def logits(self, variables: Vars, cond: Batch, units: Array | None) -> Array:
    net = self.net.bind(self.net_variables(variables))
    heard = net.hear(cond["frames"], cond["frames_count"])
    if not self.parallel:
      return net.decoder(units, heard.memory)
    return self._said(net, heard, cif.TAIL)

  def _said(self, net: Any, heard: speech.Heard, tail: float) -> Array:
    """Logits f32[B, P, V]: behind as many symbols as are counted all ends."""
    places = self.tokenizer.length
    x, count = net.counted(heard, places, tail)
    there = jnp.arange(places)[None] < count[:, None]
    logits = net.decoder(x, heard.memory, there)
    end = 1e4 * jax.nn.one_hot(self.tokenizer.stop, self.tokenizer.vocab)
    return jnp.where(there[..., None], logits, end[None, None])

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    by: str = "decoder",
    tail: float = cif.TAIL,
    temperature: float = 0.0,
  ) -> tuple[Array, Array]:
    """See `Transcriber.generate`.

    Args:
      variables: as `init` makes them.
      cond: `audio` f32[B, N] and `audio_length` i32[B].
      keys: Key[B].
      by: "decoder", or "ctc": the head for CTC alone, without a decoder.
      tail: the weight of the frame behind the last one, when symbols are
        counted: more of it hears more of them.
      temperature: 0 takes the likeliest symbols.

    Raises:
      UserError: there is no such reader.
    """
    if by not in ("decoder", "ctc") or (by == "ctc" and not self.net.ctc):
      raise UserError(
        f"by={by!r}: choose 'decoder'"
        + (", or 'ctc'" if self.net.ctc else "; this model has no CTC")
      )
    cond = self.condition(self.encode(variables, cond))
    net = self.net.bind(self.net_variables(variables))
    heard = net.hear(cond["frames"], cond["frames_count"])
    n, places, stop = len(keys), self.tokenizer.length, self.tokenizer.stop
    if by == "ctc":
      ids, count = ctc.greedy(net.said_by_ctc(heard), heard.there)
      ids = jnp.pad(ids, ((0, 0), (0, places)))[:, :places]
      ids = jnp.where(jnp.arange(places)[None] < count[:, None], ids, stop)
      return ids, jnp.zeros(n, jnp.int32)
    if self.parallel:
      law = pick.law(self._said(net, heard, tail), temperature=temperature)
      return pick.draw(law, keys), jnp.ones(n, jnp.int32)
    found = decoders.draw(
      net.decoder, heard.memory, keys, stop=stop, temperature=temperature
    )
    return found.units, found.count


@system.passes_on(speech.front_and_net)
def build(
  *,
  tokenizer: Mapping[str, Any],
  end: bool = True,
  glance: float = 0.75,
  ctc_weight: float = 0.3,
  length_weight: float = 1.0,
  smoothing: float = 0.1,
  per: str = "row",
  stage: str = "glance",
  candidates: int = 4,
  flips: int = 2,
  keep: float = 0.01,
  **net,
) -> Paraformer:
  """Builds Paraformer; see SIZES for the published model.

  Args:
    tokenizer: of texts that end: `{"name": "given", "form": "tokens", "vocab":
      V, "length": P}`; id 0 is also the blank of CTC.
    end, glance, ctc_weight, length_weight, smoothing, per, stage, candidates,
      flips, keep: see `Paraformer`.
    **net: samples, rate, bands, window, hop, stack, skip and augment, see
      `front_and_net`; and what `speech_net` takes, of which decoder="ar" is the
      baseline.

  Raises:
    UserError: an option is unknown, or sizes do not fit together.
  """
  for name, value, known in (("per", per, PER), ("stage", stage, STAGES)):
    check_choice(name, value, known)
  tokens = text_tokenizer(system.part(tokenizer).tokenizer, "paraformer")
  if stage == "mwer" and (net.get("decoder") == "ar" or candidates < 2):
    raise UserError(
      "stage='mwer': of a parallel decoder alone, with two candidates at least"
    )
  if not 0 <= glance <= 1 or not 0 <= ctc_weight < 1 or not 0 <= smoothing < 1:
    raise UserError(
      f"glance={glance}, ctc_weight={ctc_weight}, smoothing={smoothing}: are "
      "shares"
    )
  front, made = speech.front_and_net(
    tokens.vocab, tokens.length, ctc_weight > 0, **net
  )
  return Paraformer(
    made, tokens, front, end, float(glance), float(ctc_weight),
    float(length_weight), float(smoothing), per, stage, candidates, flips,
    float(keep),
  )  # fmt: skip
