"""The reader of weight files, against files written here by hand."""

import argparse
import collections
import contextlib
import io
import os
import pickle
import struct
import sys
import tempfile
import types
import zipfile
from unittest import mock

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError
from ar_jax.files import torch_file

_NAMES = {
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "int64": "LongStorage",
  "bool": "BoolStorage",
}


@contextlib.contextmanager
def _fake_torch():
  """Modules with the names that PyTorch's pickles mention."""
  torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
  for name in _NAMES.values():
    setattr(torch, name, type(name, (), {"__module__": "torch"}))
  for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
    exec(f"def {name}(*args): pass", utils.__dict__)
  torch._utils = utils
  with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
    yield torch


class _Storage:
  def __init__(self, key, flat):
    self.key, self.flat = key, flat


class _Tensor:
  """Pickles itself as PyTorch does."""

  def __init__(self, storage, shape, stride=None, offset=0, parameter=False):
    if stride is None:
      stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    self.args = (storage, offset, shape, stride, False, {})
    self.parameter = parameter

  def __reduce__(self):
    utils = sys.modules["torch._utils"]
    if self.parameter:
      plain = _Tensor(*(self.args[i] for i in (0, 2, 3, 1)))
      return utils._rebuild_parameter, (plain, True, {})
    return utils._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):
  def __init__(self, file, view):
    super().__init__(file, protocol=2)
    self.storages, self._view = {}, view

  def persistent_id(self, obj):
    if not isinstance(obj, _Storage):
      return None
    self.storages[obj.key] = obj.flat
    kind = getattr(sys.modules["torch"], _NAMES[obj.flat.dtype.name])
    return ("storage", kind, obj.key, "cpu", obj.flat.size, *self._view)


def _pickle(obj, view=()):
  out = io.BytesIO()
  with _fake_torch():
    pickler = _Pickler(out, view)
    pickler.dump(obj)
  return out.getvalue(), pickler.storages


def write_zip(path, obj):
  data, storages = _pickle(obj)
  with zipfile.ZipFile(path, "w") as f:
    f.writestr("archive/data.pkl", data)
    f.writestr("archive/byteorder", "little")
    for key, flat in storages.items():
      f.writestr(f"archive/data/{key}", flat.tobytes())


def write_legacy(path, obj):
  data, storages = _pickle(obj, view=(None,))
  with open(path, "wb") as f:
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
      pickle.dump(header, f, protocol=2)
    f.write(data)
    pickle.dump(list(storages), f, protocol=2)
    for flat in storages.values():
      f.write(struct.pack("<q", flat.size) + flat.tobytes())


_WRITERS = (("zip", write_zip), ("legacy", write_legacy))


class _Evil:
  def __reduce__(self):
    return os.system, ("touch evil_was_here",)


class TorchFileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.path = os.path.join(folder, "weights.pth")

  @parameterized.named_parameters(*_WRITERS)
  def test_reads_back_what_was_saved(self, write):
    flat = np.arange(24, dtype=np.float32)
    shared = _Storage("0", flat)
    state = collections.OrderedDict(
      weight=_Tensor(shared, (2, 3, 4)),
      transposed=_Tensor(shared, (4, 6), (1, 4)),
      tail=_Tensor(shared, (4,), offset=20, parameter=True),
      half=_Tensor(_Storage("1", flat.astype(np.float16)), (24,)),
      brain=_Tensor(_Storage("2", flat.astype(ml_dtypes.bfloat16)), (24,)),
      steps=_Tensor(_Storage("3", np.array([7])), ()),
      flags=_Tensor(_Storage("4", np.array([True, False])), (2,)),
      empty=_Tensor(shared, (0, 3)),
    )
    write(
      self.path,
      {"model": state, "args": argparse.Namespace(depth=16), "epoch": 3},
    )
    got = torch_file.read(self.path)
    self.assertEqual((got["epoch"], got["args"].depth), (3, 16))
    model = got["model"]
    self.assertEqual(list(model), list(state))
    np.testing.assert_array_equal(model["weight"], flat.reshape(2, 3, 4))
    np.testing.assert_array_equal(model["transposed"], flat.reshape(6, 4).T)
    np.testing.assert_array_equal(model["tail"], flat[20:])
    np.testing.assert_array_equal(model["half"], flat.astype(np.float16))
    self.assertEqual(model["brain"].dtype, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(model["brain"].astype(np.float32), flat)
    self.assertEqual(model["steps"].shape, ())
    self.assertEqual(int(model["steps"]), 7)
    np.testing.assert_array_equal(model["flags"], [True, False])
    self.assertEqual(model["empty"].shape, (0, 3))

  def test_reads_safetensors(self):
    path = self.path + ".safetensors"
    want = {"a.b": np.arange(6, dtype=np.float32).reshape(2, 3)}
    safetensors.numpy.save_file(want, path)
    np.testing.assert_array_equal(torch_file.read(path)["a.b"], want["a.b"])

  def test_reads_brain_floats_in_safetensors(self):
    path = self.path + ".safetensors"
    want = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    with open(path, "wb") as f:
      f.write(struct.pack("<Q", len(header)) + header + want.tobytes())
    np.testing.assert_array_equal(torch_file.read(path)["x"], want)

  @parameterized.named_parameters(*_WRITERS)
  def test_runs_no_code(self, write):
    write(self.path, {"weight": _Evil()})
    with self.assertRaisesRegex(UserError, r"asks for \w+\.system"):
      torch_file.read(self.path)
    self.assertFalse(os.path.exists("evil_was_here"))

  @parameterized.named_parameters(*_WRITERS)
  def test_refuses_tensors_beyond_their_storage(self, write):
    flat = _Storage("0", np.zeros(4, np.float32))
    for tensor in (
      _Tensor(flat, (5,)),
      _Tensor(flat, (2,), offset=3),
      _Tensor(flat, (2,), (-1,)),
    ):
      write(self.path, {"weight": tensor})
      with self.assertRaisesRegex(UserError, "beyond its storage"):
        torch_file.read(self.path)

  @parameterized.named_parameters(*_WRITERS)
  def test_says_when_a_file_is_cut_short(self, write):
    write(
      self.path,
      {"w": _Tensor(_Storage("0", np.zeros(99)[:].astype(np.float32)), (99,))},
    )
    with open(self.path, "rb+") as f:
      f.truncate(os.path.getsize(self.path) // 2)
    with self.assertRaisesRegex(UserError, "damaged"):
      torch_file.read(self.path)

  @parameterized.parameters(b"", b"<html>not found</html>", b"\x80\x02K\x01.")
  def test_says_when_it_is_another_file(self, content):
    with open(self.path, "wb") as f:
      f.write(content)
    with self.assertRaisesRegex(UserError, "not a PyTorch"):
      torch_file.read(self.path)

  def test_says_when_it_is_another_zip(self):
    np.savez(self.path + ".npz", x=np.zeros(2))
    with self.assertRaisesRegex(UserError, "not one from PyTorch"):
      torch_file.read(self.path + ".npz")

  def test_says_when_there_is_no_file(self):
    with self.assertRaisesRegex(UserError, "no such file"):
      torch_file.read("/nowhere/model.pth")


if __name__ == "__main__":
  absltest.main()
