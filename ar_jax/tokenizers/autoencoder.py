"""The training system that every tokenizer family shares.

A family brings a Linen module with

  encode(x) -> units        decode(units) -> x clipped to [-1, 1]
  __call__(x, keys) -> Reconstruction, keys Key[B] in training, else None
  to_image(feature) -> x    the decoder's last layer alone

and gets reconstruction, perceptual and adversarial losses, sampling
(reconstruction) and units from here. In training it may make the rng "step",
one key for the whole batch. Images are u8 in a batch and f32 in [-1, 1]
inside. B batch, H W sides, c channels, L units, V codes, C channels of a unit
that is no code.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import check_choice
from ar_jax.core.system import (
  Batch,
  Loss,
  System,
  UserError,
  Vars,
  example_keys,
  passes_on,
)
from ar_jax.nn.losses.adversary import Adversary, adaptive_weight
from ar_jax.nn.losses.perceptual import LPIPS
from ar_jax.tokenizers.adversarial import adversary

Array = jax.Array

PIXEL_LOSSES = {"l1": jnp.abs, "l2": jnp.square}


class Reconstruction(NamedTuple):
  """What a tokenizer's `__call__` returns for training.

  Attributes:
    image: f32[B, H, W, c], not clipped.
    feature: what the tokenizer's `to_image` turns into `image`.
    units: i32[B, L], or f32[B, L, C] where nothing is quantised.
    losses: name -> f32[B], the bottleneck's terms, weighted to be summed.
    metrics: name -> f32[B], only reported.
    target: what `image` should be, if not the image itself.
    more: what `Autoencoder.further` reads; and `judged` f32[B], if it is
      there, the weight of what the discriminator learns of each example.
  """

  image: Array
  feature: Array
  units: Array
  losses: dict[str, Array]
  metrics: dict[str, Array] = {}
  target: Array | None = None
  more: dict[str, Array] = {}


def check_image(x: Array, stride: int, channels: int) -> None:
  """Raises UserError unless a tokenizer of this stride and of so many channels
  can take images [B, H, W, c]."""
  height, width, given = x.shape[1:]
  if height % stride or width % stride:
    raise UserError(
      f"image {height}x{width}: this tokenizer takes sides that are multiples "
      f"of {stride}; resize the data or change mult"
    )
  if given != channels:
    raise UserError(
      f"image of {given} channels: this tokenizer takes {channels}; change "
      "data.channels or in_channels"
    )


def signed(image: Array) -> Array:
  """u8[B, H, W, c] to f32 in [-1, 1]."""
  return image.astype(jnp.float32) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class Autoencoder(System):
  """A tokenizer in training.

  The discriminator, where there is one, learns from the same sum: its term
  sees a constant image and the generator's term sees constant weights.
  `variables["params"]` holds "tokenizer" and perhaps "discriminator".

  Attributes:
    tokenizer: the family's module.
    pixel: "l1" or "l2", a mean over pixels and channels.
    pixel_weight: its weight.
    bottleneck_weight: weight of the sum of `Reconstruction.losses`.
    lpips: the perceptual term, or None; its weights are the collection
      `lpips`.
    adversary: the adversarial term, or None. It begins at `adversary.start`
      if the batch says at which `step` i32[B] it is, else at once.
  """

  tokenizer: nn.Module
  pixel: str = "l2"
  pixel_weight: float = 1.0
  bottleneck_weight: float = 1.0
  lpips: LPIPS | None = None
  adversary: Adversary | None = None

  needs = ("image",)
  noisy = False  # whether the tokenizer gets keys outside of training, too

  def __post_init__(self):
    check_choice("pixel", self.pixel, PIXEL_LOSSES)

  @property
  def moving(self) -> frozenset[str]:
    """The running means of the adversary, where it keeps some."""
    lecam = self.adversary is not None and self.adversary.lecam
    return frozenset({"lecam"} if lecam else ())

  @property
  def vocab(self) -> int | None:
    """V, for statistics of codebook usage; None where nothing is quantised."""
    return self.tokenizer.vocab

  def init(self, key: Array, batch: Batch) -> Vars:
    key, other = jax.random.split(key)
    x = signed(jnp.zeros_like(batch[self.needs[0]]))
    params = {"tokenizer": self.tokenizer.init(key, x)["params"]}
    variables: Vars = {"params": params}
    if self.adversary:
      net = self.adversary.discriminator
      seen = self.pictures(x)
      params["discriminator"] = net.init(other, seen)["params"]
      if hasattr(net, "frozen"):
        variables["critic"] = net.frozen(jax.random.fold_in(other, 1))
      if self.adversary.lecam:
        variables["lecam"] = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    if self.lpips:
      variables["lpips"] = self.lpips.init()
    return variables

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    x = signed(batch[self.needs[0]])
    params = variables["params"]
    keys = example_keys(key, batch) if train or self.noisy else None
    rngs = {"step": key} if train else None
    out = self.tokenizer.apply(
      {"params": params["tokenizer"]}, x, keys, rngs=rngs
    )
    x = x if out.target is None else out.target
    metrics = {"psnr": psnr(x, out.image)} | out.losses | out.metrics
    terms = self._reconstruction_terms(variables, x, out.image)
    terms |= self.further(variables, batch, x, out)
    metrics |= {name: value for name, (_, value) in terms.items()}
    value = sum(weight * term for weight, term in terms.values())
    value += self.bottleneck_weight * sum(out.losses.values())
    updates = {}
    if self.adversary:
      value_gan, more, updates = self._adversarial_terms(
        variables, batch, x, out, keys
      )
      value, metrics = value + value_gan, metrics | more
    return Loss(value, metrics, updates if train else {})

  def pictures(self, x: Array) -> Array:
    """What a discriminator sees of examples: images f32[N, H, W, c]."""
    return x

  def further(
    self, variables: Vars, batch: Batch, x: Array, out: Reconstruction
  ) -> dict[str, tuple[Any, Array]]:
    """name -> (weight, f32[B]), terms of a family of its own; x are images
    f32[B, H, W, c] in [-1, 1]."""
    del variables, batch, x, out
    return {}

  def _reconstruction_terms(
    self, variables: Vars, x: Array, image: Array
  ) -> dict[str, tuple[float, Array]]:
    """name -> (weight, f32[B]), everything that compares two images."""
    error = PIXEL_LOSSES[self.pixel](x - image).mean((1, 2, 3))
    terms = {"pixel": (self.pixel_weight, error)}
    if self.lpips:
      distance = self.lpips(variables["lpips"], x, image)
      terms["perceptual"] = (self.lpips.weight, distance)
    return terms

  def _adversarial_terms(
    self,
    variables: Vars,
    batch: Batch,
    x: Array,
    out: Reconstruction,
    keys: Array | None,
  ) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    """The adversarial terms f32[B], their metrics and running means."""
    gan, params, critic = self.adversary, variables["params"], {}
    if "critic" in variables:
      critic = dict(critic=variables["critic"], keys=keys)
    step = batch.get("step", jnp.full(len(x), gan.start))
    on = (step >= gan.start).astype(jnp.float32)
    own = params["discriminator"]
    generator = gan.generator_term(own, out.image, **critic)
    discriminator, averages = gan.discriminator_term(
      own, x, out.image, variables.get("lecam"), **critic
    )
    discriminator = discriminator * out.more.get("judged", 1.0)
    weight = gan.weight * jnp.ones(())
    if gan.adaptive:
      weight *= self._adaptive_weight(variables, x, out.feature)
    metrics = {
      "gan_g": generator,
      "gan_d": discriminator,
      "gan_weight": jnp.full(len(x), weight),
    }
    updates = {"lecam": averages} if averages else {}
    return on * (weight * generator + discriminator), metrics, updates

  def _adaptive_weight(
    self, variables: Vars, x: Array, feature: Array
  ) -> Array:
    params = jax.lax.stop_gradient(variables["params"])
    feature = jax.lax.stop_gradient(feature)
    tokenizer = params["tokenizer"]
    decoder = tokenizer["decoder"]

    def to_image(kernel):
      last = decoder["conv_out"] | {"kernel": kernel}
      tree = tokenizer | {"decoder": decoder | {"conv_out": last}}
      return self.tokenizer.apply({"params": tree}, feature, method="to_image")

    def reconstruction(image):
      terms = self._reconstruction_terms(variables, x, image)
      return sum(weight * term for weight, term in terms.values()).mean()

    return adaptive_weight(
      to_image,
      decoder["conv_out"]["kernel"],
      reconstruction,
      lambda image: self.adversary.generator_term(
        params["discriminator"], self.pictures(image)
      ).mean(),
      self.adversary.most,
    )

  def units(self, variables: Vars, batch: Batch) -> Array:
    """Units i32[B, L] or f32[B, L, C] of the images of a batch."""
    return self._apply(variables, signed(batch[self.needs[0]]), "encode")

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Reconstructions f32[B, H, W, c] in [0, 1] of `cond["image"]`."""
    if options:
      raise UserError(f"a reconstruction takes no options: {sorted(options)}")
    del keys  # deterministic
    return self.decode(variables, self.units(variables, cond))

  def decode(self, variables: Vars, units: Array) -> Array:
    """Images f32[B, H, W, c] in [0, 1] of units."""
    return (self._apply(variables, units, "decode") + 1) / 2

  def _apply(self, variables: Vars, x: Array, method: str) -> Array:
    params = variables["params"]["tokenizer"]
    return self.tokenizer.apply({"params": params}, x, method=method)


def psnr(x: Array, image: Array) -> Array:
  """Decibels f32[B] between x in [-1, 1] and an image clipped to it.

  100 at most, so that a perfect copy has a finite value.
  """
  axes = tuple(range(1, x.ndim))
  error = jnp.square(x - jnp.clip(image, -1.0, 1.0)).mean(axes)
  return -10 * jnp.log10(jnp.maximum(error / 4, 1e-10))


@passes_on(adversary)
def autoencoder(
  tokenizer: nn.Module,
  *,
  pixel: str = "l2",
  pixel_weight: float = 1.0,
  bottleneck_weight: float = 1.0,
  lpips_trunk: str | None = None,
  lpips_heads: str | None = None,
  lpips_weight: float = 1.0,
  **gan: Any,
) -> Autoencoder:
  """An `Autoencoder` from plain values, as configs hold them.

  Perceptual loss is on when both of its files are named; the adversary and its
  options `gan_...` are those of `adversary`.

  Raises:
    UserError: a value is not one of those possible.
  """
  lpips = None
  if bool(lpips_trunk) != bool(lpips_heads):
    raise UserError("lpips needs two files: lpips_trunk and lpips_heads")
  if lpips_trunk and lpips_heads:
    lpips = LPIPS(lpips_trunk, lpips_heads, lpips_weight)
  return Autoencoder(
    tokenizer, pixel, pixel_weight, bottleneck_weight, lpips, adversary(**gan)
  )
