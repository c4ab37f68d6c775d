"""Picture files as people have them: name -> (how to write one, what is read).

What is read is the pixels, u8[32, 32, 3] of size 32, with how far they may be
off; or a pattern of the line with which the file is refused.
"""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
RGB = np.stack([RAMP, RAMP[:, ::-1], RAMP * 0 + 128], -1)
GREY = np.repeat(RAMP[..., None], 3, -1)
WIDE = RAMP.astype(np.uint16) * 257
EDGE = np.concatenate([RGB[:16], 255 - RGB[16:]])  # no symmetry
_ON_WHITE = np.round(
  RGB * (RAMP[..., None] / 255.0) + 255 - RAMP[..., None]
).astype(np.uint8)
# What EXIF's orientations 1 to 8 say of how the pixels are stored.
_TURNED = (
  lambda x: x,
  lambda x: x[:, ::-1],
  lambda x: x[::-1, ::-1],
  lambda x: x[::-1],
  lambda x: x.swapaxes(0, 1),
  lambda x: np.rot90(x, 1),
  lambda x: x[::-1, ::-1].swapaxes(0, 1),
  lambda x: np.rot90(x, 3),
)


def _save(image, name="x.png", **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(np.ascontiguousarray(image))
  return lambda d: image.save(os.path.join(d, name), **options)


def _bytes(raw, name="x.png"):
  def write(d):
    with open(os.path.join(d, name), "wb") as f:
      f.write(raw)

  return write


def _encoded(format, array=RGB, **options):
  out = io.BytesIO()
  Image.fromarray(array).save(out, format, **options)
  return out.getvalue()


def _chunk(kind, body):
  check = struct.pack(">I", zlib.crc32(kind + body))
  return struct.pack(">I", len(body)) + kind + body + check


def _png(width, height, depth, colour, rows):
  header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", header)
    + _chunk(b"IDAT", zlib.compress(rows))
    + _chunk(b"IEND", b"")
  )


def _flipped_bit(raw, at):
  raw = bytearray(raw)
  raw[at] ^= 0xFF
  return bytes(raw)


def _turned(orientation, name):
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"quality": 100, "subsampling": 0} if name == "x.jpg" else {}
  if name == "x.webp":
    options = {"lossless": True}
  return _save(_TURNED[orientation - 1](EDGE), name, exif=exif, **options)


def profile(swapped=False):
  """sRGB; or a space whose red is sRGB's green, so that its use shows."""
  made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
  raw = bytearray(made.tobytes())
  if swapped:
    tags = {}
    for i in range(struct.unpack(">I", raw[128:132])[0]):
      at = 132 + 12 * i
      tags[bytes(raw[at : at + 4])] = at + 4
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    raw[red : red + 8], raw[green : green + 8] = (
      raw[green : green + 8],
      raw[red : red + 8],
    )
    raw = raw.replace("sRGB".encode("utf-16be"), "test".encode("utf-16be"))
  return bytes(raw)


def _frames(name, **options):
  frames = [Image.fromarray(RGB)] + [
    Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")
  ]
  return lambda d: frames[0].save(
    os.path.join(d, name), save_all=True, append_images=frames[1:], **options
  )


def _link(d):
  os.symlink("/nonexistent/x.jpg", os.path.join(d, "x.jpg"))


def _pipe(d):
  os.mkfifo(os.path.join(d, "x.jpg"))


_UPRIGHT = {
  f"exif_{k}_{name[2:]}": (_turned(k, name), (EDGE, 3))
  for k, name in [(k, "x.jpg") for k in range(1, 9)]
  + [(6, "x.png"), (6, "x.webp"), (8, "x.tif")]
}
_ONE = np.full((32, 32, 3), (9, 99, 199), np.uint8)
_RGB16 = np.concatenate(
  [np.zeros((32, 1), np.uint8), RGB.repeat(2, -1).reshape(32, -1)], 1
)
_SMALL = "pixels are enlarged"

PICTURES = {
  # Depth.
  "png_16_bit": (_save(WIDE), (GREY, 0)),
  "tiff_16_bit": (_save(WIDE, "x.tif"), (GREY, 0)),
  "tiff_16_bit_big_endian": (
    _save(
      Image.frombytes("I;16B", (32, 32), WIDE.astype(">u2").tobytes()), "x.tif"
    ),
    (GREY, 0),
  ),
  "pgm_16_bit": (
    _bytes(b"P5 32 32 65535\n" + WIDE.astype(">u2").tobytes(), "x.pgm"),
    (GREY, 0),
  ),
  "png_16_bit_colour": (
    _bytes(_png(32, 32, 16, 2, _RGB16.tobytes())), (RGB, 0)
  ),
  "png_16_bit_clear_level": (
    _save(Image.fromarray(WIDE), transparency=0),
    (np.where(GREY == 0, 255, GREY), 0),
  ),
  "8_bits_in_16": (
    _save(RAMP.astype(np.uint16)), "no pixel is brighter than 255 of 65535"
  ),
  "float": (_save((RAMP / 255).astype(np.float32), "x.tif"), (GREY, 0)),
  "float_255": (
    _save(RAMP.astype(np.float32), "x.tif"), "numbers from 0 to 255"
  ),
  "float_negative": (
    _save((RAMP / 255 - 0.5).astype(np.float32), "x.tif"), "numbers from -0.5"
  ),
  "float_nan": (
    _save(np.full((32, 32), np.nan, np.float32), "x.tif"), "not finite"
  ),
  "int_32": (_save(RAMP.astype(np.int32), "x.tif"), "32-bit integers from 0"),
  "bmp_1_bit": (_save(RAMP > 127, "x.bmp"), ((GREY > 127) * 255, 0)),
  "png_1_bit": (_save(RAMP > 127), ((GREY > 127) * 255, 0)),
  "tiff_1_bit": (_save(RAMP > 127, "x.tif"), ((GREY > 127) * 255, 0)),
  # Palettes and transparency.
  "png_palette": (
    _save(Image.fromarray(RAMP).quantize(32)), (GREY, 8)
  ),
  "png_palette_clear": (
    _save(Image.fromarray(RAMP).quantize(4), transparency=bytes(4)),
    (_ONE * 0 + 255, 0),
  ),
  "gif_clear": (
    _save(Image.new("P", (32, 32), 3), "x.gif", transparency=3),
    (_ONE * 0 + 255, 0),
  ),
  "png_rgba": (_save(np.dstack([RGB, RAMP])), (_ON_WHITE, 1)),
  "webp_rgba": (
    _save(np.dstack([RGB, RAMP]), "x.webp", lossless=True, exact=True),
    (_ON_WHITE, 1),
  ),
  "tiff_rgba": (_save(np.dstack([RGB, RAMP]), "x.tif"), (_ON_WHITE, 1)),
  "png_grey_alpha": (
    _save(np.dstack([RAMP * 0, RAMP])), (255 - GREY, 1)
  ),
  "png_all_clear": (
    _save(np.zeros((32, 32, 4), np.uint8)), (GREY * 0 + 255, 0)
  ),
  "png_clear_colour": (
    _save(Image.fromarray(_ONE), transparency=(9, 99, 199)),
    (_ONE * 0 + 255, 0),
  ),
  # Colours.
  "jpeg_cmyk": (
    _save(Image.fromarray(RGB).convert("CMYK"), "x.jpg", quality=95), (RGB, 12)
  ),
  "tiff_cmyk": (_save(Image.fromarray(RGB).convert("CMYK"), "x.tif"), (RGB, 2)),
  "tiff_ycbcr": (
    _save(Image.fromarray(RGB).convert("YCbCr"), "x.tif"), (RGB, 4)
  ),
  "tiff_lab": (
    _save(Image.new("LAB", (32, 32), (128, 128, 128)), "x.tif"),
    (np.full((32, 32, 3), 119), 2),
  ),
  "srgb_profile": (_save(RGB, icc_profile=profile()), (RGB, 0)),
  "other_profile": (
    _save(RGB, icc_profile=profile(swapped=True)), (RGB[..., [1, 0, 2]], 3)
  ),
  "other_profile_rgba": (
    _save(
      np.dstack([RGB, RAMP * 0 + 255]), icc_profile=profile(swapped=True)
    ),
    (RGB[..., [1, 0, 2]], 3),
  ),
  "damaged_profile": (_save(RGB, icc_profile=b"x" * 200), (RGB, 0)),
  "profile_of_other_colours": (
    _save(RAMP, icc_profile=profile(swapped=True)), (GREY, 0)
  ),
  # Orientation.
  **_UPRIGHT,
  "damaged_exif": (_save(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff"), (RGB, 0)),
  # Several pictures in one file: the first.
  "gif_animated": (_frames("x.gif"), (RGB, 40), "has several frames"),
  "webp_animated": (
    _frames("x.webp", lossless=True), (RGB, 1), "has several frames"
  ),
  "png_animated": (_frames("x.png"), (RGB, 0), "has several frames"),
  "tiff_pages": (_frames("x.tif"), (RGB, 0), "has several frames"),
  "mpo_of_a_telephone": (_frames("x.jpg", format="MPO", quality=95), (RGB, 9)),
  # Formats and names.
  "png_named_jpg": (_bytes(_encoded("PNG"), "x.JPG"), (RGB, 0)),
  "jfif": (_save(RGB, "x.jfif", format="JPEG", quality=95), (RGB, 9)),
  "ppm": (_save(RGB, "x.ppm"), (RGB, 0)),
  "tga": (_save(RGB, "x.tga"), (RGB, 0)),
  "jpeg_2000": (_save(RGB, "x.jp2"), (RGB, 1)),
  "avif": (_save(RGB, "x.avif", quality=100), (RGB, 9)),
  "tiff_lzw": (_save(RGB, "x.tif", compression="tiff_lzw"), (RGB, 0)),
  # Sizes.
  "1x1": (_save(_ONE[:1, :1]), (_ONE, 0), _SMALL),
  "1x3000": (_save(np.repeat(_ONE[:1, :1], 3000, 0)), (_ONE, 0), _SMALL),
  "40000x2": (
    _save(np.resize(_ONE, (2, 40000, 3)), "x.jpg"), (_ONE, 2), _SMALL
  ),
  "182_million_pixels": (
    _bytes(_png(14000, 13000, 8, 0, b"")), "more than 178 million pixels"
  ),
  # Damage.
  "jpeg_cut": (_bytes(_encoded("JPEG")[:-300], "x.jpg"), "."),
  "png_cut": (_bytes(_encoded("PNG")[:-40]), "."),
  "webp_cut": (_bytes(_encoded("WEBP")[:-40], "x.webp"), "."),
  "gif_cut": (
    _bytes(_encoded("GIF", RAMP)[:-300], "x.gif"), "."
  ),
  "png_flipped_bit": (
    _bytes(_flipped_bit(_encoded("PNG"), 60)), "broken data stream"
  ),
  "png_large_text": (
    _bytes(
      _encoded("PNG")[:33]
      + _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3_000_000))
      + _encoded("PNG")[33:]
    ),
    "Decompressed data too large",
  ),
  "zero_bytes": (_bytes(b"", "x.jpg"), "an empty file"),
  "html": (_bytes(b"<html>404</html>", "x.jpg"), "unknown format"),
  "svg": (_bytes(b"<svg xmlns='x'/>"), "unknown format"),
  "broken_link": (_link, "no such file"),
  "pipe": (_pipe, "no ordinary file"),
  # Numbers that are likely a mistake.
  "0_and_1": (
    _save((RAMP > 127).astype(np.uint8)), ((GREY > 127) * 1, 0), "almost black"
  ),
  "12_bits_in_16": (
    _save(WIDE // 16), (GREY / 16, 1), "no pixel is brighter than 4095"
  ),
}  # fmt: skip

_HOLE = np.zeros((32, 32), np.uint8)
_HOLE[8:20, 4:30] = 1


def _alpha(grey, alpha):
  return np.dstack([grey, grey, grey, alpha]).astype(np.uint8)


_KEEP = _HOLE > 0
# name -> (how to write it, where the image is kept; or how it is refused).
MASKS = {
  "black_and_white": (_save(_HOLE * 255), _KEEP),
  "0_and_1": (_save(_HOLE), _KEEP),
  "1_bit": (_save(_HOLE > 0), _KEEP),
  "0_and_100": (_save(_HOLE * 100), _KEEP),
  "16_bit": (_save(_HOLE.astype(np.uint16) * 65535), _KEEP),
  "16_bit_0_and_1": (_save(_HOLE.astype(np.uint16)), _KEEP),
  "int_32_0_and_1": (_save(_HOLE.astype(np.int32), "x.tif"), _KEEP),
  "float": (_save(_HOLE.astype(np.float32), "x.tif"), _KEEP),
  "palette_0_and_1": (
    _save(Image.fromarray(_HOLE * 255).quantize(2)), _KEEP
  ),
  "colour": (_save(np.dstack([_HOLE * 255] * 3)), _KEEP),
  "jpeg": (_save(_HOLE * 255, "x.jpg", quality=90), _KEEP),
  "white_on_clear": (_save(_alpha(_HOLE * 0 + 255, _HOLE * 255)), _KEEP),
  "black_on_clear": (_save(_alpha(_HOLE * 0, _HOLE * 255)), _KEEP),
  "picture_with_a_clear_hole": (
    _save(np.dstack([RGB, _HOLE * 255])), _KEEP
  ),
  "opaque_black_and_white": (
    _save(_alpha(_HOLE * 255, _HOLE * 0 + 255)), _KEEP
  ),
  "soft": (
    _save(np.where(_HOLE > 0, RAMP // 2 + 128, RAMP // 3)), _KEEP
  ),
  "all_white": (_save(_HOLE * 0 + 255), "keeps all of the image"),
  "all_black": (_save(_HOLE * 0), "keeps nothing of the image"),
  "all_one": (_save(_HOLE * 0 + 1), "keeps nothing of the image"),
  "all_clear": (_save(_alpha(_HOLE, _HOLE * 0)), "all of it is transparent"),
  "classes": (
    _save(_HOLE + 2 * (RAMP > 99).astype(np.uint8)), "none .* brighter than 3"
  ),
  "float_nan": (
    _save(np.full((32, 32), np.nan, np.float32), "x.tif"), "not finite"
  ),
  "html": (_bytes(b"<html>"), "cannot be read as a mask .unknown format"),
}  # fmt: skip
