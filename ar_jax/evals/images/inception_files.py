"""Inception weights from the three files in which they are passed around.

  .pth  the PyTorch state dict `pt_inception-2015-12-05-6726825d.pth`
  .npz  the same arrays under the same names, as `numpy.savez` writes them
  .pb   the TensorFlow graph `classify_image_graph_def.pb`

The graph is a protocol buffer of which we need the constants only, so
TensorFlow is not needed.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from ar_jax.core.system import UserError
from ar_jax.evals.images import inception_blocks
from ar_jax.files import torch_file
from ar_jax.files.protobuf import fields


def read(path: str) -> dict[str, np.ndarray]:
  """Arrays under the names and in the layout of the PyTorch file.

  Raises:
    UserError: no path, no such file, or not one of the three.
  """
  if not path:
    raise UserError(
      "features='inception' needs the weights: set path= to "
      "pt_inception-2015-12-05-6726825d.pth or classify_image_graph_def.pb; "
      "or take features='efficientnet', which is FD-EffNet and not FID"
    )
  path = os.path.expanduser(path)
  if not os.path.isfile(path):
    raise UserError(f"path={path!r} of features='inception': no such file")
  if path.endswith(".npz"):
    try:
      with np.load(path, allow_pickle=False) as f:
        return dict(f)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
      raise UserError(f"{path}: not an npz file of arrays ({e})") from e
  if path.endswith(".pb"):
    try:
      return _from_graph(dict(_constants(memoryview(_bytes(path)))), path)
    except (IndexError, ValueError, struct.error, UnicodeDecodeError) as e:
      raise UserError(f"{path}: not a TensorFlow graph ({e})") from e
  return torch_file.read(path)


def _bytes(path: str) -> bytes:
  with open(path, "rb") as f:
    return f.read()


def _from_graph(
  graph: dict[str, np.ndarray], path: str
) -> dict[str, np.ndarray]:
  """Constants of the graph, by the names of the PyTorch file."""
  state = {}

  def take(name: str) -> np.ndarray:
    if name not in graph:
      raise UserError(
        f"{path}: holds no constant {name!r}, so it is not the Inception graph"
      )
    return graph[name]

  for name, scope in inception_blocks.scopes().items():
    kernel = take(f"{scope}/conv2d_params")
    state[f"{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
    for ours, theirs in (
      ("weight", "gamma"),
      ("bias", "beta"),
      ("running_mean", "moving_mean"),
      ("running_var", "moving_variance"),
    ):
      state[f"{name}.bn.{ours}"] = take(f"{scope}/batchnorm/{theirs}")
  state["fc.weight"] = take("softmax/weights").T
  state["fc.bias"] = take("softmax/biases")
  return state


def _constants(data: memoryview) -> Iterator[tuple[str, np.ndarray]]:
  """(name, value) of the float constants of a GraphDef."""
  for field, node in fields(data):
    if field != 1:  # GraphDef.node
      continue
    name, op, tensor = "", "", None
    for field, value in fields(node):
      if field == 1:  # NodeDef.name
        name = bytes(value).decode()
      elif field == 2:  # NodeDef.op
        op = bytes(value).decode()
      elif field == 5:  # NodeDef.attr, a map entry: 1 key, 2 AttrValue
        entry = dict(fields(value))
        if bytes(entry[1]) == b"value":
          tensor = dict(fields(entry[2])).get(8)  # AttrValue.tensor
    if op == "Const" and tensor is not None:
      value = _tensor(tensor)
      if value is not None:
        yield name, value


def _tensor(data: memoryview) -> np.ndarray | None:
  """A TensorProto of floats; None for other types."""
  dtype, shape, flat = 0, [], None
  for field, value in fields(data):
    if field == 1:
      dtype = value
    elif field == 2:  # tensor_shape: 2 dim: 1 size
      shape = [dict(fields(d)).get(1, 0) for f, d in fields(value) if f == 2]
    elif field in (4, 5):  # tensor_content, or float_val packed
      flat = np.frombuffer(value, "<f4")
  if dtype != 1 or flat is None:  # DT_FLOAT
    return None
  # A tensor whose numbers are all the same may be stored as one of them.
  return flat.reshape(shape) if flat.size > 1 else np.full(shape, flat)
