"""ARIG: the head of an agent in a conversation, frame by frame.

ARIG: Autoregressive Interactive Head Generation for Real-time Conversations
(arXiv 2507.00472).
New in it:
  - one motion a frame, a vector that a small diffusion head draws from what
    both have said and how both have moved;
  - a summary of the interaction: chunks in which each looks at the other, one
    token of each, and a window of these;
  - which of seven states the agent is in, of those that the voices allow.

The user and the agent's motion are known up to the frame before, the agent's
own sound up to this one: the delay is one frame. A stream keeps its past in
rings of fixed size, and its chunks lie on a grid of absolute frames, so that it
says what one pass over all frames says. Neither code nor sizes are published.

Shapes: B batch, T frames, A numbers of sound, Mu and Ma of motion, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick, steps
from ar_jax.core.errors import UserError, check_choice, check_positive
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, System, Vars
from ar_jax.families.series import dyad, standard
from ar_jax.families.series.dyad import AGENT, NONE, USER, DyadNet
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.heads.mean import Mean

VOICES = ("voice_u", "voice_a")


@dataclasses.dataclass(frozen=True)
class ARIG(System):
  """The system. Variables: `params`, and `data`, mean and deviation of each
  number of sound and motion in the training part.

  Attributes:
    net: the network.
    length: T of training.
    weight: of the cross-entropy of the state.
    noise: deviation of what training adds to the motion that is read.
    replaced: how often training reads the state that was predicted in place
      of the true one before; else a stream stays in one state.
    dropout: how often training hides sound, context or state, each by itself.
  """

  net: DyadNet
  length: int
  weight: float
  noise: float
  replaced: float
  dropout: float

  needs = (*USER, "audio_a", *VOICES)
  ordered = "motion_a"

  @property
  def makes(self) -> tuple[str, ...]:
    return ("motion_a",) if self.net.states is None else ("motion_a", "state")

  @property
  def plan(self) -> Plan:
    """A frame a step."""
    return makers.blocks(self.length, 1)

  def init(self, key: Array, batch: Batch) -> Vars:
    sizes = {k: batch[k].shape[-1] for k in (*USER, *AGENT)}
    known = {k: jnp.zeros((1, 2, n)) for k, n in sizes.items()}
    known |= {k: jnp.zeros((1, 2), jnp.int32) for k in VOICES}

    def every(net, key):
      z, _ = net(known, before=jnp.zeros((1, 2), jnp.int32))
      return net.head.loss(z, known["motion_a"], key[None])

    params = self.net.init(key, key, method=every)["params"]
    return {"params": params, "data": standard.unit(sizes)}

  def fitted(self, variables: Vars, source, seed: int) -> Vars:
    del seed
    return {**variables, "data": standard.fit(source, (*USER, *AGENT))}

  def read(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The fields of conversations as the network reads them. Raises UserError
    where a voice is lacking."""
    data = variables["data"]
    given = [k for k in (*USER, *AGENT) if k in batch]
    known = {k: standard.standard(batch[k], data[k]) for k in given}
    for name in VOICES:
      if name not in batch:
        raise UserError(f"the examples have no {name!r}; see data set 'dyads'")
      known[name] = jnp.asarray(batch[name], jnp.int32)
    return known

  def bound(self, variables: Vars) -> DyadNet:
    return self.net.bind({"params": variables["params"]})

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The error of the head, and the cross-entropy of the state, of each frame
    given the true ones before it."""
    if (frames := batch["motion_a"].shape[1]) != self.length:
      raise UserError(
        f"data.frames={frames}, model.length={self.length}: must be the same"
      )
    known, net = self.read(variables, batch), self.bound(variables)
    target, options = known["motion_a"], {}
    keys = system.example_keys(key, batch)
    head, noise, mix, hide = (steps.fold(keys, i) for i in range(4))
    chance = lambda keys, p, n: jax.vmap(
      lambda key: jax.random.bernoulli(key, p, (n,))
    )(keys)
    if train and self.noise:
      draw = lambda k: jax.random.normal(k, target.shape[1:])
      known["motion_a"] = target + self.noise * jax.vmap(draw)(noise)
    if train and self.replaced and self.net.states is not None:
      options["mixed"] = chance(mix, self.replaced, self.length)
    if train and self.dropout:
      options["hidden"] = chance(hide, self.dropout, 3)
    state = batch.get("state")
    before = None if state is None else dyad.late(state - NONE) + NONE
    z, logits = net(known, before=before, **options)
    motion = net.head.loss(z, target, head)
    errors, metrics = motion, {"motion": motion.mean(1)}
    if logits is not None:
      nll = cross_entropy(logits, state)
      hit = (jnp.argmax(logits, -1) == state).astype(jnp.float32)
      errors = motion + self.weight * nll
      metrics |= {"state": nll.mean(1), "state_accuracy": hit.mean(1)}
    return Loss(errors.mean(1), metrics, errors=errors)

  def begin(
    self, variables: Vars, batch: int, *, guidance: float = 1.0
  ) -> dict[str, Any]:
    """What a stream of `batch` conversations knows before its first frame."""
    self._check(guidance)
    net, data = self.bound(variables), variables["data"]
    zeros = lambda k: jnp.zeros((batch, len(data[k]["mean"])))
    last = {k: zeros(k) for k in (*USER, *AGENT)}
    last["voice_u"] = jnp.zeros(batch, jnp.int32)
    return {**net.begin(batch, guidance != 1.0), "last": last}

  def frame(
    self,
    variables: Vars,
    carry: dict[str, Any],
    heard: Mapping[str, Array] | None,
    said: Mapping[str, Array],
    keys: Array,
    *,
    steps: int = 20,
    temperature: float = 1.0,
    guidance: float = 1.0,
    states: str = "best",
  ) -> tuple[dict[str, Any], dict[str, Array]]:
    """One frame of a stream.

    Args:
      variables: as `init` makes them.
      carry: from `begin`, or from the frame before.
      heard: `audio_u`, `motion_u` f32[B, ...] and `voice_u` i32[B] of the user
        one frame ago; None at the first frame.
      said: `audio_a` f32[B, A] and `voice_a` i32[B] of the agent now.
      keys: Key[B] of the conversations, the same at every frame.
      steps, temperature, guidance, states: see `sample`.

    Returns:
      The carry of the next frame, and `motion_a` f32[B, Ma], `state` i32[B].
    """
    law = dict(steps=steps, temperature=temperature)
    empty = {k: carry["last"][k] for k in (*USER, "voice_u")}
    heard = empty if heard is None else heard
    new = self.read(variables, {**heard, **said})
    return self._frame(variables, carry, new, keys, law, guidance, states)

  def _frame(self, variables, carry, new, keys, law, guidance, states):
    net, last, at = self.bound(variables), carry["last"], carry["at"]
    noise, chance = (steps.fold(steps.fold(keys, at), i) for i in range(2))
    # Before the first frame all is zero, whatever was said to be heard.
    kept = jnp.where(at == 0, 0.0, 1.0)
    heard = {k: kept * new[k] for k in USER}
    heard |= {k: last[k] for k in AGENT} | {"voice_u": new["voice_u"]}
    said = {k: new[k] for k in ("audio_a", "voice_a")}
    carry, summary, feature, logits = net.listen(carry, heard, said)
    made = {}
    if logits is not None:
      best = jnp.argmax(logits, -1)
      state = best if states == "best" else pick.draw(logits, chance)
      made["state"] = state.astype(jnp.int32)
      carry["state"] = made["state"]
    given = last["motion_a"], said["audio_a"], summary, feature
    guided = guidance != 1.0
    given = tuple(x if x is None else pairs.double(x, guided) for x in given)
    hidden = None
    if guided:
      hidden = jnp.repeat(pairs.without(len(keys))[:, None], 3, 1)
    carry, z = net.move(carry, *given, hidden)
    if guided:
      z, null = pairs.split(z)
      law = law | {"h_null": null, "scale": guidance}
    motion = net.head.draw(z, noise, **law)[:, 0]
    carry["last"] = {**last, "audio_a": said["audio_a"], "motion_a": motion}
    made["motion_a"] = standard.original(motion, variables["data"]["motion_a"])
    return carry, made

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 20,
    temperature: float = 1.0,
    guidance: float | None = None,
    states: str = "best",
  ) -> dict[str, Array]:
    """Draws the agent's motion as a stream does, in a loop over the frames.

    Args:
      variables, keys: as in `frame`.
      cond: the fields of `needs`, [B, T, ...], of any length T.
      steps: of denoising of each frame.
      temperature: of its noise; below 1 there is less jitter.
      guidance: by sound, context and state, of the noise; 1.0 is off.
      states: "best", or "drawn" from their law.

    Returns:
      `motion_a` f32[B, T, Ma] and `state` i32[B, T].

    Raises:
      UserError: an option is out of range.
    """
    guidance = self._check(guidance)
    check_choice("states", states, ("best", "drawn"))
    law = dict(steps=steps, temperature=temperature)
    known = self.read(variables, {k: cond[k] for k in self.needs})
    for name in (*USER, "voice_u"):
      known[name] = dyad.late(known[name])
    frames = {k: jnp.moveaxis(v, 1, 0) for k, v in known.items()}
    own = keys, law, guidance, states
    step = lambda carry, new: self._frame(variables, carry, new, *own)
    carry = self.begin(variables, len(keys), guidance=guidance)
    _, made = jax.lax.scan(step, carry, frames)
    return {k: jnp.moveaxis(v, 0, 1) for k, v in made.items()}

  def _check(self, guidance: float | None) -> float:
    guidance = 1.0 if guidance is None else guidance
    if guidance != 1.0 and not self.dropout:
      raise UserError(
        f"guidance={guidance}: this model always saw its conditions; train it "
        "with model.dropout > 0, or sample with guidance=1.0"
      )
    return guidance


@system.passes_on(dyad.dyad_net)
def build(
  *,
  length: int = 100,
  motion: int = 6,
  head: str = "diffusion",
  head_width: int = 256,
  head_depth: int = 3,
  levels: int = 1000,
  repeats: int = 4,
  box: float = 8.0,
  weight: float = 0.5,
  noise: float = 0.05,
  replaced: float = 0.1,
  dropout: float = 0.1,
  **net,
) -> ARIG:
  """Builds the system. Published sizes are not known; these are ours.

  Args:
    length: T of training, the frames of an example; sampling takes any.
    motion: Ma, numbers of the agent's motion.
    head: "diffusion", or "mean": trained by the squared error, for comparison.
    head_width, head_depth: of the head.
    levels: of noise, of a diffusion head.
    repeats: noises that each frame is trained with.
    box: deviations from its mean that no number of a motion is drawn beyond, so
      that a stream cannot run away.
    weight, noise, replaced, dropout: see `ARIG`.
    **net: width, heads, depth, memory_depth, chunk, chunks, window, memory,
      states and dtype; see `dyad_net`.

  Raises:
    UserError: a size or a name is none of these.
  """
  check_choice("head", head, ("diffusion", "mean"))
  check_positive(length=length, motion=motion)
  own = Mean(motion, head_width)
  if head == "diffusion":
    mlp = TokenMLP(motion, head_width, head_depth, motion)
    own = Diffusion(mlp, levels, repeats, learned=False, box=box)
  made = dyad.dyad_net(own, dropout > 0, **net)
  return ARIG(made, length, weight, noise, replaced, dropout)
