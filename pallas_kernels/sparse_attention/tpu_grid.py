"""How the TPU kernels of attention walk over tiles.

The grid walks the tiles that `compile_tiles` lists: their numbers are
prefetched into scalar memory and steer the copies, so an empty tile costs
nothing, and the pipeline loads the next tile while this one is computed.
Scores are kept transposed, [keys, queries]: the softmax then reduces over
sublanes, its statistics are rows that lie along the lanes, and a head of 64
features fills the lanes too.

Shapes: B batch, T queries, S keys, H heads, G of them to one head of keys and
values (Hkv), K features per head; N heads of keys and values per grid step,
Q queries and C keys per tile, n visits.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.sparse_attention.tiles import (
  FULL,
  PARTIAL,
  Pattern,
  Visits,
  compile_tiles,
)

Array = jax.Array

MASKED = -1e30  # finite: a difference of two of them is not nan
FIRST, LAST = 4, 8  # flags beside the kind: of the visits of one row
HEADS = 8  # query heads per grid step, at most
_SIZES = (128, 256, 512, 1024)
_VMEM = 16 * 2**20  # what a kernel may use unless it asks for more
_MOST = 60 * 2**20  # of a v5p, which has the least of those that are served


@dataclasses.dataclass(frozen=True)
class Job:
  """All that is static about one call."""

  pattern: Pattern
  block_q: int
  block_k: int
  kv_heads: int  # N
  groups: int  # G
  scale: float
  interpret: Any

  def room(self, q: Array) -> int:
    """`room` of these tiles, of q [..., K]."""
    sizes = self.block_q, self.block_k, self.kv_heads, self.groups
    return room(*sizes, q.shape[-1], q.dtype.itemsize)


def fitted(
  block_q: int, block_k: int, kv_heads: int, groups: int, q: Array
) -> tuple[int, int, int]:
  """(queries and keys of a tile, heads of keys of a grid step), made smaller
  until VMEM holds them: heads first, which only share the masks."""

  def fits(*sizes: int) -> bool:
    need = room(*sizes, groups, q.shape[-1], q.dtype.itemsize)
    return need <= _MOST

  while kv_heads > 1 and not fits(block_q, block_k, kv_heads):
    divisors = (n for n in range(1, kv_heads) if kv_heads % n == 0)
    kv_heads = max(divisors)
  while max(block_q, block_k) > 128 and not fits(block_q, block_k, kv_heads):
    if block_q >= block_k:
      block_q //= 2
    else:
      block_k //= 2
  return block_q, block_k, kv_heads


def unsupported(q: Array, k: Array, v: Array) -> str | None:
  """Why the TPU kernels cannot serve these arrays; None if they can."""
  dtypes, features = {x.dtype.name for x in (q, k, v)}, q.shape[-1]
  if len(dtypes) > 1 or not dtypes <= {"float32", "bfloat16"}:
    return (
      "the TPU kernel takes q, k and v all in float32 or all in bfloat16, got "
      f"{q.dtype}, {k.dtype} and {v.dtype}"
    )
  if features % 8 or not 8 <= features <= 256:
    return (
      "the TPU kernel takes heads of 8 to 256 features, in steps of 8, got "
      f"{features}"
    )
  heads, kv_heads = q.shape[2], k.shape[2]
  need = room(128, 128, 1, heads // kv_heads, features, q.dtype.itemsize)
  if need > _MOST:
    return (
      f"{heads // kv_heads} heads of {features} {q.dtype} features to one of "
      f"keys take {need / 2**20:.0f} MiB of VMEM at the smallest tile; there "
      f"are {_MOST / 2**20:.0f}"
    )
  return None


def room(
  block_q: int, block_k: int, kv_heads: int, groups: int, features: int,
  size: int,
) -> int:  # fmt: skip
  """Bytes of VMEM that a tile takes in the backward pass, which takes most.

  Args:
    block_q: Q.
    block_k: C.
    kv_heads: N.
    groups: G.
    features: K; a row of it fills whole lanes.
    size: bytes of a number of q.
  """
  lanes = -(-features // 128) * 128
  queries = kv_heads * groups * block_q * lanes
  keys = kv_heads * block_k * lanes
  scores = 4 * block_k * groups * block_q
  # q, dO and dQ, or k, v and their gradients, each in flight twice; sums in
  # float32; lse and delta, a row of which takes eight sublanes.
  blocks = (6 * queries + 8 * keys) * size
  sums = 4 * max(queries, 2 * keys)
  rows = 4 * 8 * 4 * kv_heads * groups * block_q
  need = blocks + sums + rows + 4 * scores
  # The compiler splits float32 operands into parts for the matrix unit; from
  # 256 features on it holds them all at once, of 16 heads as much again.
  return 2 * need if size == 4 and features > 192 else need


def vmem_limit(need: int) -> int | None:
  """`vmem_limit_bytes` of a kernel that needs so much; None is the usual."""
  if need < 0.8 * _VMEM:
    return None
  return int(min(max(1.25 * need, _VMEM), _MOST))


@functools.lru_cache(maxsize=256)
def block_sizes(pattern: Pattern, groups: int) -> tuple[int, int]:
  """(queries, keys) per tile: the fewest pairs against the fewest steps.

  A grid step costs about as much as the pairs of six tiles of 128 x 128 and
  serves `HEADS` heads; a tile that needs a mask, a third more.
  """

  def fits(n: int) -> list[int]:
    padded = -(-n // 128) * 128
    return [s for s in _SIZES if s <= padded] or [128]

  def cost(sizes: tuple[int, int]) -> float:
    tiles = compile_tiles(pattern, *sizes)
    partial = int((tiles.by_query.kinds == PARTIAL).sum())
    pairs = (tiles.visited + partial / 3) * sizes[0] * sizes[1] / 128**2
    return pairs + tiles.visited * 6 / HEADS

  # Scores of a tile, [C, G Q] in float32, stay below 2 MiB.
  choices = [
    (q, k)
    for q in fits(pattern.queries)
    for k in fits(pattern.keys)
    if q * k * groups <= 2**19 or (q, k) == (128, 128)
  ]
  return min(choices, key=lambda sizes: (cost(sizes), sizes))


def _tables(visits: Visits) -> tuple[np.ndarray, ...]:
  """(major, minor, flags), with an empty visit for each row that has none, so
  that every tile of the result is written."""
  counts = np.diff(visits.starts)
  empty = np.flatnonzero(counts == 0)
  major = np.concatenate([visits.major, empty])
  order = np.argsort(major, kind="stable")
  minor = np.concatenate([visits.minor, 0 * empty])[order]
  kinds = np.concatenate([visits.kinds, 0 * empty])[order]
  major = major[order]
  change = np.diff(major) > 0
  first, last = np.r_[True, change], np.r_[change, True]
  tables = major, minor, kinds + FIRST * first + LAST * last
  return tuple(x.astype(np.int32) for x in tables)


def _integers(job: Job) -> tuple[np.ndarray, np.ndarray]:
  """i32[names + 1, T or S], padded to tiles; the last row is the index."""

  def pad(columns: np.ndarray, block: int) -> np.ndarray:
    index = np.arange(columns.shape[1], dtype=np.int32)[None]
    extra = -columns.shape[1] % block
    columns = np.pad(columns, ((0, 0), (0, extra)), mode="edge")
    index = np.pad(index, ((0, 0), (0, extra)), constant_values=2**30)
    return np.concatenate([columns, index])

  p = job.pattern
  return pad(p.query_columns, job.block_q), pad(p.key_columns, job.block_k)


def dot(a: Array, b: Array, over: tuple[int, int]) -> Array:
  """Contracts axis over[0] of a with axis over[1] of b, into float32."""
  exact = a.dtype == jnp.float32
  return jax.lax.dot_general(
    a,
    b,
    (((over[0],), (over[1],)), ((), ())),
    precision=jax.lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )


def _mask(job: Job, qi, ki) -> Array:
  """bool[C, G Q] from the refs i32[names + 1, Q] and i32[names + 1, C]."""
  names = range(len(job.pattern.names))
  rows = lambda i: jnp.concatenate([qi[pl.ds(i, 1), :]] * job.groups, axis=1)

  def column(i):
    # A row becomes a column by transposing a square of copies of it.
    square = jnp.broadcast_to(ki[pl.ds(i, 1), :], (128, job.block_k))
    return jnp.transpose(square)[:, :1]

  seen = job.pattern.see([rows(i) for i in names], [column(i) for i in names])
  shape = (job.block_k, job.groups * job.block_q)
  seen = jnp.broadcast_to(jnp.asarray(seen, bool), shape)
  if job.pattern.keys % job.block_k:
    seen = seen & (column(len(names)) < job.pattern.keys)
  return seen


def each_head(job: Job, flag, qi, ki, tile) -> None:
  """Runs tile(head, mask or None) for each head, if there is a tile at all."""

  def run(mask):
    loop = lambda n, _: tile(n, mask)
    jax.lax.fori_loop(0, job.kv_heads, loop, None, unroll=job.kv_heads <= 2)

  kind = flag & 3
  pl.when(kind == FULL)(lambda: run(None))
  pl.when(kind == PARTIAL)(lambda: run(_mask(job, qi, ki)))


def queries_of(job: Job, ref, n) -> Array:
  """The rows [G Q, K] of the queries that share head n, of [1, N G, Q, K]."""
  rows = ref[0, pl.ds(n * job.groups, job.groups)]
  return rows.reshape(job.groups * job.block_q, rows.shape[-1])


def row_of(job: Job, ref, n) -> Array:
  """One number for each such row, [1, G Q], of [1, N G, 1, Q]."""
  heads = range(job.groups)
  return jnp.concatenate([ref[0, n * job.groups + g] for g in heads], axis=1)


def scores_of(job: Job, q, k, mask) -> Array:
  scores = dot(k, q, (1, 1))
  if job.scale != 1.0:
    scores = scores * job.scale
  return scores if mask is None else jnp.where(mask, scores, MASKED)


def call(job, kernel, visits, inputs, outputs, scratch, by_query):
  """One kernel over `visits`; by_query says what a row of the visits is.

  Inputs and outputs are (array or shape, side), side "q" or "k".
  """
  tables = _tables(visits)
  side = {"q": 0, "k": 1} if by_query else {"q": 1, "k": 0}
  blocks = {"q": job.block_q, "k": job.block_k}
  heads = {"q": job.kv_heads * job.groups, "k": job.kv_heads}

  def spec(array, of):
    rows = array.shape[2] == 1  # [B, H, 1, T]: numbers along the lanes
    if rows:
      shape = (1, heads[of], 1, blocks[of])
      place = lambda b, h, i, *t: (b, h, 0, t[side[of]][i])
    else:
      shape = (1, heads[of], blocks[of], array.shape[3])
      place = lambda b, h, i, *t: (b, h, t[side[of]][i], 0)
    return pl.BlockSpec(shape, place)

  integers = _integers(job)
  index = lambda of: lambda b, h, i, *t: (0, t[side[of]][i])
  specs = [
    pl.BlockSpec((len(x), blocks[of]), index(of))
    for x, of in zip(integers, "qk", strict=True)
  ]
  batch, kv_heads = next(x.shape[:2] for x, of in inputs if of == "k")
  grid = (batch, kv_heads // job.kv_heads, len(tables[0]))
  return pl.pallas_call(
    functools.partial(kernel, job),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=grid,
      in_specs=specs + [spec(*x) for x in inputs],
      out_specs=[spec(*x) for x in outputs],
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=[x for x, _ in outputs],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel", "arbitrary"),
      vmem_limit_bytes=vmem_limit(job.room(inputs[0][0])),
    ),
    interpret=job.interpret,
    name=f"sparse_attention{kernel.__name__}",
  )(*tables, *integers, *(x for x, _ in inputs))


def like(shape, dtype, *arrays) -> jax.ShapeDtypeStruct:
  """A result that varies over the same mesh axes as the inputs."""
  varying = (jax.typeof(x).manual_axis_type.varying for x in arrays)
  axes = jax.sharding.ManualAxisType(varying=frozenset().union(*varying))
  return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=axes)
