"""The key table of Infinity's autoencoders, `infinity_vae_d{16,24,32,64}` and
`infinity_vae_d56_f8_14_patchify`.

Their keys are those of the VQGAN line, but that every convolution and every
norm is wrapped once more. One of stride 8 is taken for one whose generator
folds 2 x 2 cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ar_jax.convert.multiscale_vq import body, count
from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import Params, State
from ar_jax.tokenizers.bitwise import SCALES, Bitwise, frozen_scales

TABLE = (
  *body("encoder", "down", "downsample"),
  *body("decoder", "up", "upsample"),
)

PLACE = ("params", "tokenizer")

# Powers of two, to pack bits.
IGNORE = ("quantizer.lfq.mask", "quantize.lfq.mask")

_FOLDED_LEVELS = 4  # 8 pixels a cell


def _plain(key: str) -> str:
  """A key without its wrapper."""
  return re.sub(r"\.(conv|norm)\.(weight|bias)$", r".\2", key)


def _wrapped(key: str) -> str:
  stem, _, leaf = key.rpartition(".")
  name = stem.rpartition(".")[2]
  return f"{stem}.{'norm' if name.startswith('norm') else 'conv'}.{leaf}"


def config(state: State, scales: Sequence[Any] | None = None) -> dict[str, Any]:
  """The config of a state, as far as shapes tell.

  Args:
    state: official key -> array.
    scales: of the maps, in units; those of square images of 256 pixels if None:
      the same weights serve every list.

  Raises:
    UserError: this is not such a file.
  """
  plain = {_plain(key): array for key, array in state.items()}
  try:
    ch, in_channels = plain["encoder.conv_in.weight"].shape[:2]
    bits = len(plain["encoder.conv_out.weight"])
    levels = count(plain, r"(\d+)\.block\.0")
    mult = tuple(
      len(plain[f"encoder.down.{level}.block.0.conv1.weight"]) // ch
      for level in range(levels)
    )
  except KeyError as e:
    raise UserError(
      f"not a bitwise autoencoder: there is no {e.args[0]} in the file"
    ) from e
  if any(".attn." in key or "quant_conv" in key for key in plain):
    raise UserError(
      "not a bitwise autoencoder: it has attention or a convolution at its "
      "codes"
    )
  return {
    "system": "bitwise",
    "model": {
      "bits": bits,
      "ch": ch,
      "mult": mult,
      "blocks": count(plain, r"0\.block\.(\d+)"),
      "scales": SCALES[256] if scales is None else frozen_scales(scales),
      "fold": levels == _FOLDED_LEVELS,
      "in_channels": in_channels,
    },
  }


def to_ours(
  state: State, scales: Sequence[Any] | None = None
) -> dict[str, Any]:
  """The parameters of `Bitwise` from an official state; arguments as in
  `config`.

  Raises:
    UserError: the state is not one of this family.
  """
  module = Bitwise(**config(state, scales)["model"])
  init = lambda key: module.init(key, module.example())
  like = jax.eval_shape(init, jax.random.key(0))["params"]
  plain = {k: v for k, v in state.items() if k not in IGNORE}
  plain = {_plain(key): array for key, array in plain.items()}
  return tables.to_ours(TABLE, plain, like)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `Bitwise`."""
  state = tables.to_official(TABLE, params)
  return {_wrapped(key): array for key, array in state.items()}
