"""How near images are to what they should be: the test example that each
condition comes from. For super-resolution, editing, reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ar_jax import conditions
from ar_jax.core.forms import Image
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.evals import samples

_SIGMA, RADIUS = 1.5, 5  # an 11-pixel window
_MOST_DB = 100.0
_MEAN_OF = 2000  # training images that the baseline is the mean of


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio in dB of u8[N, H, W, C], f64[N].

  At most 100 dB, which stands for equal images, too: one exact image would
  make the mean of all infinite.
  """
  return decibel(squared_error(x, y))


def squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Mean over pixels and channels of u8[N, H, W, C], f64[N]."""
  return np.square(x.astype(np.float64) - y).mean((1, 2, 3))


def decibel(error: np.ndarray) -> np.ndarray:
  """Of mean squared errors; not more than _MOST_DB."""
  return 10 * np.log10(
    255**2 / np.maximum(error, 255**2 / 10 ** (_MOST_DB / 10))
  )


def ssim(x: np.ndarray, y: np.ndarray, peak: float = 255.0) -> np.ndarray:
  """Structural similarity of u8[N, H, W, C], f64[N] (Wang et al. 2004).

  Gaussian window of sigma 1.5 and 11 pixels, the valid region only, each
  channel by itself. Images may be of floats, whose values span `peak`.

  Raises:
    UserError: the images are smaller than the window.
  """
  if not fits(x):
    raise UserError(
      f"SSIM needs images of at least {2 * RADIUS + 1} pixels, not "
      f"{x.shape[1]}x{x.shape[2]}"
    )
  x, y = x.astype(np.float64), y.astype(np.float64)
  mx, my = _blur(x), _blur(y)
  vx, vy = _blur(x * x) - mx * mx, _blur(y * y) - my * my
  cov = _blur(x * y) - mx * my
  c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
  same = (2 * mx * my + c1) * (2 * cov + c2)
  return (same / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean((1, 2, 3))


def fits(x: np.ndarray) -> bool:
  """Whether the window of SSIM fits into images [N, H, W, C]."""
  return min(x.shape[1:3]) > 2 * RADIUS


def _blur(x: np.ndarray) -> np.ndarray:
  """Gaussian mean over the window, where it lies within the image."""
  taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / _SIGMA) ** 2)
  taps /= taps.sum()
  for axis in (1, 2):
    size = x.shape[axis] - 2 * RADIUS
    cut = lambda i, x=x, axis=axis, size=size: x.take(range(i, i + size), axis)
    x = sum(tap * cut(i) for i, tap in enumerate(taps))
  return x


class Errors:
  """Errors of a stream of images u8[N, H, W, C] against the true ones."""

  def __init__(self):
    self._rows: dict[str, list[np.ndarray]] = {}

  def add(
    self, x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None
  ) -> None:
    """Takes in N pairs.

    Args:
      x: what was made.
      y: what is true.
      mask: [N, H, W], which pixels are also counted by themselves.
    """
    apart = np.abs(x.astype(np.float64) - y) / 255
    found = {
      "psnr": psnr(x, y),
      "squared": squared_error(x, y),
      "l1": apart.mean((1, 2, 3)),
    }
    if fits(x):
      found["ssim"] = ssim(x, y)
    if mask is not None:
      inside = np.asarray(mask, np.float64)[..., None] * np.ones(x.shape[-1])
      found["inside"] = (apart * inside).sum((1, 2, 3))
      found["inside_count"] = inside.sum((1, 2, 3))
      found["outside"] = (apart * (1 - inside)).sum((1, 2, 3))
      found["outside_count"] = (1 - inside).sum((1, 2, 3))
    for name, values in found.items():
      self._rows.setdefault(name, []).append(values)

  def results(self) -> dict[str, float | str]:
    """`psnr` (the mean over images, of which none counts for more than 100
    dB), `psnr_pooled` (of the mean squared error of all), `ssim`, `l1` (of
    pixels in [0, 1]), and with masks `l1_masked`, `l1_unmasked` of the pixels
    in and outside of them."""
    rows = {k: np.concatenate(v) for k, v in self._rows.items()}
    found: dict[str, float | str] = {
      "psnr": float(rows["psnr"].mean()),
      "psnr_pooled": float(decibel(rows["squared"].mean())),
      "ssim": float(rows["ssim"].mean())
      if "ssim" in rows
      else "unavailable: the images are smaller than its window",
      "l1": float(rows["l1"].mean()),
    }
    for name, key in (("l1_masked", "inside"), ("l1_unmasked", "outside")):
      if key in rows:
        count = rows[f"{key}_count"].sum()
        found[name] = (
          float(rows[key].sum() / count)
          if count
          else "unavailable: there are no such pixels"
        )
    return found


def build(
  data: Dataset,
  *,
  field: str = "image",
  n: int = 0,
  mask: str = "",
  baseline: str = "",
  batch: int = 100,
  options: Mapping[str, Any] | None = None,
  draw: samples.Draw | None = None,
):
  """The evaluator of images that have a truth.

  Args:
    data: conditions and true images are of its test split.
    field: the image that the system makes.
    n: how many test examples, in a random order; 0 means all.
    mask: a field [H, W] of the examples, 1 where pixels are counted by
      themselves, as well: what was to be kept, or filled in.
    baseline: a field of the examples, an image of the same shape, that is
      scored as if it had been made, as the low resolution enlarged; by default
      the mean image of the training split.
    batch: samples drawn at once.
    options: of `system.sample`.
    draw: in place of `ar_jax.step.draw`.

  Returns:
    An evaluator. Its results are those of `Errors.results`, each also with
    `_baseline`.

  Raises:
    UserError: the data have no such image.
  """
  if not isinstance(data.forms.get(field), Image):
    raise UserError(
      f"evals.pairs: field={field!r} is no image of {data.name!r}, which has "
      f"{', '.join(data.forms)}"
    )
  fields = tuple(dict.fromkeys(k for k in (field, mask, baseline) if k))
  n = n or len(data.test)

  def mean_image() -> np.ndarray:
    rows = conditions.some(len(data.train), min(len(data.train), _MEAN_OF))
    total = sum(data.train[int(i)][field].astype(np.float64) for i in rows)
    return np.floor(total / len(rows) + 0.5).astype(np.uint8)

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, field, "pairs")
    samples.check_pairs(system, "pairs")
    cond = conditions.conditions(system, data, n)
    drawn = samples.field(
      field, system, variables, cond, key, evaluator="pairs", batch=batch,
      forms=data.forms, options=options, draw=draw,
    )  # fmt: skip
    ours, base, start = Errors(), Errors(), 0
    mean = None if baseline else mean_image()
    for images in drawn:
      count = len(images)
      rows = conditions.truth(system, data, count, fields=fields, start=start)
      true, where = rows[field], rows.get(mask)
      _check(images, true, "the system draws", field)
      other = (
        np.broadcast_to(mean, true.shape)
        if mean is not None
        else (rows[baseline])
      )
      _check(other, true, f"baseline={baseline!r} is", field)
      ours.add(images, true, where)
      base.add(other, true, where)
      start += count
    return {
      **ours.results(),
      **{f"{k}_baseline": v for k, v in base.results().items()},
      "protocol": {
        "images": n,
        "psnr": "mean over images, at most 100 dB each",
        "pixels": "floor(255 x + 0.5) of x clipped to [0, 1]",
        "baseline": baseline or "the mean training image",
        "conditions": conditions.described(system, ""),
        "options": dict(options or {}),
      },
    }

  return evaluate


def _check(x: np.ndarray, true: np.ndarray, what: str, field: str) -> None:
  if x.shape != true.shape:
    raise UserError(
      f"evals.pairs: {what} {x.shape[1:]}, the field {field!r} of the data is "
      f"{true.shape[1:]}"
    )
