"""NFIG's tokenizer: VAR's, whose maps code one band of frequencies more
each.

Multi-Scale Autoregressive Image Generation via Frequency Ordering (NFIG, arXiv
2503.07076), there FR-VAE. New in it: map k codes what the maps before it left
of a low-pass of the latent, up to band k, in place of the latent itself; so
coarse maps hold low frequencies and nothing else.

The paper codes R_{k-1} + f_k, the rest plus the next band, with R_k = R_{k-1} +
f_k - up(v_k). As R_{k-1} + f_k = LP_k(f) - fhat_{k-1}, that is VAR's loop with
another target, and this is how it is written in `nn.quantize.vq`. Its encoder
from DINOv2 and its discriminator of DINO features are not described well
enough to be built; the losses are those of `tokenizers.autoencoder`.
"""

from __future__ import annotations

from ar_jax.core.system import passes_on
from ar_jax.tokenizers import multiscale_vq
from ar_jax.tokenizers.autoencoder import Autoencoder


@passes_on(multiscale_vq.build)
def build(*, bands: str = "nyquist", **sizes) -> Autoencoder:
  """The tokenizer in training.

  Args:
    bands: the rule of the bands, see `core.signals.bands`; "area_radial" is the
      paper's.
    **sizes: of `multiscale_vq.build`.

  Raises:
    UserError: there is no such rule.
  """
  return multiscale_vq.build(bands=bands, **sizes)
