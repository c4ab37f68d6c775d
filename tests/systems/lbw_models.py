"""Small systems with LBW around them, for its tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.system import build
from tests import filled

V, N = 4, 3000
LAW = dict(temperature=0.8, top_k=3)
SIZES = dict(depth=1, width=16, heads=2, num_classes=2)
CODES = dict(name="patch_codes", vocab=V, patch=4, size=8, in_channels=1)
RASTER = dict(name="llamagen", tokenizer=CODES, multiple_of=16, **SIZES)
MAPS = dict(
  name="var", tokenizer=CODES | dict(form="pyramid", scales=(1, 2)),
  gate_init=0.5, drop_path=0.0, **SIZES,
)  # fmt: skip
# Of a text, filled block by block, whose blocks are all of it.
TEXT = dict(
  name="sdar", block=4, multiple_of=16, **SIZES | dict(num_classes=0),
  tokenizer=dict(name="given", form="tokens", vocab=V, length=4, stop=None),
)  # fmt: skip
# What stands around the host, and its options; all of them are exact.
EXACT = {
  "llamagen by gsd": ("gsd", RASTER, {}, dict(window=3, size=1)),
  "llamagen by lantern": ("lantern", RASTER, {}, dict(drafts=2, delta=0.0)),
  "var": (None, MAPS, {}, {}),
  "var by gsd": ("gsd", MAPS, {}, dict(size=1)),
  "sdar": (None, TEXT, {}, dict(strategy="sequential")),
}  # fmt: skip


@functools.cache
def marked(name):
  """(the system, its variables, its options) of EXACT."""
  around, host, more, options = EXACT[name]
  target = dict(name=around, target=host, **more) if around else host
  system = build("lbw", target=target, key="k", lists=1)
  return system, filled.variables(system, stddev=0.5), options


@functools.partial(jax.jit, static_argnums=(0, 4))
def _draw(system, variables, cond, keys, options):
  drawn = system.generate(variables, cond, keys, **dict(options))
  return drawn[0] if isinstance(drawn, tuple) else drawn


def draw(system, variables, n=N, seed=0, cond=(), **options):
  """Units i32[n, L] of class 1. Lists are data: they compile nothing."""
  keys = jax.random.split(jax.random.key(seed), n)
  cond = {"label": jnp.ones(n, int), **dict(cond)}
  if hasattr(system, "pool"):
    cond, options = system.marked(variables, cond, keys, **options)
    system = system.target
  options = tuple(sorted(options.items()))
  return np.asarray(_draw(system, variables, cond, keys, options))


@functools.partial(jax.jit, static_argnums=0)
def logits(system, variables, units):
  return system.logits(variables, jnp.ones(len(units), int), units)
