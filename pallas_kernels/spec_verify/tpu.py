"""Verification of drafts on a TPU core, one sequence after the other.

Rows are processed eight at a time, one a sublane, so that a threshold of
eight rows is bisected for the price of one; the rows stay in VMEM from the
first look to the draw. The first eight rows of a sequence arrive while the
one before is computed. Later groups of eight are copied only if all before
them stand (in a tree: if the path reaches them), so that what is rejected
early is not read. No sort, and nothing of size [B, K + 1, V] is written.

The mathematics is that of `row`, shared with the reference, whose sums have
one order: given the same numbers the answers are the same to the bit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.spec_verify import row as rows_of
from pallas_kernels.spec_verify import rules, tpu_rows

Array = jax.Array
_MOST = 60 * 2**20  # bytes of VMEM of a v5p, which has the least


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
  law: rules.Law = rules.Law(),  # noqa: B008
  rule: rules.Rule = None,
  table: Array | None = None,
  radius: Array | None = None,
  interpret: bool | pltpu.InterpretParams = False,
) -> rules.Verdict:
  """As `reference.verify`, for TPU.

  Raises:
    NotImplementedError: `Groups("group")` with `draft_logp`, whose residual
      needs a sum per group.
    ValueError: shapes or settings do not fit.
  """
  given = rules.check(
    logits, drafts, noise, draft_logp, valid, parents, guidance, table, radius,
    mode=mode, rule=rule, law=law,
  )  # fmt: skip
  if reason := refusal(rule, draft_logp, logits):
    raise NotImplementedError(reason)
  if not drafts.shape[1]:
    given = rules.with_a_draft(given, mode)
  kernel, shapes, inputs = _plan(given, mode, law, rule)
  verdict, chance = pl.pallas_call(kernel, interpret=interpret, **shapes)(
    *inputs
  )
  accepted, token, last = (verdict[:, i, 0] for i in range(3))
  logp = jax.lax.bitcast_convert_type(verdict[:, 3, 0], jnp.float32)
  k = drafts.shape[1]
  chance = chance[:, :k, 0] if parents is None else None
  return rules.Verdict(accepted, token, last, logp, chance)


def refusal(
  rule: rules.Rule, draft_logp: Array | None, logits: Array
) -> str | None:
  """Why this kernel cannot serve such a call; None if it can."""
  if reason := rules.refusal(rule, draft_logp):
    return reason
  need = _room(logits, draft_logp)
  if need > _MOST:
    return (
      f"spec_verify: rows of {logits.shape[-1]} tokens take "
      f"{need / 2**20:.0f} MiB of VMEM, a TPU has {_MOST / 2**20:.0f}; use "
      "the xla form"
    )
  return None


def _room(logits: Array, draft_logp: Array | None) -> int:
  """Bytes of VMEM: two blocks in flight and one of a later group of rows, and
  room for values."""
  _, mixed, rows, vocab = logits.shape
  lanes = -(-vocab // rows_of.LANES) * rows_of.LANES
  tile = min(rows, tpu_rows.ROWS) * lanes * 4
  blocks = mixed + (draft_logp is not None)
  return 3 * blocks * tile + 16 * tile + 2 * 2**20


def _plan(given: rules.Request, mode: str, law: rules.Law, rule: rules.Rule):
  """(the kernel, the keywords of its pallas_call, its inputs)."""
  batch, mixed, rows, vocab = given.logits.shape
  k = rows - 1
  high = min(rows, tpu_rows.ROWS)
  padded = -(-rows // tpu_rows.ROWS) * tpu_rows.ROWS
  lanes = -(-vocab // rows_of.LANES) * rows_of.LANES
  by_row = lambda *columns: jnp.stack(
    [
      jnp.pad(x, ((0, 0), (0, padded - x.shape[1])))
      for x in map(jnp.asarray, columns)
    ],
    -1,
  )
  whole = lambda x: jnp.broadcast_to(x[:, None], (batch, rows))
  zero = jnp.zeros((batch, rows), jnp.int32)
  if mode == "gumbel":
    bits = jax.lax.bitcast_convert_type(given.noise, jnp.int32)
    keys, noise = (bits[..., 0], bits[..., 1]), zero.astype(jnp.float32)
  else:
    keys, noise = (zero, zero), given.noise
  parents = given.parents
  if parents is None:
    parents = jnp.broadcast_to(jnp.arange(k, dtype=jnp.int32), (batch, k))
  near = zero if given.radius is None else given.radius[given.drafts]
  integers = by_row(given.drafts, parents, near, *keys)
  floats = by_row(noise, whole(noise[:, -1]), whole(given.guidance))

  a_sequence = lambda *shape: pl.BlockSpec(
    (1, *shape), lambda b: (b,) + (0,) * len(shape)
  )
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
  inputs = dict(
    valid=(given.valid, scalars),
    tokens=(given.drafts, scalars),
    integers=(integers, a_sequence(padded, 5)),
    floats=(floats, a_sequence(padded, 3)),
    z=(given.logits, a_sequence(mixed, high, vocab)),
    all_z=(given.logits, anywhere),
  )
  scratch = dict(
    state=pltpu.SMEM((3,), jnp.int32),
    row=pltpu.VMEM((high, lanes), jnp.float32),
    more_z=pltpu.VMEM((mixed, high, vocab), given.logits.dtype),
    sem=pltpu.SemaphoreType.DMA,
  )
  if mode != "exact":
    scratch["drawn"] = pltpu.VMEM((padded, 128), jnp.int32)
  if given.draft_logp is not None:
    log_q = given.draft_logp
    high_q = min(log_q.shape[1], tpu_rows.ROWS)
    inputs["q"] = (log_q, a_sequence(high_q, vocab))
    inputs["all_q"] = (log_q, anywhere)
    scratch["more_q"] = pltpu.VMEM((high_q, vocab), log_q.dtype)
    scratch["row_q"] = pltpu.VMEM((high, lanes), jnp.float32)
  if isinstance(rule, rules.Groups):
    groups = jnp.pad(
      given.table[None], ((0, 0), (0, lanes - vocab)), constant_values=-1
    )
    one = pl.BlockSpec((1, lanes), lambda b: (0, 0))
    inputs["groups"] = (groups, one)
  elif given.table is not None:
    inputs["table"] = (given.table, anywhere)
    scratch["ranks"] = pltpu.VMEM((high, vocab), jnp.int32)
    scratch["row_t"] = pltpu.VMEM((high, lanes), jnp.int32)
  names = (*inputs, "verdict", "chance", *scratch)

  def kernel(*refs):
    refs = dict(zip(names, refs, strict=True))
    tpu_rows.walk_through(refs, mode, law, rule, rows, vocab)

  limit = _room(given.logits, given.draft_logp)
  return (
    kernel,
    dict(
      grid=(batch,),
      in_specs=[spec for _, spec in inputs.values()],
      out_specs=[a_sequence(4, rows_of.LANES), a_sequence(padded, 128)],
      out_shape=[
        jax.ShapeDtypeStruct((batch, 4, rows_of.LANES), jnp.int32),
        jax.ShapeDtypeStruct((batch, padded, 128), jnp.float32),
      ],
      scratch_shapes=list(scratch.values()),
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=("parallel",),
        vmem_limit_bytes=max(limit, 16 * 2**20),
      ),
      name=f"spec_verify_{mode}",
    ),
    [array for array, _ in inputs.values()],
  )
