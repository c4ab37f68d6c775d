"""Pictures beside the results: samples in labelled rows."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ar_jax import data, show
from ar_jax.core.forms import to_uint8
from experiments.shared import record
from experiments.shared.arms import Trained

WIDTH = 640  # pixels, at least
FONT = 13


def _within(name: str, width: float, font: ImageFont.FreeTypeFont) -> str:
  """The words of a name in lines no wider than that, if a word is not."""
  lines: list[str] = []
  for word in str(name).split(" "):
    longer = f"{lines[-1]} {word}" if lines else word
    if lines and font.getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return "\n".join(lines)


def _room_above(names: Sequence[str]) -> int:
  lines = max((1 + name.count("\n") for name in names), default=0)
  return lines * (FONT + 3) + 5 if lines else 0


def labelled(
  rows: Mapping[str, np.ndarray], columns: Sequence[str] = ()
) -> Image.Image:
  """Samples, a row for each arm with its name at the left, enlarged without
  smoothing.

  Args:
    rows: name -> u8[N, H, W, c], or f32 in [0, 1]; sizes may differ.
    columns: names above the columns, of classes.
  """
  rows = {k: to_uint8(v) for k, v in rows.items()}
  cell = max(v.shape[1] for v in rows.values())
  count = max(map(len, rows.values()))
  scale = max(1, -(-WIDTH // (count * cell)))
  font = ImageFont.load_default(FONT)
  room = max(int(font.getlength(name)) for name in rows) + 12
  size = scale * cell + 2
  columns = [_within(name, size - 4, font) for name in columns[:count]]
  top = _room_above(columns)
  sheet = Image.new(
    "RGB", (room + count * size, top + len(rows) * size), "white"
  )
  pen = ImageDraw.Draw(sheet)
  for j, name in enumerate(columns):
    x = room + j * size + size // 2
    pen.text((x, 4), name, fill="black", font=font, anchor="ma", align="center")
  for i, (name, images) in enumerate(rows.items()):
    y = top + i * size
    pen.text((4, y + size // 2), name, fill="black", font=font, anchor="lm")
    for j, image in enumerate(images):
      own = Image.fromarray(
        image.squeeze(-1) if image.shape[-1] == 1 else image
      )
      own = own.resize([scale * n for n in own.size], Image.NEAREST)
      margin = (size - own.size[0]) // 2
      sheet.paste(own, (room + j * size + margin, y + margin))
  return sheet


def save(
  name: str,
  rows: Mapping[str, np.ndarray],
  columns: Sequence[str] = (),
  folder: pathlib.Path = record.RESULTS,
) -> str:
  """Writes `labelled` beside the results; its file name."""
  labelled(rows, columns).save(folder / f"{name}.png", optimize=True)
  return f"{name}.png"


def moving(
  name: str,
  rows: Mapping[str, np.ndarray],
  rate: float = 4.0,
  folder: pathlib.Path = record.RESULTS,
) -> str:
  """Writes videos in labelled rows beside the results, as a GIF; its file name.

  Args:
    name: of the result.
    rows: name -> u8[N, T, H, W, c], or f32 in [0, 1], all of T frames.
    rate: frames a second.
    folder: where the file goes.
  """
  count = next(iter(rows.values())).shape[1]
  sheets = [
    labelled({k: v[:, t] for k, v in rows.items()}).quantize(64)
    for t in range(count)
  ]
  sheets[0].save(
    folder / f"{name}.gif",
    save_all=True,
    append_images=sheets[1:],
    duration=round(1000 / rate),
    loop=0,
  )
  return f"{name}.gif"


def read(
  name: str,
  own: Trained,
  dataset: data.Dataset,
  n: int = 8,
  folder: pathlib.Path = record.RESULTS,
) -> str:
  """Writes the texts that a system reads of the first n test examples, beside
  these, as `show.picture` draws them; its file name."""
  rows = [dataset.test[i] for i in range(n)]
  of = lambda fields: {k: np.stack([row[k] for row in rows]) for k in fields}
  system, field = own.system, own.system.makes[0]
  cond = of(system.needs)
  keys = jax.random.split(jax.random.key(0), n)
  draw = jax.jit(lambda variables: system.sample(variables, cond, keys))
  sheet = show.picture(
    dataset.forms[field],
    np.asarray(draw(own.variables)[field]),
    cond,
    truth=of([field])[field],
    of=dataset.forms,
  )
  show.save_png(folder / f"{name}.png", sheet)
  return f"{name}.png"


def named(
  image: Image.Image, rows: Sequence[str], columns: Sequence[str] = ()
) -> Image.Image:
  """A grid of rows of equal height, with their names at the left and those of
  its columns above."""
  font = ImageFont.load_default(FONT)
  room = max(int(font.getlength(name)) for name in rows) + 12
  width = image.width / max(len(columns), 1)
  columns = [_within(name, width - 4, font) for name in columns]
  top = _room_above(columns)
  sheet = Image.new("RGB", (room + image.width, top + image.height), "white")
  sheet.paste(image, (room, top))
  pen = ImageDraw.Draw(sheet)
  for j, name in enumerate(columns):
    x = room + (2 * j + 1) * image.width // (2 * len(columns))
    pen.text((x, 4), name, fill="black", font=font, anchor="ma", align="center")
  for i, name in enumerate(rows):
    y = top + (2 * i + 1) * image.height // (2 * len(rows))
    pen.text((4, y), name, fill="black", font=font, anchor="lm")
  return sheet


def enlarged(path: pathlib.Path) -> Image.Image:
  """A picture, at least WIDTH pixels wide, without smoothing."""
  image = Image.open(path)
  scale = -(-WIDTH // image.width)
  if scale > 1:
    size = (image.width * scale, image.height * scale)
    image = image.resize(size, Image.NEAREST)
  return image
