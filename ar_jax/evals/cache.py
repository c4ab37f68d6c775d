"""By what evaluation knows the data that judges and reference statistics were
made of.

Data are known by the options they are loaded with and the names, sizes and
times of all their files; a file that is changed with its size and time kept is
seen only if a probe falls on it.
"""

from __future__ import annotations

import numpy as np

from ar_jax.core.forms import Image, described
from ar_jax.data import Dataset
from ar_jax.data.array_cache import digest

_PROBES = 64  # examples of each split that are looked at


def data_digest(data: Dataset) -> str:
  """Of what the data set is read from, of what its fields mean, and of
  examples of both splits, all of their fields.

  All examples of a set that does not say what it is read from (one that is
  made by hand) are hashed; of the others some evenly spaced ones, which see
  what neither files nor options do: another version of a library.
  """
  parts: list[str | np.ndarray] = [
    data.name,
    str(data.num_classes),
    data.digest,
  ]
  for name, form in sorted(data.forms.items()):
    if form != Image():  # pixels say themselves what they are
      parts += [name, repr(described(form))]
  for source in (data.train, data.test):
    parts.append(str(len(source)))
    n = min(len(source), _PROBES) if data.digest else len(source)
    for i in np.linspace(0, len(source) - 1, n).astype(int):
      example = source[int(i)]
      for field in sorted(example):
        parts += [field, np.asarray(example[field])]
  return digest(*parts)
