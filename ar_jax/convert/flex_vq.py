"""The key table of FlexVAR's tokenizer, FlexVAE: that of LlamaGen's, of other
sizes."""

from __future__ import annotations

from typing import Any

from ar_jax.convert import vq
from ar_jax.convert.vq import PLACE, TABLE, to_official, to_ours
from ar_jax.files.tables import State

__all__ = ["PLACE", "TABLE", "config", "to_official", "to_ours"]


def config(state: State) -> dict[str, Any]:
  """The config of a state, as far as shapes tell; the lists are the published
  ones, and any other will do.

  Raises:
    UserError: this is not such a file.
  """
  return vq.config(state) | {"system": "flex_vq"}
