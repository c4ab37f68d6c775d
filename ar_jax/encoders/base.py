"""What encoders that say the class of an image have in common.

B batch, K classes, H W sides, c channels.
"""

from __future__ import annotations

import abc

import flax.linen as nn
import jax.numpy as jnp
import optax

from ar_jax.core.errors import UserError
from ar_jax.core.system import Array, Batch, Loss, System, Vars


class Recognition(System):
  """Images u8[B, H, W, c] -> classes; `sample` says those of given images.
  Abstract.

  Attributes:
    net: the network, of images.
  """

  net: nn.Module
  needs = ("image",)
  makes = ("label",)

  @abc.abstractmethod
  def logits(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, K] of the images of a batch."""

  @abc.abstractmethod
  def pooled(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, P], what is seen in the images of a batch."""

  def init(self, key: Array, batch: Batch) -> Vars:
    return self.net.init(key, jnp.zeros_like(batch["image"][:1]))

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> dict[str, Array]:
    """The likeliest class, `label` i32[B], of `cond["image"]`."""
    if options:
      raise UserError(f"an encoder takes no options: {sorted(options)}")
    del keys
    logits = self.logits(variables, cond)
    return {"label": jnp.argmax(logits, -1).astype(jnp.int32)}

  def features(self, variables: Vars, batch: Batch) -> Array:
    """`pooled`; what `evals.probe` reads."""
    return self.pooled(variables, batch)


def classified(logits: Array, label: Array) -> Loss:
  """Cross-entropy of classes i32[B], and how often the likeliest is right."""
  value = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  right = jnp.argmax(logits, -1) == label
  return Loss(value, {"accuracy": right.astype(jnp.float32)})
