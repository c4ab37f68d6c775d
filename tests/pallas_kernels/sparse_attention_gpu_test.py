"""The Hopper kernel: interpreted, lowered, compiled and, with a GPU, run.

On a GPU: `JAX_PLATFORMS=cuda python -m pytest tests/pallas_kernels -k device`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import PartitionSpec

from pallas_kernels import aot_cuda
from pallas_kernels.sparse_attention import (
  gpu,
  gpu_work,
  reference,
  shapes,
  tiles,
)


def earlier(q, k):
  """The first step sees nothing."""
  return q["step"] > k["step"]


def pattern_of(kind: str, length: int) -> tiles.Pattern:
  if kind == "window":
    return shapes.sliding(length, 70)
  if kind == "doubled":
    return shapes.noisy_clean(length // 2, 24)
  rule = {"causal": shapes.causal, "earlier": earlier}[kind]
  return tiles.pattern(rule, {"step": np.arange(length) // 40})


def values(shape, kv_heads, dtype, keys=None):
  """q, k, v and a gradient of out, all random."""
  b, t, h, features = shape
  kv = (b, keys or t, kv_heads, features)
  shapes = (shape, kv, kv, shape)
  made = jax.random.split(jax.random.key(7), len(shapes))
  return [
    jax.random.normal(key, s, dtype)
    for key, s in zip(made, shapes, strict=True)
  ]


def results(attend, q, k, v, dout):
  """out, lse, dq, dk, dv; the gradient flows through both results."""

  def loss(q, k, v):
    out, lse = attend(q, k, v)
    low = jnp.where(jnp.isinf(lse), 0.0, lse)
    return (out * dout).astype(jnp.float32).sum() + low.sum(), (out, lse)

  grad = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
  (_, found), gradients = grad(q, k, v)
  return (*found, *gradients)


def distance(found, wanted):
  """The largest error, relative to the largest value, of each result."""
  errors = []
  for x, y in zip(found, wanted, strict=True):
    x, y = (np.asarray(a, np.float32) for a in (x, y))
    if not np.array_equal(np.isinf(x), np.isinf(y)):
      return [np.inf]
    x, y = (np.where(np.isinf(a), 0.0, a) for a in (x, y))
    errors.append(np.abs(x - y).max() / np.abs(y).max())
  return errors


def exact(fn):
  """`fn` of the same numbers in float32."""
  return lambda *args: fn(*(x.astype(jnp.float32) for x in args))


class WorkTest(parameterized.TestCase):
  """The tables, on the host."""

  @parameterized.parameters("causal", "window", "doubled")
  def test_every_visit_is_done_once_full_ones_first(self, kind):
    t = tiles.compile_tiles(pattern_of(kind, 700), 128, 64)
    visits = t.by_key
    kind_of = {
      (visits.major[i], visits.minor[i]): visits.kinds[i]
      for i in range(len(visits))
    }
    work = gpu_work.compile_work(visits)
    lengths, done = [], []
    for tile, start, middle, stop in work.rows.reshape(-1, 4):
      lengths.append(stop - start)
      for visit in range(start, stop):
        done.append((tile, work.minor[visit]))
        full = kind_of[done[-1]] == tiles.FULL
        self.assertEqual(full, visit < middle)
    self.assertCountEqual(done, kind_of)
    self.assertEqual(lengths, sorted(lengths, reverse=True))

  def test_a_row_without_visits_has_an_item(self):
    work = gpu_work.compile_work(
      tiles.compile_tiles(pattern_of("earlier", 40), 128, 128).by_query
    )
    self.assertEqual((len(work), len(work.minor)), (1, 1))
    np.testing.assert_array_equal(work.rows, [0, 0, 0, 0])

  def test_items_are_every_row_of_every_head(self):
    rows = jnp.arange(3 * 4) // 4
    at = functools.partial(
      gpu_work.item_at, rows=rows, heads=4, count=3, group=2
    )
    items = jax.jit(jax.vmap(at))(jnp.arange(3 * 2 * 4))
    found = np.stack([items.batch, items.head, items.tile], 1).tolist()
    self.assertCountEqual(map(tuple, found), np.ndindex(2, 4, 3))
    # Two heads at a time, each row of both before the next.
    self.assertEqual(found[:3], [[0, 0, 0], [0, 1, 0], [0, 0, 1]])

  def test_groups_of_heads_divide_them(self):
    self.assertEqual(gpu_work.group_of_heads(12, 2**22), 6)
    self.assertEqual(gpu_work.group_of_heads(7, 2**22), 1)
    self.assertEqual(gpu_work.group_of_heads(8, 2**30), 1)

  @parameterized.named_parameters(
    ("float32", (1, 8, 2, 64), jnp.float32, None, "TF32"),
    ("features", (1, 8, 2, 72), jnp.bfloat16, None, "multiple of 16"),
    ("scale", (1, 8, 2, 64), jnp.bfloat16, -1.0, "positive scale"),
  )
  def test_what_is_not_served_says_why(self, shape, dtype, scale, why):
    q = k = v = jax.ShapeDtypeStruct(shape, dtype)
    with self.assertRaisesRegex(NotImplementedError, why):
      gpu.attention(q, k, v, pattern_of("causal", 8), scale=scale)


class InterpretTest(parameterized.TestCase):
  """Numerics, copies and barriers on the CPU."""

  def test_grouped_heads_and_queries_that_see_nothing(self):
    p = pattern_of("earlier", 200)
    args = values((1, 200, 2, 32), 1, jnp.bfloat16)
    attend = functools.partial(gpu.attention, pattern=p, interpret=True)
    found = jax.jit(functools.partial(results, attend))(*args)
    dense = functools.partial(reference.attention, pattern=p)
    wanted = exact(functools.partial(results, dense))(*args)
    self.assertLess(max(distance(found, wanted)), 1e-2)
    # Negative control: other masks are far off.
    for other in ("causal", "window"):
      dense = functools.partial(
        reference.attention, pattern=pattern_of(other, 200)
      )
      wrong = exact(functools.partial(results, dense))(*args)
      self.assertGreater(min(distance(found, wrong)), 1e-2)

  def test_doubled_sequence_under_vmap_and_scale(self):
    p = pattern_of("doubled", 264)
    q, k, v, _ = values((2, 264, 1, 64), 1, jnp.float16)
    options = dict(pattern=p, scale=0.3)
    attend = functools.partial(gpu.attention, interpret=True, **options)
    found = jax.jit(jax.vmap(attend))(*(x[:, None] for x in (q, k, v)))
    dense = functools.partial(reference.attention, **options)
    wanted = exact(dense)(q, k, v)
    self.assertLess(max(distance([x[:, 0] for x in found], wanted)), 2e-3)

  def test_decode_over_ragged_cache(self):
    q, k, v, _ = values((3, 5, 2, 32), 1, jnp.bfloat16)
    _, cache_k, cache_v, _ = values((3, 1, 2, 32), 1, jnp.bfloat16, keys=192)
    lengths = jnp.asarray([0, 131, 192])
    # What lies behind the filled rows makes no difference, NaN least of all.
    behind = jnp.arange(192)[None] >= lengths[:, None]
    behind = behind[..., None, None]
    cache_k, cache_v = (
      jnp.where(behind, jnp.nan, x) for x in (cache_k, cache_v)
    )
    found = jax.jit(functools.partial(gpu.decode, interpret=True))(
      q, k, v, cache_k, cache_v, lengths
    )
    run = lambda *args: reference.decode(*args, lengths)
    wanted = exact(run)(q, k, v, cache_k, cache_v)
    self.assertLess(max(distance(found, wanted)), 1e-2)
    # A cache of no rows is none.
    none = cache_k[:, :0]
    out, _ = jax.eval_shape(
      functools.partial(gpu.decode, lengths=0, interpret=True),
      q, k, v, none, none,
    )  # fmt: skip
    self.assertEqual(out.shape, q.shape)
    with self.assertRaisesRegex(ValueError, "length 193 of a cache of 192"):
      gpu.decode(q, k, v, cache_k, cache_v, 193, interpret=True)


class LoweringTest(parameterized.TestCase):
  """For an H100, with nothing but jax."""

  def test_report_of_the_assembler_is_read(self):
    text = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a_mosaic_gpu_kernel' for 'sm_90a'
ptxas info    : Function properties for a_mosaic_gpu_kernel
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 168 registers, used 16 barriers, 1 bytes smem
ptxas warning : Potential Performance Loss
"""
    said = aot_cuda.read_assembler_report(text)["a"]
    self.assertEqual((said.registers, said.spilled), (168, 12))
    self.assertLen(said.warnings, 1)

  def test_training_step_lowers(self):
    p = pattern_of("doubled", 2240)
    q, k, v, dout = jax.eval_shape(
      functools.partial(values, (2, 2240, 4, 64), 2, jnp.bfloat16)
    )

    def step(q, k, v, dout):
      attend = functools.partial(gpu.attention, pattern=p)
      body = lambda c, _: (c + results(attend, c, k, v, dout)[2], None)
      return jax.lax.scan(body, q, None, length=2)[0]

    text = aot_cuda.lower_for_h100(step, q, k, v, dout).as_text()
    for kernel in ("forward", "dq", "dkv"):
      self.assertIn(f"sparse_attention_{kernel}", text)

  def test_decoding_lowers_in_a_sharded_program(self):
    q, k, v, _ = jax.eval_shape(
      functools.partial(values, (4, 1, 8, 128), 2, jnp.bfloat16)
    )
    cache = jax.ShapeDtypeStruct((4, 256, 2, 128), jnp.bfloat16)
    lengths = jax.ShapeDtypeStruct((4,), jnp.int32)

    def step(q, k, v, cache_k, cache_v, lengths):
      rows, all_rows = PartitionSpec("x", None, None), PartitionSpec("x")
      return jax.shard_map(
        gpu.decode,
        in_specs=(rows,) * 5 + (all_rows,),
        out_specs=(rows, rows),
        check_vma=False,
      )(q, k, v, cache_k, cache_v, lengths)

    text = aot_cuda.lower_for_h100(
      step, q, k, v, cache, cache, lengths, devices=2
    ).as_text()
    self.assertIn("sparse_attention_decode", text)
    # Each device has half of the batch.
    self.assertIn("tensor<2x256x2x128xbf16>", text)


class DeviceTest(parameterized.TestCase):
  """On a GPU, against the reference in float32."""

  def setUp(self):
    super().setUp()
    if jax.default_backend() != "gpu":
      self.skipTest("no GPU")

  @parameterized.product(
    kind=("causal", "earlier", "window", "doubled"),
    size=((680, 64, 4, 4), (1001, 128, 4, 2), (2240, 96, 2, 1)),
    dtype=(jnp.bfloat16, jnp.float16),
  )
  def test_device_both_ways(self, kind, size, dtype):
    length, features, heads, kv_heads = size
    length += length % 2 if kind == "doubled" else 0
    p = pattern_of(kind, length)
    args = values((2, length, heads, features), kv_heads, dtype)
    attend = functools.partial(gpu.attention, pattern=p)
    run = jax.jit(functools.partial(results, attend))
    found = run(*args)
    dense = functools.partial(reference.attention, pattern=p)
    wanted = jax.jit(exact(functools.partial(results, dense)))(*args)
    self.assertLess(max(distance(found, wanted)), 2e-2)
    # A race shows up as two runs that differ.
    for first, second in zip(found, run(*args), strict=True):
      np.testing.assert_array_equal(first, second)

  def test_device_negative_control(self):
    args = values((1, 680, 2, 64), 2, jnp.bfloat16)
    attend = functools.partial(gpu.attention, pattern=pattern_of("window", 680))
    found = jax.jit(functools.partial(results, attend))(*args)
    dense = functools.partial(
      reference.attention, pattern=pattern_of("causal", 680)
    )
    wrong = exact(functools.partial(results, dense))(*args)
    self.assertGreater(min(distance(found, wrong)), 2e-2)

  def test_device_under_vmap_and_scan(self):
    p = pattern_of("causal", 200)
    q, k, v, _ = values((2, 200, 2, 64), 2, jnp.bfloat16)
    attend = lambda q, k, v: gpu.attention(q, k, v, p)[0]
    wanted = attend(q, k, v)
    each = jax.vmap(lambda *x: attend(*(y[None] for y in x))[0])
    np.testing.assert_array_equal(jax.jit(each)(q, k, v), wanted)
    body = lambda c, x: (c, attend(*(y[None] for y in x))[0])
    scanned = jax.jit(lambda *x: jax.lax.scan(body, 0, x)[1])
    np.testing.assert_array_equal(scanned(q, k, v), wanted)

  @parameterized.parameters((1, 1), (5, 2), (81, 4))
  def test_device_decode(self, new, share):
    q, k, v, _ = values((3, new, 4, 128), 4 // share, jnp.bfloat16)
    _, cache_k, cache_v, _ = values(
      (3, 1, 4, 128), 4 // share, jnp.bfloat16, keys=2048
    )
    lengths = jnp.asarray([0, 1531, 2048])
    found = jax.jit(gpu.decode)(q, k, v, cache_k, cache_v, lengths)
    run = lambda *args: reference.decode(*args, lengths)
    wanted = exact(run)(q, k, v, cache_k, cache_v)
    self.assertLess(max(distance(found, wanted)), 2e-2)


if __name__ == "__main__":
  absltest.main()
