"""The only door to kernels: each operation takes impl=None or a name.

`impl=None` picks what is best on the platform; a named implementation that
cannot serve raises and says why, it never falls back. What runs is logged
once. The names are "xla", "pallas" (the kernel of the platform) and the full
ones, "pallas_tpu" and "pallas_gpu", which also compile a program for an
accelerator that is not attached. Shapes: B batch, T queries, S keys, H heads,
K features per head, C rows of a cache.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import UserError
from pallas_kernels.nearest_code import reference as code_reference
from pallas_kernels.per_device import per_device
from pallas_kernels.sparse_attention import tiles, xla
from pallas_kernels.spec_verify import rules

Array = jax.Array

# The forms of each operation; kernels are imported when they are needed.
_ATTENTION = {
  "xla": "sparse_attention.xla",
  "pallas_tpu": "sparse_attention.tpu",
  "pallas_gpu": "sparse_attention.gpu",
}
_DECODE = {
  "xla": "sparse_attention.xla",
  "pallas_tpu": "sparse_attention.tpu_decode",
  "pallas_gpu": "sparse_attention.gpu",
}
_NEAREST = {
  "xla": "nearest_code.xla",
  "pallas_tpu": "nearest_code.tpu",
  "pallas_gpu": "nearest_code.gpu",
}
_VERIFY = {
  "xla": "spec_verify.reference",
  "pallas_tpu": "spec_verify.tpu",
  "pallas_gpu": "spec_verify.gpu",
}

_KERNEL = {"tpu": "pallas_tpu", "gpu": "pallas_gpu"}
# Not picked unless named: these have been compiled, but not yet run, on what
# they are for. `python -m experiments.device` says which line may go.
_UNTRIED = {
  ("attention", "pallas_gpu"),
  ("decode_attention", "pallas_gpu"),
  ("nearest_code", "pallas_gpu"),
  ("verify", "pallas_gpu"),
}

Refusal = Callable[[ModuleType], str | None]


def _platform() -> str:
  """What is compiled for: "cpu", "tpu" or "gpu".

  Ahead of time that is the device of the mesh, else the default backend.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  name = getattr(device, "platform", None) or jax.default_backend()
  return "gpu" if name in ("cuda", "rocm") else name


def _choose(
  op: str,
  impl: str | None,
  forms: Mapping[str, str],
  refusal: Refusal = lambda kernel: None,
) -> tuple[str, ModuleType]:
  """What runs: (its name, its module).

  Args:
    op: the name of the operation.
    impl: what was asked for; None picks a kernel that can serve, else "xla".
    forms: name -> module.
    refusal: why a kernel cannot serve this call; None if it can. A kernel
      that is named says it itself.
  """
  platform = _platform()
  kernel = _KERNEL.get(platform)
  name = kernel if impl == "pallas" else impl
  if impl is None:
    picked = kernel in forms and (op, kernel) not in _UNTRIED
    picked = picked and refusal(_module(forms[kernel])) is None
    name = kernel if picked else "xla"
  elif impl == "pallas" and kernel not in forms:
    raise NotImplementedError(
      f"ops.{op}: impl='pallas' has no kernel for {platform}; there are "
      f"{', '.join(forms)}"
    )
  elif name not in forms:
    raise UserError(
      f"ops.{op}: impl={impl!r}; choose None, 'pallas' or one of {list(forms)}"
    )
  _tell(op, platform, name)
  return name, _module(forms[name])


@functools.cache  # so that a choice is logged once
def _tell(op: str, platform: str, name: str) -> None:
  logging.info("ops.%s on %s: %s", op, platform, name)


@functools.cache
def _module(name: str) -> ModuleType:
  return importlib.import_module(f"pallas_kernels.{name}")


def _scattered(mapped: bool) -> str | None:
  """Why no kernel can run here: XLA cannot split one over several devices.

  Args:
    mapped: whether the operation maps itself over a mesh, where one is set.
  """
  mesh = jax.sharding.get_abstract_mesh()
  # Ahead of time the devices are those of the mesh.
  devices = jax.device_count() if mesh.empty else mesh.size
  if devices == 1 or mesh.manual_axes or (mapped and not mesh.empty):
    return None
  return "the arrays may be split over devices; use jax.shard_map"


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
    impl: see above. Kernels need a Plan or None: a mask that is data has no
      structure to exploit.

  Returns:
    [B, T, H, K], in the dtype of v. A query that sees nothing gets the mean
    under an array, zero under a Plan.

  Raises:
    NotImplementedError: the implementation that is named cannot serve this.
    UserError: there is no such implementation.
  """
  sparse = isinstance(mask, Plan)
  if impl is None and not sparse:
    impl = "xla"
  refusal = lambda kernel: _scattered(True) or kernel.unsupported(q, k, v)
  chosen, form = _choose("attention", impl, _ATTENTION, refusal)
  if chosen == "xla" and not sparse:
    return xla.masked(q, k, v, mask, scale=scale)
  if not sparse and mask is not None:
    raise NotImplementedError(
      f"ops.attention: {chosen} takes a Plan or None as mask, got an array "
      f"{mask.shape}; use impl='xla' or None"
    )
  pattern = pattern_of(mask) if sparse else _all(q.shape[1], k.shape[1])
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
    impl: see above.

  Returns:
    [B, T, H, K], in the dtype of v.

  Raises:
    NotImplementedError: the implementation that is named cannot serve this.
    UserError: there is no such implementation.
  """
  pattern = None if mask is None else pattern_of(mask)
  refusal = lambda kernel: _scattered(True) or kernel.unsupported(q, k, v)
  chosen, form = _choose("decode_attention", impl, _DECODE, refusal)
  static = () if isinstance(lengths, jax.Array) else (lengths,)
  call = lambda *x: form.decode(*x, *static, pattern, scale=scale)[0]
  args = q, k, v, cache_k, cache_v, *(() if static else (lengths,))
  return call(*args) if chosen == "xla" else per_device(call, *args)


def nearest_code(
  z: Array, codebook: Array, *, impl: str | None = None
) -> Array:
  """Index of the nearest row of a codebook, in float32.

  Distances use full float32 products: TF32 or bfloat16 flips codes. The
  matrix of all of them is never written.

  Args:
    z: f32[..., d].
    codebook: f32[V, d].
    impl: see above.

  Returns:
    i32[...]; the lowest index where codes tie.

  Raises:
    NotImplementedError: the named implementation cannot do this.
    UserError: the widths differ.
  """
  with _user_error("nearest_code"):
    code_reference.check(z, codebook)
  refusal = lambda kernel: _scattered(False) or kernel.refusal(z.shape[-1])
  _, form = _choose("nearest_code", impl, _NEAREST, refusal)
  return form.nearest_code(z, codebook)


def verify(
  logits: Array,
  drafts: Array,
  noise: Array,
  *,
  mode: str = "exact",
  draft_logp: Array | None = None,
  valid: Array | None = None,
  parents: Array | None = None,
  guidance: Array | float = 1.0,
  rule: rules.Rule = None,
  table: Array | None = None,
  radius: Array | None = None,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
  impl: str | None = None,
) -> rules.Verdict:
  """How many drafted tokens stand, and the token that follows them.

  `pallas_kernels.spec_verify.reference.verify` says what is computed and has
  the shapes. The law is that of `core.decoding.pick.law` with the same filters.
  Where noise is a key, rows of "gumbel" draw what `core.decoding.pick.draw`
  does.

  Args:
    logits: [B, 1 | 2, K + 1, V]; two of them are the guided pair.
    drafts: i32[B, K].
    noise: "exact" and "point": uniform f32[B, K + 1]. "gumbel": typed
      threefry keys Key[B, K + 1], or their data u32[B, K + 1, 2].
    mode: "exact", "point" or "gumbel".
    draft_logp: f32[B, K | K + 1, V], or None for point masses.
    valid: i32[B], how many drafts are live.
    parents: i32[B, K], the row of each draft's parent in a tree.
    guidance: as in `core.decoding.pick.guide`, f32[] or f32[B].
    rule: a relaxed rule of `pallas_kernels.spec_verify.rules`, or None.
    table: what the rule asks for.
    radius: what the rule asks for.
    temperature: with the next three, the filters of `core.decoding.pick.law`.
    top_k: see there.
    top_p: see there.
    min_p: see there.
    impl: see above.

  Returns:
    A `Verdict`: accepted, token, row, logp, chance.

  Raises:
    NotImplementedError: the named implementation cannot do this.
    UserError: shapes or settings do not fit.
  """
  if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
    if str(jax.random.key_impl(noise)) != "threefry2x32":
      raise UserError("ops.verify: noise must be threefry2x32 keys")
    noise = jax.random.key_data(noise)
  with _user_error("verify"):
    law = rules.Law(temperature, top_k, top_p, min_p)
    rules.check(
      logits, drafts, noise, draft_logp, valid, parents, guidance, table,
      radius, mode=mode, rule=rule, law=law,
    )  # fmt: skip
  refusal = lambda kernel: (
    _scattered(False) or kernel.refusal(rule, draft_logp, logits)
  )
  _, form = _choose("verify", impl, _VERIFY, refusal)
  return form.verify(
    logits, drafts, noise, mode=mode, draft_logp=draft_logp, valid=valid,
    parents=parents, guidance=guidance, law=law, rule=rule, table=table,
    radius=radius,
  )  # fmt: skip


@contextlib.contextmanager
def _user_error(op: str) -> Iterator[None]:
  """Bad input to a kernel is the user's to mend."""
  try:
    yield
  except ValueError as error:
    raise UserError(f"ops.{op}: {error}") from error
