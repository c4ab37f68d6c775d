"""The adversarial term of tokenizers in training, as configs hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ar_jax.core.errors import UserError
from ar_jax.nn.losses.adversary import Adversary, PatchGAN
from ar_jax.tokenizers.critic import critic


def adversary(
  *,
  gan_weight: float = 0.0,
  gan_start: int = 0,
  gan_generator: str = "linear",
  gan_judge: str = "hinge",
  gan_adaptive: bool | float = False,
  gan_lecam: float = 0.0,
  gan_width: int = 64,
  gan_layers: int = 3,
  gan_norm: str = "group",
  gan_critic: Mapping[str, Any] | None = None,
) -> Adversary | None:
  """The adversarial term from plain values; None unless `gan_weight` is
  positive.

  `gan_adaptive` may be a number, the largest adaptive weight. `gan_critic`,
  `{"name": "vit", "size": 224, **arguments}`, is a frozen encoder by whose
  states the discriminator judges, see `critic`, in place of patches of pixels;
  its weights are the collection `critic`.

  Raises:
    UserError: a value is not one of those possible.
  """
  if gan_critic is not None and (gan_weight <= 0 or gan_adaptive):
    raise UserError("gan_critic: it needs a gan_weight, and no gan_adaptive")
  if gan_weight <= 0:
    return None
  judge = PatchGAN(gan_width, gan_layers, gan_norm)
  if gan_critic is not None:
    judge = critic(gan_critic, norm=gan_norm)
  return Adversary(
    judge,
    weight=gan_weight,
    start=gan_start,
    generator=gan_generator,
    judge=gan_judge,
    adaptive=bool(gan_adaptive),
    lecam=gan_lecam,
    most=1e4 if isinstance(gan_adaptive, bool) else float(gan_adaptive),
  )
