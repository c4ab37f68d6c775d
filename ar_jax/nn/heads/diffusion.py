"""A head of denoising diffusion for units that are vectors (MAR, arXiv
2406.11838).

Shapes: B batch, T positions, C channels of a unit, D width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.flows import chains, ddpm, solvers
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.flow import NoiseHead
from ar_jax.nn.heads.flow_nets import TokenMLP

Array = jax.Array


class Diffusion(NoiseHead):
  """MAR's diffusion loss: the network predicts noise and its variance, over
  discrete levels (arXiv 2406.11838, section 3.2).

  Attributes:
    net: with 2 C numbers out; with C, if the variance is not learned.
    levels: of training.
    repeats: M, `diffusion_batch_mul` in the published code.
    most: of its noise that a level adds at most, as published. A step down
      from the last level multiplies the error of the net by (1 - most)^-1/2.
    learned: whether the net says the variance, too. If not, it is the least
      one, that of a step back from known data, and the loss is the squared
      error of the noise alone (DDPM, arXiv 2006.11239).
    box: the units lie between -box and box: in a draw the data that the net
      believes in are brought there at every step. None for any.
  """

  net: TokenMLP
  levels: int = 1000
  repeats: int = 4
  most: float = 0.999
  learned: bool = True
  box: float | None = None

  def loss(
    self,
    h: Array,
    target: Array,
    keys: Array,
    *,
    plan: Plan | None = None,
    pos: Array | None = None,
  ) -> Array:
    """f32[B, T]: the squared error of the noise plus the variational term, a
    mean over channels and repeats; arguments as those of `Flow.loss`."""
    del plan, pos
    return sum(self.terms(h, target, keys))

  def terms(self, h: Array, target: Array, keys: Array) -> tuple[Array, Array]:
    """The two terms of the loss, f32[B, T] each; see `ddpm.Levels.losses`."""
    t = target.shape[1]
    levels = ddpm.cosine(self.levels, self.most)
    keys, time_keys, h, x = self._repeated(keys, h, target)
    pick_level = lambda key: jax.random.randint(key, (t,), 0, len(levels))
    level = jax.vmap(pick_level)(time_keys)
    noise = solvers.noise(keys, x.shape[1:])
    out = self.net(levels.noisy(x, noise, level), level, h)
    if not self.learned:
      error = self._mean(jnp.square(noise - out).mean(-1))
      return error, jnp.zeros_like(error)
    guess, r = jnp.split(out, 2, -1)
    both = levels.losses(guess, r, x, noise, level)
    return self._mean(both[0]), self._mean(both[1])

  def draw(
    self,
    h: Array,
    keys: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    pos: Array | None = None,
    steps: int = 100,
    temperature: float = 1.0,
  ) -> Array:
    """Units f32[B, T, C].

    Args:
      h: [B, T, D].
      keys: Key[B].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance of the noise; the variance is that of h alone. 1.0 is
        off.
      pos: not used.
      steps: of denoising, at most `levels`.
      temperature: multiplies the noise of every step.
    """
    del pos
    predict = self._predict(h, h_null, scale)
    levels = ddpm.cosine(self.levels, self.most).respaced(steps)
    shape = h.shape[1], self.channels
    return levels.sample(predict, keys, shape, temperature=temperature)

  def nll(
    self, h: Array, target: Array, keys: Array, *, steps: int = 100
  ) -> Array:
    """An upper bound of -log p of each unit in nats, f32[B, T]; one draw, see
    `ddpm.Levels.bound`. Arguments as in `draw`."""
    levels = ddpm.cosine(self.levels, self.most).respaced(steps)
    return levels.bound(self._predict(h, None, 1.0), target, keys)

  def law(
    self,
    h: Array,
    *,
    h_null: Array | None = None,
    scale: Array | float = 1.0,
    steps: int = 100,
    temperature: float = 1.0,
  ) -> chains.Chain:
    """The law of the ways to N units, of h [N, D]; see `draw`, whose units, by
    the same keys, are the ends of `walk` without the noise of the last step.

    Args:
      h: [N, D].
      h_null: the same without the condition; None if guidance is off.
      scale: of guidance, a number or [N, 1].
      steps, temperature: as in `draw`.
    """
    row = lambda x: None if x is None else x[:, None]
    scale = scale[:, None] if jnp.ndim(scale) else scale
    predict = self._predict(h[:, None], row(h_null), scale)

    def one(x, name):
      guess, r = predict(x[:, None], name)
      return guess[:, 0], r[:, 0]

    levels = ddpm.cosine(self.levels, self.most).respaced(steps)
    return chains.Chain(levels, one, self.channels, temperature)

  def _predict(self, h, h_null, scale):
    call = self._predictor(h, h_null)

    def predict(x, name):
      out, null = call(x, name)
      if not self.learned:
        guess = out if null is None else pick.guide(out, null, scale)
        return self._within(guess, x, name), jnp.full_like(out, -1.0)
      guess, r = jnp.split(out, 2, -1)
      if null is not None:
        guess = pick.guide(guess, jnp.split(null, 2, -1)[0], scale)
      return self._within(guess, x, name), r

    return predict

  def _within(self, noise: Array, x: Array, name: Array) -> Array:
    """The noise in x [..., C] at a level for which the data lie in the box."""
    if self.box is None:
      return noise
    tables = ddpm.cosine(self.levels, self.most).tables
    at = lambda k: jnp.asarray(tables[k], jnp.float32)[name]
    data = (x - at("noise") * noise) / at("signal")
    data = jnp.clip(data, -self.box, self.box)
    return (x - at("signal") * data) / at("noise")
