"""Small scale-wise systems with random weights, for several tests."""

import functools

import jax
import jax.numpy as jnp

from ar_jax.core.system import build
from tests import filled

# 4 x 4 patches of images of 8 pixels.
TOKENIZER = dict(
  name="patch_codes", vocab=16, patch=2, size=8, scales=(1, 2, 4), in_channels=1
)
SIZES = dict(depth=2, width=32, heads=2, num_classes=3, gate_init=0.5)


@functools.cache
def flexvar():
  """FlexVAR and its variables; lists of the sides 1, 2, 3 and 4."""
  tokenizer = dict(TOKENIZER, form="resized")
  lists = dict(always=(1, 2, 4), some=((1, (3,)),), limit=30)
  system = build(
    "flexvar", tokenizer=tokenizer, lists=lists, grid=8, drop_path=0.0, **SIZES
  )
  return system, filled.variables(system)


@functools.cache
def var():
  """VAR and its variables; maps of the sides 1, 2 and 4."""
  tokenizer = dict(TOKENIZER, form="pyramid")
  system = build("var", tokenizer=tokenizer, drop_path=0.0, **SIZES)
  return system, filled.variables(system)


@functools.cache
def infinity():
  """Infinity and its variables; maps of 3 bits of the sides 1, 2 and 4."""
  codes = dict(name="patch_bits", bits=3, patch=2, scales=(1, 2, 4))
  text = dict(name="words", length=2, width=8)
  sizes = dict(depth=2, width=32, heads=2, gate_init=0.5, drop_path=0.0)
  system = build("infinity", tokenizer=codes, text=text, **sizes)
  return system, filled.variables(system)


def units(system):
  """Units as if two images of noise had been encoded, with labels."""
  noise = jax.random.randint(jax.random.key(1), (2, 30), 0, 16)
  n = len(system.plan)
  batch = {"units": noise[:, :n], "label": jnp.array([0, 2])}
  if getattr(system, "lists", None):
    batch["others"] = noise[:, n:]
  return batch
