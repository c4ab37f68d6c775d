"""The metrics of VTBench (arXiv 2505.13439), of images and of what is read in
them; those of the published script beside those of this library.

N images of H x W pixels and c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image as Pictures

from ar_jax.data.images import transforms
from ar_jax.evals.images import features as networks
from ar_jax.evals.images import pairs, statistics
from ar_jax.evals.text import reading
from ar_jax.evals.text.distance import edit_distance


class Pairs(NamedTuple):
  """The images of a task.

  Attributes:
    true: u8[N, H, W, c].
    made: the same, of what a tokenizer kept of them.
    texts: what is written in each, where that is known.
  """

  true: np.ndarray
  made: np.ndarray
  texts: Sequence[str] = ()


def scored(
  both: Pairs,
  net: networks.Features,
  *,
  lpips: tuple[str, str] | None = None,
  released: bool = False,
  read: reading.Reader | None = None,
) -> dict[str, float | str]:
  """The metrics of a task; see `build`.

  Args:
    both: its images.
    net: the feature network.
    lpips: the two files of LPIPS.
    released: adds `psnr_released` and `ssim_released`.
    read: the reader, of a task of text.
  """
  errors = pairs.Errors()
  errors.add(both.made, both.true)
  found = errors.results()
  del found["l1"]
  if released:
    made, true = (x.astype(np.float64) / 255 for x in (both.made, both.true))
    found["psnr_released"] = released_psnr(made, true)
    found["ssim_released"] = released_ssim(made, true)
  true, made = (net.embed(x).pooled for x in (both.true, both.made))
  found["frechet"] = statistics.frechet(
    statistics.Moments.of(made), statistics.Moments.of(true)
  )
  if lpips:
    found["perceptual"] = _lpips(lpips, both)
  else:
    apart = np.square(true - np.roll(true, 1, 0)).sum(1).mean()
    found["perceptual"] = float(
      np.square(true - made).sum(1).mean() / max(apart, 1e-12)
    )
  if read is not None:
    found |= text_errors(read(both.true), read(both.made), both.texts)
  return found


def text_errors(
  originals: Sequence[str], made: Sequence[str], written: Sequence[str] = ()
) -> dict[str, float]:
  """Error rates of what is read.

  Args:
    originals: N texts that were read in the originals.
    made: those read in their reconstructions.
    written: what was written; none where nobody knows.

  Returns:
    `cer`: edits of characters over those of the originals, `wer` the same of
    words, `wer_vtbench` the edits of characters over the words of the
    originals, as the published script counts them; `cer_gt` and
    `cer_gt_originals` against what was written. Over all texts; they may
    exceed 1.
  """
  edits = _edits(made, originals)
  letters, words = _lengths(originals)
  by_word = _edits([x.split() for x in made], [x.split() for x in originals])
  # The published script joins words by one space before it counts.
  joined = _edits(
    [" ".join(x.split()) for x in made],
    [" ".join(x.split()) for x in originals],
  )
  found = {
    "cer": edits / max(letters, 1),
    "wer": by_word / max(words, 1),
    "wer_vtbench": joined / max(words, 1),
  }
  if written:
    true = max(_lengths(written)[0], 1)
    found["cer_gt"] = _edits(made, written) / true
    found["cer_gt_originals"] = _edits(originals, written) / true
  return found


def _edits(a: Sequence, b: Sequence) -> int:
  return sum(edit_distance(x, y) for x, y in zip(a, b, strict=True))


def _lengths(texts: Sequence[str]) -> tuple[int, int]:
  """Characters and words of all texts."""
  return sum(map(len, texts)), sum(len(x.split()) for x in texts)


def released_psnr(made: np.ndarray, true: np.ndarray) -> float:
  """The published script's PSNR of f[N, H, W, c] in [0, 1]: of the squared
  error of all pixels, where the peak is the largest minus the smallest value of
  the originals, and the smallest is 0 at most."""
  peak = max(true.max(), 0) - min(true.min(), 0)
  error = np.square(np.float64(made) - true).mean()
  return float(10 * np.log10(peak**2 / error))


def released_ssim(made: np.ndarray, true: np.ndarray) -> float:
  """The published script's SSIM of a batch f[N, H, W, c]: its peak is the span
  of the values, and images are mirrored at their borders."""
  span = max(float(x.max() - x.min()) for x in (made, true))
  around = [(0, 0), *[(pairs.RADIUS,) * 2] * 2, (0, 0)]
  mirrored = (np.pad(x, around, "reflect") for x in (made, true))
  return float(pairs.ssim(*mirrored, span).mean())


def resized(both: Pairs, side: int) -> Pairs:
  """Both images of each pair at this side, bilinearly with antialiasing; 0
  leaves them."""
  if not side:
    return both

  def all_of(images: np.ndarray) -> np.ndarray:
    made = []
    for x in images:
      picture = Pictures.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
      picture = picture.resize((side, side), Pictures.Resampling.BILINEAR)
      made.append(transforms.to_array(picture))
    return np.stack(made)

  return both._replace(true=all_of(both.true), made=all_of(both.made))


def _lpips(paths: tuple[str, str], both: Pairs) -> float:
  from ar_jax.nn.losses import perceptual

  weights = perceptual.read(*paths)
  distance = jax.jit(perceptual.distance)
  signed = lambda x: x.astype(np.float32) / 127.5 - 1
  total = [
    np.asarray(distance(weights, signed(a[None]), signed(b[None])))
    for a, b in zip(both.made, both.true, strict=True)
  ]
  return float(np.mean(total))
