"""Digits from nothing: tokenizer, VAR, samples, evaluation; under 4 minutes.

python -m ar_jax.main --config=configs/quickstart.py
"""

from configs import var


def get_config():
  return var.get_config("default")
