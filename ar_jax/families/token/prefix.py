"""What stands before the units: a class or a text.

Shapes: B batch, P positions of the prefix, C channels of features, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class ClassPrefix(nn.Module):
  """One position: a row of a table, whose last row stands for no class.

  Attributes:
    labels: rows.
    width: D.
    stddev: initial standard deviation.
  """

  labels: int
  width: int
  stddev: float = 0.02
  length = 1

  def example(self) -> Array:
    """A condition of the right shape, for one image."""
    return jnp.zeros((1,), jnp.int32)

  def valid(self, label: Array) -> None:
    """Nothing is padding."""
    del label

  @nn.compact
  def __call__(self, label: Array, hidden: Array | None = None) -> Array:
    """[B, 1, D] of label i32[B]; where `hidden` bool[B], of no class."""
    if hidden is not None:
      label = jnp.where(hidden, self.labels - 1, label)
    init = nn.initializers.normal(self.stddev)
    table = nn.Embed(self.labels, self.width, embedding_init=init, name="label")
    return table(label)[:, None]


class TextPrefix(nn.Module):
  """The features of a text through linear, tanh-GELU, linear; no biases.

  What stands for no text is a constant: the collection `null`, normal noise
  over sqrt(C) that is never trained (LlamaGen, arXiv 2406.06525).

  Attributes:
    encoder: text -> (features [B, P, C], bool[B, P] that are no padding); it
      has `length` P and `width` C.
    width: D.
    stddev: initial standard deviation.
  """

  encoder: nn.Module
  width: int
  stddev: float = 0.02
  labels = None

  @property
  def length(self) -> int:
    return self.encoder.length

  def example(self) -> Array:
    """A condition of the right shape, for one image."""
    return self.encoder.example()

  def valid(self, text: Array) -> Array:
    """bool[B, P]: the positions that are no padding."""
    return self.encoder.align(text)[1]

  @nn.compact
  def __call__(self, text: Array, hidden: Array | None = None) -> Array:
    """[B, P, D] of texts; where `hidden` bool[B], of no text."""
    features = self.encoder(text)
    shape = features.shape[1:]
    null = self.variable(
      "null",
      "features",
      lambda: (
        jax.random.normal(self.make_rng("params"), shape) / jnp.sqrt(shape[-1])
      ),
    )
    if hidden is not None:
      hidden = hidden[:, None, None]
      features = jnp.where(hidden, null.value[None], features)
    dense = lambda name: nn.Dense(
      self.width,
      use_bias=False,
      kernel_init=nn.initializers.normal(self.stddev),
      name=name,
    )
    return dense("fc2")(nn.gelu(dense("fc1")(features), approximate=True))
