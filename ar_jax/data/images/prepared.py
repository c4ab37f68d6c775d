"""Image sets that TFDS has prepared, read without TensorFlow.

TFDS writes array_record files, which have random access; the encoded bytes
are taken as they are and decoded by PIL, so nothing of TensorFlow is needed.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.data import digests
from ar_jax.data.dataset import Dataset, check_labels
from ar_jax.data.images import reader, transforms
from ar_jax.data.images.pictures import Pictures

_TEST_NAMES = ("validation", "test")


def prepared(
  *,
  name: str,
  size: int,
  channels: int = 3,
  path: str = "",
  crop: str = "center",
  train_split: str = "train",
  test_split: str = "",
  hint: str = "",
) -> Dataset:
  """Any image set that TFDS has prepared: `imagenet2012`, `cifar10`, ...

  From: TFDS, prepared by you: `tfds build NAME --file_format=array_record`.
  Command: --config.data.name=cifar10 (or tfds:NAME)
  Fields: image, label (0 where the set has none).

  Args:
    name: as TFDS knows it, with config and version if wanted.
    size: side in pixels.
    channels: 1 or 3.
    path: data_dir of TFDS; by default that of TFDS itself.
    crop: "center", "cover" for the same by Lanczos (as VTBench does it),
      "random" for random crops in training, or "pad".
    train_split: in the notation of TFDS, as "train[:95%]".
    test_split: by default `validation` or `test`, whichever exists first.
    hint: what else the user may do where the set is missing.

  Raises:
    UserError: the set is unknown, not prepared, not in array_record, has no
      image or no such split, or a label is out of range.
  """
  transforms.check_size(size, channels)
  builder = _builder(name, path, hint)
  image_key, label_key = _features(name, builder.info)
  if not test_split:
    splits = builder.info.splits
    test_split = next((s for s in _TEST_NAMES if s in splits), "")
  if not test_split:
    raise UserError(
      f"{name}: has no test split; set train_split='train[:95%]' and "
      "test_split='train[95%:]'"
    )
  label = builder.info.features[label_key] if label_key else None
  names = tuple(label.names) if label else ("all",)

  def part(split: str) -> Pictures:
    rows = _rows(builder, split, image_key)

    def read(i: int) -> Image.Image:
      where = f"{name}, {split}, example {i}"
      return reader.open_image(rows[i][image_key], channels, where)

    def number(i: int) -> int:
      found = int(rows[i][label_key]) if label_key else 0
      check_labels(found, len(names), f"{name}, {split}, example {i}")
      return found

    return Pictures(read, number, len(rows), size=size, crop=crop)

  files = sorted(pathlib.Path(builder.data_dir).glob("*"))
  return Dataset(
    name,
    part(train_split),
    part(test_split),
    len(names),
    names,
    digests.of_files(builder.data_dir, files),
  )


def names(path: str) -> list[str]:
  """The sets that TFDS knows, and those in the data_dir `path`."""
  tfds = _tfds()
  found = os.listdir(path) if path and os.path.isdir(path) else []
  return [*tfds.list_builders(with_community_datasets=False), *sorted(found)]


def _tfds() -> Any:
  import tensorflow_datasets as tfds  # a second, so only where it is used

  return tfds


def _builder(name: str, path: str, hint: str) -> Any:
  tfds = _tfds()
  place = os.path.expanduser(path or tfds.core.constants.DATA_DIR)
  try:
    builder = tfds.builder(name, data_dir=place)
  except tfds.core.DatasetNotFoundError as e:
    raise UserError(f"data.name={name!r}: TFDS knows no such set") from e
  except (ImportError, AttributeError) as e:
    raise UserError(f"{name}: TFDS cannot describe it here ({e})") from e
  if not builder.is_prepared():
    raise UserError(
      f"{name}: not prepared in {builder.data_dir}; run `tfds build {name} "
      f"--file_format=array_record --data_dir={place}` "
      f"where TensorFlow is installed{'; ' + hint if hint else ''}"
    )
  return builder


def _features(name: str, info: Any) -> tuple[str, str]:
  """(key of the image, key of the label or "")."""
  tfds = _tfds()
  kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
  found = []
  for usual, kind in kinds.items():
    keys = [k for k, f in info.features.items() if isinstance(f, kind)]
    wanted = [usual, *(info.supervised_keys or ())]
    found.append(
      next((k for k in wanted if k in keys), keys[0] if keys else "")
    )
  if not found[0]:
    raise UserError(
      f"{name}: no image among its features {sorted(info.features)}; "
      "choose an image set"
    )
  return found[0], found[1]


def _rows(builder: Any, split: str, image_key: str) -> Any:
  tfds = _tfds()
  decoders = {image_key: tfds.decode.SkipDecoding()}
  try:
    return builder.as_data_source(split, decoders=decoders)
  except NotImplementedError as e:
    raise UserError(
      f"{builder.name}: {builder.data_dir} holds {builder.info.file_format}, "
      "which has no random access; prepare it with --file_format=array_record"
    ) from e
  except (KeyError, ValueError, AssertionError) as e:
    raise UserError(
      f"{builder.name}: no split {split!r}, there are "
      f"{', '.join(builder.info.splits)}"
    ) from e
