"""Reads published weight files without PyTorch and without running them.

A `.pth` file is a pickle, and a pickle is a program. The reader here runs it
on a machine that knows only a handful of harmless words: rebuild a tensor,
make an ordered dict, name a storage. Any other word is refused, so a hostile
file can do no more than fail to load.

Three containers are understood: the zip that PyTorch writes since 1.6, the
older chain of pickles with the storages behind them, and `.safetensors`.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import zipfile
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from ar_jax.core.system import UserError

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


def read(path: str | os.PathLike) -> dict[str, Any]:
  """The content of a PyTorch or safetensors file, tensors as NumPy arrays.

  Args:
    path: a `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors` file.

  Returns:
    What was saved, as it was nested: a state dict is a flat dict of arrays; a
    training checkpoint is a dict that holds one, beside numbers and options
    (an `argparse.Namespace` comes back as itself). Arrays are read-only;
    bfloat16 ones have the dtype of `ml_dtypes`.

  Raises:
    UserError: no such file, not such a file, a damaged one, or one whose
      pickle asks for anything else than tensors and plain containers.
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
  except UserError:
    raise
  except Exception as e:  # a damaged pickle may raise nearly anything
    raise UserError(
      f"{path}: not a PyTorch or safetensors file, or a damaged one "
      f"({type(e).__name__}: {e})"
    ) from e


class _Storage(NamedTuple):
  """One flat piece of memory that tensors look into."""

  key: str
  dtype: np.dtype
  size: int


class _Word:
  """A storage type or a dtype: a name to look up, never to call."""

  def __init__(self, name: str):
    self.name = name


class _Unpickler(pickle.Unpickler):
  """Understands tensors and plain containers, and nothing else."""

  def __init__(self, file: BinaryIO, path: str, load):
    """`load(storage) -> 1-D array`, or None to skip the tensors."""
    super().__init__(file, encoding="utf-8")
    self.storages: dict[str, _Storage] = {}  # those that were named so far
    self._path = path
    self._load = load
    # A pickle can set attributes of a class that it names: give each file a
    # namespace class of its own. The other classes below are immutable.
    self._namespace = type("Namespace", (argparse.Namespace,), {})

  def find_class(self, module: str, name: str):
    if module in ("torch", "torch.storage") and name in _STORAGES:
      return _Word(name)
    words = {
      ("collections", "OrderedDict"): collections.OrderedDict,
      ("argparse", "Namespace"): self._namespace,
      ("torch", "Size"): tuple,
      ("torch._utils", "_rebuild_tensor"): self._tensor,
      ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
      ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    }
    if (module, name) in words:
      return words[module, name]
    raise UserError(
      f"{self._path}: its pickle asks for {module}.{name}, which is neither a "
      "tensor nor a plain container; refused, since calling it could run "
      "anything. If you trust the file, load it in PyTorch and save only its "
      "state dict"
    )

  def persistent_load(self, pid) -> _Storage:
    kind, word, key, _, size, *view = pid
    if kind != "storage" or any(v is not None for v in view):
      raise UserError(f"{self._path}: unknown kind of storage {pid!r}")
    storage = _Storage(str(key), _STORAGES[word.name], int(size))
    return self.storages.setdefault(storage.key, storage)

  def _tensor(self, storage: _Storage, offset: int, shape, stride, *_):
    if self._load is None:
      return None
    flat = self._load(storage)
    shape, stride = tuple(shape), tuple(stride)
    # as_strided believes what it is told: the bounds are checked here.
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (
      0 not in shape and last >= flat.size
    ):
      raise UserError(f"{self._path}: a tensor reaches beyond its storage")
    if 0 in shape:
      return np.zeros(shape, flat.dtype)
    view = np.lib.stride_tricks.as_strided(
      flat[offset:], shape, [s * flat.itemsize for s in stride], writeable=False
    )
    return np.ascontiguousarray(view).reshape(shape)  # keeps a scalar 0-d


def _read_zip(path: str):
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    pickles = [
      n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
      raise UserError(f"{path}: a zip file, but not one from PyTorch")
    root = pickles[0].removesuffix("data.pkl")
    if (
      f"{root}byteorder" in names
      and archive.read(f"{root}byteorder") != b"little"
    ):
      raise UserError(f"{path}: big-endian files are not supported")
    cache = {}  # tensors may share a storage

    def load(storage: _Storage) -> np.ndarray:
      if storage.key not in cache:
        data = archive.read(f"{root}data/{storage.key}")
        cache[storage.key] = np.frombuffer(data, storage.dtype, storage.size)
      return cache[storage.key]

    with archive.open(pickles[0]) as file:
      return _Unpickler(file, path, load).load()


def _read_legacy(path: str):
  with open(path, "rb") as file:
    plain = lambda: _Unpickler(file, path, None).load()
    if plain() != _LEGACY_MAGIC or plain() != _LEGACY_PROTOCOL:
      raise UserError(f"{path}: not a PyTorch or safetensors file")
    if not plain().get("little_endian", True):
      raise UserError(f"{path}: big-endian files are not supported")
    # The storages lie behind the pickle that uses them: read it once to find
    # where it ends and what they are, and again to build the tensors.
    start = file.tell()
    scout = _Unpickler(file, path, None)
    scout.load()
    flat = {}
    for key in plain():
      size = int.from_bytes(file.read(8), "little")
      dtype = scout.storages[key].dtype
      data = file.read(size * dtype.itemsize)
      flat[key] = np.frombuffer(data, dtype, size)
    file.seek(start)
    return _Unpickler(file, path, lambda storage: flat[storage.key]).load()


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  with open(path, "rb") as file:
    entries = safetensors.deserialize(file.read())
  return {
    name: np.frombuffer(e["data"], _SAFETENSORS[e["dtype"]]).reshape(e["shape"])
    for name, e in entries
  }
