"""The training system of tokenizers of videos: that of images, frame by frame.

Shapes: B batch, T frames, H W sides, c channels.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.system import Batch, UserError, Vars
from ar_jax.tokenizers.autoencoder import Autoencoder, Reconstruction

Array = jax.Array


def frames(x: Array) -> Array:
  """[B T, H, W, c] of [B, T, H, W, c]."""
  return x.reshape(-1, *x.shape[2:])


def check_video(x: Array, frames: int, stride: int, channels: int) -> None:
  """Raises UserError unless a tokenizer of so many frames, of this stride and
  of so many channels can take videos [B, T, H, W, c]."""
  if x.ndim != 5 or x.shape[1] != frames:
    raise UserError(
      f"video of shape {x.shape[1:]}: this tokenizer takes {frames} frames; "
      "change frames or those of the data"
    )
  height, width, given = x.shape[2:]
  if height % stride or width % stride:
    raise UserError(
      f"video of {height}x{width} pixels: this tokenizer takes sides that are "
      f"multiples of {stride}; resize the data or change strides"
    )
  if given != channels:
    raise UserError(
      f"video of {given} channels: this tokenizer takes {channels}; change "
      "data.channels or in_channels"
    )


class VideoAutoencoder(Autoencoder):
  """A tokenizer of videos in training.

  Everything that compares pictures, the discriminator among it, sees frames;
  what it says of a video is the mean over its frames. `Reconstruction.image`
  and the `feature` behind it are of videos, [B, T, ...].
  """

  needs = ("video",)
  makes = ("video",)

  def pictures(self, x: Array) -> Array:
    return frames(x)

  def _reconstruction_terms(
    self, variables: Vars, x: Array, image: Array
  ) -> dict[str, tuple[float, Array]]:
    found = super()._reconstruction_terms(variables, frames(x), frames(image))
    mean = lambda v: v.reshape(len(x), -1).mean(1)
    return {name: (weight, mean(v)) for name, (weight, v) in found.items()}

  def _adversarial_terms(
    self,
    variables: Vars,
    batch: Batch,
    x: Array,
    out: Reconstruction,
    keys: Array | None,
  ) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    each = x.shape[1]
    by_frame = {}
    if keys is not None:  # a frame has one of its own
      split = jax.vmap(lambda key: jax.random.split(key, each))
      keys = split(keys).reshape(-1)
    if "step" in batch:
      by_frame["step"] = jnp.repeat(batch["step"], each)
    # The last layer goes on seeing videos.
    out = out._replace(image=frames(out.image))
    value, metrics, updates = super()._adversarial_terms(
      variables, by_frame, frames(x), out, keys
    )
    mean = lambda v: v.reshape(len(x), -1).mean(1)
    return mean(value), {k: mean(v) for k, v in metrics.items()}, updates

  def _adaptive_weight(
    self, variables: Vars, x: Array, feature: Array
  ) -> Array:
    whole = x.reshape(len(feature), -1, *x.shape[1:])
    return super()._adaptive_weight(variables, whole, feature)
