"""NFIG: next-frequency prediction.

Multi-Scale Autoregressive Image Generation via Frequency Ordering (arXiv
2503.07076). New in it, against VAR: the tokenizer, whose maps add one band of
frequencies each, from low to high (`tokenizers.frequency_vq`). The generator is
VAR's, with its plan, its loss and its sampler: a step predicts the units of the
next band by the latent so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ar_jax.core import system
from ar_jax.core.system import System, UserError


@system.passes_on("var")
def build(*, tokenizer: Mapping[str, Any], **sizes) -> System:
  """Builds NFIG, a VAR over bands.

  Args:
    tokenizer: `{"name": "frequency_vq", **arguments}`, or another of residual
      maps that is told its `bands`.
    **sizes: other arguments of VAR's `build`; the published models are its d16
      and d20.

  Raises:
    UserError: another tokenizer, or sizes that do not fit together.
  """
  if tokenizer["name"] != "frequency_vq" and not tokenizer.get("bands"):
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: the units of NFIG are those of "
      "frequency_vq; over others this is the system var"
    )
  return system.build("var", tokenizer=tokenizer, **sizes)
