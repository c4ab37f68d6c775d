"""The Inception network of 2015 that FID is defined with (Szegedy et al. 2016).

Not torchvision's: average pools leave out the padding, the last block pools
by maximum, there are 1008 classes, and images are resized as TensorFlow 1 did.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ar_jax.data import Dataset, array_cache
from ar_jax.evals.images import frozen, inception_files
from ar_jax.evals.images.features import Features, batched, to_rgb
from ar_jax.evals.images.inception_blocks import BLOCKS, STEM, Conv

SIDE = 299
_SPATIAL = "Mixed_6d.branch1x1"  # `mixed_6/conv` in TensorFlow's graph


_POOLS = {
  "halve": lambda x: nn.max_pool(x, (3, 3), (2, 2)),
  "maximum": lambda x: nn.max_pool(x, (3, 3), padding="SAME"),
  "average": lambda x: nn.avg_pool(
    x, (3, 3), padding="SAME", count_include_pad=False
  ),
}


class Inception(nn.Module):
  """f32[N, 299, 299, 3] in [-1, 1] -> pooled [N, 2048], logits, spatial.

  The logits [N, 1008] are without the bias, as the Inception Score has them;
  the spatial features [N, 17 * 17 * 7] are those of sFID (Nash et al. 2021).
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    spatial = None

    def run(node, x, scope):
      nonlocal spatial
      if isinstance(node, str):
        return _POOLS[node](x)
      if isinstance(node, Conv):  # before tuple, which it is as well
        name = f"{scope}{node.name}"
        x = frozen.ConvNorm(*node[1:], name=name)(x)
        if name == _SPATIAL:
          spatial = x[..., :7].reshape(len(x), -1)
        return x
      if isinstance(node, tuple):
        return jnp.concatenate([run(part, x, scope) for part in node], -1)
      for part in node:
        x = run(part, x, scope)
      return x

    x = run(STEM, x, "")
    for name, block in BLOCKS.items():
      x = run(block, x, f"{name}.")
    pooled = x.mean((1, 2))
    fc = nn.Dense(1008, name="fc")
    biased = fc(pooled)
    return pooled, biased - fc.variables["params"]["bias"][None], spatial


def resize_matrix(size: int, to: int) -> np.ndarray:
  """TensorFlow 1's bilinear resize of one axis, f32[to, size].

  Output i reads position i * size / to: corners are not aligned and pixels
  have no half-pixel centres, unlike in any later library.
  """
  at = np.arange(to) * (size / to)
  low = np.floor(at).astype(int)
  high = np.minimum(low + 1, size - 1)
  matrix = np.zeros((to, size))
  np.add.at(matrix, (np.arange(to), low), 1 - (at - low))
  np.add.at(matrix, (np.arange(to), high), at - low)
  return matrix.astype(np.float32)


def preprocess(images: jax.Array) -> jax.Array:
  """u8[N, H, W, 1 or 3] -> f32[N, 299, 299, 3], (x - 128) / 128."""
  rows, columns = (resize_matrix(n, SIDE) for n in images.shape[1:3])
  x = jnp.einsum(
    "yh,xw,nhwc->nyxc", rows, columns, to_rgb(images), precision="highest"
  )
  return (x - 128) / 128


def load(path: str) -> dict:
  """Variables from a file of any layout that `inception_files` reads."""
  state = inception_files.read(path)
  names = lambda block: (f"{block}.conv", f"{block}.bn")
  return frozen.fill(Inception(), SIDE, state, names, path)


def make(data: Dataset, *, path: str = "", batch: int = 32) -> Features:
  """`inception`; see `features.features`.

  Args:
    data: unused, the network is fitted already.
    path: of the weights, see `inception_files`.
    batch: images at once.
  """
  del data
  variables = load(path)
  net = Inception()
  leaves = jax.tree.leaves(variables)
  return Features(
    name="inception",
    cited="fid",
    note="TF-2015 Inception, pool3, TF1 bilinear to 299, (x - 128) / 128",
    digest=array_cache.digest(*leaves),
    embed=batched(lambda v, x: net.apply(v, preprocess(x)), variables, batch),
  )
