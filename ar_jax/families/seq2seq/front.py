"""From the samples of a sound to the frames that an encoder reads.

Shapes: B batch, N samples, T frames, F features of one.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ar_jax.core.signals import mel

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Front:
  """From samples to frames.

  Attributes:
    samples: N.
    rate: of them, in Hz.
    bands: of mel.
    window, hop: in samples.
    stack, skip: frames side by side, and from one of these to the next.
    augment: (frames, bands) of a run that training hides, two of each; None
      for none.
  """

  samples: int
  rate: int
  bands: int
  window: int
  hop: int
  stack: int
  skip: int
  augment: tuple[int, int] | None = None

  @property
  def frames(self) -> int:
    """T."""
    return -(-mel.frames(self.samples, self.window, self.hop) // self.skip)

  @property
  def features(self) -> int:
    """F."""
    return self.stack * self.bands

  def __call__(self, audio: Array, count: Array) -> tuple[Array, Array]:
    """(frames f32[B, T, F], of mean 0 and variance 1 over those that are there,
    and how many these are i32[B]) of audio f32[B, N], of which `count` i32[B]
    samples are there."""
    x = mel.log_mel(
      audio, rate=self.rate, bands=self.bands, size=self.window, hop=self.hop
    )
    n = mel.frames(count, self.window, self.hop)
    there = (jnp.arange(x.shape[1])[None] < n[:, None])[..., None]
    total = n[:, None, None] * self.bands
    mean = jnp.sum(x * there, (1, 2), keepdims=True) / total
    spread = jnp.sum(jnp.square(x - mean) * there, (1, 2), keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(spread / total + 1e-5) * there
    x = mel.stacked(x, self.stack, self.skip)
    return x, -(-n // self.skip)
