"""Messages of protocol buffers, read without their descriptions."""

from __future__ import annotations

from collections.abc import Iterator

# Bytes of a number of fixed size, by wire type.
_FIXED = {1: 8, 5: 4}


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """(number, value) of the fields of one message, as they come: whole numbers,
  and the bytes of all else, numbers of fixed size among them.

  Raises:
    ValueError: these bytes are no message.
  """
  data, at = memoryview(data), 0

  def varint() -> int:
    nonlocal at
    value, shift = 0, 0
    while True:
      if at >= len(data):
        raise ValueError("cut off")
      byte = data[at]
      at += 1
      value |= (byte & 127) << shift
      shift += 7
      if byte < 128:
        return value

  while at < len(data):
    number, kind = divmod(varint(), 8)
    if kind == 0:
      yield number, varint()
      continue
    size = _FIXED.get(kind) or (varint() if kind == 2 else -1)
    if size < 0 or at + size > len(data):
      raise ValueError(f"wire type {kind} of {size} bytes at {at}")
    yield number, data[at : at + size]
    at += size
