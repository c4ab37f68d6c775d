"""What the two published feature networks share: their block, their loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from ar_jax.core.system import UserError


class ConvNorm(nn.Module):
  """Convolution without bias, batch norm with fixed statistics, activation."""

  features: int
  kernel: tuple[int, int]
  strides: int = 1
  padding: str = "SAME"
  groups: int = 1
  activation: Callable[[jax.Array], jax.Array] = nn.relu

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.Conv(
      self.features,
      self.kernel,
      strides=self.strides,
      padding=self.padding,
      feature_group_count=self.groups,
      use_bias=False,
      name="conv",
    )(x)
    norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")
    return self.activation(norm(x))


_LEAVES = {
  ("conv", "kernel"): (0, "weight"),
  ("norm", "scale"): (1, "weight"),
  ("norm", "bias"): (1, "bias"),
  ("norm", "mean"): (1, "running_mean"),
  ("norm", "var"): (1, "running_var"),
}


def shapes(net: nn.Module, side: int) -> dict:
  """The shapes of the variables of a network of side x side images."""
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  return jax.eval_shape(net.init, jax.random.key(0), image)


def fill(
  net: nn.Module,
  side: int,
  state: Mapping[str, np.ndarray],
  torch_names: Callable[[str], tuple[str, str]],
  path: str,
) -> dict:
  """Variables of a network of ConvNorm blocks from a PyTorch state dict.

  Args:
    net: the network; its other layers are Dense and keep their names.
    side: of the images that it reads.
    state: name -> array, convolutions as OIHW, matrices as [out, in].
    torch_names: name of a block -> names of its convolution and its norm.
    path: of the file, for messages.

  Raises:
    UserError: an array is missing or of another shape.
  """
  filled = {}
  flat = traverse_util.flatten_dict(shapes(net, side))
  for leaf, want in flat.items():
    _, block, *rest = leaf
    if tuple(rest) in _LEAVES:
      which, suffix = _LEAVES[tuple(rest)]
      name = f"{torch_names(block)[which]}.{suffix}"
    else:
      name = f"{block}.{'weight' if rest == ['kernel'] else 'bias'}"
    if name not in state:
      raise UserError(
        f"{path}: holds no {name!r}, "
        f"so it is not a file of {type(net).__name__}"
      )
    value = np.asarray(state[name], np.float32)
    if value.ndim == 4:
      value = value.transpose(2, 3, 1, 0)
    elif value.ndim == 2:
      value = value.T
    if value.shape != want.shape:
      raise UserError(
        f"{path}: {name!r} has shape {value.shape} where {type(net).__name__} "
        f"has {want.shape}"
      )
    filled[leaf] = value
  return traverse_util.unflatten_dict(filled)
