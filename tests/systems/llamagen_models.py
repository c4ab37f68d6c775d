"""Small LlamaGens with weights, for the tests of the system."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.convert import llamagen as convert
from ar_jax.core.system import build
from tests import filled, golden_weights

# 4 x 4 units from images of 8 pixels.
TOKENIZER = dict(name="patch_codes", vocab=64, patch=2, size=8, in_channels=3)
TINY = dict(tokenizer=TOKENIZER, depth=2, width=32, heads=2, multiple_of=32)
KEYS = jax.random.split(jax.random.key(0), 4)


@functools.cache
def golden():
  """The system, its variables, the labels and the official outputs."""
  description, expected = golden_weights.load("llamagen_gpt")
  state = golden_weights.weights(description)
  heads = description["config"]["n_head"]
  config = convert.config(state, heads=heads)["model"]
  system = build("llamagen", **(config | dict(tokenizer=TOKENIZER)))
  variables = convert.to_ours(state, heads=heads)
  variables["tokenizer"] = filled.variables(system)["tokenizer"]
  label = jnp.array(description["config"]["labels"])
  return system, variables, label, expected


@functools.cache
def texts():
  """A text-conditional system and four texts."""
  text = dict(name="bytes", length=6, width=16, depth=1, heads=2)
  system = build("llamagen", **TINY, text=text)
  variables = filled.variables(system)
  words = (b"a dog", b"cat", b"", b"horses")
  rows = [np.frombuffer(w.ljust(6, b"\0"), np.uint8) for w in words]
  return system, variables, jnp.asarray(np.stack(rows), jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(system, options, variables, cond, keys):
  return system.generate(variables, cond, keys, **dict(options))


def generate(system, variables, cond, keys, **options):
  """Units; compiled once per set of options."""
  return _generate(
    system, tuple(sorted(options.items())), variables, cond, keys
  )


@functools.partial(jax.jit, static_argnums=0)
def logits(system, variables, cond, units, hidden=None):
  return system.logits(variables, cond, units, hidden)
