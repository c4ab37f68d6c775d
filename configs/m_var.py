"""M-VAR: attention within scales, Mamba-2 across them (arXiv 2411.10433).

Presets: default (digits), fashion, smoke, and the published models d12, d16,
d20, d24, d30 and d32 at 256 px; paper is d16. They are trained as VAR's are,
and expect the published tokenizer, converted, at runs/vae_ch160v4096z32, and
ImageNet in TFDS.
"""

import functools

from ar_jax.systems.m_var import SIZES
from configs import common, var

# Sizes that VAR has not: whose training they take.
LIKE = {"d12": "d16", "d32": "d30"}


def get_config(preset: str = "default"):
  published = {
    name: functools.partial(
      var.published, LIKE.get(name, name), "m_var", **sizes
    )
    for name, sizes in SIZES.items()
  }
  makers = {
    "default": digits,
    "digits": digits,
    "fashion": fashion,
    "smoke": smoke,
    "paper": published["d16"],
    **published,
  }
  return common.choose("configs/m_var.py", makers, preset)()


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then M-VAR."""
  return var.digits("m_var", states=16, chunk=32)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then M-VAR."""
  return var.fashion("m_var", states=16, chunk=32)


def smoke():
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  return var.smoke("m_var", features=32, states=4, chunk=8)
