"""CLEAR: speech as continuous latents, each drawn the moment it is foreseen.

CLEAR: Continuous Latent Autoregressive Modeling for High-quality and
Low-latency Speech Synthesis (arXiv 2508.19098).
New in it:
  - a wav-VAE of 2048 samples a latent, with shortcuts without parameters: one
    causal transformer says ten seconds in 78 steps;
  - a flow head of one latent draws it from the state before it, trained by the
    velocity and by its direction; a stop flag beside it ends the sound;
  - so a latent becomes sound at once, by a decoder that carries its state.

The sequence is a start, the symbols of a text, a turn and the latents. A voice
is a recording: its latents stand before those to be drawn, and its text before
that to be said. Guidance is against zeros in the place of the symbols, which
lie where they lay.

For comparison, heads of the same system: the mean of what comes ("mean"), and
the codes of a k-means ("codes").

Shapes: B batch, N samples of a sound, L latents at most, C channels, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import steps
from ar_jax.core.errors import check_choice
from ar_jax.core.flows.flow import Times
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.token import spoken_stream
from ar_jax.families.token.latent_sounds import LatentSounds
from ar_jax.families.token.readers import Latents
from ar_jax.families.token.spoken import (
  Ending,
  Script,
  UntilStopped,
  joined,
)
from ar_jax.families.token.system import training_noise
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.heads.mean import Mean, NearestCode
from ar_jax.nn.stacks.llama import llama

HEADS = ("flow", "mean", "codes")
_NOISE = 2**20  # of the keys of what a head draws in training


@dataclasses.dataclass(frozen=True)
class Clear(LatentSounds):
  """The system. Variables: `params`, the frozen `tokenizer`, `latents` (the
  mean and the deviation of each channel, which are fitted) and of a head of
  codes the `codebook`.

  Attributes:
    net: the transformer.
    tokenizer: of sounds, as `tokenizers.wav_vae`.
    label_dropout: how often training hides the text.
  """

  net: Ending
  tokenizer: nn.Module
  label_dropout: float = 0.2

  takes = ("voice", "voice_length", "voice_text")
  makes = ("audio", "audio_length")

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    key, frozen = jax.random.split(key)
    units = self.net.units.blank(1, len(self.plan))

    def every(net, cond, units, key):
      h = net(cond, units)
      return net.head.loss(h, units, key[None]), net.ends(h)

    made = self.net.init(key, self.net.example(), units, key, method=every)
    tokenizer = self.init_tokenizer(frozen)
    return {**made, "latents": self.no_law(), "tokenizer": tokenizer}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    own = steps.fold(system.example_keys(key, batch), _NOISE)
    noise, drawn = jax.vmap(jax.random.split, out_axes=1)(own)
    y = self.latents(variables, batch["units"], drawn if train else None)
    net = self.net.bind(self.net_variables(variables))
    h = net(self.condition(batch), y, hidden, keys)
    count = self.count(batch)[:, None]
    at = jnp.arange(len(self.plan))[None]
    head = net.head.loss(h, y, noise)
    logits = net.ends(h)
    last = at == count - 1
    stop = jax.nn.softplus(jnp.where(last, -logits, logits))
    real = at < count
    mean = lambda x: jnp.where(real, x, 0.0).sum(1) / count[:, 0]
    said = jnp.argmax((logits > 0) | (at == len(self.plan) - 1), 1)
    metrics = {
      "head": mean(head),
      "stop": mean(stop),
      "length_error": jnp.abs(said - count[:, 0] + 1).astype(jnp.float32),
    }
    errors = jnp.where(real, head + stop, 0.0)
    return Loss(mean(errors), metrics, errors=errors)

  def program(
    self,
    *,
    guidance: float | None = 1.0,
    threshold: float = 0.5,
    most: int | None = None,
    **law: Any,
  ) -> UntilStopped:
    """How latents are drawn, as a value; arguments as in `sample`."""
    guidance, longest = self.scale(guidance), self.tokenizer.length
    most = longest if most is None else most
    if not 1 <= most <= longest:
      raise UserError(f"most={most} latents: this model makes 1 to {longest}")
    scales = (guidance,) * len(self.plan) if guidance != 1.0 else None
    law = tuple(sorted(law.items()))
    return UntilStopped(self.net, scales, law, threshold=threshold, most=most)

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> steps.Until:
    """Latents f32[B, L, C] until the stop of each, and how many they are."""
    program, own = self.program(**options), self.net_variables(variables)
    return program.until(own, self.opened(program, variables, cond), keys)

  def opened(
    self, program: UntilStopped, variables: Vars, cond: Batch
  ) -> tuple:
    """The carry of the program: text and voice are read."""
    own, given = self.net_variables(variables), self.condition(cond)
    if "voice" not in cond:
      return program.opened(own, given)
    script, voice = self.net.prefix, jnp.asarray(cond["voice"])
    text = joined(
      jnp.asarray(cond["voice_text"]),
      jnp.asarray(cond["text"]),
      script.stop,
      script.symbols,
    )
    count = jnp.full(len(voice), voice.shape[1])
    count = cond.get("voice_length", count) // self.tokenizer.stride
    known = self.latents(variables, self.tokenize(variables, voice))
    known = known[:, : len(self.plan) - 1]  # at least one is left to draw
    return program.opened(own, {script.field: text}, known, count)

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    times: int = 10,
    solver: str = "euler",
    temperature: float = 1.0,
    threshold: float = 0.5,
    most: int | None = None,
  ) -> dict[str, Array]:
    """Speaks a text for each key.

    Args:
      variables: as `init` makes them.
      cond: `text` i32[B, W]. A voice to speak with: `voice` f32[B, n], a
        recording, `voice_text` i32[B, w], what it says, and perhaps
        `voice_length` i32[B], its samples.
      keys: Key[B].
      guidance: scale, of the velocity; 1.0 or None is off.
      times, solver: of the flow head, see `nn.heads.flow`.
      temperature: of its noise, or of the law of codes.
      threshold: the chance of a stop above which a latent is the last.
      most: latents at most; those of an example if None.

    Returns:
      `audio` f32[B, N] in [-1, 1], silence behind its end; and `audio_length`
      i32[B].

    Raises:
      UserError: an option is out of range, or text and voice are too long.
    """
    options = self._options(guidance, times, solver, temperature)
    options |= dict(threshold=threshold, most=most)
    made = self.generate(variables, cond, keys, **options)
    audio = self.decode(variables, made.units[:, : self.tokenizer.length])
    length = jnp.minimum(
      made.count * self.tokenizer.stride, self.tokenizer.samples
    )
    there = jnp.arange(audio.shape[1])[None] < length[:, None]
    return {"audio": jnp.where(there, audio, 0.0), "audio_length": length}

  def _options(
    self,
    guidance: float | None = 1.0,
    times: int = 10,
    solver: str = "euler",
    temperature: float = 1.0,
  ) -> dict[str, Any]:
    """Those of them that the head knows."""
    if isinstance(self.net.head, Flow):
      law = dict(times=times, solver=solver, temperature=temperature)
    elif isinstance(self.net.head, NearestCode):
      law = dict(temperature=temperature)
    else:
      law = {}
    return dict(guidance=guidance, **law)

  def decode(self, variables: Vars, units: Array) -> Array:
    """Sounds f32[B, N] of latents f32[B, l, C] of mean 0 and deviation 1."""
    audio = self.codec(variables).decode(self.as_coded(variables, units))
    spare = self.tokenizer.samples - audio.shape[1]
    return jnp.pad(audio, ((0, 0), (0, spare)))

  def stream(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    every: int = 4,
    **options: Any,
  ) -> Iterator[np.ndarray]:
    """Yields sounds f32[B, every r] as they come, the silence behind the end
    of each included, until all have ended; joined they are the `audio` of
    `sample`. Not for use under jit.

    Args:
      variables, cond, keys, **options: as in `sample`.
      every: latents of a piece.

    Raises:
      UserError: `every` is not positive, or as in `sample`.
    """
    if every < 1:
      raise UserError(f"every={every}: must be at least 1")
    rest = {k: options.pop(k) for k in ("threshold", "most") if k in options}
    program = self.program(**self._options(**options), **rest)
    drawn = spoken_stream.pieces(self, program, variables, cond, keys, every)
    for audio in drawn:
      yield np.asarray(audio)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  vocab: int = 203,
  symbols: int = 256,
  latents: int | None = None,
  depth: int = 24,
  width: int = 1024,
  heads: int = 16,
  head: str = "flow",
  head_depth: int = 6,
  head_width: int = 1024,
  codes: int = 512,
  direction: float = 1.0,
  times: Mapping[str, Any] | None = None,
  repeats: int = 1,
  label_dropout: float = 0.2,
  **stack: Any,
) -> Clear:
  """Builds the system; by default the published Base.

  Args:
    tokenizer: `{"name": "wav_vae" or "windows", **arguments}`.
    vocab: symbols, the one that ends a text included.
    symbols: of a text at most, and of that of a voice before it.
    latents: L, of a sound and a voice before it; as many as an example of the
      tokenizer has, if None.
    depth, width, heads: of the transformer.
    head: "flow"; for comparison "mean" or "codes".
    head_depth: layers of the flow head.
    head_width: its width.
    codes: of a head of codes.
    direction: weight of the direction of a velocity beside its error.
    times: of training, see `flow.Times`; logit-normal by default.
    repeats: noises that each latent is trained with.
    label_dropout: how often training hides the text.
    **stack: kv_heads, multiple_of, dropout, remat, dtype, impl; see `llama`.

  Raises:
    UserError: a size or a name is none of these.
  """
  codec = system.part(tokenizer).tokenizer
  if getattr(codec, "field", "") != "audio" or codec.vocab is not None:
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: this model reads continuous latents "
      "of sounds, as of 'wav_vae' or 'windows'"
    )
  check_choice("head", head, HEADS)
  latents, c = latents or codec.length, codec.channels
  if latents < codec.length:
    raise UserError(
      f"latents={latents}: an example of the tokenizer has {codec.length}"
    )
  if head == "flow":
    law = Flow(
      TokenMLP(c, head_width, head_depth, c),
      times=Times(**dict(times or {"law": "logit_normal"})),
      repeats=repeats,
      direction=direction,
    )
  elif head == "mean":
    law = Mean(c, head_width)
  else:
    law = NearestCode(codes, c)
  net = Ending(
    makers.blocks(latents, 1),
    Latents(c, width),
    width,
    Script(symbols, vocab, width),
    llama(depth, width, heads, **{"dropout": 0.0} | stack),
    law,
    prefix_rope="line",
    stop=nn.Dense(1, dtype=jnp.float32),
  )
  return Clear(net, codec, label_dropout)
