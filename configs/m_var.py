"""M-VAR: attention within scales, Mamba-2 across them (arXiv 2411.10433).

Presets: default (digits), fashion, smoke, and the published models d12, d16,
d20, d24, d30 and d32 at 256 px; paper is d16. They are trained as VAR's are,
and expect the published tokenizer, converted, at runs/vae_ch160v4096z32, and
ImageNet in TFDS.
"""

import functools

from ar_jax.systems.m_var import SIZES
from configs import common
from configs.families import scale

# Sizes that VAR has not: whose training they take.
LIKE = {"d12": "d16", "d32": "d30"}
SMALL = dict(states=16, chunk=32)


def published(name):
  """A published model."""
  return scale.published(LIKE.get(name, name), "m_var", **SIZES[name])


digits = functools.partial(scale.digits, "m_var", **SMALL)
get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=functools.partial(scale.fashion, "m_var", **SMALL),
  smoke=functools.partial(scale.smoke, "m_var", features=32, states=4, chunk=8),
  **common.published(published, SIZES, "d16"),
)
