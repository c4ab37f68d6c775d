"""The key table of the KL autoencoders of the LDM line: `kl16.ckpt` of MAR,
which xAR and FlowAR share, and `model.ckpt` of LDM's kl-f8."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ar_jax.convert.multiscale_vq import body, count
from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import CONV, Params, State, affine
from ar_jax.tokenizers.kl_vae import KLVAE, SCALE

TABLE = (
  *body("encoder", "down", "downsample"),
  *body("decoder", "up", "upsample"),
  *affine("quant_conv", "quant_conv", CONV),
  *affine("post_quant_conv", "post_quant_conv", CONV),
)

PLACE = ("params", "tokenizer")

# Files of a whole training run also hold its losses: LPIPS, discriminator.
_LOSSES = "loss."


def config(state: State) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; `size` is 256, and any
  other will do. `scale` is the published one of so many channels, else 1.

  Raises:
    UserError: this is not such a file.
  """
  try:
    ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
    channels = len(state["encoder.conv_out.weight"]) // 2
    if len(state["quant_conv.weight"]) != 2 * channels:
      raise UserError(
        f"quant_conv has {len(state['quant_conv.weight'])} channels for "
        f"latents of {channels}, which would need {2 * channels}"
      )
    levels, blocks = (
      count(state, r"(\d+)\.block\.0"),
      count(state, r"0\.block\.(\d+)"),
    )
    mult = tuple(
      len(state[f"encoder.down.{level}.block.0.conv1.weight"]) // ch
      for level in range(levels)
    )
  except KeyError as e:
    raise UserError(
      f"not a KL autoencoder: there is no {e.args[0]} in the file"
    ) from e
  attention = tuple(
    level
    for level in range(levels)
    if f"encoder.down.{level}.attn.0.norm.weight" in state
  )
  return {
    "system": "kl_vae",
    "model": {
      "channels": channels,
      "scale": SCALE.get(channels, 1.0),
      "ch": ch,
      "mult": mult,
      "blocks": blocks,
      "attention": attention,
      "in_channels": in_channels,
    },
  }


def to_ours(state: State) -> dict[str, Any]:
  """The parameters of `KLVAE` from an official state.

  Raises:
    UserError: the state is not one of this family.
  """
  module = KLVAE(**config(state)["model"])
  image = jax.ShapeDtypeStruct(
    (1, module.size, module.size, module.in_channels), np.float32
  )
  like = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
  own = {k: v for k, v in state.items() if not k.startswith(_LOSSES)}
  return tables.to_ours(TABLE, tables.fuse(own), like)


def to_official(params: Params) -> dict[str, np.ndarray]:
  """The official state of the parameters of `KLVAE`."""
  return tables.split(tables.to_official(TABLE, params))
