"""FlexVAR's tokenizer: a VQGAN whose latents decode at any size.

FlexVAR: Flexible Visual Autoregressive Modeling without Residual Prediction
(arXiv 2502.20313). The network is LlamaGen's (`tokenizers/vq.py`); new in it:
  - an image is a list of maps, each of them the latent averaged down and
    quantised by itself, so no map depends on another, and any list will do;
  - training decodes another size of the latent at every step.

Shapes: B batch, H W image sides, c image channels, C code channels, K maps of
sides h_k w_k, L = sum h_k w_k units, V codes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.plans.makers import pair
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError, passes_on
from ar_jax.tokenizers import vq
from ar_jax.tokenizers.autoencoder import (
  Autoencoder,
  Reconstruction,
  autoencoder,
)
from ar_jax.tokenizers.code_maps import CodeMap

Array = jax.Array
Side = int | tuple[int, int]

# The lists of the published sampler, by the number of steps, at 256 px; 15
# are for 512 px.
SCALES = {
  6: (1, 2, 4, 6, 10, 16),
  8: (1, 2, 3, 5, 7, 10, 13, 16),
  9: (1, 2, 3, 4, 5, 7, 10, 13, 16),
  10: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
  13: (*range(1, 11), 12, 14, 16),
  15: (*range(1, 11), 12, 14, 16, 23, 32),
}


class FlexVQ(nn.Module):
  """Pyramids of independent maps over a `VQ`, or another `CodeMap`, whose
  parameters are its own.

  Attributes:
    body: the network and its codebook.
    scales: the list of maps, coarse to fine: sides, or (height, width).
    latents: sides of the latent among which a step of training draws; the
      size of the image itself is one of them only if it is named.
  """

  body: CodeMap
  scales: tuple[Side, ...] = SCALES[10]
  latents: tuple[int, ...] = SCALES[10]

  field = "image"  # of a batch, which it reads

  def setup(self):
    nn.share_scope(self, self.body)

  def example(self) -> Array:
    """Zeros f32[1, H, H, c], an image as it reads one."""
    return self.body.example()

  @property
  def vocab(self) -> int:
    """V."""
    return self.body.vocab

  @property
  def channels(self) -> int:
    """C."""
    return self.body.channels

  @property
  def in_channels(self) -> int:
    """c."""
    return self.body.in_channels

  @property
  def stride(self) -> int:
    """Pixels per side of a latent."""
    return self.body.stride

  @property
  def size(self) -> int:
    """Side of the images that it is trained on, in pixels."""
    return self.body.size

  @property
  def shapes(self) -> list[tuple[int, int]]:
    """(h_k, w_k) of all maps."""
    return list(map(pair, self.scales))

  @property
  def length(self) -> int:
    """L."""
    return sum(h * w for h, w in self.shapes)

  def encode(
    self,
    x: Array,
    allowed: Array | None = None,
    slack: float | None = None,
  ) -> Array:
    """Units i32[B, L] of images f32[B, H, W, c] in [-1, 1], coarse first; of
    codes that are allowed, see `nn.quantize.vq.nearest_allowed`."""
    f = self.body.latent(x).astype(jnp.float32)
    code = self.body.quantizer.encode
    maps = [
      code(resize(f, shape, "area"), allowed, slack).reshape(len(x), -1)
      for shape in self.shapes
    ]
    return jnp.concatenate(maps, axis=1)

  def decode(self, units: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of units i32[B, L]: of the last map,
    which alone says what the image is."""
    last = self._split(units)[-1]
    return self.decode_latent(self._map(self.codebook()[last], -1))

  def decode_latent(self, latent: Array) -> Array:
    """Images f32[B, H, W, c] in [-1, 1] of codes f32[B, h, w, C]."""
    return self.body.decode_latent(latent)

  def codebook(self) -> Array:
    """f32[V, C], of unit length."""
    return self.body.codebook()

  def embed(self, units: Array) -> Array:
    """The generator's input f32[B, L, C] for known units i32[B, L].

    Slots of map k >= 2 hold map k - 1, resized; those of the first, 0.
    """
    codes = self.codebook()[units]
    first = jnp.zeros_like(codes[:, : np.prod(self.shapes[0])])
    known = self._split(codes)[:-1]
    rest = [self.advance_soft(None, k, e)[1] for k, e in enumerate(known)]
    return jnp.concatenate([first, *rest], axis=1)

  def start(self, batch: int) -> None:
    """Where `advance` begins: nothing is known, and nothing is summed."""
    del batch

  def advance(
    self, latent: Array | None, k: int, units: Array
  ) -> tuple[Array, Array | None]:
    """The latent after the units of one map, and the input of the next.

    Args:
      latent: of the map before, which is not looked at.
      k: the map, static, from 0.
      units: i32[B, h_k w_k].

    Returns:
      The codes f32[B, h_k, w_k, C], and these resized to the next map, [B,
      h_{k+1} w_{k+1}, C]; None after the last.
    """
    return self.advance_soft(latent, k, self.codebook()[units])

  def advance_soft(
    self, latent: Array | None, k: int, embedding: Array
  ) -> tuple[Array, Array | None]:
    """`advance` for mixtures of codes, f32[B, h_k w_k, C]."""
    del latent
    codes = self._map(embedding, k)
    if k + 1 == len(self.scales):
      return codes, None
    following = resize(codes, self.shapes[k + 1], "bicubic")
    return codes, following.reshape(len(codes), -1, codes.shape[-1])

  def to_image(self, feature: Array) -> Array:
    """The decoder's last convolution alone, unclipped."""
    return self.body.to_image(feature)

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, W, c] in [-1, 1].

    With a key named "step", the latent has the size that this key draws; the
    reconstruction is then as large as that, and both it and the image that it
    should be are brought to H x W pixel by pixel, for the losses.
    """
    if not self.has_rng("step"):
      return self.body(x, keys)
    which = jax.random.randint(self.make_rng("step"), (), 0, len(self.latents))
    latent = self.body.latent(x)
    # Bound anew: modules of this scope must not be called inside a switch.
    variables = self.body.variables
    body = self.body.clone(parent=None, _deep_clone=True, _reset_names=True)
    body = body.bind(variables)
    branches = [functools.partial(_at, body, p) for p in self.latents]
    image, target, losses = jax.lax.switch(which, branches, latent, x)
    units = body.quantizer.encode(latent).reshape(len(x), -1)
    return Reconstruction(
      image, jnp.zeros(()), units, losses, target=target
    )  # fmt: skip

  def _split(self, units: Array) -> list[Array]:
    ends = np.cumsum([h * w for h, w in self.shapes])
    return jnp.split(units, ends[:-1], axis=1)

  def _map(self, codes: Array, k: int) -> Array:
    return codes.reshape(len(codes), *self.shapes[k], codes.shape[-1])


def _at(
  body: CodeMap, side: int, latent: Array, x: Array
) -> tuple[Array, Array, dict[str, Array]]:
  """The image decoded from the latent averaged to `side`, the image that it
  should be, both f32[B, H, W, c], and the losses of the quantiser."""
  codes, losses, _ = body.quantizer(resize(latent, (side, side), "area"))
  image, _ = body.decoded(codes)
  wide = lambda y: resize(y, x.shape[1:3], "nearest")
  return wide(image), wide(resize(x, image.shape[1:3], "area")), losses


@passes_on(autoencoder)
def build(
  *,
  vocab: int = 8912,
  channels: int = 32,
  z: int = 256,
  ch: int = 128,
  mult: Sequence[int] = vq.MULT[16],
  blocks: int = 2,
  size: int = 256,
  in_channels: int = 3,
  scales: Sequence[Side] = SCALES[10],
  latents: Sequence[int] | None = None,
  beta: float = 0.25,
  spread: float | None = None,
  dtype: str = "float32",
  **training,
) -> Autoencoder:
  """The tokenizer in training; `training` as `autoencoder.autoencoder`.

  Args:
    vocab: V; 8912 is no misprint.
    scales: see `FlexVQ`.
    latents: see `FlexVQ`; those of `scales` if None.

  The other arguments are those of `vq.build`.

  Raises:
    UserError: the size is no multiple of the stride, or the weight of an
      adversary is to adapt itself: no one layer is the last of all sizes.
  """
  if training.get("gan_adaptive"):
    raise UserError("flex_vq: gan_adaptive needs one size of the latent")
  body = vq.build(
    vocab=vocab,
    channels=channels,
    z=z,
    ch=ch,
    mult=mult,
    blocks=blocks,
    size=size,
    in_channels=in_channels,
    beta=beta,
    spread=spread,
    dtype=dtype,
  ).tokenizer
  scales = tuple(p if np.ndim(p) == 0 else tuple(p) for p in scales)
  latents = tuple(scales if latents is None else latents)
  return autoencoder(FlexVQ(body, scales, latents), **training)
