"""A person's own shapes: meshes and clouds of points, as OBJ, PLY, XYZ, NPY or
NPZ files, and points of their surfaces.

V vertices, F triangles, P points.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from scipy.spatial import cKDTree

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.science import ply

ENDINGS = (".obj", ".ply", ".xyz", ".npy", ".npz")
_NEAR = 12  # neighbours of a point that say its normal
_LARGEST = 1e15  # whose square float32 holds


@dataclasses.dataclass(frozen=True)
class Shape:
  """A mesh, or a cloud of points.

  Attributes:
    vertices: f64[V, 3].
    faces: i64[F, 3], which vertices a triangle has; no rows in a cloud.
    normals: f64[V, 3], of length 1; None where the file has none.
  """

  vertices: np.ndarray
  faces: np.ndarray
  normals: np.ndarray | None = None


def read(path: str | pathlib.Path) -> Shape:
  """Reads a file by its ending: .obj and .ply are meshes, or clouds if they
  have no face; .xyz has rows of x y z, perhaps with a normal nx ny nz behind;
  .npy holds [V, 3] or [V, 6]; .npz `vertices`, perhaps with `faces`
  and `normals`, or `points`.

  Raises:
    UserError: there is no such file, its ending is unknown, or what is in it
      is no shape; with the line, where it has lines.
  """
  file = pathlib.Path(path).expanduser()
  where = notes.printable(str(file))
  kind = file.suffix.lower()
  if kind not in ENDINGS:
    raise UserError(
      f"{where}: a shape is read from {', '.join(ENDINGS)}; export it as .obj "
      "or .ply"
    )
  try:
    data = file.read_bytes()
  except OSError as e:
    raise UserError(f"{where}: cannot be read: {e.strerror}") from e
  if kind == ".obj":
    found = _obj(data, where)
  elif kind == ".ply":
    found = Shape(*ply.parse(data, where))
  elif kind == ".xyz":
    found = _rows(_numbers(data, where), where)
  else:
    found = _arrays(file, where)
  return checked(found, where)


def checked(shape: Shape, where: str) -> Shape:
  """The shape, if it is one.

  Raises:
    UserError: it is none; `where` names it.
  """
  vertices, faces = shape.vertices, shape.faces
  if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) < 4:
    raise UserError(
      f"{where}: vertices of shape {vertices.shape}; a shape has at least 4 of "
      "3 numbers each"
    )
  if not (np.abs(vertices) < _LARGEST).all():
    bad = np.flatnonzero(~(np.abs(vertices) < _LARGEST).all(1))[0]
    raise UserError(f"{where}: vertex {bad + 1} is not finite, or too far away")
  if not np.ptp(vertices, 0).max() > 0:
    raise UserError(f"{where}: all of its {len(vertices)} vertices are one")
  if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
    bad = np.flatnonzero(((faces < 0) | (faces >= len(vertices))).any(1))[0]
    raise UserError(
      f"{where}: triangle {bad + 1} has the vertex {faces[bad].max() + 1}; "
      f"there are {len(vertices)}"
    )
  normals = shape.normals
  if normals is not None:
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    good = np.isfinite(length).all() and (length > 0).all()
    normals = normals / length if good else None
  return Shape(vertices, faces, normals)


def surface(
  shape: Shape,
  count: int,
  rng: np.random.Generator,
  values: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
  """Points of the surface; of a mesh evenly by area, of a cloud some of its
  points.

  Args:
    shape: the shape.
    count: how many points.
    rng: chooses them.
    values: f64[V, N], of the vertices.

  Returns:
    f32[count, 6], each with its normal, and the values there f64[count, N],
    or None.
  """
  corners = shape.vertices[shape.faces]
  cross = _across(corners)
  area = np.linalg.norm(cross, axis=1)
  if area.sum() > 0:
    chosen = rng.choice(len(area), count, p=area / area.sum())
    a, b = rng.random((2, count, 1))
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    mix = lambda c: (1 - a - b) * c[:, 0] + a * c[:, 1] + b * c[:, 2]
    normal = cross[chosen] / area[chosen, None]
    points = np.concatenate([mix(corners[chosen]), normal], 1)
    of = shape.faces[chosen]
    return points.astype(np.float32), None if values is None else mix(
      values[of]
    )
  n = len(shape.vertices)
  turns = [rng.permutation(n) for _ in range(-(-count // n))]
  order = np.concatenate(turns)[:count]
  return vertices(shape)[order], None if values is None else values[order]


def _across(corners: np.ndarray) -> np.ndarray:
  """f64[F, 3]: across triangles [F, 3, 3], twice as long as their area."""
  first = corners[:, :1]
  return np.cross(*np.moveaxis(corners[:, 1:] - first, 1, 0))


def vertices(shape: Shape) -> np.ndarray:
  """f32[V, 6]: every vertex and its normal: that of the file, of the triangles
  around it, or of its neighbours."""
  normals = shape.normals
  if normals is None and len(shape.faces):
    cross = _across(shape.vertices[shape.faces])
    normals = np.zeros_like(shape.vertices)
    for k in range(3):
      np.add.at(normals, shape.faces[:, k], cross)
  if normals is None:
    normals = _estimated(shape.vertices)
  length = np.linalg.norm(normals, axis=1, keepdims=True)
  normals = np.where(length > 0, normals / np.maximum(length, 1e-30), [0, 1, 0])
  return np.concatenate([shape.vertices, normals], 1).astype(np.float32)


def _estimated(points: np.ndarray) -> np.ndarray:
  """f64[V, 3]: across the plane of a point's neighbours, away from the middle
  of all points."""
  near = min(_NEAR, len(points))
  _, index = cKDTree(points).query(points, near)
  around = points[index] - points[index].mean(1, keepdims=True)
  _, axes = np.linalg.eigh(np.einsum("vnc,vnd->vcd", around, around))
  normals = axes[:, :, 0]  # of the least spread
  outward = np.sum(normals * (points - points.mean(0)), 1, keepdims=True)
  return np.where(outward < 0, -normals, normals)


def _obj(data: bytes, where: str) -> Shape:
  places, faces = [], []
  for number, line in enumerate(_text(data, where).splitlines(), 1):
    words = line.split("#")[0].split()
    if not words:
      continue
    try:
      if words[0] == "v":
        places.append([float(x) for x in words[1:4]])
        if len(places[-1]) < 3:
          raise ValueError("a vertex of less than 3 numbers")
      elif words[0] == "f":
        corners = [int(word.split("/")[0]) for word in words[1:]]
        if len(corners) < 3 or 0 in corners:
          raise ValueError("a face of less than 3 vertices, or of vertex 0")
        corners = [c - 1 if c > 0 else len(places) + c for c in corners]
        fan = zip(corners[1:-1], corners[2:], strict=True)
        faces += [(corners[0], b, c) for b, c in fan]
    except ValueError as e:
      raise UserError(f"{where}: line {number}: {e}: {line[:60]!r}") from e
  if not places:
    raise UserError(f"{where}: no vertex in it, a line `v x y z`")
  return Shape(np.float64(places), np.asarray(faces, np.int64).reshape(-1, 3))


def _numbers(data: bytes, where: str) -> np.ndarray:
  """f64[V, N] of lines of numbers."""
  rows: list[list[float]] = []
  for number, line in enumerate(_text(data, where).splitlines(), 1):
    words = line.split("#")[0].replace(",", " ").split()
    if not words:
      continue
    try:
      row = [float(word) for word in words]
    except ValueError as e:
      raise UserError(
        f"{where}: line {number}: {line[:60]!r} is no row of numbers"
      ) from e
    if rows and len(row) != len(rows[0]):
      raise UserError(
        f"{where}: line {number} has {len(row)} numbers, the first "
        f"{len(rows[0])}"
      )
    rows.append(row)
  return np.float64(rows)


def _text(data: bytes, where: str) -> str:
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as e:
    raise UserError(f"{where}: not a text in UTF-8") from e


def _rows(rows: np.ndarray, where: str) -> Shape:
  """A cloud of rows of 3 numbers, or of 6 with normals."""
  kind = np.issubdtype(rows.dtype, np.number)
  if not kind or rows.ndim != 2 or rows.shape[1] not in (3, 6):
    raise UserError(
      f"{where}: {rows.dtype} of shape {rows.shape}; give rows of x y z, or of "
      "x y z and a normal"
    )
  rows = np.float64(rows)
  normals = rows[:, 3:] if rows.shape[1] == 6 else None
  return Shape(rows[:, :3], np.zeros((0, 3), np.int64), normals)


def arrays(file: pathlib.Path, where: str) -> dict[str, np.ndarray]:
  """What a .npz holds, by name; that of a .npy is called `points`.

  Raises:
    UserError: it is no such file.
  """
  try:
    held = np.load(file, allow_pickle=False)
    if isinstance(held, np.ndarray):
      return {"points": held}
    with held:
      return {name: held[name] for name in held.files}
  except (OSError, ValueError, EOFError, KeyError) as e:
    raise UserError(f"{where}: no NumPy file of arrays: {e}") from e
  except Exception as e:  # a damaged zip has errors of its own
    raise UserError(f"{where}: a damaged file: {e}") from e


def _arrays(file: pathlib.Path, where: str) -> Shape:
  held = arrays(file, where)
  if "vertices" not in held:
    if "points" not in held:
      raise UserError(
        f"{where}: holds {', '.join(held) or 'nothing'}; name the array "
        "`vertices` or `points`"
      )
    return _rows(held["points"], where)
  return of_arrays(held, where)


def of_arrays(held: dict[str, np.ndarray], where: str) -> Shape:
  """The mesh of `vertices`, perhaps with `faces` and `normals`.

  Raises:
    UserError: they are none.
  """
  faces = held.get("faces", np.zeros((0, 3), np.int64))
  whole = np.issubdtype(faces.dtype, np.integer)
  if not whole or faces.ndim != 2 or faces.shape[1] != 3:
    raise UserError(
      f"{where}: faces, {faces.dtype} of shape {faces.shape}; give whole "
      "numbers [F, 3] from 0 on"
    )
  cloud = _rows(held["vertices"], where)
  normals = held.get("normals")
  if normals is None:
    normals = cloud.normals
  elif normals.shape != cloud.vertices.shape:
    raise UserError(f"{where}: normals of shape {normals.shape}, not [V, 3]")
  return Shape(cloud.vertices, faces.astype(np.int64), normals)
