"""Codes of square patches of pixels: a tokenizer without a network.

Every patch is the nearest code of one codebook, as in plain vector
quantisation (Gray, 1984). The codebook is random at first, which is enough for
generators to be run and tested; k-means over patches makes it useful. Nothing
in here is a convolution, so a generator over these units compiles in a part of
the time. Three forms, each answering as one of the trained tokenizers does:

  map      the codes of all patches, row by row: as `vq`;
  pyramid  residual maps of growing size, added up without a convolution: as
           `multiscale_vq` and, with `bands`, `frequency_vq`;
  resized  the patches averaged down to maps of growing size, each map coded by
           itself: as `flex_vq`.

Shapes: B batch, H W image sides, c image channels, p side of a patch, h = H / p
latent side, C = p p c, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax

from ar_jax.core.signals.bands import low
from ar_jax.core.system import UserError
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.nn.quantize.vq import VectorQuantizer
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  autoencoder,
  check_image,
)
from ar_jax.tokenizers.code_maps import CodeMap, Pyramid
from ar_jax.tokenizers.flex_vq import FlexVQ
from ar_jax.tokenizers.patches import cut, join

Array = jax.Array


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
    form: "map", "pyramid" or "resized".
    vocab: V.
    patch: p.
    size: H.
    in_channels: c.
    scales: sides of the maps of the last two forms, coarse to fine; the last
      is H / p.
    bands: of a pyramid; see `frequency_vq`.
    spread: of the random codebook, pixels being in [-1, 1].

  Raises:
    UserError: the form or the rule of the bands is unknown, or sizes do not
      fit together.
  """
  if form not in ("map", "pyramid", "resized"):
    raise UserError(f"form={form!r}: must be map, pyramid or resized")
  if size % patch:
    raise UserError(f"size={size} is not a multiple of patch={patch}")
  if (form == "map") != (scales is None):
    raise UserError(f"form={form!r}: scales={scales}; only a map has none")
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
    tokenizer = PatchMap(vocab, patch, size, in_channels, spread)
    if form == "resized":
      tokenizer = FlexVQ(tokenizer, scales, scales)
  return autoencoder(tokenizer)
