"""Systems over the latents of sounds, which they bring to one scale.

Shapes: B batch, L latents at most, l latents, C channels.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.system import Array, Batch, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.token import latent_law
from ar_jax.families.token.spoken import kept


class LatentSounds(Prefixed):
  """A generator of continuous latents of sounds, as many as `audio_length` of
  an example says. Its variables have a collection `latents`, the mean and the
  deviation of each channel, and with a head of codes the `codebook`; both are
  fitted. Abstract."""

  def no_law(self) -> dict[str, Array]:
    """The law of latents before it is fitted."""
    c = self.tokenizer.channels
    return {"mean": jnp.zeros(c), "deviation": jnp.ones(c)}

  def net_variables(self, variables: Vars) -> Vars:
    names = "tokenizer", "latents"
    return {k: v for k, v in variables.items() if k not in names}

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """With moments f32[B, L, 2 C]; behind an example of the tokenizer zeros."""
    batch = super().encode(variables, batch)
    spare = len(self.plan) - batch["units"].shape[1]
    units = jnp.pad(batch["units"], ((0, 0), (0, spare), (0, 0)))
    return {**batch, "units": units}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.codec(variables).moments(x)

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    """The law of the latents of the first examples; and codes by k-means."""
    of = functools.partial(_latents_of, self, variables)
    law = latent_law.measured(of, source, ("audio", "units", "audio_length"))
    found = {"mean": law.mean, "deviation": law.deviation}
    variables = {**variables, "latents": found}
    if "codebook" in variables:
      codes = latent_law.codes(law.rows, self.net.head.vocab, seed)
      variables["codebook"] = {"head": {"codes": codes}}
    return variables

  def count(self, batch: Batch) -> Array:
    """i32[B]: the latents of each sound; all where it does not say its
    length."""
    most = self.tokenizer.length
    if "audio_length" not in batch:
      return jnp.full(len(batch["units"]), most)
    found = -(-batch["audio_length"] // self.tokenizer.stride)
    return jnp.clip(found, 1, most)

  def latents(
    self, variables: Vars, moments: Array, keys: Array | None = None
  ) -> Array:
    """Units f32[B, l, C], of mean 0 and deviation 1, of moments: one draw with
    keys Key[B], else their mean. Where a head has codes, the nearest ones."""
    mean, deviation = self._law(variables)
    y = self.codec(variables).draw(moments, keys)
    y = (y - mean) / deviation
    return kept(self.net.bind(self.net_variables(variables)), y)

  def as_coded(self, variables: Vars, units: Array) -> Array:
    """Latents as the tokenizer has them."""
    mean, deviation = self._law(variables)
    return units * deviation + mean

  def _law(self, variables: Vars) -> tuple[Array, Array]:
    law = variables["latents"]
    return tuple(law[k][None, None] for k in ("mean", "deviation"))


@functools.partial(jax.jit, static_argnums=0)
def _latents_of(system, variables, batch):
  """Means and variances f32[B, L, C] of latents, and which are of a sound,
  bool[B, L]."""
  batch = system.encode(variables, batch)
  mean, log = jnp.split(batch["units"], 2, -1)
  at = jnp.arange(mean.shape[1])[None]
  real = at < system.count(batch)[:, None]
  return mean, jnp.exp(jnp.clip(log, -30.0, 20.0)), real
