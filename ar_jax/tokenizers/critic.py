"""A discriminator that judges by what a frozen encoder sees.

GigaTok's best tokenizer (arXiv 2504.08736) and VAR's are trained with one:
DINO's ViT-S/16 (arXiv 2104.14294) at 224 pixels, of whose states before the
first and behind some layers small heads judge each place.

Shapes: B batch, H W image sides, c image channels, N places, L levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.system import UserError
from ar_jax.encoders.vit import ViT
from ar_jax.nn.losses.augment import augmented, cropped
from ar_jax.nn.losses.feature_heads import FeatureHeads

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Critic:
  """In place of a `PatchGAN`; its `apply` also reads the collection `critic`,
  the frozen encoder, where that has params.

  Attributes:
    encoder: a ViT with a class token, whose state is added to each place.
    heads: what is trained.
    behind: layers behind which states are judged, from 1 on; those before the
      first are judged, too.
    cutout: see `augmented`.
  """

  encoder: ViT
  heads: FeatureHeads
  behind: tuple[int, ...] = (3, 6, 9, 12)
  cutout: float = 0.2

  def frozen(self, key: Array) -> Any:
    """Fresh params of the encoder."""
    side = self.encoder.net.side
    image = jnp.zeros((1, side, side, self.encoder.net.encoder.in_channels))
    image = (127.5 * (image + 1)).astype(jnp.uint8)
    return self.encoder.init(key, {"image": image})["params"]

  def init(self, key: Array, x: Array) -> dict[str, Any]:
    """The variables of the heads for images f32[B, H, W, c]."""
    del x  # the encoder sees one size
    return self.heads.init(key, self._blank())

  def _blank(self) -> list[Array]:
    net = self.encoder.net.encoder
    places = (self.encoder.net.side // net.patch) ** 2
    return [jnp.zeros((1, places, net.width))] * (1 + len(self.behind))

  def apply(
    self, variables: Mapping[str, Any], x: Array, keys: Array | None = None
  ) -> Array:
    """Logits f32[B, L, N] of images f32[B, H, W, c] in [-1, 1].

    Args:
      variables: with `params` of the heads and `critic` of the encoder.
      x: see above.
      keys: Key[B] of the changes of the images; None for none.
    """
    if keys is not None:
      keys, own = jax.vmap(jax.random.split, out_axes=1)(keys)
      x = augmented(x, own, self.cutout)
    x = cropped(x, keys, self.encoder.net.side)
    net = self.encoder.net.encoder
    levels = net.apply(
      {"params": variables["critic"]["encoder"]},
      x, self.behind, method="levels",
    )  # fmt: skip
    return self.heads.apply({"params": variables["params"]}, levels)


def critic(spec: Mapping[str, Any], norm: str = "group") -> Critic:
  """The discriminator of a config.

  Args:
    spec: `{"name": "vit", "size": 224, **arguments}` of the encoder; perhaps
      also `behind`, by default a quarter, half, three quarters and all of its
      layers, and `cutout`, 0.2; see `Critic`.
    norm: of the heads; see `feature_heads.VirtualNorm`.

  Raises:
    UserError: this is no such encoder, or it has no such layers.
  """
  spec = dict(spec)
  behind, cutout = spec.pop("behind", None), spec.pop("cutout", 0.2)
  encoder = system.part(spec)
  if not isinstance(encoder, ViT) or encoder.net.side is None:
    raise UserError(
      "gan_critic: it is a vit that brings images to a size of its own: "
      "{'name': 'vit', 'size': 224, ...}"
    )
  net = encoder.net.encoder
  if not net.class_token or net.registers or net.style != "vit":
    raise UserError(
      "gan_critic: it is a vit with a class token and without registers"
    )
  depth = net.stack.depth
  behind = behind or [depth * i // 4 for i in range(1, 5)]
  if not all(1 <= n <= depth for n in behind):
    raise UserError(
      f"gan_critic: behind={tuple(behind)}: it has {depth} layers"
    )
  return Critic(encoder, FeatureHeads(norm), tuple(behind), cutout)
