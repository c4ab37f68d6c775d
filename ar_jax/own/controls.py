"""Control pictures of a person's own: what `config.sample.control` names.

H, W sides of what is drawn, c channels of a control picture.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from ar_jax import conditions
from ar_jax.core.errors import UserError
from ar_jax.core.system import System
from ar_jax.data.images import reader, scan, transforms
from ar_jax.data.wrap import derived
from ar_jax.own import files as own_files

Config = ml_collections.ConfigDict


def given(config: Config) -> str:
  """The file or folder of control pictures that sampling follows; "" for
  none."""
  return config.sample.get("control", "")


def check(system: System, config: Config) -> None:
  """Looks for the pictures; raises a UserError where there are none."""
  del system
  files(given(config))


def names(system: System, config: Config) -> list[str]:
  """What the pictures are called."""
  del system
  return own_files.called(given(config), files(given(config)))


def fields(system: System, config: Config) -> set[str]:
  """What need not come from the data."""
  del config
  return {system.control} - {None}


def asked(
  system: System,
  data: Any,
  n: int,
  config: Config,
  labels: tuple[int, ...] = (),
) -> dict[str, np.ndarray]:
  """The conditions of n samples, which follow the given pictures; see
  `conditions.conditions`.

  Args:
    system: names the field of its control.
    data: gives the classes, the sides and channels of pictures and, where the
      system needs more than a class, test examples.
    n: how many; sample i follows picture i mod their number.
    config: its `sample.control` is a picture or a folder of some; `sides`
      (height, width) of what is drawn, () for those of the data; `extract`,
      whether the rule of `data.derive` is first applied to them.
    labels: as there.

  Raises:
    UserError: the system follows no picture, there is none, or one of them
      cannot be read.
  """
  field, sample = system.control, config.sample
  if field is None:
    raise UserError(
      f"sample.control={sample.control!r}: this system follows no picture"
    )
  channels = shape(data, field)[2]
  height, width = sides(system, data, sample)
  rule = _rule(config, field) if sample.get("extract") else None
  source = shape(data)[2] if rule else channels

  sizes = []

  def read(path: pathlib.Path) -> np.ndarray:
    picture = reader.open_image(path, source)
    sizes.append(picture.size)
    picture = fitted(picture, height, width)
    return rule(picture) if rule else picture

  # One at a time: photos of a folder may not fit into memory together.
  pictures = [read(path) for path in files(sample.control)]
  own_files.say_fitted("control", "picture", sizes, height, width)
  rest = tuple(k for k in system.needs if k != field)
  if set(rest) <= {"label"}:
    more = {k: conditions.labels_of(system, data, n, labels) for k in rest}
  else:
    more = conditions.rows(data, rest, "the system needs", n)
  every = np.stack(pictures)[np.arange(n) % len(pictures)]
  return {**more, field: every}


def files(path: str) -> list[pathlib.Path]:
  """A picture, or those of a folder; see `files.named`."""
  return own_files.named("control", path, "picture", scan.suffixes())


def sides(system: System, data: Any, sample: Config) -> tuple[int, int]:
  """(H, W) of what is drawn.

  Raises:
    UserError: `sample.sides` are no two sides.
  """
  chosen = tuple(sample.get("sides", ()))
  if not chosen:
    side = getattr(getattr(system, "tokenizer", None), "size", 0)
    height, width, _ = shape(data, otherwise=(side, side, 3))
    return height, width
  whole = all(isinstance(x, int) and x > 0 for x in chosen)
  if len(chosen) != 2 or not whole:
    raise UserError(
      f"sample.sides={chosen}: give (height, width) in pixels, or () for those "
      "of the data"
    )
  return chosen


def fitted(picture: Image.Image, height: int, width: int) -> np.ndarray:
  """u8[H, W, c]: the picture as it is where it has these sides, else scaled
  until it covers them, and of that the middle."""
  scale = max(height / picture.height, width / picture.width)
  wide = max(width, round(picture.width * scale))
  tall = max(height, round(picture.height * scale))
  if (wide, tall) != picture.size:
    picture = picture.resize((wide, tall), Image.Resampling.BICUBIC)
  left, top = (wide - width) // 2, (tall - height) // 2
  return transforms.to_array(
    picture.crop((left, top, left + width, top + height))
  )


def shape(
  data: Any, field: str = "image", otherwise: tuple = (0, 0, 3)
) -> tuple[int, int, int]:
  """(H, W, c) of an image field of the data, as far as they are known."""
  fields: Mapping | None = getattr(data, "fields", None)
  if fields is None:
    return np.shape(data.test[0].get(field, np.zeros(otherwise)))
  found = fields[field][0] if field in fields else otherwise
  return tuple(found) if all(found) else otherwise


def _rule(config: Config, field: str):
  """u8[H, W, C] -> u8[H, W, c], the rule that made the control of the data.

  Raises:
    UserError: no rule is known that makes it.
  """
  rules = (config.get("data") or {}).get("derive") or {}
  for name, options in rules.items():
    made = derived.rule(name, dict(options))
    if field in made.forms:
      rng = np.random.default_rng(0)
      return lambda x: made.make({"image": x}, rng)[field]
  raise UserError(
    f"sample.extract: no rule of data.derive makes {field!r}; give control "
    "pictures as they are"
  )
