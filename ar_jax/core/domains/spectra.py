"""Peaks of a mass spectrum as a network reads them; on the host, in float64.

P peaks at most.
"""

from __future__ import annotations

import numpy as np

_ADDUCT = 1.007825  # of a precursor's peak, as spectrum_utils has it


def cleaned(
  mz: np.ndarray,
  intensity: np.ndarray,
  precursor: float,
  charge: int,
  *,
  most: int,
  low: float = 1.0,
  high: float = 6500.0,
  near: float = 1.0,
  least: float = 0.0,
) -> np.ndarray:
  """f64[n, 2], n <= `most`: m/z and intensity of the peaks that count, by m/z:
  within `low` and `high`; not the precursor's at any charge from its own down
  to 1; the strongest of those. Intensities are square roots of norm 1.

  Args:
    mz, intensity: f[n].
    precursor: m/z.
    charge: of the precursor.
    most: peaks.
    low, high: of m/z.
    near: Da within which a peak is the precursor's.
    least: share of the strongest peak up to which one is noise.
  """
  mz, intensity = np.asarray(mz, float), np.asarray(intensity, float)
  kept = (mz >= low) & (mz <= high)
  mass = (precursor - _ADDUCT) * charge
  for z in range(charge, 0, -1):
    kept &= np.abs(mz - (mass / z + _ADDUCT)) > near
  mz, intensity = mz[kept], intensity[kept]
  if len(mz):
    kept = intensity > least * intensity.max()
    mz, intensity = mz[kept], intensity[kept]
  strongest = np.argsort(-intensity, kind="stable")[:most]
  order = strongest[np.argsort(mz[strongest], kind="stable")]
  mz, intensity = mz[order], np.sqrt(intensity[order])
  norm = np.linalg.norm(intensity)
  return np.stack([mz, intensity / (norm or 1.0)], 1)


def split(x: np.ndarray) -> np.ndarray:
  """f32[..., 2]: whole numbers and the rest of f64[...], so that no digit of
  them is lost that a float32 of the rest holds."""
  whole = np.floor(x)
  return np.stack([whole, np.asarray(x) - whole], -1).astype(np.float32)


def example(
  peaks: np.ndarray, precursor: float, charge: int, most: int
) -> dict[str, np.ndarray]:
  """The fields of a spectrum.

  Args:
    peaks: f64[n, 2], as `cleaned` returns them.
    precursor: m/z.
    charge: of the precursor.
    most: P.

  Returns:
    `peaks` f32[P, 2], zeros behind the last; `mz` f32[P, 2], their m/z as
    `split` has it; `precursor` f32[4]: its neutral mass, split, its charge and
    its m/z.
  """
  padded = np.zeros((most, 2))
  padded[: len(peaks)] = peaks
  mass = (precursor - 1.007276) * charge
  whole = [*split(np.asarray(mass)), charge, precursor]
  return {
    "peaks": padded.astype(np.float32),
    "mz": split(padded[:, 0]),
    "precursor": np.asarray(whole, np.float32),
  }
