"""What the goldens of the scale-wise generators have in common."""

import functools

import jax
import jax.numpy as jnp

from ar_jax.core.system import build
from tests import golden_weights, optimised


def load(name, table, codes_table, **options):
  """(config, arrays, state, model, variables) of a golden with a tokenizer.

  Args:
    name: of the golden.
    table: of the generator's family.
    codes_table: of its tokenizer's.
    **options: of `table.config`.
  """
  description, arrays = golden_weights.load(name)
  state = golden_weights.weights(description)
  codes = golden_weights.weights(description, "vae_state_dict")
  model = table.config(state, **options)["model"]
  own = model["tokenizer"]
  model["tokenizer"] = codes_table.config(codes)["model"] | own
  variables = {"tokenizer": codes_table.to_ours(codes)}
  params = table.to_ours(state, **options)
  for place in reversed(table.PLACE):
    params = {place: params}
  return description["config"], arrays, state, model, {**variables, **params}


def system(name, model, **more):
  return build(name, **(model | more))


@functools.partial(optimised.jit, static_argnums=(0, 1))
def _generate(system, options, variables, label):
  keys = jax.random.split(jax.random.key(0), len(label))
  return system.generate(variables, {"label": label}, keys, **dict(options))


def greedy(system, variables, label, **options):
  """(units, latent) of the best units."""
  options = {"temperature": 0.0, **options}
  return _generate(
    system, tuple(options.items()), variables, jnp.asarray(label)
  )


@functools.partial(optimised.jit, static_argnums=0)
def logits(system, variables, label, units):
  return system.logits(variables, label, units)


@functools.partial(optimised.jit, static_argnums=(0, 1))
def of_codes(system, name, variables, *args):
  """A method of the tokenizer."""
  return getattr(system.codec(variables), name)(*args)
