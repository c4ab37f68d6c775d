"""Small sets that come with the machine: digits, Fashion-MNIST, fake."""

from __future__ import annotations

import functools
import gzip
import pathlib

import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.forms import Image, Text
from ar_jax.data import digests
from ar_jax.data.dataset import (
  Arrays,
  Dataset,
  Example,
  split_by_seed,
  utf8,
)
from ar_jax.data.images import transforms

_FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
_FASHION_NAMES = (
  "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot"
).split()


def digits(*, size: int, channels: int = 3) -> Dataset:
  """1,797 grey 8x8 digits, 10 classes, enlarged bicubically.

  From: scikit-learn.
  Command: --config.data.name=digits
  Fields: image, label.

  Divided once and for all into 1,500 for training and 297 for test.

  Args:
    size: side in pixels; the originals have 8.
    channels: 1 or 3.
  """
  transforms.check_size(size, channels)
  from sklearn import datasets  # slow to import

  found = datasets.load_digits()
  image = np.round(found.images * (255 / 16)).astype(np.uint8)
  fit = functools.partial(transforms.resize, size=size, channels=channels)

  def part(rows: np.ndarray) -> Arrays:
    fields = {"image": image[rows], "label": found.target[rows]}
    return Arrays(fields, {"image": fit}, num_classes=10, where="digits")

  train, test = split_by_seed(len(image), test=297)
  names = tuple(str(i) for i in range(10))
  return Dataset("digits", part(train), part(test), 10, names, "1797")


def fashion_mnist(
  *, size: int, channels: int = 3, path: str = "", fit: str = ""
) -> Dataset:
  """70,000 grey 28x28 pictures of clothing, 10 classes.

  From: the Debian package `dataset-fashion-mnist`, else TFDS.
  Command: --config.data.name=fashion_mnist
  Fields: image, label.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    path: folder of the four `*-ubyte.gz` files, if they are not where Debian's
      `dataset-fashion-mnist` puts them; or a TFDS data_dir.
    fit: "pad" with black or "resize"; by default pad at 32, else resize.

  Raises:
    UserError: the files are missing or damaged, or `size` is too small to pad.
  """
  transforms.check_size(size, channels)
  fit = fit or ("pad" if size == 32 else "resize")
  check_choice("data.fit", fit, ("pad", "resize"))
  if fit == "pad" and size < 28:
    raise UserError(
      f"data.size={size}: cannot pad 28 pixels to fewer; use fit='resize'"
    )
  root = pathlib.Path(path).expanduser() if path else _FASHION
  if not (root / "train-images-idx3-ubyte.gz").exists():
    from ar_jax.data.images import prepared

    return prepared.prepared(
      name="fashion_mnist",
      size=size,
      channels=channels,
      path=path,
      crop="pad" if fit == "pad" else "center",
      hint="or: apt-get install dataset-fashion-mnist",
    )
  shape = functools.partial(
    getattr(transforms, fit), size=size, channels=channels
  )

  def part(stem: str) -> Arrays:
    fields = {
      "image": _ubyte(root / f"{stem}-images-idx3-ubyte.gz"),
      "label": _ubyte(root / f"{stem}-labels-idx1-ubyte.gz"),
    }
    return Arrays(fields, {"image": shape}, num_classes=10, where=str(root))

  names = tuple(_FASHION_NAMES)
  digest = digests.of_files(root, sorted(root.glob("*-ubyte.gz")))
  return Dataset(
    "fashion_mnist", part("train"), part("t10k"), 10, names, digest
  )


def _ubyte(file: pathlib.Path) -> np.ndarray:
  """Reads an IDX file: two zero bytes, type 8, rank, sizes, then the bytes."""
  try:
    with gzip.open(file) as f:
      raw = f.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
  except (OSError, EOFError, IndexError, ValueError) as e:
    raise UserError(
      f"{file}: missing or damaged ({e}); install it anew with "
      "apt-get install --reinstall dataset-fashion-mnist"
    ) from e


def fake(
  *,
  size: int,
  channels: int = 3,
  num_classes: int = 10,
  length: int = 1024,
  text: int = 0,
) -> Dataset:
  """Made-up images: a smooth pattern per class under a little noise.

  From: a rule.
  Command: --config.data.name=fake
  Fields: image, label, with `text` > 0 also text.

  Args:
    size: side in pixels.
    channels: 1 or 3.
    num_classes: how many patterns.
    length: number of training examples; an eighth of it for test.
    text: if positive, adds the field `text`, i32[text]: the UTF-8 bytes of the
      name of the class.
  """
  transforms.check_size(size, channels)
  if num_classes < 1 or length < 1:
    raise UserError("fake data: num_classes and length must be at least 1")
  coarse = np.random.default_rng(0).integers(
    256, size=(num_classes, 4, 4, channels), dtype=np.uint8
  )
  patterns = np.stack([transforms.resize(c, size, channels) for c in coarse])
  names = tuple(f"class {i}" for i in range(num_classes))
  texts = [utf8(name, text) for name in names] if text > 0 else None
  train = _Fake(patterns, length, seed=1, text=texts)
  test = _Fake(patterns, max(length // 8, 1), seed=2, text=texts)
  forms = {"image": Image()} | ({"text": Text()} if text > 0 else {})
  return Dataset("fake", train, test, num_classes, names, "rule 1", forms)


class _Fake:
  """Examples computed when asked for."""

  def __init__(
    self,
    patterns: np.ndarray,
    length: int,
    seed: int,
    text: list[np.ndarray] | None,
  ):
    self._patterns, self._length, self._seed = patterns, length, seed
    self._text = text

  def __len__(self) -> int:
    return self._length

  def label(self, i: int) -> int:
    return i % len(self._patterns)

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self._length:
      raise IndexError(i)
    label = self.label(i)
    pattern = self._patterns[label]
    noise = np.random.default_rng((self._seed, i)).integers(
      -16, 17, size=pattern.shape, dtype=np.int16
    )
    image = np.clip(pattern + noise, 0, 255).astype(np.uint8)
    example = {"image": image, "label": np.int32(label)}
    return (
      example if self._text is None else {**example, "text": self._text[label]}
    )
