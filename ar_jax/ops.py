"""The only door to kernels: each operation takes impl=None | "xla" | "pallas".

`impl=None` picks what is best on the current backend and logs its choice
once. Shapes: B batch, T queries, S keys, H heads, K features per head.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from ar_jax.core.plan import Plan
from ar_jax.core.system import UserError
from pallas_kernels.nearest_code import reference as code_reference
from pallas_kernels.nearest_code import tpu as code_tpu
from pallas_kernels.nearest_code import xla as code_xla
from pallas_kernels.spec_verify import reference as verify_reference
from pallas_kernels.spec_verify import rules
from pallas_kernels.spec_verify import tpu as verify_tpu

Array = jax.Array


def _platform() -> str:
  """What is compiled for: "cpu", "tpu" or "gpu".

  Ahead of time that is the device of the mesh, else the default backend.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  name = getattr(device, "platform", None) or jax.default_backend()
  return "gpu" if name in ("cuda", "rocm") else name


def _choose(op: str, impl: str | None, kernels: tuple[str, ...]) -> str:
  """The implementation of `op` to run: "xla" or "pallas".

  Args:
    op: the name of the operation.
    impl: what was asked for; None picks a kernel where there is one.
    kernels: the platforms that it has a kernel for.
  """
  return _chosen(op, impl, kernels, _platform())


@functools.cache  # so that a choice is logged once
def _chosen(op: str, impl: str | None, kernels, platform: str) -> str:
  if impl not in (None, "xla", "pallas"):
    raise UserError(f"ops.{op}: impl={impl!r}; choose None, 'xla' or 'pallas'")
  if impl == "pallas" and platform not in kernels:
    raise NotImplementedError(
      f"ops.{op}: impl='pallas' has kernels for {', '.join(kernels) or 'none'}"
      f", not for {platform}; use impl='xla' or None"
    )
  if impl is None:
    impl = "pallas" if platform in kernels else "xla"
  logging.info("ops.%s on %s: %s", op, platform, impl)
  return impl


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
    impl: see above.

  Returns:
    [B, T, H, K], in the dtype of v. A query that sees nothing gets the mean.
  """
  _choose("attention", impl, ())
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  # Heads go in front of positions once, for all products of matrices.
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  if not isinstance(mask, Plan):
    return jnp.swapaxes(_attend(q, k, v, mask, scale), 1, 2)
  parts = []
  for rows, keys, dense in _groups(mask):
    part = None if dense else jnp.asarray(mask.mask(rows)[None, None, :, keys])
    parts.append(
      _attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], part, scale)
    )
  return jnp.swapaxes(jnp.concatenate(parts, axis=2), 1, 2)


def _attend(
  q: Array, k: Array, v: Array, mask: Array | None, scale: float
) -> Array:
  """[B, H, T, K] of q [B, H, T, K] and k, v [B, Hkv, S, K]."""
  b, heads, t, features = q.shape
  groups = k.shape[1]
  # The queries that share a key head are rows of one product.
  q = q.reshape(b, groups, -1, features)
  product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = scale * product("bnrk,bnsk->bnrs", q, k)
  if mask is not None:
    scores = scores.reshape(b, groups, heads // groups, t, -1)
    scores = jnp.where(mask[:, :, None], scores, -1e30)
    scores = scores.reshape(b, groups, q.shape[2], -1)
  top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
  weights = jnp.exp(scores - top)
  # Normalising the result takes K divisions a query in place of S.
  out = product("bnrs,bnsk->bnrk", weights.astype(v.dtype), v)
  out = out / jnp.sum(weights, -1, keepdims=True)
  return out.astype(v.dtype).reshape(b, heads, t, features)


# Steps are merged until a group has this many queries: below it, the masked
# pairs that merging adds cost less than the calls that it saves.
_GROUP = 64


@functools.cache
def _groups(plan: Plan) -> tuple[tuple[slice, slice, bool], ...]:
  """(queries, the keys that they need, whether each query sees all those)."""
  return tuple(_split(plan))


def _split(plan: Plan) -> Iterator[tuple[slice, slice, bool]]:
  start = 0
  for step in range(plan.steps):
    stop = plan.span(step).stop
    if stop - start < _GROUP and stop < len(plan):
      continue
    seen = plan.mask(slice(start, stop))
    some = seen.any(0).nonzero()[0]
    keys = slice(int(some[0]), int(some[-1]) + 1)
    yield slice(start, stop), keys, bool(seen[:, keys].all())
    start = stop


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
    NotImplementedError: there is no kernel for this platform.
    UserError: the widths differ.
  """
  with _user_error("nearest_code"):
    code_reference.check(z, codebook)
  if _choose("nearest_code", impl, ("tpu",)) == "xla":
    return code_xla.nearest_code(z, codebook)
  return code_tpu.nearest_code(z, codebook)


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
  the shapes. The law is that of `core.pick.law` with the same filters. Where
  noise is a key, rows of "gumbel" draw what `core.pick.draw` does.

  Args:
    logits: [B, 1 | 2, K + 1, V]; two of them are the guided pair.
    drafts: i32[B, K].
    noise: "exact" and "point": uniform f32[B, K + 1]. "gumbel": typed
      threefry keys Key[B, K + 1], or their data u32[B, K + 1, 2].
    mode: "exact", "point" or "gumbel".
    draft_logp: f32[B, K | K + 1, V], or None for point masses.
    valid: i32[B], how many drafts are live.
    parents: i32[B, K], the row of each draft's parent in a tree.
    guidance: as in `core.pick.guide`, f32[] or f32[B].
    rule: a relaxed rule of `pallas_kernels.spec_verify.rules`, or None.
    table: what the rule asks for.
    radius: what the rule asks for.
    temperature: with the next three, the filters of `core.pick.law`.
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
  if impl is None and verify_tpu.refusal(rule, draft_logp):
    impl = "xla"
  run = verify_reference.verify
  if _choose("verify", impl, ("tpu",)) == "pallas":
    run = verify_tpu.verify
  return run(
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
