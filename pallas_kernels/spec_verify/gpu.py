"""Verification of drafts on a Hopper GPU (Mosaic GPU).

A warpgroup has a sequence and walks from the first row of it to the one that
draws. A row is mixed, filtered and normalised once and stays in shared memory
until its draft stands or the token is drawn; rows behind the first draft that
falls (in a tree: off the path) are never read, and of a draft's law nothing
but the draft's own entry unless it falls. No sort, and nothing of size
[B, K + 1, V] is written, unless the vocabulary is no multiple of a strip: then
XLA pads the logits.

The mathematics is that of `row`, in the same order of additions; see
`gpu_row`. A vocabulary whose two rows (logits, probabilities) do not fit in
shared memory has them in a workspace of each sequence in the second-level
cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.spec_verify import gpu_row, rules
from pallas_kernels.spec_verify import row as rows_of

Array = jax.Array
Ref = Any


def refusal(
  rule: rules.Rule, draft_logp: Array | None, logits: Array
) -> str | None:
  """Why this kernel cannot serve such a call; None if it can."""
  del logits  # A row too large for shared memory lies in the cache.
  return rules.refusal(rule, draft_logp)


# Bytes of shared memory that a block may have, less what Mosaic keeps.
_SHARED = 232448 - 4096


class _Form(NamedTuple):
  """What is fixed while a kernel is traced.

  Attributes:
    mode: as of `verify`.
    law: as of `verify`.
    rule: as of `verify`.
    batch: B.
    rows: K + 1.
    vocab: V.
    lanes: V in whole strips.
    strip: lanes that are looked at together.
    chain: whether drafts follow each other; else they are a tree.
    interpret: whether a CPU runs it.
  """

  mode: str
  law: rules.Law
  rule: rules.Rule
  batch: int
  rows: int
  vocab: int
  lanes: int
  strip: int
  chain: bool
  interpret: bool


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
  interpret: Any = False,
) -> rules.Verdict:
  """As `reference.verify`, for Hopper.

  `interpret` runs the kernel on a CPU: True as a program of XLA whose arrays
  are its memories; the parameters of jax's interpreter of Mosaic GPU
  (`pallas_kernels.mosaic_gpu.interpreter`) with the memories and threads of a
  GPU, a thousand times more slowly.

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
  batch, _, rows, vocab = given.logits.shape
  strip = min(rows_of.STRIP, -(-vocab // rows_of.LANES) * rows_of.LANES)
  lanes = -(-vocab // strip) * strip
  form = _Form(
    mode, law, rule, batch, rows, vocab, lanes, strip, parents is None,
    bool(interpret),
  )  # fmt: skip
  verdict, floats = _call(form, given, interpret)
  k = rows - 1
  chance = floats[:, : drafts.shape[1]] if form.chain else None
  return rules.Verdict(
    verdict[:, 0], verdict[:, 1], verdict[:, 2], floats[:, k], chance
  )


def _call(
  form: _Form, given: rules.Request, interpret: Any
) -> tuple[Array, Array]:
  """(i32[B, 128]: accepted, token, row; f32[B, ...]: chances, then logp)."""
  batch, rows, k = form.batch, form.rows, form.rows - 1
  wide = lambda x, fill: jnp.pad(
    x,
    [(0, 0)] * (x.ndim - 1) + [(0, form.lanes - x.shape[-1])],
    constant_values=fill,
  )
  # Small arrays have a whole number of threads per sequence.
  many = -(-(rows + 1) // rows_of.LANES) * rows_of.LANES
  by_row = lambda x: jnp.pad(x, ((0, 0), (0, many - x.shape[1])))
  parents = given.parents
  if parents is None:
    parents = jnp.broadcast_to(jnp.arange(k, dtype=jnp.int32), (batch, k))
  if form.mode == "gumbel":
    bits = lax.bitcast_convert_type(given.noise, jnp.int32)
    noise = [by_row(bits[..., i]) for i in range(2)]
  else:
    noise = [by_row(given.noise)]
  inputs = {
    "z": wide(given.logits, 0),
    "drafts": by_row(given.drafts),
    "parents": by_row(parents),
    "valid": given.valid,
    "guidance": given.guidance,
    **{f"noise{i}": x for i, x in enumerate(noise)},
  }
  if given.draft_logp is not None:
    inputs["q"] = wide(given.draft_logp.astype(jnp.float32), -jnp.inf)
  if given.table is not None:
    inputs["table"] = wide(given.table, -1)
  if given.radius is not None:
    inputs["radius"] = given.radius
  outs = {
    "verdict": jax.ShapeDtypeStruct((batch, rows_of.LANES), jnp.int32),
    "floats": jax.ShapeDtypeStruct((batch, many), jnp.float32),
  }
  row = jax.ShapeDtypeStruct((form.lanes,), jnp.float32)
  sums = jax.ShapeDtypeStruct((3, form.strip + rows_of.LANES), jnp.float32)
  scratch = {"sums": sums}
  if 8 * form.lanes + 4 * sums.size <= _SHARED:
    scratch |= {"x": row, "p": row}
  else:
    row = jax.ShapeDtypeStruct((batch, form.lanes), jnp.float32)
    outs |= {"all_x": row, "all_p": row}
  names = (*inputs, *outs, *scratch)

  def kernel(*refs, start, step):
    refs = dict(zip(names, refs, strict=True))

    def one(i, _):
      _sequence({**refs, "b": start + i * step}, form)

    lax.fori_loop(0, batch // step, one, None)

  if interpret is True:
    zeros = [jnp.zeros(x.shape, x.dtype) for x in (outs | scratch).values()]
    whole = pl.run_state(lambda refs: kernel(*refs, start=0, step=1))
    after = whole((*inputs.values(), *zeros))
    return after[len(inputs)], after[len(inputs) + 1]
  # The interpreter compiles every block by itself.
  blocks = 1 if interpret else batch

  def block(*refs):
    kernel(*refs, start=lax.axis_index("sequences"), step=blocks)

  block.__name__ = f"spec_verify_{form.mode}"
  return plgpu.kernel(
    block,
    out_type=list(outs.values()),
    grid=(blocks,),
    grid_names=("sequences",),
    scratch_types=[plgpu.SMEM(x.shape, x.dtype) for x in scratch.values()],
    interpret=interpret or None,
  )(*inputs.values())[:2]


def _sequence(refs: dict[str, Any], form: _Form) -> None:
  """From the first row of sequence refs["b"] to the one that draws."""
  b = refs["b"]
  if "all_x" in refs:
    refs |= {"x": refs["all_x"].at[b], "p": refs["all_p"].at[b]}
  sweep = gpu_row.Sweep(form.lanes, form.strip, refs["sums"], form.interpret)
  many = refs["floats"].shape[1]
  lane = sweep.places(many)
  valid = refs["valid"][b]
  step = _trial if form.mode == "exact" else _draw

  def body(carry):
    row, depth, _, floats, _, _ = carry
    _load(refs, form, sweep, row)
    law = gpu_row.target(sweep, refs["x"], refs["p"], form.law, form.vocab)
    following, chance, token, logp = step(refs, form, sweep, law, row, lane)
    found = following >= 0
    floats = jnp.where((lane == row) & (row < valid), chance, floats)
    return (
      jnp.where(found, following, row),
      depth + jnp.where(found, 1, 0),
      jnp.where(found, 0, 1),
      floats,
      token,
      logp,
    )

  zero = jnp.int32(0)
  start = (zero, zero, zero, sweep.full(many, 0.0, jnp.float32))
  start += (zero, jnp.float32(0.0))
  row, depth, _, floats, token, logp = lax.while_loop(
    lambda carry: carry[2] == 0, body, start
  )
  refs["floats"][b] = jnp.where(lane == form.rows - 1, logp, floats)
  lane = sweep.places(rows_of.LANES)
  verdict = jnp.where(lane == 0, depth, jnp.where(lane == 1, token, row))
  refs["verdict"][b] = verdict


def _load(refs, form: _Form, sweep: gpu_row.Sweep, row: Array) -> None:
  """The guided logits of a row, to where they stay."""
  b = refs["b"]
  z = [refs["z"].at[b, i, row] for i in range(refs["z"].shape[1])]
  scale = refs["guidance"][b]

  def mixed(s):
    x = [s.of(ref).astype(jnp.float32) for ref in z]
    if len(x) == 2:
      x = [rows_of.guided(*x, scale)]
    return jnp.where(s.index < form.vocab, x[0], -jnp.inf)

  sweep.write(refs["x"], mixed)


def _bits(form: _Form) -> int:
  return (-(-form.vocab // rows_of.LANES) * rows_of.LANES - 1).bit_length()


def _trial(refs, form, sweep, law, row, lane):
  """(the next row or -1, chance, token, logp); the last two if -1."""
  b = refs["b"]
  draft = refs["drafts"][b, row]
  live = row < refs["valid"][b]
  # The last row has no draft, and nothing of this is used.
  k = jnp.minimum(row, form.rows - 2)
  log_q = refs["q"].at[b, k] if "q" in refs else None
  table = radius = None
  if "table" in refs:
    groups = isinstance(form.rule, rules.Groups)
    table = refs["table"] if groups else refs["table"].at[draft]
  if "radius" in refs:
    radius = refs["radius"][draft]
  found = gpu_row.trial(sweep, law, draft, log_q, form.rule, table, radius)
  stands = (jnp.log(refs["noise0"][b, row]) < found.ratio) & live

  def fallen():
    # Where nothing is left, and behind the last draft, p itself.
    left = sweep.total(found.residual)
    use = live & (left > 0)
    p = refs["p"]
    # Mosaic GPU selects by vectors only.
    use = jnp.where(use, 1.0, 0.0)
    every = lambda s: jnp.broadcast_to(use, s.index.shape) > 0
    sweep.write(p, lambda s: jnp.where(every(s), found.residual(s), s.of(p)))
    uniform = refs["noise0"][b, form.rows - 1]
    token = gpu_row.inverse(sweep, p, _bits(form), uniform)
    return token, law.logp(token)

  zero = lambda: (jnp.int32(0), jnp.float32(0.0))
  token, logp = lax.cond(stands, zero, fallen)
  chance = jnp.exp(jnp.minimum(found.ratio, 0.0))
  return jnp.where(stands, row + 1, -1), chance, token, logp


def _draw(refs, form, sweep, law, row, lane):
  """(the row of the child that was drawn or -1, chance, token, logp)."""
  b = refs["b"]
  chance = jnp.exp(law.logp(refs["drafts"][b, row]))
  if form.mode == "gumbel":
    keys = (refs[name][b, row] for name in ("noise0", "noise1"))
    token = gpu_row.gumbel_draw(sweep, law, *keys)
  else:
    uniform = refs["noise0"][b, row]
    token = gpu_row.inverse(sweep, law.probs, _bits(form), uniform)
  many = lane.shape[0]
  of = lambda name: sweep.load(refs[name].at[b], 0, many)
  child = (lane < refs["valid"][b]) & (of("parents") == row)
  child &= of("drafts") == token
  found = jnp.min(jnp.where(child, lane, many))
  following = jnp.where(found < many, found + 1, -1)
  return following, chance, token, law.logp(token)
