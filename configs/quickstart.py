"""Digits from nothing: tokenizer, VAR, samples, evaluation; under 4 minutes.

python -m ar_jax.main --config=configs/quickstart.py
"""

from configs import common, var


def get_config(preset: str = "default"):
  makers = {"default": lambda: var.get_config("default"), "smoke": smoke}
  return common.choose("configs/quickstart.py", makers, preset)()


def smoke():
  """The same stages on fake data, for tests."""
  config = var.get_config("default")
  small = var.get_config("smoke")
  config.tokenizer = var.multiscale_vq.get_config("smoke")
  weights = config.generator.weights
  config.generator = small.copy_and_resolve_references()
  config.generator.weights = weights
  config.samples = common.stage("generator", config.generator, "sample")
  config.evaluation = common.stage("generator", config.generator, "eval")
  return config
