"""Stanford's PLY files: vertices and faces, as text or as bytes."""

from __future__ import annotations

import numpy as np

from ar_jax.core.errors import UserError

_TYPES = {
  "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
  "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
  "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
  "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {
  "ascii": "",
  "binary_little_endian": "<",
  "binary_big_endian": ">",
}
_CORNERS = ("vertex_indices", "vertex_index")

# (name, type of a value), or (name, type of the count, type of the values).
Property = tuple[str, ...]


def parse(
  data: bytes, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """(vertices f64[V, 3], triangles i64[F, 3], normals f64[V, 3] or None) of a
  file; `where` names it.

  Raises:
    UserError: it is no such file, it ends too early, or its vertices have no
      x, y and z.
  """
  kind, elements, body = _head(data, where)
  read = _Text(body) if kind == "ascii" else _Bytes(body, _ORDERS[kind])
  vertices, faces = {}, []
  for name, count, properties in elements:
    try:
      columns = read.element(count, properties)
    except (ValueError, IndexError, OverflowError) as e:
      raise UserError(
        f"{where}: its {count} rows of {name} are not all there, or damaged"
      ) from e
    if name == "vertex":
      vertices = columns
    elif name == "face":
      own = next((columns[k] for k in _CORNERS if k in columns), [])
      faces = [
        (c[0], c[i], c[i + 1]) for c in own for i in range(1, len(c) - 1)
      ]
  missing = [axis for axis in "xyz" if axis not in vertices]
  if missing:
    raise UserError(f"{where}: its vertices have no {', '.join(missing)}")
  of = lambda names: np.stack([np.float64(vertices[k]) for k in names], 1)
  normals = ("nx", "ny", "nz")
  return (
    of("xyz"),
    np.asarray(faces, np.int64).reshape(-1, 3),
    of(normals) if all(k in vertices for k in normals) else None,
  )


def _head(data: bytes, where: str):
  """(kind, [(element, count, properties)], what follows)."""
  end = data.find(b"end_header")
  line = data.find(b"\n", end)
  if not data.startswith(b"ply") or end < 0 or line < 0:
    raise UserError(f"{where}: no PLY file: its head is not there")
  kind, elements = "", []
  try:
    for row in data[:end].decode("ascii").splitlines()[1:]:
      words = row.split()
      if not words or words[0] in ("comment", "obj_info"):
        continue
      if words[0] == "format":
        kind = words[1]
      elif words[0] == "element":
        elements.append((words[1], int(words[2]), []))
      elif words[1] == "list":
        count, value = _TYPES[words[2]], _TYPES[words[3]]
        elements[-1][2].append((words[4], count, value))
      else:
        elements[-1][2].append((words[2], _TYPES[words[1]]))
    if kind not in _ORDERS or any(n < 0 for _, n, _ in elements):
      raise ValueError(kind)
  except (ValueError, IndexError, KeyError) as e:
    raise UserError(f"{where}: the head of this PLY file is damaged") from e
  return kind, elements, data[line + 1 :]


def _many(count) -> int:
  """The length of a list."""
  if int(count) < 0:
    raise ValueError(count)
  return int(count)


class _Text:
  """Rows of words."""

  def __init__(self, body: bytes):
    self._lines = [line for line in body.splitlines() if line.strip()]

  def element(self, count: int, properties: list[Property]) -> dict:
    if count > len(self._lines):
      raise ValueError(count)
    found: dict[str, list] = {p[0]: [] for p in properties}
    for line in self._lines[:count]:
      words, at = line.split(), 0
      for name, *types in properties:
        if len(types) == 1:
          found[name].append(float(words[at]))
          at += 1
          continue
        many = _many(words[at])
        row = [int(float(w)) for w in words[at + 1 : at + 1 + many]]
        if len(row) < many:
          raise ValueError(line)
        found[name].append(row)
        at += 1 + many
    self._lines = self._lines[count:]
    return found


class _Bytes:
  """Values one after the other."""

  def __init__(self, body: bytes, order: str):
    self._body, self._order, self._at = body, order, 0

  def _take(self, kind: str, count: int) -> np.ndarray:
    kind = np.dtype(self._order + kind)
    found = np.frombuffer(self._body, kind, count, self._at)
    self._at += count * kind.itemsize
    return found

  def element(self, count: int, properties: list[Property]) -> dict:
    if all(len(p) == 2 for p in properties):
      kind = np.dtype([(p[0], self._order + p[1]) for p in properties])
      rows = np.frombuffer(self._body, kind, count, self._at)
      self._at += count * kind.itemsize
      return {p[0]: rows[p[0]] for p in properties}
    found: dict[str, list] = {p[0]: [] for p in properties}
    for _ in range(count):
      for name, *types in properties:
        if len(types) == 1:
          found[name].append(self._take(types[0], 1)[0])
        else:
          many = _many(self._take(types[0], 1)[0])
          found[name].append(self._take(types[1], many).astype(int).tolist())
    return found
