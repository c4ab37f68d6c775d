"""Reads published weight files without PyTorch and without running them.

A `.pth` file is a pickle, and a pickle is a program: `files.pickles` runs it
on a machine that can rebuild a tensor, make a dict, name a storage, and
nothing else. Nor can a small file take much memory: a tensor has no more
numbers than its storage, a storage is no larger than the bytes of the file
that it is made of, all tensors together are no larger than a few times the
file, and tensors are views, not copies. So a hostile file can do no more than
fail to load, in one line; the memory taken is a few times its size and, at
worst, some hundred megabytes for a pickle that is all small objects.

Three containers are understood: the zip that PyTorch writes since 1.6, the
older chain of pickles with the storages behind them, and `.safetensors`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from ar_jax.core.errors import UserError
from ar_jax.files import pickles
from ar_jax.files.pickles import Refused, Word, shown

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_STORAGES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
  "ComplexFloatStorage": np.dtype("<c8"),
}

# Named by the options of training checkpoints.
_DTYPES = (
  "float64",
  "float32",
  "float16",
  "bfloat16",
  "int64",
  "int32",
  "bool",
)

_SAFETENSORS = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}


# How many times the size of its file all tensors may be together: weights that
# are tied, averages that share what they average.
_SHARING = 8


def read(path: str | os.PathLike) -> Any:
  """The content of a PyTorch or safetensors file, tensors as NumPy arrays.

  Args:
    path: a `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors` file.

  Returns:
    What was saved, as it was nested: a state dict is a flat dict of arrays; a
    training checkpoint is a dict that holds one, beside numbers and options
    (as a Namespace); a file may also hold a list, or one array. Arrays are
    read-only views; bfloat16 ones have the dtype of `ml_dtypes`.

  Raises:
    UserError: no such file, not such a file, a damaged one, or one that asks
      for anything else than tensors and plain containers, or for more memory
      than it may.
  """
  path = os.fspath(path)
  if not os.path.isfile(path):
    raise UserError(f"{path}: there is no such file")
  try:
    if path.endswith(".safetensors"):
      return _read_safetensors(path)
    if zipfile.is_zipfile(path):
      return _read_zip(path)
    return _read_legacy(path)
  except UserError as e:
    raise UserError(f"{path}: {e}") from e
  except Exception as e:  # a damaged pickle may raise nearly anything
    raise UserError(
      f"{path}: not a PyTorch or safetensors file, or a damaged one "
      f"({type(e).__name__}: {shown(str(e))})"
    ) from e


class _Storage(NamedTuple):
  """One flat piece of memory that tensors look into."""

  key: str
  dtype: np.dtype
  size: int


class _Tensors:
  """What a pickle may name: storages, and what makes tensors of them."""

  def __init__(self, size: int, load: Callable[[_Storage], np.ndarray] | None):
    """`load` makes the 1-D array of a storage; None skips the tensors. `size`
    is that of the file."""
    self.storages: dict[str, _Storage] = {}  # those that were named so far
    self._load = load
    self._left = _SHARING * size
    utils = lambda name: ("torch._utils", name)
    names = [*_STORAGES, *_DTYPES]
    calls: dict[tuple[str, str], Any] = {
      ("torch", "Size"): tuple,
      ("torch", "device"): _device,
      ("numpy", "dtype"): lambda name, *_: str(name),
      ("numpy.core.multiarray", "scalar"): _scalar,
      ("numpy._core.multiarray", "scalar"): _scalar,
      utils("_rebuild_tensor"): self._tensor,
      utils("_rebuild_tensor_v2"): self._tensor,
      utils("_rebuild_parameter"): lambda data, *_: data,
    }
    self.words = {k: Word(".".join(k), call) for k, call in calls.items()}
    for module in ("torch", "torch.storage"):
      self.words |= {(module, n): Word(n, None) for n in names}

  def storage(self, pid: Any) -> _Storage:
    """Of a persistent id."""
    kind, word, key, _, size, *view = pid
    if kind != "storage" or any(v is not None for v in view):
      raise Refused("its pickle names an unknown kind of storage")
    if not isinstance(size, int) or size < 0:
      raise Refused(f"a storage of {shown(str(size))} numbers")
    storage = _Storage(str(key), _STORAGES[word.name], size)
    if self.storages.setdefault(storage.key, storage) != storage:
      raise Refused(f"storage {shown(storage.key)} is declared in two ways")
    return storage

  def _tensor(self, storage: _Storage, offset: int, shape, stride, *_):
    shape, stride = tuple(shape), tuple(stride)
    if not all(isinstance(n, int) for n in (offset, *shape, *stride)):
      raise ValueError("sizes that are no integers")
    if min((offset, *shape, *stride)) < 0 or len(shape) != len(stride):
      raise Refused("a tensor reaches beyond its storage")
    # as_strided believes what it is told: the bounds are checked here.
    count = 0 if 0 in shape else 1
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if count and last >= storage.size:
      raise Refused("a tensor reaches beyond its storage")
    for n in shape:
      count *= n
      if count > storage.size:
        raise Refused("a tensor has more numbers than its storage")
    self._left -= count * storage.dtype.itemsize
    if self._left < 0:
      raise Refused(
        f"its tensors are together more than {_SHARING} times as large as the "
        "file: they look into the same storages again and again"
      )
    if self._load is None:
      return None
    flat = self._load(storage)
    if not count:
      return np.zeros(shape, flat.dtype)
    return np.lib.stride_tricks.as_strided(
      flat[offset:], shape, [s * flat.itemsize for s in stride], writeable=False
    )


def _device(kind: str, index: int | None = None) -> str:
  return f"{kind}" if index is None else f"{kind}:{index}"


def _scalar(dtype: str, data: bytes) -> Any:
  """A number of NumPy, as training checkpoints keep the best score."""
  if dtype not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
    raise Refused(f"its pickle holds a number of the type {shown(dtype)}")
  return np.frombuffer(data, f"<{dtype}", 1)[0]


def _read_zip(path: str):
  size = os.path.getsize(path)
  with zipfile.ZipFile(path) as archive:
    members = {info.filename: info for info in archive.infolist()}
    roots = [
      n for n in members if n.count("/") == 1 and n.endswith("/data.pkl")
    ]
    if len(roots) != 1:
      raise UserError("a zip file, but not one from PyTorch")
    root = roots[0].removesuffix("data.pkl")
    left = size
    for name, info in members.items():
      # PyTorch stores its members as they are. What is packed may grow.
      if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(
          f"its member {shown(name)} is compressed, which PyTorch never does; "
          "unpack it, and pack it again without compression (zip -0)"
        )
      left -= info.file_size
      if left < 0 or info.compress_size != info.file_size:
        raise Refused(
          f"its member {shown(name)} claims {info.file_size} bytes, more than "
          "the file has for it"
        )
    order = members.get(f"{root}byteorder")
    if order is not None and archive.read(order) != b"little":
      raise UserError("big-endian files are not supported")
    cache = {}  # tensors may share a storage

    def load(storage: _Storage) -> np.ndarray:
      if storage.key not in cache:
        info = members.get(f"{root}data/{storage.key}")
        need = storage.size * storage.dtype.itemsize
        if info is None or info.file_size < need:
          raise Refused(
            f"damaged: storage {shown(storage.key)} claims {need} bytes and "
            f"has {info.file_size if info else 0}"
          )
        data = archive.read(info)
        cache[storage.key] = np.frombuffer(data, storage.dtype, storage.size)
      return cache[storage.key]

    tensors = _Tensors(size, load)
    pickle = members[roots[0]]
    with archive.open(pickle) as file:
      return pickles.load(
        file, pickle.file_size, tensors.words, tensors.storage
      )


def _read_legacy(path: str):
  total = os.path.getsize(path)
  with open(path, "rb") as file:

    def run(load=None):
      tensors = _Tensors(total, load)
      left = total - file.tell()
      return tensors, pickles.load(file, left, tensors.words, tensors.storage)

    if run()[1] != _LEGACY_MAGIC or run()[1] != _LEGACY_PROTOCOL:
      raise UserError("not a PyTorch or safetensors file")
    if not run()[1].get("little_endian", True):
      raise UserError("big-endian files are not supported")
    # The storages lie behind the pickle that uses them: read it once to find
    # where it ends and what they are, and again to build the tensors.
    start = file.tell()
    scout, _ = run()
    flat = {}
    for key in run()[1]:
      size = int.from_bytes(file.read(8), "little")
      storage = scout.storages[key]
      need = size * storage.dtype.itemsize
      if size != storage.size or need > total - file.tell():
        raise Refused(
          f"damaged or cut short: storage {shown(key)} claims {need} bytes "
          f"of the {total - file.tell()} that are left"
        )
      flat[key] = np.frombuffer(file.read(need), storage.dtype, size)
    file.seek(start)
    return run(lambda storage: flat[storage.key])[1]


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  with open(path, "rb") as file:
    entries = safetensors.deserialize(file.read())
  for name, e in entries:
    if e["dtype"] not in _SAFETENSORS:
      raise Refused(f"{shown(name)} has the type {e['dtype']}, not supported")
  return {
    name: np.frombuffer(e["data"], _SAFETENSORS[e["dtype"]]).reshape(e["shape"])
    for name, e in entries
  }
