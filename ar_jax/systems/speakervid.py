"""SpeakerVid: somebody who answers in picture and speech, chunk by chunk.

SpeakerVid-5M: A Large-Scale High-Quality Dataset for Audio-Visual Dyadic
Interactive Human Generation (arXiv 2507.09862), its autoregressive baseline.
New in it:
  - speech tokens and a map of continuous latents are drawn together, a chunk a
    step, from what somebody else said and showed;
  - within a chunk a spatial transformer fills the map a set of tokens at a
    time, each by a diffusion head;
  - training adds noise of a random size to the maps that are read, never to
    those that are predicted, so that a long answer lives with its own errors.

The published model reads a question through a frozen multimodal network
("thinker"); its hidden states are rows here, too, where the data have them as
`thinker`. Its video tokenizer and its speech codec are out of reach: any
tokenizer of frames with vectors as units stands for the first, and speech is
whatever ids the data have. Sizes are not published; these are ours.

Records and rules of the data set: `data.video.clip_table`, `clip_rules`;
measures: `evals.video.dialogue`.

Shapes: B batch, C chunks, m speech tokens and n map tokens of a chunk, p
numbers of a map token, R passes that fill a map, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator, hidden_conditions
from ar_jax.families.block import dialogue, dialogue_draw, maps
from ar_jax.families.block.dialogue import DialogueNet
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.tokenizers.frames import Frames


@dataclasses.dataclass(frozen=True)
class SpeakerVid(Generator):
  """The system. Variables: `params` and the frozen `tokenizer` of frames.

  Attributes:
    net: the network.
    tokenizer: of the frames of the answer.
    asked: of the frames of the question.
    still: of one frame.
    label_dropout: how often training hides the question.
    noise: deviation of the noise in the maps that are read, at most; of each
      frame it is drawn evenly from 0 to this.
    weight: of the cross-entropy of the speech beside the error of the map; 0
      is the first stage of training, of video alone.
  """

  net: DialogueNet
  tokenizer: nn.Module
  asked: nn.Module
  still: nn.Module
  label_dropout: float
  noise: float
  weight: float

  makes = ("video", "speech")
  classes = None
  null = None  # there are no labels

  @property
  def needs(self) -> tuple[str, ...]:
    own = "ask_video", "ask_speech", "text", "face"
    return own + (("thinker",) if self.net.prefix.thinker[0] else ())

  @property
  def plan(self) -> Plan:
    """The maps, a chunk a step; the speech of a chunk is of the same step."""
    net = self.net
    return makers.blocks(net.chunks * net.tokens, net.tokens)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The tokenizer knows all shapes.
    net, prefix = self.net, self.net.prefix
    key, frozen = jax.random.split(key)
    text, frames, asked = prefix.sizes
    each = net.tokens * net.channels
    cond = {
      "face": jnp.zeros((1, each)),
      "ask_units": jnp.zeros((1, frames, each)),
      "ask_speech": jnp.zeros((1, asked), jnp.int32),
      "text": jnp.zeros((1, text), jnp.int32),
      "thinker": jnp.zeros((1, *prefix.thinker)),
    }
    speech = jnp.zeros((1, net.chunks * net.slots), jnp.int32)
    units = jnp.zeros((1, net.chunks * net.tokens, net.channels))

    def every(net, key):
      h = net(cond, speech, units)
      sound, z = net.parts(h[:, 0])
      net.speech.logits(sound)
      map_ = units[:, : net.tokens]
      f = net.refiner(z, map_, jnp.zeros(map_.shape[:2], bool))
      return net.latent.loss(f, map_, key[None])

    params = self.net.init(key, key, method=every)["params"]
    return {"params": params, "tokenizer": self.init_tokenizer(frozen)}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    rest = dict(batch)
    codec = lambda tokenizer: tokenizer.bind(
      {"params": jax.lax.stop_gradient(variables["tokenizer"])}
    )
    if "video" in rest:
      video = forms.raw(rest.pop("video"))
      rest["units"] = codec(self.tokenizer).moments(video)
    for name, new, tokenizer in (
      ("ask_video", "ask_units", self.asked),
      ("face", "face_units", self.still),
    ):
      if name in rest:
        x = codec(tokenizer).encode(forms.raw(rest.pop(name)))
        frames = self.net.prefix.sizes[1] if name == "ask_video" else 1
        rest[new] = x.reshape(len(x), frames, -1)
    return rest

  def condition(self, cond: Batch) -> dict[str, Array]:
    """What the prefix reads of an encoded batch.

    Raises:
      UserError: a field has another length than the model.
    """
    text, _, asked = self.net.prefix.sizes
    for name, size in (("text", text), ("ask_speech", asked)):
      if cond[name].shape[1] != size:
        raise UserError(
          f"{name} of {cond[name].shape[1]} ids: this model reads {size}; "
          f"change model.{name} or the data"
        )
    known = {k: cond[k] for k in ("text", "ask_speech", "ask_units")}
    known["face"] = cond["face_units"][:, 0]
    if self.net.prefix.thinker[0]:
      known["thinker"] = cond["thinker"]
    return known

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The error of the noise at the tokens of a map that are hidden, and the
    cross-entropy of the speech, of every chunk given those before it."""
    batch = self.encode(variables, batch)
    net = self.net.bind({"params": variables["params"]})
    moments, speech = batch["units"], batch["speech"]
    b, c, n = len(moments), net.chunks, net.tokens
    if speech.shape[1] != c * net.slots:
      raise UserError(
        f"speech of {speech.shape[1]} tokens: {c} chunks of this model have "
        f"{c * net.slots}; change model.slots or the data"
      )
    keys = system.example_keys(key, batch)
    latent, hide, masks, head, blur = (fold(keys, i) for i in range(5))
    tokenizer = self.codec(variables)
    units = tokenizer.draw(moments, latent if train else None)
    read = units
    if train and self.noise:
      read = maps.blurred(units, blur, c, self.noise)
    hidden = hidden_conditions(hide, self.label_dropout) if train else None
    h = net(self.condition(batch), speech, read, hidden)
    sound, z = net.parts(h)
    known = maps.shown(masks, c, n)
    flat = lambda x: x.reshape(b * c, *x.shape[2:])
    target = units.reshape(b, c, n, -1)
    f = net.refiner(flat(z), flat(target), flat(known))
    each = jax.vmap(lambda k: jax.random.split(k, c))(head)
    error = net.latent.loss(f, flat(target), flat(each)).reshape(b, c, n)
    late = (~known).astype(jnp.float32)
    share = n * late / jnp.sum(late, -1, keepdims=True)
    logits = net.speech.logits(sound)
    said = speech.reshape(b, c, net.slots)
    nll = cross_entropy(logits, said)
    hit = (jnp.argmax(logits, -1) == said).astype(jnp.float32)
    errors = share * error + self.weight * nll.mean(-1, keepdims=True)
    errors = errors.reshape(b, c * n)
    metrics = {
      "map": (share * error).mean((1, 2)),
      "speech": nll.mean((1, 2)),
      "speech_accuracy": hit.mean((1, 2)),
    }
    return Loss(errors.mean(1), metrics, errors=errors)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    passes: int = 8,
    steps: int = 25,
    guidance: float | None = 1.0,
    temperature: float = 1.0,
    noise_temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
  ) -> tuple[Array, Array]:
    """Draws answers: maps f32[B, C n, p] and speech i32[B, C m].

    Args:
      variables: as `init` makes them.
      cond: see `needs`.
      keys: Key[B].
      passes: R, sets of tokens in which a map is filled; 1 fills it at once.
      steps: of denoising of each token.
      guidance: by the question, of the speech and of the noise; 1.0 or None
        is off.
      temperature, top_k, top_p: of the speech; see `pick.law`.
      noise_temperature: of the noise of the diffusion.

    Raises:
      UserError: an option is out of range.
    """
    scale, tokens = self.scale(guidance), self.net.tokens
    if not 1 <= passes <= tokens:
      raise UserError(
        f"passes={passes}: a map of {tokens} tokens takes 1 to {tokens}"
      )
    return dialogue_draw.answers(
      self.net.bind({"params": variables["params"]}),
      self.condition(self.encode(variables, dict(cond))),
      keys,
      scale=scale,
      passes=passes,
      law=dict(temperature=temperature, top_k=top_k, top_p=top_p),
      latent=dict(steps=steps, temperature=noise_temperature),
    )

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options: Any
  ) -> dict[str, Array]:
    """Draws answers, `video` f32[B, C, H, W, c] in [0, 1] and `speech`
    i32[B, C m]; options as in `generate`."""
    units, speech = self.generate(variables, cond, keys, **options)
    return {"video": self.decode(variables, units), "speech": speech}


@system.passes_on(dialogue.dialogue_net)
def build(
  *,
  tokenizer,
  chunks: int = 12,
  head_width: int = 1024,
  head_depth: int = 3,
  levels: int = 1000,
  repeats: int = 4,
  box: float | None = None,
  noise: float = 0.5,
  weight: float = 1.0,
  label_dropout: float = 0.1,
  **net,
) -> SpeakerVid:
  """Builds the system. Published sizes are not known; these are ours.

  Args:
    tokenizer: of single frames, with vectors as units, `{"name": "patches",
      **arguments}`.
    chunks: C; as many frames.
    head_width, head_depth: of the diffusion head.
    levels: of noise.
    repeats: noises that each token is trained with.
    box: no number of a map is drawn beyond -box and box; None for any.
    noise, weight, label_dropout: see `SpeakerVid`.
    **net: slots, vocab, ask_frames, ask_speech, text, text_vocab, thinker,
      condition, width, depth, heads, refine_depth, remat and dtype; see
      `dialogue_net`.

  Raises:
    UserError: a size or a name is none of these, or the tokenizer has codes.
  """
  body = system.part(tokenizer).tokenizer
  if body.vocab is not None:
    raise UserError(
      f"model.tokenizer={tokenizer['name']!r}: its units are codes; this model "
      "draws vectors, as of patches or kl_vae"
    )
  tokens, channels = int(np.prod(body.grid)), body.channels
  mlp = TokenMLP(channels, head_width, head_depth, channels)
  latent = Diffusion(mlp, levels, repeats, learned=False, box=box)
  made = dialogue.dialogue_net(latent, (chunks, tokens, channels), **net)
  films = Frames(body, chunks), Frames(body, made.prefix.sizes[1])
  return SpeakerVid(made, *films, body, label_dropout, noise, weight)
