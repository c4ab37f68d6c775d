"""Digits from nothing: tokenizer, VAR, samples, evaluation; some minutes.

python -m ar_jax.main --config=configs/quickstart.py
"""

from configs import common, multiscale_vq
from configs.families import scale


def smoke():
  """The same stages on fake data, for tests."""
  config = scale.digits()
  weights = config.generator.weights
  config.tokenizer = multiscale_vq.get_config("smoke")
  config.generator = scale.smoke(real=True)
  config.generator.weights = weights
  return config


get_config = common.presets(__file__, default=scale.digits, smoke=smoke)
