"""Rigs as text, in the format of RigNet (arXiv 2005.00559): a line for each
joint, bone and vertex.

  joints NAME x y z
  root NAME
  hier PARENT CHILD
  skin VERTEX NAME WEIGHT NAME WEIGHT ...

V vertices, n joints.
"""

from __future__ import annotations

import pathlib

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import notes


def read(
  path: str, vertices: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """(joints f64[n, 3], parent i64[n], skin f64[V, n] or None) of a file.

  Args:
    path: of the file.
    vertices: V, of the shape.

  Raises:
    UserError: it cannot be read, or a line of it is damaged.
  """
  where = notes.printable(path)
  try:
    lines = pathlib.Path(path).read_text("utf-8-sig").splitlines()
  except UnicodeDecodeError as e:
    raise UserError(f"{where}: not a text in UTF-8") from e
  except OSError as e:
    raise UserError(f"{where}: cannot be read: {e.strerror}") from e
  places: dict[str, list[float]] = {}
  root, bones, weights = "", [], []
  for number, line in enumerate(lines, 1):
    kind, *words = line.split() or [""]
    try:
      if kind == "joints":
        name, x, y, z = words
        if name in places:
          raise ValueError(f"a second joint {name}")
        places[name] = [float(x), float(y), float(z)]
      elif kind == "root":
        (root,) = words
      elif kind == "hier":
        above, below = words
        bones.append((number, above, below))
      elif kind == "skin":
        vertex, *rest = words
        pairs = zip(rest[::2], rest[1::2], strict=True)
        weights.append((number, int(vertex), [(k, float(w)) for k, w in pairs]))
      elif kind:
        raise ValueError("it begins with none of joints, root, hier, skin")
    except ValueError as e:
      raise UserError(f"{where}: line {number}: {e}: {line[:60]!r}") from e
  if not places:
    raise UserError(f"{where}: no joint in it, a line `joints NAME x y z`")
  index = {name: i for i, name in enumerate(places)}

  def of(name: str, number: int) -> int:
    if name not in index:
      raise UserError(f"{where}: line {number}: there is no joint {name!r}")
    return index[name]

  parent = np.full(len(places), -1)
  for number, above, below in bones:
    parent[of(below, number)] = of(above, number)
  if root:
    parent[of(root, 0)] = index[root]
  if (parent < 0).any():
    name = list(places)[int(np.flatnonzero(parent < 0)[0])]
    raise UserError(f"{where}: joint {name!r} has no parent and is no root")
  skin = np.zeros((vertices, len(places))) if weights else None
  for number, vertex, row in weights:
    if not 0 <= vertex < vertices:
      raise UserError(
        f"{where}: line {number}: vertex {vertex}, the shape has {vertices}"
      )
    for name, weight in row:
      skin[vertex, of(name, number)] += weight
  return np.float64(list(places.values())), parent, skin


def lines(
  joints: np.ndarray, parent: np.ndarray, skin: np.ndarray | None
) -> list[str]:
  """The lines of such a file; arguments as `read` returns them. Weights below
  a ten thousandth are left out."""
  found = [
    f"joints joint{i} " + " ".join(f"{x:.6g}" for x in place)
    for i, place in enumerate(joints)
  ]
  for i, above in enumerate(parent):
    found.append(f"root joint{i}" if above == i else "")
  for vertex, row in enumerate(() if skin is None else skin):
    pairs = [f"joint{i} {w:.4f}" for i, w in enumerate(row) if w >= 1e-4]
    found.append(f"skin {vertex} " + " ".join(pairs))
  found += [
    f"hier joint{above} joint{i}"
    for i, above in enumerate(parent)
    if above != i
  ]
  return [line for line in found if line]
