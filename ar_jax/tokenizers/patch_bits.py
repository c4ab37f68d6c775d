"""Bits of patches of pixels, map by map: `bitwise` without a network.

A cell of the latent is K numbers that are linear in a patch, whose signs are
coded by residual maps of growing size; the sum of the maps is brought back by
another linear map. A run begins with principal components, of the spread at
which the bits say most, and with the least-squares map back; what training
changes is little. Nothing in here is a convolution, so a generator over these
units compiles in a part of the time.

Shapes: B batch, H W image sides, c image channels, p side of a patch,
C = p p c, h w sides of the latent, d bits of a cell, n cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import UserError, Vars, passes_on
from ar_jax.nn.quantize.scaled_bits import check_inputs
from ar_jax.tokenizers.autoencoder import Autoencoder, autoencoder
from ar_jax.tokenizers.bitwise import BitMaps, Shape, frozen_scales
from ar_jax.tokenizers.patch_fitting import POINTS, components

Array = jax.Array

# Standard deviations of a number, in sizes of a bit, that are tried.
_SPREADS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


class PatchNumbers(nn.Module):
  """Numbers that are linear in a patch, and the patch of them.

  Attributes:
    bits: d.
    channels: C.
  """

  bits: int
  channels: int

  def setup(self):
    shape = (self.bits, self.channels)
    self.mean = self.param("mean", nn.initializers.zeros, (self.channels,))
    self.basis = self.param("basis", nn.initializers.orthogonal(), shape)
    self.back = self.param("back", nn.initializers.orthogonal(), shape)

  def __call__(self, z: Array) -> Array:
    """f32[..., d] of patches [..., C]."""
    return _times(z - _row(self.mean, z), self.basis.T)

  def patch(self, y: Array) -> Array:
    """Patches f32[..., C] of numbers [..., d]."""
    return _row(self.mean, y) + _times(y, self.back)


def _times(x: Array, matrix: Array) -> Array:
  return jnp.matmul(x, matrix, precision=jax.lax.Precision.HIGHEST)


def _row(x: Array, like: Array) -> Array:
  return x.reshape((1,) * (like.ndim - 1) + x.shape)


class PatchBits(BitMaps):
  """The tokenizer.

  Attributes:
    bits: d, at most C.
    patch: p.
    scales, fold, inputs, in_channels, beta, entropy, group: see
      `bitwise.Bitwise`.
  """

  bits: int
  patch: int
  scales: tuple[Shape, ...]
  fold: bool = False
  inputs: str = "bilinear"
  in_channels: int = 1
  beta: float = 0.25
  entropy: float = 0.0
  group: int = 1

  def setup(self):
    self.numbers = PatchNumbers(self.bits, self.patch**2 * self.in_channels)

  @property
  def stride(self) -> int:
    """Pixels per side of a unit."""
    return self.patch * (1 + self.fold)

  def latent(self, x: Array) -> Array:
    """F, f32[B, h, w, d], of images f32[B, H, W, c] in [-1, 1].

    Raises:
      UserError: the images are not of the size that `scales` describes.
    """
    self.check(x)
    return self.numbers(cut(x, self.patch))

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """Images f32[B, H, W, c], not clipped, of latents f32[B, h, w, d]; twice,
    since there is no last layer that makes them of something else."""
    image = join(self.numbers.patch(latent), self.patch)
    return image, image

  def to_image(self, feature: Array) -> Array:
    """What `decoded` gives second, as it is."""
    return feature


@dataclasses.dataclass(frozen=True)
class FittedBits(Autoencoder):
  """The tokenizer in training; a run begins with what is fitted to its data."""

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    params = variables["params"]
    own = {"numbers": fit(self.tokenizer, source, seed)}
    return {**variables, "params": {**params, "tokenizer": own}}


def fit(tokenizer: PatchBits, source: Any, seed: int) -> dict[str, np.ndarray]:
  """The parameters of `PatchNumbers`, fitted to images.

  Args:
    tokenizer: the module.
    source: of examples with `image`.
    seed: of which are looked at.
  """
  rng = np.random.default_rng(seed)
  h, w = tokenizer.maps.grids[-1]
  count = min(len(source), max(1, POINTS // (h * w)))
  chosen = np.sort(rng.choice(len(source), count, replace=False))
  images = np.stack([source[int(i)]["image"] for i in chosen])
  x = jnp.asarray(images, jnp.float32) / 127.5 - 1
  tokenizer.check(x)
  patches = np.asarray(cut(x, tokenizer.patch))
  flat = patches.reshape(-1, patches.shape[-1])
  found = components(flat, tokenizer.bits)
  mean, basis = found["mean"], found["basis"]
  parts = (patches - mean) @ basis.T
  deviation = parts.reshape(-1, tokenizer.bits).std(0) + 1e-6
  unit = 1 / np.sqrt(tokenizer.bits)  # the size of a bit
  last = jax.jit(lambda f: tokenizer.maps.code(f).sums[-1])

  def trial(spread):
    gain = np.float32(spread * unit) / deviation
    sums = np.asarray(last(jnp.asarray(parts * gain)))
    y = sums.reshape(-1, tokenizer.bits).astype(np.float64)
    ridge = 1e-6 * len(y) * np.eye(tokenizer.bits)
    back = np.linalg.solve(y.T @ y + ridge, y.T @ (flat - mean))
    error = np.square(flat - mean - y @ back).mean()
    return error, gain, back

  _, gain, back = min(map(trial, _SPREADS), key=lambda t: t[0])
  return {
    "mean": mean,
    "basis": (basis * gain[:, None]).astype(np.float32),
    "back": back.astype(np.float32),
  }


@passes_on(autoencoder)
def build(
  *,
  bits: int = 8,
  patch: int = 4,
  scales: Sequence[Shape] = (1, 2, 4, 8),
  fold: bool = False,
  inputs: str = "bilinear",
  in_channels: int = 1,
  beta: float = 0.25,
  entropy: float = 0.0,
  group: int = 1,
  **training,
) -> FittedBits:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Raises:
    UserError: sizes do not fit together.
  """
  channels = patch**2 * in_channels
  if not 0 < bits <= channels:
    raise UserError(
      f"bits={bits}: must be in 1..{channels}, the numbers of a patch"
    )
  check_inputs(inputs)
  tokenizer = PatchBits(
    bits, patch, frozen_scales(scales), fold, inputs, in_channels, beta,
    entropy, group,
  )  # fmt: skip
  made = autoencoder(tokenizer, **training)
  fields = dataclasses.fields(Autoencoder)
  return FittedBits(**{f.name: getattr(made, f.name) for f in fields})
