"""JSON that every reader can read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def dumps(value: Any, indent: int | None = None) -> str:
  """As `json.dumps`, of numbers that JSON has.

  It has no NaN and no infinity: these become the strings "nan", "inf" and
  "-inf". Scalars and arrays of numpy and JAX become numbers and lists.

  Raises:
    TypeError: something that is neither of these nor of JSON.
  """
  return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
  """The value in the types of JSON; see `dumps`. What has items, as a config,
  becomes a dict."""
  if isinstance(value, Mapping) or hasattr(value, "items"):
    return {_key(k): plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if hasattr(value, "dtype"):
    return plain(np.asarray(value).tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def _key(key: Any) -> Any:
  if isinstance(key, float) and not math.isfinite(key):
    return str(key)
  return key
