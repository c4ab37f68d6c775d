"""Linear maps as a CPU likes to read them.

What a step of decoding costs there is reading the matrices from memory: how
they lie, and how often they are read, is all that counts.

Shapes: B batch, T positions, n and m features in and out.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.nn.layers import lora

Array = jax.Array

# The collection of the layers of a stack, each with its own matrices, and of
# their transposed matrices.
TRANSPOSED = "transposed"

# From so many rows of x on, matrices are turned; see `bench_linear` in
# experiments, also for the next.
_TURN = 4
# Up to so many rows there is a product for each row: one product of them all
# copies the matrix into another order first.
_FEW = 2


def initial(stddev: float | None) -> nn.initializers.Initializer:
  """Normal with a standard deviation; Xavier-uniform for None."""
  if stddev is None:
    return nn.initializers.xavier_uniform()
  return nn.initializers.normal(stddev)


class Linear(nn.Module):
  """`nn.Dense`, with the same parameters, but for two things: a kernel that
  the collection `turned` holds as well, transposed, is read from there; and
  what the collection `lora` holds for it is added, see `lora.gated`.

  Attributes:
    features: m.
    use_bias: whether it has a bias.
    kernel_init: of the kernel.
    dtype: of the computation.
  """

  features: int
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., m] of x [..., n]."""
    shape = (x.shape[-1], self.features)
    kernel, axis = self.param("kernel", self.kernel_init, shape), 0
    if self.has_variable(TRANSPOSED, "kernel"):
      kernel, axis = self.get_variable(TRANSPOSED, "kernel"), 1
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    added = lora.added(self, x)
    rows = x.size // x.shape[-1]
    if 1 < rows <= _FEW and jax.default_backend() == "cpu":
      axes = (((0,), (axis,)), ((), ()))
      product = lambda row: jax.lax.dot_general(row, kernel, axes)
      y = jnp.stack([product(row) for row in x.reshape(rows, -1)])
      y = y.reshape(*x.shape[:-1], -1)
    else:
      axes = (((x.ndim - 1,), (axis,)), ((), ()))
      y = jax.lax.dot_general(x, kernel, axes)
    y = added(y)
    if not self.use_bias:
      return y
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def transposed(stack: Any, rows: int) -> dict[str, Any]:
  """A stack of layers for a loop of steps around it, made before the loop.

  Within the loop every layer would be copied out of the stack at every step.

  Args:
    stack: parameters with a leading axis over layers.
    rows: of x at every step.

  Returns:
    What the collection `turned` holds for a `Backbone`; empty where nothing
    is gained.
  """
  if jax.default_backend() != "cpu":
    return {}
  depth = len(jax.tree.leaves(stack)[0])
  layers = [
    {"params": jax.tree.map(lambda x, i=i: x[i], stack)} for i in range(depth)
  ]
  if rows >= _TURN:
    layers = [{**own, TRANSPOSED: _transposed(own["params"])} for own in layers]
  return {"layers": tuple(layers)}


def _transposed(tree: Any) -> Any:
  """The kernels alone, transposed."""
  if not isinstance(tree, dict):
    return None
  parts = {k: _transposed(v) for k, v in tree.items()}
  if "kernel" in tree:
    parts["kernel"] = jnp.swapaxes(tree["kernel"], 0, 1)
  return {k: v for k, v in parts.items() if v is not None}
