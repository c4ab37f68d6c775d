"""What acts on each position of a transformer by itself.

Shapes: B batch, T positions, D width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.errors import check_choice
from ar_jax.nn.layers.linear import Linear, initial

Array = jax.Array

ACTIVATIONS = {
  "gelu": lambda x: nn.gelu(x, approximate=False),
  "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "relu": nn.relu,
  "silu": nn.silu,
}


class Mlp(nn.Module):
  """Linear, activation, linear.

  Attributes:
    hidden: width between the two.
    stddev: initial standard deviation of the first matrix; None is
      Xavier-uniform.
    out_stddev: the same of the second.
    dtype: of the computation.
    act: a key of ACTIVATIONS.
    bias: whether the matrices have one.
  """

  hidden: int
  stddev: float | None = 0.02
  out_stddev: float | None = 0.02
  dtype: jnp.dtype = jnp.float32
  act: str = "gelu_tanh"
  bias: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, T, D] of x [B, T, D].

    Raises:
      UserError: there is no such activation.
    """
    check_choice("act", self.act, ACTIVATIONS)
    dense = lambda n, stddev, name: nn.Dense(
      n,
      use_bias=self.bias,
      kernel_init=initial(stddev),
      dtype=self.dtype,
      name=name,
    )
    h = dense(self.hidden, self.stddev, "fc1")(x)
    h = ACTIVATIONS[self.act](h)
    return dense(x.shape[-1], self.out_stddev, "fc2")(h)


class SwiGLU(nn.Module):
  """Linear, times a gate, linear (arXiv 2002.05202).

  The gate is SiLU of another linear, without biases; or, as in FlowAR and
  xAR, exact GELU of it, with biases (GEGLU).

  Attributes: as `Mlp`, and
    gelu: whether it is the second.
  """

  hidden: int
  stddev: float | None = 0.02
  out_stddev: float | None = 0.02
  dtype: jnp.dtype = jnp.float32
  gelu: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, T, D] of x [B, T, D]."""
    dense = lambda n, stddev, name: Linear(
      n,
      use_bias=self.gelu,
      kernel_init=initial(stddev),
      dtype=self.dtype,
      name=name,
    )
    gate = dense(self.hidden, self.stddev, "gate")(x)
    gate = nn.gelu(gate, approximate=False) if self.gelu else nn.silu(gate)
    h = gate * dense(self.hidden, self.stddev, "fc1")(x)
    return dense(x.shape[-1], self.out_stddev, "fc2")(h)
