"""Digits from nothing: tokenizer, VAR, samples, evaluation; under 4 minutes.

python -m ar_jax.main --config=configs/quickstart.py
"""

from configs import common, multiscale_vq, var


def get_config(preset: str = "default"):
  makers = {"default": lambda: var.get_config("default"), "smoke": smoke}
  return common.choose("configs/quickstart.py", makers, preset)()


def smoke():
  """The same stages on fake data, for tests."""
  config = var.get_config("default")
  weights = config.generator.weights
  config.tokenizer = multiscale_vq.get_config("smoke")
  config.generator = var.get_config("smoke_real")
  config.generator.weights = weights
  return config
