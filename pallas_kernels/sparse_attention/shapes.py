"""The shapes that real models use, by name: for tests, bench and compilation.

Sizes are those of the published models; batches are what one accelerator
holds. Each mask is written as a model would: integers per slot and a rule.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.sparse_attention.tiles import Pattern, pattern

VAR_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
VAR_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)
VAR_1024 = (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)


def causal(q, k):
  """A slot sees its own step and every earlier one."""
  return q["step"] >= k["step"]


def within(q, k):
  """A slot sees its own step only."""
  return q["step"] == k["step"]


def below(q, k):
  """A slot sees every earlier step and itself (DD1)."""
  return (q["step"] > k["step"]) | (q["slot"] == k["slot"])


def window(q, k):
  """A slot sees the slots since its `first`."""
  return (q["slot"] >= k["slot"]) & (q["first"] <= k["slot"])


def doubled(q, k):
  """A noisy slot sees its noisy block and clean earlier blocks (SDAR)."""
  own = (q["block"] == k["block"]) & (q["clean"] == k["clean"])
  return own | ((q["block"] > k["block"]) & (k["clean"] > 0))


def framed(q, k):
  """A slot sees every earlier one and its own frame (Lumos-1)."""
  return (q["slot"] >= k["slot"]) | (q["frame"] == k["frame"])


def ancestors(q, k):
  """A node of a tree sees those whose tour encloses its own, and itself."""
  return (q["enter"] >= k["enter"]) & (q["enter"] < k["leave"])


def groups(q, k):
  """Drafts see the anchors up to theirs and their own earlier drafts (MTP)."""
  anchor = (k["draft"] == 0) & (q["anchor"] >= k["anchor"])
  return anchor | ((q["anchor"] == k["anchor"]) & (q["draft"] >= k["draft"]))


def scales(sides, rule=causal) -> Pattern:
  """One square map a step (VAR, HMAR)."""
  areas = [side * side for side in sides]
  step, slot = np.repeat(np.arange(len(areas)), areas), np.arange(sum(areas))
  return pattern(rule, {"step": step, "slot": slot})


def cells(count: int, size: int) -> Pattern:
  """Blocks of `size`, causal (xAR, blockwise text)."""
  return pattern(causal, {"step": np.arange(count * size) // size})


def fronts(prefix: int, side: int) -> Pattern:
  """A causal prefix, then the anti-diagonals of a square (NAR)."""
  front = np.sort(np.add.outer(np.arange(side), np.arange(side)), axis=None)
  return pattern(
    causal, {"step": np.concatenate([np.arange(prefix), prefix + front])}
  )


def prefixed(prefix: int, steps) -> Pattern:
  """A prefix that sees itself, then slots with the given steps (NBP)."""
  steps = np.pad(np.asarray(steps) + 1, (prefix, 0))
  return pattern(causal, {"step": steps})


def hybrid(prefix: int, length: int, size: int) -> Pattern:
  """A prefix, `size` single slots, then blocks of `size` (NBP)."""
  slot = np.arange(length)
  return prefixed(prefix, np.where(slot < size, slot, slot // size + size - 1))


def sliding(length: int, size: int) -> Pattern:
  """Each slot sees the `size` slots that end with itself."""
  slot = np.arange(length)
  return pattern(window, {"slot": slot, "first": slot - size + 1})


def noisy_clean(length: int, size: int) -> Pattern:
  """A noisy and a clean copy of one sequence, in blocks of `size` (SDAR)."""
  block = np.tile(np.arange(length) // size, 2)
  return pattern(
    doubled, {"block": block, "clean": np.arange(2 * length) // length}
  )


def frames(prefix: int, count: int, size: int) -> Pattern:
  """A causal prefix, then frames of `size` that see themselves (Lumos-1)."""
  slot = np.arange(prefix + count * size)
  frame = np.where(slot < prefix, -1 - slot, (slot - prefix) // size)
  return pattern(framed, {"slot": slot, "frame": frame})


def tree(parents) -> Pattern:
  """Each node sees its ancestors and itself; parents[i] < i, -1 for a root."""
  parents = np.asarray(parents)
  sizes = np.ones(len(parents), np.int32)
  for node in reversed(range(len(parents))):
    if parents[node] >= 0:
      sizes[parents[node]] += sizes[node]
  enter, free = np.zeros_like(sizes), {-1: 0}
  for node, parent in enumerate(parents):
    enter[node] = free[parent]
    free[parent] += sizes[node]
    free[node] = enter[node] + 1
  return pattern(ancestors, {"enter": enter, "leave": enter + sizes})


def drafts(anchors: int, count: int) -> Pattern:
  """`anchors` exact slots, then `count` drafts behind each of them (MTP)."""
  anchor, draft = np.divmod(np.arange(anchors * (count + 1)), count + 1)
  return pattern(groups, {"anchor": anchor, "draft": draft})


@dataclasses.dataclass(frozen=True)
class Shape:
  """One attention of a model.

  Attributes:
    pattern: over the new positions, in a decoding step; else over all.
    batch: examples, of which a guided step has two each.
    heads: of queries.
    kv_heads: of keys and values.
    features: per head.
    cache: rows of the cache of a decoding step; None outside decoding.
    length: filled rows, static; per example, as data, if None.
    dtype: of q, k and v.
  """

  pattern: Pattern
  batch: int
  heads: int
  kv_heads: int
  features: int
  cache: int | None = None
  length: int | None = None
  dtype: str = "bfloat16"


@functools.cache
def shapes() -> dict[str, Shape]:
  """Every named shape; those with a cache are decoding steps."""
  tree_26 = (-1, *([0] * 5), 1, 1, 1, 2, 2, 3, 4, 5, *range(6, 18))
  diagonal = functools.partial(scales, rule=within)
  return {
    "var_256": Shape(scales(VAR_256), 16, 16, 16, 64),
    "var_256_f32": Shape(scales(VAR_256), 8, 16, 16, 64, dtype="float32"),
    "var_512": Shape(scales(VAR_512), 4, 36, 36, 64),
    "var_1024": Shape(scales(VAR_1024), 1, 16, 16, 64),
    "hmar_256": Shape(diagonal(VAR_256), 16, 16, 16, 64),
    "hmar_512": Shape(diagonal(VAR_512), 4, 24, 24, 64),
    "hmar_1024": Shape(diagonal(VAR_1024), 1, 16, 16, 64),
    "wide_512": Shape(scales(VAR_512), 4, 16, 16, 128),
    "wide_diagonal_512": Shape(diagonal(VAR_512), 4, 16, 16, 128),
    "wide_1024": Shape(scales(VAR_1024), 1, 16, 16, 128),
    "wide_diagonal_1024": Shape(diagonal(VAR_1024), 1, 16, 16, 128),
    "dd1_var": Shape(scales(VAR_256, below), 8, 16, 16, 64),
    "llamagen_text": Shape(prefixed(120, np.arange(1024)), 8, 20, 20, 64),
    "xar_b": Shape(cells(4, 64), 32, 12, 12, 64),
    "xar_h": Shape(cells(4, 64), 32, 16, 16, 80),
    "nar_text_512": Shape(fronts(120, 32), 8, 20, 20, 64),
    "nbp_base": Shape(hybrid(8, 1280, 16), 8, 16, 16, 96),
    "lumos_1b": Shape(frames(120, 7, 4084), 1, 32, 8, 64),
    "sdar_4b": Shape(noisy_clean(2048, 4), 1, 32, 8, 128),
    "window_2048": Shape(sliding(2048, 256), 4, 16, 16, 64),
    "mtp_training": Shape(drafts(256, 8), 2, 32, 8, 128),
    "tree_26_alone": Shape(tree(tree_26), 8, 32, 32, 128),
    "small_heads": Shape(fronts(1, 16), 32, 3, 3, 32),
    "decode_one": Shape(cells(1, 1), 32, 16, 16, 64, 384),
    "decode_chain": Shape(cells(9, 1), 32, 16, 16, 64, 384),
    "decode_tree": Shape(tree(tree_26), 8, 32, 32, 128, 2560),
    "decode_drafts": Shape(drafts(9, 8), 8, 32, 8, 128, 2048),
    "decode_block": Shape(cells(1, 4), 8, 32, 8, 128, 2048),
    "decode_scale": Shape(cells(1, 256), 32, 16, 16, 64, 680, 424),
    "decode_first": Shape(cells(1, 1), 32, 16, 16, 64, 680, 0),
  }


Case = tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]


def cases(impl: str) -> dict[str, Case]:
  """name -> (a function to compile, its arguments), of every named shape.

  Args:
    impl: a module of this folder: "reference", "xla", "tpu" or "gpu". The
      functions compute the results and, outside decoding, the gradients.
      What a module does not serve is skipped.
  """
  found = {}
  for name, shape in shapes().items():
    function = _decode if shape.cache is not None else _both_ways
    module = f"pallas_kernels.sparse_attention.{impl}"
    if shape.cache is not None and impl == "tpu":
      module += "_decode"
    module = importlib.import_module(module)
    args = arguments(shape)
    refusal = getattr(module, "unsupported", lambda *_: None)
    if refusal(*args[:3]) is None:
      found[name] = functools.partial(function, module, shape), args
  return found


def arguments(shape: Shape) -> tuple[jax.ShapeDtypeStruct, ...]:
  """q, k, v and dout; or q, k, v, the caches and, if data, the lengths."""

  def array(rows: int, heads: int) -> jax.ShapeDtypeStruct:
    size = (shape.batch, rows, heads, shape.features)
    return jax.ShapeDtypeStruct(size, shape.dtype)

  q = array(shape.pattern.queries, shape.heads)
  k = array(shape.pattern.keys, shape.kv_heads)
  if shape.cache is None:
    return q, k, k, q
  cache = array(shape.cache, shape.kv_heads)
  lengths = jax.ShapeDtypeStruct((shape.batch,), jnp.int32)
  return q, k, k, cache, cache, *([lengths] * (shape.length is None))


def _both_ways(module, shape, q, k, v, dout):
  attend = lambda *x: module.attention(*x, shape.pattern)[0]
  out, back = jax.vjp(attend, q, k, v)
  return out, *back(dout.astype(out.dtype))


def _decode(module, shape, q, k, v, cache_k, cache_v, lengths=None):
  lengths = shape.length if lengths is None else lengths
  args = q, k, v, cache_k, cache_v, lengths, shape.pattern
  return module.decode(*args)[0]
