"""The one reader of images: training, folders, edits and masks.

What comes out is 8 bits a channel, upright, opaque, in sRGB or grey:

  depth         16 bits: 65535 is white. Floats: 1.0 is white, and a file with
                others than 0 to 1 is refused, as are 32-bit integers, whose
                white nobody knows. 1 bit and palettes as they are.
  orientation   as EXIF says.
  transparency  laid on white.
  colours       CMYK, YCbCr, LAB and what an embedded profile says, to sRGB.
  animation     the first frame, and a line says so once.

Whatever cannot be read is refused in one line that names the file.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ar_jax.core.errors import UserError
from ar_jax.data import notes

# Whoever changes what is read of the same file changes this number: units and
# statistics made with another are made anew.
VERSION = 2

# Two of these are an error of Pillow's, one its warning, on standard error.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_MODES = {1: "L", 3: "RGB"}
_PLAIN = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}  # the file says it all
_ENDS = {  # the last bytes of a whole file
  "JPEG": b"\xff\xd9",
  "PNG": b"IEND\xaeB`\x82",
  "GIF": b";",
}

_File = str | os.PathLike | bytes


class _Unreadable(Exception):
  """Says why, in a few words."""


def open_image(file: _File, channels: int, where: str = "") -> Image.Image:
  """Decodes an image file; see the module's docstring.

  Args:
    file: a path, or the encoded bytes themselves.
    channels: 1 for grey, 3 for colour.
    where: names the file in messages, if `file` is bytes.

  Raises:
    UserError: the file cannot be read as an image.
  """
  where = where or notes.printable(os.fsdecode(file))
  try:
    image = _decoded(file, where)
    return convert(_eight_bits(image, where), channels)
  except _Unreadable as e:
    raise UserError(
      f"{where}: cannot be read as an image ({e}); remove it or replace it"
    ) from e


def open_mask(file: _File) -> np.ndarray:
  """bool[H, W] of a mask: what is white or opaque is kept, True.

  - Where transparency varies, what is at least half opaque is kept, whatever
    its colour.
  - Else, of two levels the lighter is kept, be they 0 and 255 or 0 and 1.
  - Else what is at least half of white is kept.

  Raises:
    UserError: the file cannot be read, or keeps all of the image or nothing.
  """
  where = notes.printable(os.fsdecode(file))
  try:
    image = _decoded(file, where)
    keep = _kept(image, where)
  except _Unreadable as e:
    raise UserError(f"{where}: cannot be read as a mask ({e})") from e
  if keep.all() or not keep.any():
    raise UserError(
      f"{where}: this mask keeps {'all' if keep.all() else 'nothing'} of the "
      "image; what is white (or opaque, where it has transparency) is kept, "
      "the rest is drawn anew"
    )
  notes.once(f"{where}: keeps {keep.mean():.0%} of the image, what is white")
  return keep


def convert(image: Image.Image, channels: int) -> Image.Image:
  """To grey (1) or colour (3), transparency laid on white."""
  if image.has_transparency_data:
    if image.mode == "La":
      image = image.convert("LA")
    image = _to_srgb(image.convert("RGBA"), image.info)
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  elif image.mode not in ("1", "L"):
    image = _to_srgb(image, image.info)
  elif "icc_profile" in image.info and image.mode == "L":
    image = _to_srgb(image, image.info)
  return image.convert(_MODES[channels])


def look(file: str, whole: bool) -> tuple[str, tuple[int, int]]:
  """(why a file cannot be read, "" if it can; its width and height).

  Args:
    file: its path.
    whole: whether to decode it; else the header and the end are read, and
      only a file that does not end as its format does, or whose numbers must
      be seen, is decoded.
  """
  size = 0, 0
  try:
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
      return "no ordinary file", size
    if not found.st_size:
      return "an empty file", size
    with _opened(file) as image:
      size, plain, kind = image.size, image.mode in _PLAIN, image.format
    if plain and not whole and _ends_well(file, kind, found.st_size):
      return "", size
    _eight_bits(_decoded(file, file), file)
    return "", size
  except _Unreadable as e:
    return str(e), size
  except OSError as e:
    return (e.strerror or str(e)).lower(), size


def _ends_well(file: str, kind: str, length: int) -> bool:
  """Whether a file is as long as its format says, as far as that is known."""
  with open(file, "rb") as f:
    if kind == "WEBP":
      return struct.unpack("<I", f.read(8)[4:])[0] + 8 <= length
    f.seek(-min(length, 16), os.SEEK_END)
    end = f.read().rstrip(b"\0")
  return kind in _ENDS and end.endswith(_ENDS[kind])


def _opened(file: _File) -> Image.Image:
  try:
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
  except Exception as e:
    raise _Unreadable(_why(e)) from e


def _decoded(file: _File, where: str) -> Image.Image:
  """The first frame, upright, in the mode of the file."""
  with _opened(file) as image:
    try:
      if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.once(
          f"{where}: has several frames; of such files the first is read",
          "animated",
        )
        image.seek(0)
      image.load()
    # The readers of some fifty formats raise what they like.
    except Exception as e:
      raise _Unreadable(_why(e)) from e
    try:
      upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the orientation
      upright = image.copy()
  upright.format = image.format
  return upright


def _why(error: Exception) -> str:
  if isinstance(error, UnidentifiedImageError):
    return "unknown format"
  if isinstance(error, Image.DecompressionBombError):
    return f"more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels"
  if isinstance(error, FileNotFoundError):
    return "no such file"
  if isinstance(error, IsADirectoryError):
    return "a folder"
  text = getattr(error, "strerror", None) or str(error) or repr(error)
  return " ".join(text.split())


def _numbers(image: Image.Image) -> tuple[np.ndarray, float] | None:
  """(values, the value of white or 0 if nobody knows it) of an image whose
  numbers are not 8 bits."""
  if image.mode == "F":
    return np.asarray(image), 1.0
  if image.mode.startswith("I;16"):
    return np.asarray(image).astype(np.int64), 65535
  if image.mode == "I":
    # Pillow's mode of a 16-bit PGM, and of 32-bit TIFF.
    known = image.format in ("PPM", "PNG")
    return np.asarray(image).astype(np.int64), 65535 if known else 0
  return None


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
  """The image with 8 bits a channel."""
  found = _numbers(image)
  if found is None:
    if image.mode == "L" and image.getextrema()[1] == 1:
      notes.once(f"{where}: no pixel is brighter than 1 of 255, almost black")
    return image
  values, white = found
  if not np.isfinite(values).all():
    raise _Unreadable("numbers that are not finite")
  low, high = values.min(), values.max()
  if not white:
    raise _Unreadable(
      f"32-bit integers from {low} to {high}, whose white is not known; save "
      "it with 8 or 16 bits"
    )
  if low < 0 or high > white:
    raise _Unreadable(
      f"numbers from {low:g} to {high:g}, where black is 0 and white is "
      f"{white:g}; save it with 8 or 16 bits"
    )
  if white == 65535 and 0 < high <= 255:
    raise _Unreadable(
      f"16 bits, but no pixel is brighter than {high} of 65535; save it with "
      "8 bits"
    )
  if white == 65535 and 0 < high < 4096:
    notes.once(f"{where}: no pixel is brighter than {high} of 65535, dark")
  small = np.floor(values * (255.0 / white) + 0.5).astype(np.uint8)
  clear = image.info.get("transparency")
  if isinstance(clear, int):
    small = np.where(values == clear, np.uint8(255), small)
  made = Image.fromarray(small)
  if "icc_profile" in image.info:
    made.info["icc_profile"] = image.info["icc_profile"]
  return made


def _kept(image: Image.Image, where: str) -> np.ndarray:
  found = _numbers(image)
  if found is None and image.has_transparency_data:
    if image.mode == "La":
      image = image.convert("LA")
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if alpha.min() < alpha.max():
      return alpha >= 128
    if not alpha.max():
      raise _Unreadable("all of it is transparent")
    image = image.convert("RGBA").convert("RGB")
  if found is None:
    found = np.asarray(convert(image, 1)).astype(np.int64), 255
  values, white = found
  if not np.isfinite(values).all():
    raise _Unreadable("numbers that are not finite")
  low, high = values.min(), values.max()
  if low < high and ((values == low) | (values == high)).all():
    return values == high
  if not white or (white == 65535 and high <= 255):
    # 8-bit levels in a wider file.
    white = 255
  if low < 0 or high > white:
    raise _Unreadable(
      f"numbers from {low:g} to {high:g}, where white is {white:g}"
    )
  if low == high:
    return np.broadcast_to(high * 2 >= white, values.shape)
  if high * 2 < white:
    raise _Unreadable(
      f"more than two levels, none of them brighter than {high:g} of "
      f"{white:g}; make it black and white"
    )
  return values * 2 >= white


def _to_srgb(image: Image.Image, info: dict) -> Image.Image:
  """RGB, or RGBA of RGBA, of any 8-bit image."""
  if image.mode == "LAB":
    return ImageCms.applyTransform(image, _from_lab())
  if image.mode == "RGBA":
    colour, alpha = image.convert("RGB"), image.getchannel("A")
    managed = _to_srgb(colour, info)
    if managed is colour:
      return image
    managed.putalpha(alpha)
    return managed
  if image.mode not in ("L", "RGB", "CMYK"):
    image = image.convert("RGB")
  profile = info.get("icc_profile")
  transform = _from_profile(profile, image.mode) if profile else None
  if transform is not None:
    return ImageCms.applyTransform(image, transform)
  return image if image.mode in ("L", "RGB") else image.convert("RGB")


@functools.cache
def _from_lab():
  lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
  return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


@functools.lru_cache(maxsize=64)
def _from_profile(profile: bytes, mode: str):
  """The transform to sRGB, or None where the numbers are to be taken as they
  are: they are sRGB already, or the profile is damaged or of other colours."""
  space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode]
  try:
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if given.profile.xcolor_space.strip() != space:
      return None
    if "sRGB" in (given.profile.profile_description or ""):
      return None
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(given, srgb, mode, "RGB")
  except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
    return None
