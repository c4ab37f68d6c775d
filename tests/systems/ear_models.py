"""The golden EAR and its Janus, and one as small without a compiled init."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.convert import janus as convert
from ar_jax.core.system import build
from tests import filled, golden_weights

DESCRIPTION, ARRAYS = golden_weights.load("ear")
SIZES = DESCRIPTION["config"]
HEADS = SIZES["heads"]
# 16 units, of which the golden draws have 10 or 11.
CODES = dict(name="patch_codes", vocab=SIZES["image_vocab"], patch=2, size=8)
WORDS = dict(length=9, framed=False, pad=SIZES["pad_id"], fill=-1)
TEXT = ARRAYS["unsafe_prompt"][None].astype(np.int32)
SAFE = np.full_like(TEXT, -1)
SAFE[:, : len(ARRAYS["safe_prompt"])] = ARRAYS["safe_prompt"]


@functools.cache
def official():
  return golden_weights.weights(DESCRIPTION)


@functools.cache
def golden():
  """(Janus, its variables)."""
  state = official()
  model = convert.config(state, heads=HEADS, words=WORDS)["model"]
  system = build("janus", **model | dict(tokenizer=CODES))
  variables = convert.to_ours(state, heads=HEADS)
  shapes = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
  codes = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes["tokenizer"])
  return system, {**variables, "tokenizer": codes}


def spec(system="golden"):
  """What `build` of EAR takes as the target."""
  model = convert.config(official(), heads=HEADS, words=WORDS)["model"]
  return {"name": "janus", **model, "tokenizer": CODES}


def over(**options):
  """(EAR over the golden Janus, its variables)."""
  default = dict(layers=2, window=3, threshold=0.0)
  system = build("ear", target=spec(), **default | options)
  _, base = golden()
  variables = {"target": base["params"], "tokenizer": base["tokenizer"]}
  variables = jax.tree.map(jnp.array, variables)  # updates take what they get
  if system.judge is not None:
    variables["judge"] = filled.variables(system)["judge"]
  return system, system.ready(variables)


def stream(column: int) -> np.ndarray:
  """i32[1, 16]: a golden stream; what is behind its 11 units is 0."""
  units = np.zeros((1, 16), np.int32)
  units[0, :11] = ARRAYS["train_tokens"][:, column]
  return units
