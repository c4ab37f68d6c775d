"""The wav-VAE of CLEAR (arXiv 2508.19098): a sound as few continuous latents.

Convolutions with snake activations, as in DAC (arXiv 2306.06546) and Stable
Audio (arXiv 2402.04825); around each change of the rate a shortcut without
parameters, see `nn.layers.conv1d`. 16 kHz become 7.8 latents a second. The
encoder looks ahead, the decoder does not: `go_on` makes a sound piece by piece,
and it is the sound that `decode` makes at once.

As for `kl_vae`, `moments`, `draw`, `encode` and `decode` are what a generator
needs; units here are as they are, a generator brings them to its scale.

Shapes: B batch, N samples, r the product of the strides, L = N / r latents, C
channels of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.system import (
  Batch,
  Loss,
  System,
  UserError,
  Vars,
  example_keys,
)
from ar_jax.nn.layers.conv1d import (
  Carry,
  Conv1d,
  Down,
  ResidualUnit,
  Snake,
  Up,
  check_shortcut,
)
from ar_jax.nn.losses import spectral
from ar_jax.nn.losses.adversary import discriminator_loss, generator_loss
from ar_jax.nn.losses.wave_critics import WaveCritics, matching
from ar_jax.tokenizers import kl_vae

Array = jax.Array
# Of CLEAR; the widths are those of Stable Audio, which has the same strides.
STRIDES = (2, 4, 4, 8, 8)
WIDTHS = (128, 128, 256, 512, 1024, 2048)


class _Encoder(nn.Module):
  """[B, N] -> [B, L, out]."""

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  dilations: tuple[int, ...]
  out: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    first, *rest = self.widths
    x = Conv1d(first, 7, dtype=self.dtype, name="conv_in")(x[..., None])
    for i, (width, r) in enumerate(zip(rest, self.strides, strict=True)):
      for j, d in enumerate(self.dilations):
        x = ResidualUnit(d, dtype=self.dtype, name=f"unit_{i}_{j}")(x)
      x = Down(width, r, self.dtype, name=f"down_{i}")(x)
    x = Snake(name="snake")(x)
    return Conv1d(self.out, 3, dtype=self.dtype, name="conv_out")(x)


class _Decoder(nn.Module):
  """[B, L, C] -> [B, N], without a look ahead."""

  widths: tuple[int, ...]
  strides: tuple[int, ...]
  dilations: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, carry: Carry) -> Array:
    *rest, last = self.widths
    x = Conv1d(last, 7, dtype=self.dtype, name="conv_in")(x, carry)
    for i in reversed(range(len(rest))):
      x = Up(rest[i], self.strides[i], self.dtype, name=f"up_{i}")(x, carry)
      for j, d in enumerate(self.dilations):
        x = ResidualUnit(d, dtype=self.dtype, name=f"unit_{i}_{j}")(x, carry)
    x = Snake(name="snake")(x)
    x = Conv1d(1, 7, dtype=self.dtype, name="conv_out")(x, carry)
    return x[..., 0].astype(jnp.float32)


class WavVAE(nn.Module):
  """The autoencoder. Defaults: the published rates.

  Attributes:
    samples: N of an example, for generators; the tokenizer itself takes any
      number, and reads no latent of what is left over.
    rate: of the samples, in Hz.
    channels: C.
    strides: of the encoder, from the sound on.
    widths: channels before the first of them and behind each.
    dilations: of the residual units of a stage.
    dtype: of the products; moments and sounds are float32.
    field: of a batch.
  """

  samples: int
  rate: int = 16_000
  channels: int = 64
  strides: tuple[int, ...] = STRIDES
  widths: tuple[int, ...] = WIDTHS
  dilations: tuple[int, ...] = (1, 3, 9)
  dtype: jnp.dtype = jnp.float32
  field: str = "audio"
  vocab = None

  def setup(self):
    shape = self.widths, self.strides, self.dilations
    self.encoder = _Encoder(*shape, 2 * self.channels, self.dtype)
    self.decoder = _Decoder(*shape, self.dtype)

  @property
  def stride(self) -> int:
    """r."""
    return math.prod(self.strides)

  @property
  def length(self) -> int:
    """L of an example."""
    return self.samples // self.stride

  def example(self) -> Array:
    return jnp.zeros((1, self.samples))

  def moments(self, x: Array) -> Array:
    """Means and log-variances f32[B, L, 2 C] of sounds f32[B, N] in [-1, 1].

    Raises:
      UserError: they are shorter than a latent.
    """
    whole = x.shape[1] // self.stride * self.stride
    if not whole:
      raise UserError(
        f"{self.field} of {x.shape[1]} samples: a latent is of {self.stride}"
      )
    return self.encoder(x[:, :whole]).astype(jnp.float32)

  def draw(self, moments: Array, keys: Array | None = None) -> Array:
    """Units f32[B, L, C] of moments: one draw of the latents with keys Key[B],
    their means without."""
    return kl_vae.draw(moments, keys)

  def encode(self, x: Array) -> Array:
    """Units f32[B, L, C] of sounds f32[B, N]: the means of the latents."""
    return self.draw(self.moments(x))

  def decode(self, units: Array) -> Array:
    """Sounds f32[B, L r] in [-1, 1] of units f32[B, L, C]."""
    return self.go_on(units, None)[0]

  def begin(self, batch: int) -> list[Array]:
    """What `go_on` carries at the beginning of so many sounds."""
    net, variables = self.unbind()
    made = lambda x: net.apply(variables, x, None, method="go_on")[1]
    shapes = jax.eval_shape(made, jnp.zeros((batch, 1, self.channels)))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def go_on(
    self, units: Array, before: list[Array] | None
  ) -> tuple[Array, list[Array]]:
    """Sounds f32[B, L r] of further units f32[B, L, C], and what the next call
    carries; the pieces make the sound of `decode`."""
    x, after = self._made(units, before)
    return jnp.clip(x, -1.0, 1.0), after

  def _made(self, units: Array, before: list[Array] | None):
    carry = Carry(before)
    return self.decoder(units.astype(jnp.float32), carry), carry.after

  def __call__(
    self, x: Array, keys: Array | None = None
  ) -> tuple[Array, Array]:
    """(sounds f32[B, L r], not clipped; moments f32[B, L, 2 C]) of sounds
    f32[B, N]; the latents are drawn with keys Key[B], or are their means."""
    moments = self.moments(x)
    return self._made(self.draw(moments, keys), None)[0], moments


@dataclasses.dataclass(frozen=True)
class SoundAutoencoder(System):
  """The tokenizer in training. `variables["params"]` holds "tokenizer" and
  perhaps "critics": these learn from the same sum, in which each side takes the
  other as constant.

  Attributes:
    tokenizer: the module.
    sizes: of the windows of `spectral.multi_scale`.
    wave_weight: of the mean absolute error of samples.
    kl_weight: of the KL to N(0, 1), a mean over latents and channels.
    critics: the discriminators, or None.
    adversary_weight, matching_weight: of the generator's term and of the
      distance of what the critics see.
  """

  tokenizer: WavVAE
  sizes: tuple[int, ...] = (512, 1024, 2048)
  wave_weight: float = 0.0
  kl_weight: float = 0.1
  critics: WaveCritics | None = None
  adversary_weight: float = 5.0
  matching_weight: float = 1.0

  needs = ("audio",)
  makes = ("audio",)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    key, other = jax.random.split(key)
    x = self.tokenizer.example()
    params = {"tokenizer": self.tokenizer.init(key, x)["params"]}
    if self.critics:
      params["critics"] = self.critics.init(other, x)["params"]
    return {"params": params}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    x, params = batch["audio"], variables["params"]
    keys = example_keys(key, batch) if train else None
    own = {"params": params["tokenizer"]}
    made, moments = self.tokenizer.apply(own, x, keys)
    x = x[:, : made.shape[1]]
    each = kl_vae.divergence(moments)
    terms = {
      "spectral": (1.0, spectral.multi_scale(x, made, self.sizes)),
      "kl": (self.kl_weight, each / math.prod(moments.shape[1:]) * 2),
      "wave": (self.wave_weight, jnp.abs(x - made).mean(1)),
    }
    if self.critics:
      terms |= self._adversarial(params["critics"], x, made)
    metrics = {name: term for name, (_, term) in terms.items()}
    return Loss(sum(weight * term for weight, term in terms.values()), metrics)

  def _adversarial(
    self, params: Any, x: Array, made: Array
  ) -> dict[str, tuple[float, Array]]:
    judge = lambda p, x: self.critics.apply({"params": p}, x)
    frozen = jax.lax.stop_gradient(params)
    real, fake = judge(frozen, x), judge(frozen, made)
    mean = lambda values: sum(values) / self.critics.rates
    generator = mean(generator_loss(logits) for logits, _ in fake)
    of_real = judge(params, x)
    of_fake = judge(params, jax.lax.stop_gradient(made))
    pairs = zip(of_real, of_fake, strict=True)
    critics = mean(discriminator_loss(a[0], b[0]) for a, b in pairs)
    return {
      "gan_g": (self.adversary_weight, generator),
      "gan_d": (1.0, critics),
      "matching": (self.matching_weight, matching(real, fake)),
    }

  def units(self, variables: Vars, batch: Batch) -> Array:
    """Units f32[B, L, C] of the sounds of a batch."""
    return self._apply(variables, batch["audio"], "encode")

  def decode(self, variables: Vars, units: Array) -> Array:
    """Sounds f32[B, N] in [-1, 1] of units."""
    return self._apply(variables, units, "decode")

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """What comes back of the sounds f32[B, N] themselves."""
    if options:
      raise UserError(f"a reconstruction takes no options: {sorted(options)}")
    del keys  # nothing random
    back = self.decode(variables, self.units(variables, cond))
    count = cond["audio"].shape[1]
    return jnp.pad(back, ((0, 0), (0, count - back.shape[1])))

  def _apply(self, variables: Vars, x: Array, method: str) -> Array:
    own = {"params": variables["params"]["tokenizer"]}
    return self.tokenizer.apply(own, x, method=method)


def build(
  *,
  samples: int,
  rate: int = 16_000,
  channels: int = 64,
  strides: Sequence[int] = STRIDES,
  widths: Sequence[int] = WIDTHS,
  dilations: Sequence[int] = (1, 3, 9),
  dtype: str = "float32",
  sizes: Sequence[int] = (512, 1024, 2048),
  wave_weight: float = 0.0,
  kl_weight: float = 0.1,
  critics: Mapping[str, Any] | None = None,
  adversary_weight: float = 5.0,
  matching_weight: float = 1.0,
) -> SoundAutoencoder:
  """Builds the tokenizer in training; arguments as those of `WavVAE` and
  `SoundAutoencoder`, `critics` as those of `WaveCritics`, None for none.

  Raises:
    UserError: sizes do not fit together.
  """
  if len(widths) != len(strides) + 1:
    raise UserError(
      f"widths={tuple(widths)}: {len(strides)} strides need "
      f"{len(strides) + 1} widths"
    )
  for r, wide, narrow in zip(strides, widths, widths[1:], strict=False):
    check_shortcut(r, wide, narrow)
  tokenizer = WavVAE(
    samples=samples,
    rate=rate,
    channels=channels,
    strides=tuple(strides),
    widths=tuple(widths),
    dilations=tuple(dilations),
    dtype=jnp.dtype(dtype),
  )
  if tokenizer.length < 1:
    raise UserError(
      f"samples={samples}: a latent is of {tokenizer.stride} samples"
    )
  judges = None
  if critics is not None:
    judges = dict(critics)
    judges["strides"] = tuple(judges.get("strides", (4, 4, 4)))
    judges = WaveCritics(**judges)
  return SoundAutoencoder(
    tokenizer,
    tuple(sizes),
    wave_weight,
    kl_weight,
    judges,
    adversary_weight,
    matching_weight,
  )
