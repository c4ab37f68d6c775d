"""Bands of spatial frequency: what of a latent each step of a list may hold.

Step k of K, whose map has the side s_k, is given the frequencies of the bands
up to its own: a low-pass LP_k of the latent, of side h = s_K. LP_K is all of
it. Two rules say where the bands end:

  area_radial  by radius: band k is as wide as its map is large, as NFIG (arXiv
               2503.07076) writes it. On small grids the first bands are
               narrower than the distance of two frequencies, and stay empty;
  nyquist      by what a map of s_k x s_k can hold: frequencies of less than
               s_k / 2 periods on both axes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice

Array = jax.Array


def _area_radial(sides: np.ndarray, periods: np.ndarray) -> np.ndarray:
  radius = np.sqrt(np.square(periods[:, None]) + np.square(periods[None]))
  edges = np.cumsum(np.square(sides)) / np.square(sides).sum() * radius.max()
  return radius[None] < edges[:, None, None]


def _nyquist(sides: np.ndarray, periods: np.ndarray) -> np.ndarray:
  largest = np.maximum(abs(periods)[:, None], abs(periods)[None])
  return largest[None] < sides[:, None, None] / 2


RULES = {"area_radial": _area_radial, "nyquist": _nyquist}


@functools.cache
def low(sides: tuple[int, ...], rule: str) -> np.ndarray:
  """bool[K, h, h], read-only: the bins of a Fourier transform of side h = s_K
  that LP_k keeps; those of step k hold those of step k - 1.

  Args:
    sides: s_1 < ... < s_K.
    rule: a key of RULES.

  Raises:
    UserError: there is no such rule.
  """
  check_choice("bands", rule, RULES)
  side = sides[-1]
  # Each with its sign: a mask is the same at (u, v) and (-u, -v).
  periods = np.fft.fftfreq(side, 1 / side)
  kept = RULES[rule](np.asarray(sides, float), periods)
  kept[-1] = True  # the last band is closed
  kept.setflags(write=False)
  return kept


def bins(sides: Sequence[int], rule: str) -> tuple[int, ...]:
  """How many of the h^2 bins each band adds."""
  total = low(tuple(sides), rule).sum((1, 2))
  return tuple(np.diff(total, prepend=0).tolist())


def passed(f: Array, mask: np.ndarray) -> Array:
  """f32[B, h, h, C]: of f the frequencies bool[h, h] alone, in float32."""
  spectrum = jnp.fft.fft2(f.astype(jnp.float32), axes=(1, 2))
  spectrum = jnp.where(mask[None, :, :, None], spectrum, 0)
  return jnp.fft.ifft2(spectrum, axes=(1, 2)).real
