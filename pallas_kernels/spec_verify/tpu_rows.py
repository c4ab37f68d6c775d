"""What the TPU kernel does with one sequence; `tpu` has the plan of it.

`refs` are the buffers of the kernel by name, and "b", the sequence.
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
ROWS = 8  # sublanes of a register of 32-bit numbers
# Columns of the integers and of the floats that belong to a row.
DRAFT, PARENT, RADIUS, KEY = 0, 1, 2, 3
NOISE, LAST, SCALE = 0, 1, 2
# State of a sequence between groups of rows.
DONE, ROW, DEPTH = 0, 1, 2


def walk_through(
  refs: dict, mode: str, law: rules.Law, rule: rules.Rule, rows: int, vocab: int
) -> None:
  """Walks through the groups of rows of one sequence."""
  # Asked once, outside every branch: interpretation knows it only here.
  refs = {**refs, "b": pl.program_id(0)}
  state, k = refs["state"], rows - 1
  for slot in (DONE, ROW, DEPTH):
    state[slot] = 0
  refs["chance"][...] = jnp.zeros_like(refs["chance"])
  if mode != "exact":
    refs["drawn"][...] = jnp.zeros_like(refs["drawn"])
  group = functools.partial(_group, refs, mode, law, rule, vocab)
  q = refs["q"].at[0] if "q" in refs else None
  group(0, min(rows, ROWS), min(k, ROWS), refs["z"].at[0], q)

  def later(start, height, height_q):
    row = state[ROW]
    wanted = (state[DONE] == 0) & (start <= row) & (row < start + ROWS)

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
  full = k // ROWS
  if full > 1:
    jax.lax.fori_loop(
      1,
      full,
      lambda g, _: later(pl.multiple_of(g * ROWS, ROWS), ROWS, ROWS),
      None,
    )
  if full:
    later(full * ROWS, rows - full * ROWS, k - full * ROWS)


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
  draft = column(integers, DRAFT)
  z = [z_ref[i, :height].astype(jnp.float32) for i in range(z_ref.shape[0])]
  if len(z) == 2:
    scale = column(floats, SCALE)[:height]
    z = [rows_of.guided(*z, scale)]
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
      target, draft, log_q, rule, table, column(integers, RADIUS)
    )
    stands = (jnp.log(column(floats, NOISE)) < trial.ratio) & live
    # Rows that fall: the first one draws, if there is one.
    row = _least(jnp.where(stands, start + high, k))
    state[ROW] = row
    state[DEPTH] = row
    chance = jnp.exp(jnp.minimum(trial.ratio, 0.0))

    @pl.when(row < start + high)
    def _():
      weights = jnp.where(live, trial.residual, target.probs)
      token = rows_of.inverse(weights, column(floats, LAST))
      _answer(refs, k == row, target, token)

  else:
    if mode == "gumbel":
      token = rows_of.gumbel_draw(
        target, column(integers, KEY), column(integers, KEY + 1)
      )
    else:
      token = rows_of.inverse(target.probs, column(floats, NOISE))
    chance = jnp.exp(target.logp(draft))
    refs["drawn"][here] = jnp.broadcast_to(token, (high, 128))
    _walk(refs, start + high)

    @pl.when(state[DONE] == 1)
    def _():
      _answer(refs, k == state[ROW], target, token)

  reached = live & (k <= state[DEPTH])
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
  parent = integers[:, PARENT : PARENT + 1]
  drafts = integers[:, DRAFT : DRAFT + 1]
  drawn = refs["drawn"][:, :1]

  def step(_):
    row = state[ROW]
    token = _at(drawn, index == row)
    child = live & (parent == row) & (drafts == token)
    found = _least(jnp.where(child, index, integers.shape[0]))
    missed = found == integers.shape[0]
    state[ROW] = jnp.where(missed, row, found + 1)
    state[DEPTH] = state[DEPTH] + jnp.where(missed, 0, 1)
    state[DONE] = missed.astype(jnp.int32)
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
  state[DONE] = 1
  refs["verdict"][0] = jnp.concatenate(
    [line(state[DEPTH]), line(_at(token, mine)), line(state[ROW]), bits], 0
  )
