"""The only door to kernels: each operation takes impl=None or a name.

`impl=None` picks what is best on the current backend; a named implementation
that cannot serve raises and says why. What runs is logged once. Shapes: B
batch, T queries, S keys, H heads, K features per head, C rows of a cache.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ar_jax.core.plan import Plan
from ar_jax.core.system import UserError
from pallas_kernels.per_device import per_device
from pallas_kernels.sparse_attention import tiles, xla

Array = jax.Array

# The kernel that "pallas" is, per backend. The full names compile a program
# for an accelerator that is not attached.
_PALLAS = {"tpu": "pallas_tpu"}
_ATTENTION = {"xla": "xla", "pallas_tpu": "tpu"}
_DECODE = {"xla": "xla", "pallas_tpu": "tpu_decode"}


@functools.cache
def _choose(
  op: str, impl: str | None, forms: tuple[str, ...] = ("xla",)
) -> str:
  """The implementation of `op` to run; cached, so that it is logged once."""
  backend = jax.default_backend()
  chosen = impl
  if impl in (None, "pallas"):
    chosen = _PALLAS.get(backend)
    if chosen not in forms and impl == "pallas":
      raise NotImplementedError(
        f"ops.{op}: impl='pallas' has no kernel for {backend}, only "
        f"{list(forms)}"
      )
    chosen = chosen if chosen in forms else "xla"
  if chosen not in forms:
    raise UserError(
      f"ops.{op}: impl={impl!r}; choose None, 'pallas' or one of {list(forms)}"
    )
  logging.info("ops.%s: %s", op, chosen)
  return chosen


@functools.cache
def pattern_of(plan: Plan) -> tiles.Pattern:
  """The visibility of a plan, as the kernels take it."""
  return tiles.pattern(plan.rule, plan.slots)


@functools.cache
def _all(queries: int, keys: int) -> tiles.Pattern:
  columns = ({"index": np.arange(n)} for n in (queries, keys))
  return tiles.pattern(_every_pair, *columns)


def _every_pair(q: tiles.Slots, k: tiles.Slots) -> bool:
  return True


@functools.cache
def _form(name: str) -> ModuleType:
  """A form of attention; kernels are imported when they are needed."""
  return importlib.import_module(f"pallas_kernels.sparse_attention.{name}")


def _refused(forms: dict[str, str], q: Array, k: Array, v: Array) -> bool:
  """Whether the kernel of this backend cannot serve this call."""
  kernel = forms.get(_PALLAS.get(jax.default_backend()))
  if kernel is None:
    return False
  # Arrays may be split over devices, which a kernel only learns from a mesh.
  lost = jax.device_count() > 1 and jax.sharding.get_abstract_mesh().empty
  return lost or _form(kernel).unsupported(q, k, v) is not None


def attention(
  q: Array,
  k: Array,
  v: Array,
  mask: Array | Plan | None = None,
  *,
  scale: float | None = None,
  impl: str | None = None,
) -> Array:
  """Softmax attention, with grouped key-value heads, softmax in float32.

  Args:
    q: [B, T, H, K].
    k: [B, S, Hkv, K], with H a multiple of Hkv.
    v: [B, S, Hkv, K].
    mask: which keys a query sees. None: all; bool[B | 1, 1, T, S]; or a Plan
      with T = S = L, whose structure is known at trace time, so pairs that
      it hides are mostly not computed at all.
    scale: multiplies the scores; 1 / sqrt(K) if None.
    impl: None, "xla", "pallas" (the kernel of this backend), or its full name
      "pallas_tpu". Kernels need a Plan or None: a mask that is data has no
      structure to exploit.

  Returns:
    [B, T, H, K], in the dtype of v. A query that sees nothing gets the mean
    under an array, zero under a Plan.

  Raises:
    NotImplementedError: the implementation that is named cannot serve this.
    UserError: there is no such implementation.
  """
  sparse = isinstance(mask, Plan)
  if impl is None and (not sparse or _refused(_ATTENTION, q, k, v)):
    impl = "xla"
  chosen = _choose("attention", impl, tuple(_ATTENTION))
  if chosen == "xla" and not sparse:
    return xla.masked(q, k, v, mask, scale=scale)
  if not sparse and mask is not None:
    raise NotImplementedError(
      f"ops.attention: {chosen} takes a Plan or None as mask, got an array "
      f"{mask.shape}; use impl='xla' or None"
    )
  pattern = pattern_of(mask) if sparse else _all(q.shape[1], k.shape[1])
  form = _form(_ATTENTION[chosen])
  call = lambda *x: form.attention(*x, pattern, scale=scale)[0]
  return call(q, k, v) if chosen == "xla" else per_device(call, q, k, v)


def decode_attention(
  q: Array,
  k: Array,
  v: Array,
  cache_k: Array,
  cache_v: Array,
  lengths: int | Array,
  mask: Plan | None = None,
  *,
  scale: float | None = None,
  impl: str | None = None,
) -> Array:
  """One step's queries over the filled part of a cache and over themselves.

  Args:
    q: [B, T, H, K], the new queries.
    k: [B, T, Hkv, K], the new keys; they are read from here, whether or not
      the cache holds them too, behind its filled rows.
    v: [B, T, Hkv, K].
    cache_k: [B, C, Hkv, K].
    cache_v: [B, C, Hkv, K].
    lengths: rows that are filled: an int (static: no other row is read),
      i32[] or i32[B].
    mask: which new positions see each other, a Plan of length T: a chain, a
      tree, groups; all if None.
    scale: multiplies the scores; 1 / sqrt(K) if None.
    impl: None, "xla", "pallas" (the kernel of this backend) or its full name.

  Returns:
    [B, T, H, K], in the dtype of v.

  Raises:
    NotImplementedError: the implementation that is named cannot serve this.
    UserError: there is no such implementation.
  """
  pattern = None if mask is None else pattern_of(mask)
  if impl is None and _refused(_DECODE, q, k, v):
    impl = "xla"
  chosen = _choose("decode_attention", impl, tuple(_DECODE))
  form = _form(_DECODE[chosen])
  static = () if isinstance(lengths, jax.Array) else (lengths,)
  call = lambda *x: form.decode(*x, *static, pattern, scale=scale)[0]
  args = q, k, v, cache_k, cache_v, *(() if static else (lengths,))
  return call(*args) if chosen == "xla" else per_device(call, *args)


def nearest_code(
  z: Array, codebook: Array, *, impl: str | None = None
) -> Array:
  """Index of the nearest row of a codebook, in float32.

  Distances use full float32 products: TF32 or bfloat16 flips codes. They are
  computed over blocks of codes, so that memory is bounded for large inputs
  and an axis of tokens that is sharded over devices stays so.

  Args:
    z: f32[..., d].
    codebook: f32[V, d].
    impl: see above.

  Returns:
    i32[...]; the lowest index where codes tie.

  Raises:
    NotImplementedError: the implementation does not exist.
  """
  _choose("nearest_code", impl)
  z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
  vocab, width = codebook.shape
  tokens = max(1, z.size // width)
  # At most 2^26 distances (256 MiB) at a time, but never absurdly few codes.
  block = min(vocab, max(256, 2**26 // tokens))
  blocks = -(-vocab // block)
  pad = blocks * block - vocab
  # |z - e|^2 = |z|^2 + 2 (|e|^2 / 2 - z.e); |z|^2 does not change the order.
  norms = jnp.pad(
    0.5 * jnp.square(codebook).sum(-1), (0, pad), constant_values=jnp.inf
  ).reshape(blocks, block)
  codes = jnp.pad(codebook, ((0, pad), (0, 0))).reshape(blocks, block, width)

  def best_of(norm, code):
    dots = jnp.einsum(
      "...d,vd->...v", z, code, precision=jax.lax.Precision.HIGHEST
    )
    score = jnp.expand_dims(norm, range(z.ndim - 1)) - dots
    index = jnp.argmin(score, axis=-1).astype(jnp.int32)
    return score.min(axis=-1), index

  if blocks == 1:
    return best_of(norms[0], codes[0])[1]

  def step(best, block_of):
    start, norm, code = block_of
    score, index = best_of(norm, code)
    closer = score < best[0]
    return (
      jnp.where(closer, score, best[0]),
      jnp.where(closer, start + index, best[1]),
    ), None

  first = (
    jnp.full(z.shape[:-1], jnp.inf),
    jnp.zeros(z.shape[:-1], jnp.int32),
  )
  starts = jnp.arange(blocks, dtype=jnp.int32) * block
  (_, index), _ = jax.lax.scan(step, first, (starts, norms, codes))
  return index
