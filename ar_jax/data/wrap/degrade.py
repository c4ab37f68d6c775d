"""The rule `degrade`: an image as a poor camera, a poor sender and a poor
screen leave it, to be restored.

Real-ESRGAN (arXiv 2107.10833): blur, resizing, noise and JPEG, twice, each by
random strengths; at the end a low pass that rings (sinc), before or behind the
last JPEG. NSARM (arXiv 2510.00820) trains on it.

H, W sides, c channels, n side of a kernel.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image as Picture

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image
from ar_jax.data.dataset import Example
from ar_jax.data.images.transforms import to_array
from ar_jax.data.wrap.derived import Rule, field_of

_METHODS = (
  Picture.Resampling.BOX,  # the mean of an area
  Picture.Resampling.BILINEAR,
  Picture.Resampling.BICUBIC,
)


@dataclasses.dataclass(frozen=True)
class Round:
  """How strong one of the two rounds may be; as published.

  Attributes:
    blurred: share of images that are blurred.
    sigma: width of a kernel in pixels, at most and at least.
    resized: shares that grow, shrink, and keep their size.
    factor: of the sides.
    gauss: deviation of Gaussian noise, of 255.
    poisson: strength of noise of few photons.
    jpeg: quality.
  """

  blurred: float
  sigma: tuple[float, float]
  resized: tuple[float, float, float]
  factor: tuple[float, float]
  gauss: tuple[float, float]
  poisson: tuple[float, float]
  jpeg: tuple[int, int] = (30, 95)


FIRST = Round(
  1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0)
)
SECOND = Round(
  0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5)
)
_SINC = 0.1  # share of sinc kernels among those of the rounds
_LAST_SINC = 0.8
_GREY = 0.4  # share of noise that is the same in all channels


def degrade(
  *,
  field: str = "image",
  into: str = "low",
  factor: int = 4,
  rounds: int = 2,
  strength: float = 1.0,
  kernel: int = 21,
  enlarge: bool = True,
) -> Rule:
  """Adds `low`, u8[H / factor, W / factor, c], or enlarged to [H, W, c].

  Args:
    field: of whose pixels.
    into: the name of the new field.
    factor: by which sides become smaller.
    rounds: 2, as published; 1, without the second and the last low pass; 0,
      nothing but the mean over factor x factor pixels.
    strength: of blur, resizing, noise and JPEG, 1 as published: what suits 512
      pixels leaves nothing of an image of 32.
    kernel: largest side of a kernel, odd, at least 7.
    enlarge: whether it is brought back to H x W, bicubically, which is what
      restoring is measured against.

  Raises:
    UserError: an option is impossible, or the field is no image.
  """
  where = "data.derive.degrade"
  if factor < 1 or rounds not in (0, 1, 2):
    raise UserError(
      f"{where}: factor={factor}, rounds={rounds}; must be at least 1, and 0, "
      "1 or 2"
    )
  if kernel < 7 or kernel % 2 == 0 or not 0 <= strength <= 1:
    raise UserError(
      f"{where}: kernel={kernel}, strength={strength}; a kernel is odd and at "
      "least 7, a strength in [0, 1]"
    )

  def make(example: Example, rng: np.random.Generator) -> Example:
    image = field_of(example, field, "degrade")
    if image.dtype != np.uint8 or image.ndim != 3:
      raise UserError(
        f"{where}.field={field!r}: {image.dtype} of shape {image.shape} are "
        "not the pixels of an image"
      )
    height, width = image.shape[:2]
    if height % factor or width % factor:
      raise UserError(
        f"{where}.factor={factor}: images of {height}x{width} are no multiple"
      )
    size = height // factor, width // factor
    low = degraded(image, size, rng, rounds, strength, kernel)
    if enlarge and factor > 1:
      low = pixels(resized(low / 255, (height, width), 2))
    return {into: low}

  return Rule(make, {into: Image()})


def degraded(
  image: np.ndarray,
  size: tuple[int, int],
  rng: np.random.Generator,
  rounds: int = 2,
  strength: float = 1.0,
  kernel: int = 21,
) -> np.ndarray:
  """u8[h, w, c]: the image u8[H, W, c], made worse and of sides `size`;
  arguments as of `degrade`."""
  x = image.astype(np.float64) / 255
  if not rounds:
    return pixels(resized(x, size, 0))
  x = _round(x, FIRST, image.shape[:2], rng, strength, kernel)
  if rounds == 1:
    x = resized(x, size, int(rng.integers(3)))
    return pixels(jpeg(x, _quality(FIRST, rng, strength)))
  x = _round(x, SECOND, size, rng, strength, kernel)
  # The last resizing, low pass and JPEG, in one order or the other.
  taps = None
  if rng.random() < _LAST_SINC:
    side = _side(rng, kernel)
    taps = sinc(rng.uniform(np.pi * (1 - strength * 2 / 3), np.pi), side)
  quality, how = _quality(SECOND, rng, strength), int(rng.integers(3))
  if rng.random() < 0.5:
    x = _filtered(resized(x, size, how), taps)
    x = jpeg(x, quality)
  else:
    x = jpeg(x, quality)
    x = _filtered(resized(x, size, how), taps)
  return pixels(x)


def _round(
  x: np.ndarray,
  own: Round,
  base: tuple[int, int],
  rng: np.random.Generator,
  strength: float,
  kernel: int,
) -> np.ndarray:
  """Blur, resizing to a share of `base`, noise, JPEG; but the second round
  leaves its JPEG to the end."""
  if rng.random() < own.blurred:
    x = _filtered(x, random_kernel(rng, own.sigma, strength, kernel))
  grow, shrink, _ = own.resized
  which, factor = rng.random(), 1.0
  if which < grow:
    factor = rng.uniform(1.0, 1 + strength * (own.factor[1] - 1))
  elif which < grow + shrink:
    factor = rng.uniform(1 - strength * (1 - own.factor[0]), 1.0)
  sides = tuple(max(1, round(side * factor)) for side in base)
  x = np.clip(resized(x, sides, int(rng.integers(3))), 0, 1)
  x = _noisy(x, own, rng, strength)
  return jpeg(x, _quality(own, rng, strength)) if own is FIRST else x


def _quality(own: Round, rng: np.random.Generator, strength: float) -> int:
  low, high = own.jpeg
  return int(rng.integers(round(high - strength * (high - low)), high + 1))


def _side(rng: np.random.Generator, largest: int) -> int:
  return int(rng.choice(np.arange(7, largest + 1, 2)))


def _noisy(
  x: np.ndarray, own: Round, rng: np.random.Generator, strength: float
) -> np.ndarray:
  grey = rng.random() < _GREY
  seen = x.mean(-1, keepdims=True) if grey else x
  if rng.random() < 0.5:
    noise = rng.standard_normal(seen.shape) * rng.uniform(*own.gauss) / 255
  else:
    # Counts of photons, as many as 256 levels need.
    levels = 2.0 ** np.ceil(np.log2(max(2, len(np.unique(pixels(seen))))))
    noise = rng.poisson(np.clip(seen, 0, 1) * levels) / levels - seen
    noise = noise * rng.uniform(*own.poisson)
  return np.clip(x + strength * noise, 0, 1)


def random_kernel(
  rng: np.random.Generator,
  sigma: tuple[float, float],
  strength: float = 1.0,
  largest: int = 21,
) -> np.ndarray:
  """f64[n, n]: a kernel of blur, whose sum is 1; round or long, Gaussian,
  flatter or steeper, or a plateau."""
  side = _side(rng, largest)
  if rng.random() < _SINC:
    share = 2 / 3 if side < 13 else 4 / 5
    return sinc(rng.uniform(np.pi * (1 - strength * share), np.pi), side)
  names = ("gauss", "long gauss", "general", "long general", "plateau")
  shares = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
  kind = str(rng.choice((*names, "long plateau"), p=shares))
  wide = strength * rng.uniform(*sigma)
  tall, angle = wide, 0.0
  if kind.startswith("long"):
    tall = strength * rng.uniform(*sigma)
    angle = rng.uniform(-np.pi, np.pi)
  power = 1.0
  if "general" in kind:
    power = _around_one(rng, 0.5, 4.0)
  elif "plateau" in kind:
    power = _around_one(rng, 1.0, 2.0)
  return bell(side, wide, tall, angle, power, plateau="plateau" in kind)


def _around_one(rng: np.random.Generator, low: float, high: float) -> float:
  return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)


def bell(
  side: int,
  wide: float,
  tall: float,
  angle: float = 0.0,
  power: float = 1.0,
  *,
  plateau: bool = False,
) -> np.ndarray:
  """f64[n, n]: exp(-d^power / 2), or 1 / (1 + d^power), of the square d of the
  distance from the middle in units of the widths along two turned axes."""
  y, x = np.mgrid[:side, :side] - side // 2
  along = x * np.cos(angle) + y * np.sin(angle)
  across = y * np.cos(angle) - x * np.sin(angle)
  # Narrower ones are one pixel anyway.
  d = (along / max(wide, 0.05)) ** 2 + (across / max(tall, 0.05)) ** 2
  d = d**power
  values = 1 / (1 + d) if plateau else np.exp(-0.5 * d)
  return values / values.sum()


def sinc(cutoff: float, side: int) -> np.ndarray:
  """f64[n, n]: the round low pass of this cut-off in radians a pixel, which
  rings at edges; its sum is 1."""
  from scipy import special  # slow to import

  y, x = np.mgrid[:side, :side] - side // 2
  r = np.hypot(y, x)
  r[side // 2, side // 2] = 1
  values = cutoff * special.j1(cutoff * r) / (2 * np.pi * r)
  values[side // 2, side // 2] = cutoff**2 / (4 * np.pi)
  return values / values.sum()


def _filtered(x: np.ndarray, taps: np.ndarray | None) -> np.ndarray:
  """x f64[H, W, c], each channel by the kernel, mirrored at its borders."""
  from scipy import ndimage

  if taps is None:
    return x
  found = ndimage.convolve(x, taps[..., None], mode="mirror")
  return np.clip(found, 0, 1)


def resized(x: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
  """f64[h, w, c] of x f64[H, W, c], by the mean of areas, bilinearly or
  bicubically (0, 1, 2), in floating point."""
  if x.shape[:2] == tuple(size):
    return x
  channels = [
    Picture.fromarray(x[..., i].astype(np.float32)).resize(
      (size[1], size[0]), _METHODS[how]
    )
    for i in range(x.shape[-1])
  ]
  return np.stack([np.asarray(c, np.float64) for c in channels], -1)


def jpeg(x: np.ndarray, quality: int) -> np.ndarray:
  """x f64[H, W, c], written as JPEG of this quality and read again."""
  data = pixels(x)
  picture = Picture.fromarray(data[..., 0] if data.shape[-1] == 1 else data)
  file = io.BytesIO()
  picture.save(file, "JPEG", quality=quality)
  file.seek(0)
  return to_array(Picture.open(file)).astype(np.float64) / 255


def pixels(x: np.ndarray) -> np.ndarray:
  """u8 of numbers in [0, 1], rounded to nearest."""
  return np.floor(np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
