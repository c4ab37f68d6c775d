"""The discriminator of VQGAN-like tokenizers and its losses.

A GAN needs no second training loop: generator and discriminator terms are
one sum, in which `stop_gradient` decides who learns from which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError
from ar_jax.nn.layers import conv2d

Array = jax.Array


class BatchStatsNorm(nn.Module):
  """Batch normalisation by the statistics of this very call, never stored."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = x.astype(jnp.float32)
    scale = self.param("scale", _near_one, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    mean, variance = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2))
    gain = scale * jax.lax.rsqrt(variance + 1e-5)
    return (x - mean) * gain[None, None, None] + bias[None, None, None]


def _near_one(key: Array, shape: tuple[int, ...]) -> Array:
  return 1 + 0.02 * jax.random.normal(key, shape)


class PatchGAN(nn.Module):
  """Judges overlapping patches: 4x4 convolutions, LeakyReLU 0.2 (pix2pix).

  Attributes:
    width: channels of the first layer; they double up to 8 times that.
    layers: strided layers; 3 gives 30 x 30 logits for 256 x 256 pixels.
    norm: "group", or "batch" as published. Batch statistics make what is
      said of one image depend on the others; under jit over a sharded batch
      they are those of the whole batch.
    dtype: of the convolutions.
  """

  width: int = 64
  layers: int = 3
  norm: str = "group"
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Logits f32[B, h, w], positive for real, of images [B, H, W, c].

    Raises:
      UserError: the images are too small for so many layers, or there is no
        such norm.
    """
    check_choice("gan norm", self.norm, ("group", "batch"))
    if min(x.shape[1:3]) >> self.layers < 3:
      raise UserError(
        f"a discriminator of {self.layers} layers needs images of "
        f"{3 << self.layers} pixels, not {x.shape[1]}x{x.shape[2]}"
      )
    x = nn.leaky_relu(self._conv(self.width, 2, "conv_0")(x), 0.2)
    for i in range(1, self.layers + 1):
      width = self.width * min(2**i, 8)
      stride = 2 if i < self.layers else 1
      x = self._conv(width, stride, f"conv_{i}", use_bias=False)(x)
      if self.norm == "batch":
        x = BatchStatsNorm(name=f"norm_{i}")(x)
      else:
        x = conv2d.norm(width, f"norm_{i}")(x)
      x = nn.leaky_relu(x, 0.2)
    logits = self._conv(1, 1, f"conv_{self.layers + 1}")(x)
    return logits[..., 0].astype(jnp.float32)

  def _conv(self, width: int, stride: int, name: str, **kwargs) -> nn.Conv:
    return nn.Conv(
      width,
      (4, 4),
      strides=(stride, stride),
      padding=((1, 1), (1, 1)),
      kernel_init=nn.initializers.normal(0.02),
      dtype=self.dtype,
      name=name,
      **kwargs,
    )


# Per logit, of fake images.
GENERATOR_LOSSES = {
  "linear": lambda fake: -fake,
  "non_saturating": lambda fake: jax.nn.softplus(-fake),
}

# Per logit, of real and of fake images.
DISCRIMINATOR_LOSSES = {
  "hinge": (lambda x: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x)),
  "vanilla": (lambda x: jax.nn.softplus(-x), jax.nn.softplus),
}


def generator_loss(fake: Array, kind: str = "linear") -> Array:
  """f32[B] from logits f32[B, ...] of generated images."""
  return _per_example(GENERATOR_LOSSES[kind](fake))


def discriminator_loss(real: Array, fake: Array, kind: str = "hinge") -> Array:
  """f32[B] from logits f32[B, ...]; half the sum over real and fake."""
  of_real, of_fake = DISCRIMINATOR_LOSSES[kind]
  return 0.5 * (_per_example(of_real(real)) + _per_example(of_fake(fake)))


def _per_example(x: Array) -> Array:
  return x.mean(axis=tuple(range(1, x.ndim)))


def lecam(real: Array, fake: Array, averages: dict[str, Array]) -> Array:
  """LeCAM's pull of mean logits towards each other's average (2104.03310).

  Args:
    real: logits of real images.
    fake: logits of generated ones.
    averages: running means "real" and "fake" of both.

  Returns:
    f32[], equation 6 on batch means.
  """
  above = jax.nn.relu(real.mean() - averages["fake"])
  below = jax.nn.relu(averages["real"] - fake.mean())
  return jnp.square(above) + jnp.square(below)


def adaptive_weight(
  to_image: Callable[[Array], Array],
  kernel: Array,
  reconstruction_loss: Callable[[Array], Array],
  adversarial_loss: Callable[[Array], Array],
  most: float = 1e4,
) -> Array:
  """VQGAN's weight: ratio of gradient norms at the decoder's last kernel.

  Taming Transformers (2012.09841), equation 7. Only the last convolution is
  differentiated with respect to its kernel, so no second pass through the
  decoder is needed, and the value is exact.

  Args:
    to_image: kernel -> image, all else (the feature before it) constant.
    kernel: the last kernel.
    reconstruction_loss: image -> f32[].
    adversarial_loss: image -> f32[].
    most: the largest weight.

  Returns:
    f32[], a constant to differentiation, within [0, most].
  """
  image, back = jax.vjp(to_image, kernel)

  def norm(loss):
    return jnp.linalg.norm(back(jax.grad(loss)(image))[0].ravel())

  ratio = norm(reconstruction_loss) / (norm(adversarial_loss) + 1e-4)
  return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, most))


_CRITIC = 2**20  # of the keys of what a critic changes


@dataclasses.dataclass(frozen=True)
class Adversary:
  """A discriminator and how it plays.

  Attributes:
    discriminator: image -> logits, as `PatchGAN`; or as `tokenizers.critic`,
      which also reads frozen weights and keys.
    weight: of the generator's term.
    start: first training step at which either side plays.
    generator: a key of `GENERATOR_LOSSES`.
    judge: a key of `DISCRIMINATOR_LOSSES`.
    adaptive: multiply `weight` by `adaptive_weight`, over the batch.
    lecam: weight of the regulariser, 0 for none.
    decay: of the running means for it.
    most: the largest adaptive weight.
  """

  discriminator: nn.Module
  weight: float = 0.1
  start: int = 0
  generator: str = "linear"
  judge: str = "hinge"
  adaptive: bool = False
  lecam: float = 0.0
  decay: float = 0.999
  most: float = 1e4

  def __post_init__(self):
    for what, table in (
      ("generator", GENERATOR_LOSSES),
      ("judge", DISCRIMINATOR_LOSSES),
    ):
      if getattr(self, what) not in table:
        raise UserError(
          f"gan {what}={getattr(self, what)!r}: must be one of {sorted(table)}"
        )

  def logits(
    self,
    params: Any,
    image: Array,
    critic: Any = None,
    keys: Array | None = None,
    place: int = 0,
  ) -> Array:
    """What the discriminator says of images in [-1, 1].

    Args:
      params: of the discriminator.
      image: f32[B, H, W, c].
      critic: its frozen weights, where it has some.
      keys: Key[B] for the changes that it makes of images before it looks.
      place: tells calls of the same keys apart.
    """
    if critic is None:
      return self.discriminator.apply({"params": params}, image)
    if keys is not None:
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _CRITIC + place)
    held = jax.lax.stop_gradient(critic)
    variables = {"params": params, "critic": held}
    return self.discriminator.apply(variables, image, keys)

  def generator_term(self, params: Any, image: Array, **more: Any) -> Array:
    """The generator's term, f32[B]; the discriminator learns nothing. What else
    `logits` takes goes there."""
    frozen = jax.lax.stop_gradient(params)
    logits = self.logits(frozen, image, **more, place=0)
    return generator_loss(logits, self.generator)

  def discriminator_term(
    self,
    params: Any,
    real: Array,
    fake: Array,
    averages: dict | None = None,
    **more: Any,
  ) -> tuple[Array, dict[str, Array]]:
    """The discriminator's term f32[B]; the generator learns nothing. What else
    `logits` takes goes there.

    Returns:
      The term, and the new running means (empty without `lecam`).
    """
    on_real = self.logits(params, real, **more, place=1)
    fake = jax.lax.stop_gradient(fake)
    on_fake = self.logits(params, fake, **more, place=2)
    loss = discriminator_loss(on_real, on_fake, self.judge)
    if not self.lecam:
      return loss, {}
    means = jax.lax.stop_gradient(
      {"real": on_real.mean(), "fake": on_fake.mean()}
    )
    moved = jax.tree.map(
      lambda old, new: self.decay * old + (1 - self.decay) * new,
      averages,
      means,
    )
    return loss + self.lecam * lecam(on_real, on_fake, averages), moved
