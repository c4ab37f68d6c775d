"""A person's own control maps beside their pictures: depth, segments, lines.

`maps/CLASS/NAME.png` belongs to `path/CLASS/NAME.jpg`: the same place below
its folder and the same name, whatever the ending.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.dataset import Around, Example, Source
from ar_jax.data.folders.walk import Entry
from ar_jax.data.images import scan


class WithMaps(Around):
  """A source of pictures with the field `map` of another.

  Args:
    source: has `image` and whatever else.
    maps: as long; its images are the maps.
  """

  def __init__(self, source: Source, maps: Source):
    super().__init__(source)
    self._maps = maps

  def __getitem__(self, i: int) -> Example:
    return {**self.source[i], "map": self._maps[i]["image"]}

  def draw(self, i: int, rng: np.random.Generator) -> Example:
    # Not at random crops, which have no maps.
    return {**self.source.draw(i, rng), "map": self._maps[i]["image"]}


class Maps:
  """The maps of a folder, by the names of the pictures.

  Args:
    root: the folder.
    crop: of the pictures.

  Raises:
    UserError: there is no such folder, pictures are cropped at random, or two
      maps are of one name.
  """

  def __init__(self, root: str, crop: str):
    self._root = pathlib.Path(root).expanduser()
    if not self._root.is_dir():
      raise UserError(f"data.maps={root!r}: no such folder")
    if crop == "random":
      raise UserError(
        "data.maps: a random crop would not be that of the map; set "
        "data.crop=center, or pad"
      )
    self._found: dict[tuple[str, ...], Entry] = {}
    for entry in scan.pictures(self._root).files:
      name = entry.stem
      if name in self._found:
        raise UserError(
          f"data.maps: {entry.name} and {self._found[name].name} are maps of "
          "one picture; remove one of them"
        )
      self._found[name] = entry

  def of(self, pictures: Sequence[Entry]) -> list[Entry]:
    """The map of each picture.

    Raises:
      UserError: some have none, or their maps cannot be read.
    """
    lacking = [e.name for e in pictures if e.stem not in self._found]
    if lacking:
      raise UserError(
        f"data.maps: {len(lacking)} of {len(pictures)} pictures have no map in "
        f"{notes.printable(str(self._root))}: {notes.listed(lacking)}"
      )
    found = [self._found[e.stem] for e in pictures]
    bad = scan.check(self._root, found, skip=True)[2]
    if bad:
      raise UserError(f"data.maps: of {len(found)} maps {bad[0]}; replace them")
    return found
