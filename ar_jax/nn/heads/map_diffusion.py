"""A head that draws a whole map of units at once, given the hidden state of
each and those units that are known (Hi-MAR, arXiv 2505.20288, section 3.4).

Shapes: B batch, T units of the map, C channels of a unit, D width of the
hidden states, W width of the network, M repeats.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.flows import ddpm, solvers
from ar_jax.nn.heads.flow import NoiseHead
from ar_jax.nn.layers.linear import initial
from ar_jax.nn.layers.placement import by_example
from ar_jax.nn.layers.positions import sine_grid
from ar_jax.nn.layers.times import TimeEmbed
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class MapDiT(nn.Module):
  """A DiT over the map: level and hidden state modulate every unit by itself,
  and units see each other. Its output begins at zero.

  Attributes:
    channels: C.
    width: W.
    grid: (height, width) of the map.
    backbone: see `dit.dit_zero`.
  """

  channels: int
  width: int
  grid: tuple[int, int]
  backbone: Backbone

  @nn.compact
  def __call__(self, x: Array, at: Array, h: Array) -> Array:
    """The predicted noise, f32[B, T, C].

    Args:
      x: f32[B, T, C], noisy units.
      at: [B, T], the level, the same for all T.
      h: [B, T, D].
    """
    dense = lambda name: nn.Dense(
      self.width, kernel_init=initial(None), name=name
    )
    cond = TimeEmbed(self.width, name="time")(at[:, :1])
    cond = by_example(cond + dense("cond")(h.astype(jnp.float32)))
    x = dense("latent")(x) + sine_grid(*self.grid, self.width)[None]
    x, _ = self.backbone(x, cond=self.backbone.condition(cond))
    zeros = nn.initializers.zeros
    return nn.Dense(self.channels, kernel_init=zeros, name="out")(x)


class MapDiffusion(NoiseHead):
  """Diffusion of a map, of which some units are known.

  Attributes:
    net: predicts the noise; there is no variance to learn: a step down adds
      as much as a level has.
    levels: of training.
    repeats: M.
    most: of its noise that a level adds at most.
  """

  net: MapDiT
  levels: int = 1000
  repeats: int = 4
  most: float = 0.999

  def loss(self, h: Array, target: Array, keys: Array, hidden: Array) -> Array:
    """f32[B, T]: the squared error of the noise of each unit, a mean over
    channels and repeats, and 0 of a unit that is not hidden. All units are
    noisy, and those of an image at one level.

    Args:
      h: [B, T, D].
      target: f32[B, T, C].
      keys: Key[B].
      hidden: f32[B, T], 1 where a unit is to be predicted.
    """
    levels = ddpm.cosine(self.levels, self.most)
    keys, level_keys, h, x = self._repeated(keys, h, target)
    draw = lambda key: jax.random.randint(key, (), 0, len(levels))
    level = jnp.broadcast_to(jax.vmap(draw)(level_keys)[:, None], x.shape[:2])
    noise = solvers.noise(keys, x.shape[1:])
    guess = self.net(levels.noisy(x, noise, level), level, h)
    return hidden * self._mean(jnp.square(noise - guess).mean(-1))

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    known: Array,
    units: Array,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    steps: int = 250,
    temperature: float = 1.0,
  ) -> Array:
    """The whole map, f32[B, T, C]. Before every step down the known units are
    put at its level again, with the noise that the draw begins with, so they
    come out as they went in but for the last step.

    Args:
      h: [B, T, D].
      keys: Key[B].
      known: bool[B, T].
      units: f32[B, T, C]; those that are not known are not read.
      h_null: the same as h without the condition; None if guidance is off.
      scale: of guidance of the noise; 1.0 is off.
      steps: of denoising, at most `levels`.
      temperature: multiplies the noise of every step.
    """
    levels = ddpm.cosine(self.levels, self.most).respaced(steps)
    call = self._predictor(h, h_null)
    shape = h.shape[1], self.channels
    start = solvers.noise(keys, shape, len(levels))

    def predict(x, name):
      guess, null = call(x, name)
      if null is not None:
        guess = pick.guide(guess, null, scale)
      return guess, jnp.ones_like(guess)  # the larger of both variances

    def written(x, level):
      at = jnp.full(x.shape[:-1], level)
      return jnp.where(known[..., None], levels.noisy(units, start, at), x)

    return levels.sample(
      predict, keys, shape, temperature=temperature, before=written
    )
