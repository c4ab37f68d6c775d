"""What happens to images on their way, or is done to them to take a mark out.

An attack is named by what it is and how strong: `noise:0.05`.

  noise:S       Gaussian noise, of deviation S where white is 1
  blur:S        a Gaussian of S pixels
  jpeg:Q        compression of quality Q, 1 to 95
  resize:F      made smaller by the factor F and large again, bicubically
  crop:N        N rows and columns cut off above and at the left, where the
                rest moves to; the border is repeated
  brightness:F  times F
  denoise:S     regeneration: noise as above, which a small denoising
                autoencoder takes out that is trained on the data
  tokenizer:DIR regeneration: encoded and decoded by the tokenizer of a run

Regeneration by diffusion models (as in the paper) is done elsewhere: score the
folder of what came back. Images are u8[N, H, W, c].
"""

from __future__ import annotations

import functools
import io
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from ar_jax.core.errors import UserError
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import build
from ar_jax.data import Dataset

Attack = Callable[[np.ndarray, int], np.ndarray]  # (images, seed) -> images


def noise(images: np.ndarray, seed: int, deviation: float) -> np.ndarray:
  """Gaussian noise, of a deviation where white is 1."""
  rng = np.random.default_rng(seed)
  own = rng.normal(0, 255 * deviation, images.shape)
  return _eight_bits(images + own)


def blur(images: np.ndarray, seed: int, sigma: float) -> np.ndarray:
  """A Gaussian of sigma pixels."""
  from scipy import ndimage  # slow to import

  del seed
  by = (0, sigma, sigma, 0)
  return _eight_bits(ndimage.gaussian_filter(images.astype(float), by))


def jpeg(images: np.ndarray, seed: int, quality: float) -> np.ndarray:
  """Compressed and read again."""
  del seed

  def one(image):
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=int(quality))
    return _array(Image.open(file))

  return np.stack([one(image) for image in images])


def resize(images: np.ndarray, seed: int, factor: float) -> np.ndarray:
  """Smaller, and large again, bicubically."""
  del seed
  height, width = images.shape[1:3]
  small = max(1, round(width * factor)), max(1, round(height * factor))

  def one(image):
    made = _picture(image).resize(small, Image.Resampling.BICUBIC)
    return _array(made.resize((width, height), Image.Resampling.BICUBIC))

  return np.stack([one(image) for image in images])


def crop(images: np.ndarray, seed: int, rows: float) -> np.ndarray:
  """Cut off above and at the left."""
  del seed
  return moved(images, -int(rows), -int(rows))


def brightness(images: np.ndarray, seed: int, factor: float) -> np.ndarray:
  """Times a factor."""
  del seed
  return _eight_bits(images * factor)


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
  """Images moved by so many pixels; the border is repeated."""
  height, width = images.shape[1:3]
  rows = np.clip(np.arange(height) - down, 0, height - 1)
  columns = np.clip(np.arange(width) - right, 0, width - 1)
  return images[:, rows][:, :, columns]


# Name -> what it does, and between which strengths.
KINDS: dict[str, tuple[Callable, float, float]] = {
  "noise": (noise, 0.0, 10.0),
  "blur": (blur, 0.0, 100.0),
  "jpeg": (jpeg, 1, 95),
  "resize": (resize, 0.01, 1.0),
  "crop": (crop, 0, 10_000),
  "brightness": (brightness, 0.0, 10.0),
}


def attack(name: str, data: Dataset, steps: int = 300) -> Attack:
  """The attack of a name.

  Args:
    name: `KIND:STRENGTH`, see the module's docstring.
    data: what a denoiser is trained on.
    steps: of its training.

  Raises:
    UserError: there is no such attack, or its strength is out of range, or the
      run has no tokenizer.
  """
  kind, _, given = str(name).partition(":")
  if kind == "tokenizer":
    return regeneration(given)
  if kind not in {*KINDS, "denoise"}:
    raise UserError(
      f"attack {name!r}: choose of {', '.join(KINDS)}, denoise and tokenizer, "
      "with a strength, as 'noise:0.05', or the folder of a run"
    )
  make, least, most = KINDS.get(kind, (None, 0.0, 10.0))
  try:
    strength = float(given)
  except ValueError:
    strength = np.nan
  if not least <= strength <= most:
    raise UserError(
      f"attack {name!r}: say {kind}:X with X in {least} to {most}"
    )
  if make is not None:
    return functools.partial(_in_place, make, strength)
  from ar_jax.evals.safety import denoiser

  return denoiser.trained(data, strength, steps)


def _in_place(make, strength, images, seed):
  return make(images, seed, strength)


def regeneration(workdir: str, batch: int = 100) -> Attack:
  """Encoded and decoded by the tokenizer of another run.

  Raises:
    UserError: there is no such run, or it is of no tokenizer.
  """
  from ar_jax import checkpoint, run_files

  folder = run_files.last_stage(pathlib.Path(workdir).expanduser())
  config = run_files.config_of(folder)
  system = build(config.system, **config.model.to_dict())
  if not hasattr(system, "tokenizer") or system.needs != ("image",):
    raise UserError(
      f"attack 'tokenizer:{workdir}': that is a {config.system}; name the run "
      "of a tokenizer"
    )
  return by_tokenizer(system, checkpoint.load(folder)[0], batch)


@functools.partial(jax.jit, static_argnums=0)
def _again(system, variables, images):
  return system.sample(variables, {"image": images}, None)


def by_tokenizer(system, variables, batch: int = 100) -> Attack:
  """Encoded and decoded by a tokenizer and its weights."""

  def attacked(images, seed):
    del seed
    parts = []
    for start in range(0, len(images), batch):
      some = images[start : start + batch]
      rows = np.minimum(np.arange(batch), len(some) - 1)
      made = np.asarray(_again(system, variables, some[rows]))
      parts.append(to_uint8(made[: len(some)]))
    return np.concatenate(parts)

  return attacked


def _eight_bits(x: np.ndarray) -> np.ndarray:
  return np.clip(np.floor(x + 0.5), 0, 255).astype(np.uint8)


def _picture(image: np.ndarray) -> Image.Image:
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _array(picture: Image.Image) -> np.ndarray:
  x = np.asarray(picture)
  return x[..., None] if x.ndim == 2 else x
