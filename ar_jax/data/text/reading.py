"""One text file of a user, as a string."""

from __future__ import annotations

import codecs
import pathlib

from ar_jax.core.errors import UserError
from ar_jax.data import notes

# The longer one first: UTF-32's begins with UTF-16's.
_OTHERS = {
  codecs.BOM_UTF32_LE: "UTF-32",
  codecs.BOM_UTF32_BE: "UTF-32",
  codecs.BOM_UTF16_LE: "UTF-16",
  codecs.BOM_UTF16_BE: "UTF-16",
}


def read(file: pathlib.Path) -> str:
  """The text of a UTF-8 file; a byte order mark is dropped, and lines end in
  "\\n" whatever they end in there.

  Raises:
    UserError: it cannot be read, is not UTF-8 (with the first byte that is
      not), or is no text but binary.
  """
  shown = notes.printable(str(file))
  try:
    raw = file.read_bytes()
  except OSError as e:
    raise UserError(f"{shown}: cannot be read ({e.strerror})") from e
  for mark, name in _OTHERS.items():
    if raw.startswith(mark):
      raise UserError(
        f"{shown}: is {name}, must be UTF-8; save it as UTF-8, or "
        f"iconv -f {name} -t UTF-8 FILE > NEW"
      )
  zero = raw.find(b"\0")
  if zero >= 0:
    raise UserError(
      f"{shown}: byte {zero} is 0, so this is no text; move it away"
    )
  try:
    text = raw.decode("utf-8-sig")
  except UnicodeDecodeError as e:
    # utf-8-sig counts without the mark, which is at the front of `raw`.
    place = e.start + (len(raw) - len(e.object))
    line = raw.count(b"\n", 0, place) + 1
    raise UserError(
      f"{shown}: byte {place} (line {line}) is 0x{raw[place]:02x}, which is "
      "not UTF-8; save it as UTF-8, or iconv -f LATIN1 -t UTF-8 FILE > NEW"
    ) from e
  return text.replace("\r\n", "\n").replace("\r", "\n")
