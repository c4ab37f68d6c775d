"""Codes of square patches of pixels: a tokenizer without a network.

Every patch is the nearest code of one codebook, as in plain vector
quantisation (Gray, 1984). As the tokenizer of a generator its codebook is
random, which is enough for generators to be run and tested; a run of its own
fits the codes to the data before the first step (k-means, or principal
components), so one of `train.steps=0` makes a tokenizer. Nothing in here is a
convolution, so a generator over these units compiles in a part of the time.
Four forms, the first three answering as one of the trained tokenizers does:

  map      the codes of all patches, row by row: as `vq`;
  pyramid  residual maps of growing size, added up without a convolution: as
           `multiscale_vq` and, with `bands`, `frequency_vq`;
  resized  the patches averaged down to maps of growing size, each map coded by
           itself: as `flex_vq`;
  bits     one map of codes that no table holds: the signs of the first K
           principal components (V = 2^K), the simplest binary tokenizer.

Shapes: B batch, H W image sides, c image channels, p side of a patch, h = H / p
latent side, C = p p c, V codes, K bits of a code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.signals.bands import low
from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import UserError, Vars
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.nn.quantize.vq import (
  VectorQuantizer,
  codebook_loss,
  commitment,
  straight_through,
)
from ar_jax.tokenizers import patch_fitting as fitting
from ar_jax.tokenizers.autoencoder import Autoencoder, check_image
from ar_jax.tokenizers.code_maps import CodeMap, Pyramid
from ar_jax.tokenizers.flex_vq import FlexVQ

Array = jax.Array
FORMS = ("map", "pyramid", "resized", "bits")


class _Cut:
  """The patches of an image as its latent, for the bases of tokenizers."""

  @property
  def channels(self) -> int:
    """C."""
    return self.patch**2 * self.in_channels

  @property
  def stride(self) -> int:
    """p."""
    return self.patch

  def decoded(self, latent: Array) -> tuple[Array, Array]:
    """Images f32[B, H, W, c], not clipped, of patches f32[B, h, w, C]; twice,
    since there is no last layer that makes them of something else."""
    image = join(latent, self.patch)
    return image, image

  def to_image(self, feature: Array) -> Array:
    """What `decoded` gives second, as it is."""
    return feature


class PatchMap(_Cut, CodeMap):
  """One map of patches.

  Attributes:
    vocab: V.
    patch: p.
    size: H, for generators; the tokenizer itself takes any multiple of p.
    in_channels: c.
    spread: of the random codebook; see `quantize.codebook_init`.
  """

  vocab: int
  patch: int
  size: int
  in_channels: int = 1
  spread: float | None = 0.5

  def setup(self):
    self.quantizer = VectorQuantizer(
      self.vocab, self.channels, sphere=False, spread=self.spread
    )

  def latent(self, x: Array) -> Array:
    """f32[B, h, w, C] of images f32[B, H, W, c] in [-1, 1].

    Raises:
      UserError: the sides are no multiples of the patch, or the channels are
        not those of this tokenizer.
    """
    check_image(x, self.patch, self.in_channels)
    return cut(x, self.patch)


class Signs(nn.Module):
  """Codes whose bits are the signs of whitened latents.

  The code of a latent z has the bit k, the first being the highest, where the
  component k of z is above its mean; it stands for the mean of each component
  on its side. Answers as a `VectorQuantizer`; nothing in it has a gradient but
  what a code stands for.

  Attributes:
    bits: K.
    channels: C.
    beta: as there.
  """

  bits: int
  channels: int
  beta: float = 0.25

  def setup(self):
    self.mean = self.param("mean", nn.initializers.zeros, (self.channels,))
    self.basis = self.param(
      "basis", nn.initializers.orthogonal(), (self.bits, self.channels)
    )
    half = lambda key, shape: jnp.tile(jnp.array([-0.5, 0.5]), (shape[0], 1))
    self.levels = self.param("levels", half, (self.bits, 2))

  def codebook(self) -> Array:
    """f32[V, C]."""
    return self.embed(jnp.arange(2**self.bits))

  def embed(self, units: Array) -> Array:
    """f32[..., C] of units i32[...]."""
    row = lambda x: x.reshape((1,) * units.ndim + x.shape)
    high = units[..., None] >> row(jnp.arange(self.bits)[::-1]) & 1
    low, up = row(self.levels[:, 0]), row(self.levels[:, 1])
    parts = jnp.where(high > 0, up, low)
    return row(self.mean) + jnp.matmul(
      parts, self.basis, precision=jax.lax.Precision.HIGHEST
    )

  def encode(self, z: Array) -> Array:
    """Units i32[...] of latents [..., C]."""
    row = lambda x: x.reshape((1,) * (z.ndim - 1) + x.shape)
    z = z.astype(jnp.float32) - row(self.mean)
    parts = jnp.matmul(z, self.basis.T, precision=jax.lax.Precision.HIGHEST)
    weights = jnp.asarray(2 ** np.arange(self.bits)[::-1], jnp.int32)
    return jnp.sum((parts > 0) * row(weights), -1)

  def __call__(self, z: Array) -> tuple[Array, dict[str, Array], Array]:
    """As `VectorQuantizer`."""
    ids = self.encode(z)
    e = self.embed(ids)
    losses = {
      "codebook_loss": codebook_loss(z, e),
      "commit_loss": commitment(z, e, self.beta),
    }
    return straight_through(z, e), losses, ids


class PatchBits(PatchMap):
  """A `PatchMap` whose codes are `Signs`; `vocab` is a power of two."""

  def setup(self):
    bits = self.vocab.bit_length() - 1
    self.quantizer = Signs(bits, self.channels)

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...], without a table of all."""
    return self.quantizer.embed(units)


class PatchPyramid(_Cut, Pyramid):
  """Residual maps of patches.

  Attributes:
    vocab: V.
    patch: p.
    scales: sides of the maps, p_1 < ... < p_K = h.
    in_channels: c.
    spread: of the random codebook; see `quantize.codebook_init`.
    bands: see `quantize.MultiScaleResidual`.
  """

  vocab: int
  patch: int
  scales: tuple[int, ...]
  in_channels: int = 1
  spread: float | None = 0.5
  bands: str | None = None

  def setup(self):
    self.quantizer = MultiScaleResidual(
      self.vocab,
      self.channels,
      self.scales,
      phis=0,
      spread=self.spread,
      bands=self.bands,
    )

  def latent(self, x: Array) -> Array:
    """f32[B, h, h, C] of images f32[B, H, H, c] in [-1, 1].

    Raises:
      UserError: the images are not of the size that `scales` describes.
    """
    self.check(x)
    return cut(x, self.patch)


@dataclasses.dataclass(frozen=True)
class PatchCodes(Autoencoder):
  """The tokenizer in training; a run begins with codes fitted to its data."""

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    params = variables["params"]
    values = fitting.fitted(
      self.tokenizer, params["tokenizer"]["quantizer"], source, seed
    )
    tokenizer = {**params["tokenizer"], "quantizer": values}
    return {**variables, "params": {**params, "tokenizer": tokenizer}}


def build(
  *,
  form: str = "map",
  vocab: int = 16,
  patch: int = 4,
  size: int = 8,
  in_channels: int = 1,
  scales: Sequence[int] | None = None,
  bands: str | None = None,
  spread: float | None = 0.5,
) -> Autoencoder:
  """The codes as the tokenizer of a generator; in training its codes move to
  the patches that they stand for.

  Args:
    form: "map", "pyramid", "resized" or "bits".
    vocab: V; of bits 2^K, with at most C of them.
    patch: p.
    size: H.
    in_channels: c.
    scales: sides of the maps of "pyramid" and "resized", coarse to fine; the
      last is H / p.
    bands: of a pyramid; see `frequency_vq`.
    spread: of the random codebook, pixels being in [-1, 1].

  Raises:
    UserError: the form or the rule of the bands is unknown, or sizes do not
      fit together.
  """
  check_choice("form", form, FORMS)
  if size % patch:
    raise UserError(f"size={size} is not a multiple of patch={patch}")
  if (form in ("map", "bits")) != (scales is None):
    raise UserError(f"form={form!r}: scales={scales}; only a map has none")
  bits, channels = vocab.bit_length() - 1, patch**2 * in_channels
  if form == "bits" and (vocab != 2**bits or not 0 < bits <= channels):
    raise UserError(
      f"vocab={vocab}: the codes of form='bits' are 2, 4, ... 2^{channels}, "
      f"the patches having {channels} numbers"
    )
  scales = scales and tuple(scales)
  if scales and scales[-1] != size // patch:
    raise UserError(
      f"scales={scales}: the last must be size / patch = {size // patch}"
    )
  if bands is not None:
    if form != "pyramid":
      raise UserError(f"bands={bands!r}: form={form!r} has none; use pyramid")
    low(scales, bands)
  if form == "pyramid":
    tokenizer = PatchPyramid(vocab, patch, scales, in_channels, spread, bands)
  else:
    kind = PatchBits if form == "bits" else PatchMap
    tokenizer = kind(vocab, patch, size, in_channels, spread)
    if form == "resized":
      tokenizer = FlexVQ(tokenizer, scales, scales)
  return PatchCodes(tokenizer)
