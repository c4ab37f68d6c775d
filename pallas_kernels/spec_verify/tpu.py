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

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.spec_verify import row as rows_of
from pallas_kernels.spec_verify import rules

Array = jax.Array
_ROWS = 8  # sublanes of a register of 32-bit numbers
# Columns of the integers and of the floats that belong to a row.
_DRAFT, _PARENT, _RADIUS, _KEY = 0, 1, 2, 3
_NOISE, _LAST, _SCALE = 0, 1, 2
# State of a sequence between groups of rows.
_DONE, _ROW, _DEPTH = 0, 1, 2


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
  if reason := refusal(rule, draft_logp):
    raise NotImplementedError(reason)
  kernel, shapes, inputs = _plan(given, mode, law, rule)
  verdict, chance = pl.pallas_call(kernel, interpret=interpret, **shapes)(
    *inputs
  )
  accepted, token, last = (verdict[:, i, 0] for i in range(3))
  logp = jax.lax.bitcast_convert_type(verdict[:, 3, 0], jnp.float32)
  k = drafts.shape[1]
  chance = chance[:, :k, 0] if parents is None else None
  return rules.Verdict(accepted, token, last, logp, chance)


def refusal(rule: rules.Rule, draft_logp: Array | None) -> str | None:
  """Why this kernel cannot serve a rule; None if it can."""
  if draft_logp is not None and rule == rules.Groups("group"):
    return (
      "spec_verify: the residual of Groups('group') needs a sum per group, "
      "which kernels have only for point masses; use the xla form or "
      "Groups('token')"
    )
  return None


def _plan(given: rules.Request, mode: str, law: rules.Law, rule: rules.Rule):
  """(the kernel, the keywords of its pallas_call, its inputs)."""
  batch, mixed, rows, vocab = given.logits.shape
  k = rows - 1
  high = min(rows, _ROWS)
  padded = -(-rows // _ROWS) * _ROWS
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
    high_q = min(log_q.shape[1], _ROWS)
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
    _sequence(dict(zip(names, refs, strict=True)), mode, law, rule, rows, vocab)

  tile = high * lanes * 4
  block = mixed * tile + (tile if given.draft_logp is not None else 0)
  # Two blocks in flight and one of a later group, and room for values.
  limit = 3 * block + 16 * tile + 2 * 2**20
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


def _sequence(
  refs: dict, mode: str, law: rules.Law, rule: rules.Rule, rows: int, vocab: int
) -> None:
  """Walks through the groups of rows of one sequence."""
  # Asked once, outside every branch: interpretation knows it only here.
  refs = {**refs, "b": pl.program_id(0)}
  state, k = refs["state"], rows - 1
  for slot in (_DONE, _ROW, _DEPTH):
    state[slot] = 0
  refs["chance"][...] = jnp.zeros_like(refs["chance"])
  if mode != "exact":
    refs["drawn"][...] = jnp.zeros_like(refs["drawn"])
  group = functools.partial(_group, refs, mode, law, rule, vocab)
  q = refs["q"].at[0] if "q" in refs else None
  group(0, min(rows, _ROWS), min(k, _ROWS), refs["z"].at[0], q)

  def later(start, height, height_q):
    row = state[_ROW]
    wanted = (state[_DONE] == 0) & (start <= row) & (row < start + _ROWS)

    @pl.when(wanted)
    def _():
      b = refs["b"]
      z, q = refs["more_z"], refs.get("more_q")
      copies = [
        (
          refs["all_z"].at[b, :, pl.ds(start, height)],
          z.at[:, pl.ds(0, height)],
        )
      ]
      if q is not None and height_q:
        copies.append(
          (
            refs["all_q"].at[b, pl.ds(start, height_q)],
            q.at[pl.ds(0, height_q)],
          )
        )
      _copy(copies, refs["sem"])
      group(start, height, height_q, z, q)

  # The last row has no draft: groups of eight drafts, then what remains.
  full = k // _ROWS
  if full > 1:
    jax.lax.fori_loop(
      1,
      full,
      lambda g, _: later(pl.multiple_of(g * _ROWS, _ROWS), _ROWS, _ROWS),
      None,
    )
  if full:
    later(full * _ROWS, rows - full * _ROWS, k - full * _ROWS)


def _copy(pairs, sem) -> None:
  copies = [pltpu.make_async_copy(*pair, sem) for pair in pairs]
  for copy in copies:
    copy.start()
  for copy in copies:
    copy.wait()


def _group(
  refs, mode, law, rule, vocab, start, height, height_q, z_ref, q_ref
) -> None:
  """Rows start .. start + height, in registers of eight rows."""
  state, row_ref = refs["state"], refs["row"]
  high = row_ref.shape[0]
  here = pl.ds(start, high)
  integers, floats = refs["integers"][0, here], refs["floats"][0, here]
  column = lambda x, i: x[:, i : i + 1]
  draft = column(integers, _DRAFT)
  z = [z_ref[i, :height].astype(jnp.float32) for i in range(z_ref.shape[0])]
  if len(z) == 2:
    scale = column(floats, _SCALE)[:height]
    z = [scale * z[0] + (1.0 - scale) * z[1]]
  if height < high:
    row_ref[...] = jnp.zeros_like(row_ref)
  row_ref[:height, :vocab] = z[0]
  target = rows_of.target(row_ref[...], law, vocab)
  k = start + jax.lax.broadcasted_iota(jnp.int32, (high, 1), 0)
  live = k < refs["valid"][refs["b"]]

  if mode == "exact":
    log_q = _log_q(refs, q_ref, height_q, vocab)
    table = _table(refs, start, height_q)
    trial = rows_of.trial(
      target, draft, log_q, rule, table, column(integers, _RADIUS)
    )
    stands = (jnp.log(column(floats, _NOISE)) < trial.ratio) & live
    # Rows that fall: the first one draws, if there is one.
    row = _least(jnp.where(stands, start + high, k))
    state[_ROW] = row
    state[_DEPTH] = row
    chance = jnp.exp(jnp.minimum(trial.ratio, 0.0))

    @pl.when(row < start + high)
    def _():
      weights = jnp.where(live, trial.residual, target.probs)
      token = rows_of.inverse(weights, column(floats, _LAST))
      _answer(refs, k == row, target, token)

  else:
    if mode == "gumbel":
      token = rows_of.gumbel_draw(
        target, column(integers, _KEY), column(integers, _KEY + 1)
      )
    else:
      token = rows_of.inverse(target.probs, column(floats, _NOISE))
    chance = jnp.exp(target.logp(draft))
    refs["drawn"][here] = jnp.broadcast_to(token, (high, 128))
    _walk(refs, start + high)

    @pl.when(state[_DONE] == 1)
    def _():
      _answer(refs, k == state[_ROW], target, token)

  reached = live & (k <= state[_DEPTH])
  refs["chance"][0, here] = jnp.broadcast_to(
    jnp.where(reached, chance, 0.0), (high, 128)
  )


def _least(x: Array) -> Array:
  """The least of small integers i32[rows, 1], a scalar."""
  return jnp.min(x.astype(jnp.float32)).astype(jnp.int32)


def _at(x: Array, here: Array) -> Array:
  """The one of small integers i32[rows, 1] at `here`, a scalar."""
  return jnp.sum(jnp.where(here, x, 0).astype(jnp.float32)).astype(jnp.int32)


def _log_q(refs, q_ref, height_q: int, vocab: int) -> Array | None:
  if q_ref is None:
    return None
  row_ref = refs["row_q"]
  row_ref[...] = jnp.full_like(row_ref, -jnp.inf)
  if height_q:
    row_ref[:height_q, :vocab] = q_ref[:height_q].astype(jnp.float32)
  return row_ref[...]


def _table(refs, start, height_q: int) -> Array | None:
  """The rows of a table that belong to the drafts of the group."""
  if "groups" in refs:
    return refs["groups"][...]
  if "table" not in refs:
    return None
  ranks, row_ref, b = refs["ranks"], refs["row_t"], refs["b"]
  row_ref[...] = jnp.full_like(row_ref, -1)
  if height_q:
    _copy(
      [
        (
          refs["table"].at[pl.ds(refs["tokens"][b, start + i], 1)],
          ranks.at[pl.ds(i, 1)],
        )
        for i in range(height_q)
      ],
      refs["sem"],
    )
    row_ref[:height_q, : ranks.shape[1]] = ranks[:height_q]
  return row_ref[...]


def _walk(refs, stop) -> None:
  """Follows the tokens drawn at rows below `stop` from child to child."""
  state, integers = refs["state"], refs["integers"][0]
  index = jax.lax.broadcasted_iota(jnp.int32, (integers.shape[0], 1), 0)
  live = index < refs["valid"][refs["b"]]
  parent = integers[:, _PARENT : _PARENT + 1]
  drafts = integers[:, _DRAFT : _DRAFT + 1]
  drawn = refs["drawn"][:, :1]

  def step(_):
    row = state[_ROW]
    token = _at(drawn, index == row)
    child = live & (parent == row) & (drafts == token)
    found = _least(jnp.where(child, index, integers.shape[0]))
    missed = found == integers.shape[0]
    state[_ROW] = jnp.where(missed, row, found + 1)
    state[_DEPTH] = state[_DEPTH] + jnp.where(missed, 0, 1)
    state[_DONE] = missed.astype(jnp.int32)
    return missed | (found + 1 >= stop)

  jax.lax.while_loop(lambda over: ~over, step, jnp.bool_(False))


def _answer(refs, mine: Array, target: rows_of.Row, token: Array) -> None:
  """Writes the verdict; `mine` bool[rows, 1] is true of the row that drew."""
  state = refs["state"]
  logp = jnp.sum(jnp.where(mine, target.logp(token), 0.0))
  bits = jax.lax.bitcast_convert_type(
    jnp.full((1, rows_of.LANES), logp), jnp.int32
  )
  line = lambda x: jnp.full((1, rows_of.LANES), x, jnp.int32)
  state[_DONE] = 1
  refs["verdict"][0] = jnp.concatenate(
    [line(state[_DEPTH]), line(_at(token, mine)), line(state[_ROW]), bits], 0
  )
