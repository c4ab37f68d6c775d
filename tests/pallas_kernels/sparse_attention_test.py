"""Sparse attention: every implementation against the dense reference."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from ar_jax import ops
from ar_jax.core.plans import makers, plan
from pallas_kernels.sparse_attention import (
  reference,
  shapes,
  tiles,
  tpu,
  tpu_decode,
  xla,
)

SIDES = (1, 2, 3, 4, 5, 6, 8)  # 155 slots


def blind(q, k):
  """Causal, but two steps see nothing, and two are seen by nobody."""
  seen = (q["step"] != 3) & (q["step"] != 6) & (k["step"] != 0)
  return shapes.causal(q, k) & seen & (k["step"] != 2)


KINDS = {
  "causal": shapes.prefixed(0, np.arange(140)),
  "scales": shapes.scales(SIDES),
  "diagonal": shapes.scales(SIDES, shapes.within),
  "below": shapes.scales(SIDES, shapes.below),
  "cells": shapes.cells(4, 64),
  "fronts": shapes.fronts(5, 12),
  "hybrid": shapes.hybrid(3, 160, 16),
  "sliding": shapes.sliding(300, 40),
  "noisy_clean": shapes.noisy_clean(130, 4),
  "frames": shapes.frames(7, 3, 50),
  "tree": shapes.tree((-1, 0, 0, 1, 1, 2, 4, 4, 6, -1, 9)),
  "drafts": shapes.drafts(20, 8),
  "blind": shapes.scales(SIDES, blind),
}
# Their gradients are computed too; the others share the code of these.
WITH_GRADIENTS = ("diagonal", "sliding", "noisy_clean", "tree", "blind")


# Features per head; 32 for the others.
FEATURES = {"fronts": 64, "sliding": 72, "frames": 96, "tree": 128}


def arrays(pattern, heads=2, kv_heads=1, features=32, dtype="float32"):
  """q, k, v and the gradients of out and of lse."""
  shape = shapes.Shape(pattern, 1, heads, kv_heads, features, dtype=dtype)
  keys = jax.random.split(jax.random.key(0), 5)
  q, k, v, dout = (
    jax.random.normal(key, x.shape, x.dtype)
    for key, x in zip(keys, shapes.arguments(shape), strict=False)
  )
  # lse is -inf where nothing is seen, and has no gradient.
  some = jnp.asarray(pattern.mask().any(1))[None, None]
  dlse = jax.random.normal(keys[4], (1, heads, pattern.queries))
  return q, k, v, dout, jnp.where(some, dlse, 0.0)


@functools.partial(jax.jit, static_argnums=range(4))
def run(attend, pattern, gradients, scale, q, k, v, dout, dlse):
  """(out, lse), and with gradients (dq, dk, dv)."""
  call = lambda *x: attend(*x, pattern, scale=scale)
  if not gradients:
    return call(q, k, v)
  (out, lse), back = jax.vjp(call, q, k, v)
  return out, lse, *back((dout.astype(out.dtype), dlse))


interpreted = functools.partial(
  tpu.attention, block_q=128, block_k=128, interpret=True
)


def float32(x):
  return np.asarray(x, np.float32)


class TilesTest(parameterized.TestCase):
  @parameterized.parameters(
    (shapes.VAR_256, 20, 28, 36),
    (shapes.VAR_512, 120, 222, 324),
    (shapes.VAR_1024, 1642, 3559, 5476),
  )
  def test_counts_of_the_published_scales(self, sides, *want):
    diagonal = tiles.compile_tiles(
      shapes.scales(sides, shapes.within), 128, 128
    )
    causal = tiles.compile_tiles(shapes.scales(sides), 128, 128)
    got = diagonal.visited, causal.visited, causal.total
    self.assertEqual(got, want)
    self.assertLen(causal.by_key, causal.visited)

  @parameterized.parameters((128, 128), (256, 128), (64, 128), (72, 56))
  def test_kinds_are_those_of_the_mask(self, block_q, block_k):
    for name in ("diagonal", "blind", "sliding"):
      self.check_tables(KINDS[name], block_q, block_k)

  @settings(max_examples=60, deadline=None, derandomize=True)
  @given(st.data())
  def test_tables_of_any_pattern(self, data):
    draw = lambda *values: data.draw(st.sampled_from(values))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rule = draw(shapes.causal, shapes.within, blind, shapes.below)
    queries, keys = data.draw(st.tuples(*[st.integers(1, 400)] * 2))
    side = lambda n: {
      "step": np.sort(rng.integers(0, draw(2, 9), n)),
      "slot": np.arange(n),
    }
    pattern = tiles.pattern(rule, side(queries), side(keys))
    self.check_tables(pattern, draw(8, 128, 256), draw(16, 128, 384))

  def check_tables(self, pattern, block_q, block_k):
    mask, want = pattern.mask(), {}
    for i in range(0, pattern.queries, block_q):
      for j in range(0, pattern.keys, block_k):
        part = mask[i : i + block_q, j : j + block_k]
        if part.any():
          full = part.all() and part.shape[1] == block_k
          kind = tiles.FULL if full else tiles.PARTIAL
          want[i // block_q, j // block_k] = kind
    got = tiles.compile_tiles(pattern, block_q, block_k)
    for visits, sign in ((got.by_query, 1), (got.by_key, -1)):
      table = {
        (int(a), int(b))[::sign]: int(kind)
        for a, b, kind in zip(
          visits.major, visits.minor, visits.kinds, strict=True
        )
      }
      self.assertEqual(table, want)
      rows = np.repeat(np.arange(len(visits.starts) - 1),
                       np.diff(visits.starts))  # fmt: skip
      np.testing.assert_array_equal(visits.major, rows)

  def test_a_pattern_is_a_small_value(self):
    a, b = shapes.scales(SIDES), shapes.scales(SIDES)
    self.assertEqual(a, b)
    self.assertEqual(hash(a), hash(b))
    self.assertNotEqual(a, shapes.scales(SIDES, shapes.within))
    self.assertEqual(a.names, ("step",), "an integer that the rule never reads")
    self.assertIs(
      tiles.compile_tiles(a, 128, 128), tiles.compile_tiles(b, 128, 128)
    )
    with self.assertRaisesRegex(ValueError, "of one length"):
      tiles.pattern(shapes.causal, {"step": [1, 2], "slot": [1]})

  def test_plans_have_the_patterns_of_their_models(self):
    parents = (-1, 0, 0, 1, 1, 2, 4)
    for p, want in (
      (makers.scales(SIDES), shapes.scales(SIDES)),
      (makers.scales(SIDES, plan.within), KINDS["diagonal"]),
      (makers.blocks(256, 64), KINDS["cells"]),
      (
        makers.prefixed(makers.diagonals(12, 12), 5, each=True),
        KINDS["fronts"],
      ),
      (makers.sliding(300, 40), KINDS["sliding"]),
      (makers.noisy_clean(makers.blocks(130, 4)), KINDS["noisy_clean"]),
      (makers.tree(parents), shapes.tree(parents)),
    ):
      got = ops.pattern_of(p)
      np.testing.assert_array_equal(got.mask(), p.mask())
      np.testing.assert_array_equal(got.mask(), want.mask())


class AttentionTest(parameterized.TestCase):
  def check(self, attend, pattern, gradients, scale=None, **options):
    args = arrays(pattern, **options)
    got = run(attend, pattern, gradients, scale, *args)
    want = run(reference.attention, pattern, True, scale, *args)
    want = want[: len(got)]
    half = options.get("dtype") == "bfloat16"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
      exact = 1e-5 if i < 2 else 1e-4
      atol = 2e-2 * max(1.0, float32(jnp.abs(b)).std()) if half else exact
      rtol = 1e-2 if half else 1e-7  # bfloat16 has eight bits
      np.testing.assert_allclose(float32(a), float32(b), rtol, atol)

  @parameterized.parameters(*KINDS)
  def test_xla_equals_the_reference(self, kind):
    features = FEATURES.get(kind, 32)
    self.check(xla.attention, KINDS[kind], True, features=features)

  def test_xla_recomputes_large_weights(self):
    args = arrays(KINDS["diagonal"])
    call = lambda *x: xla.attention(*x, KINDS["diagonal"])[0].sum()
    gradient = jax.grad(call, (0, 1, 2))
    kept = jax.make_jaxpr(gradient)(*args[:3])
    want = jax.jit(gradient)(*args[:3])
    with mock.patch.object(xla, "_KEPT", 0):
      self.assertGreater(
        str(jax.make_jaxpr(lambda *x: gradient(*x))(*args[:3])).count("exp "),
        str(kept).count("exp "),
      )
      got = jax.jit(lambda *x: gradient(*x))(*args[:3])
    for a, b in zip(got, want, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)

  def test_xla_computes_hardly_more_than_is_visible(self):
    for rule, most in ((shapes.within, 1.06), (shapes.causal, 1.04)):
      pattern = shapes.scales(shapes.VAR_256, rule)
      groups = xla.split(pattern)
      pairs = sum(group.pairs for group in groups)
      self.assertLess(pairs, most * pattern.mask().sum())
      self.assertEqual(
        [g.dense for g in groups], [False] + [True] * (len(groups) - 1)
      )

  @parameterized.parameters(*KINDS)
  def test_kernel_equals_the_reference(self, kind):
    gradients, features = kind in WITH_GRADIENTS, FEATURES.get(kind, 32)
    self.check(interpreted, KINDS[kind], gradients, features=features)

  def test_kernel_in_bfloat16(self):
    options = dict(heads=4, kv_heads=2, features=80, dtype="bfloat16")
    self.check(interpreted, shapes.fronts(1, 12), True, 0.3, **options)

  def test_no_races(self):
    params = pltpu.InterpretParams(detect_races=True)
    attend = functools.partial(interpreted, interpret=params)
    args = arrays(KINDS["noisy_clean"])
    attend(*args[:3], KINDS["noisy_clean"])[0].block_until_ready()
    # Not public, and the one place where the answer is.
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    self.assertFalse(interpret_pallas_call.races.races_found)

  def test_vmap_and_scan(self):
    pattern = KINDS["diagonal"]
    q, k, v, *_ = arrays(pattern)
    loss = lambda *x: interpreted(*x, pattern)[0].sum()
    stack = lambda x: jnp.stack([x, 2 * x])

    @jax.jit
    def both(*args):
      mapped = jax.vmap(jax.value_and_grad(loss))(*args)
      step = lambda carry, x: (carry, jax.value_and_grad(loss)(*x))
      return mapped, jax.lax.scan(step, 0, args)[1]

    mapped, scanned = both(*map(stack, (q, k, v)))
    for a, b in zip(*map(jax.tree.leaves, (mapped, scanned)), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)

  def test_bad_arguments(self):
    pattern = KINDS["cells"]
    q, k, v, *_ = arrays(pattern)
    with self.assertRaisesRegex(ValueError, "the pattern is over 256 and 256"):
      tpu.attention(q[:, :9], k, v, pattern)
    with self.assertRaisesRegex(ValueError, "3 heads cannot share 2"):
      three, two = jnp.repeat(q[:, :, :1], 3, 2), jnp.repeat(k, 2, 2)
      xla.attention(three, two, two, pattern)
    with self.assertRaisesRegex(ValueError, "multiples of 128"):
      tpu.attention(q, k, v, pattern, block_q=64)
    with self.assertRaisesRegex(NotImplementedError, "float16"):
      tpu.attention(*(x.astype("float16") for x in (q, k, v)), pattern)
    with self.assertRaisesRegex(NotImplementedError, "steps of 8, got 20"):
      tpu.attention(q[..., :20], k[..., :20], v[..., :20], pattern)


class NegativeControlTest(parameterized.TestCase):
  """The checks above would notice what they are there to notice."""

  def outputs(self, change=None):
    """The kernel's, with tables of tiles that `change` has changed."""
    pattern = KINDS["sliding"]
    compiled = tiles.compile_tiles(pattern, 128, 128)
    if change is not None:
      visits = change(compiled.by_query)
      compiled = dataclasses.replace(compiled, by_query=visits)
    with mock.patch.object(tpu, "compile_tiles", lambda *_: compiled):
      return interpreted(*arrays(pattern)[:3], pattern)[0]

  def test_a_wrong_table_gives_a_wrong_result(self):
    right = self.outputs()

    def forgetful(visits):
      keep = np.arange(len(visits)) != 1
      starts = np.searchsorted(visits.major[keep], np.arange(4))
      return tiles.Visits(
        starts, visits.major[keep], visits.minor[keep], visits.kinds[keep]
      )

    def leaking(visits):
      return dataclasses.replace(visits, kinds=0 * visits.kinds + tiles.FULL)

    for change in (forgetful, leaking):
      wrong = self.outputs(change)
      self.assertGreater(float(jnp.abs(wrong - right).max()), 1e-2)

  def test_hidden_keys_do_not_matter_and_seen_ones_do(self):
    pattern = KINDS["sliding"]
    q, k, v, *_ = arrays(pattern)
    attend = jax.jit(functools.partial(interpreted, pattern=pattern))
    right = attend(q, k, v)[0]
    changed = attend(q, k.at[:, 150].add(3.0), v.at[:, 150].add(3.0))[0]
    moved = np.asarray(jnp.abs(changed - right).max((0, 2, 3)) > 0)
    np.testing.assert_array_equal(moved, pattern.mask()[:, 150])


class DecodeTest(parameterized.TestCase):
  def inputs(self, new, rows, kv_heads, dtype="float32"):
    keys = jax.random.split(jax.random.key(1), 5)
    sizes = (new, 2 * kv_heads), (new, kv_heads), (new, kv_heads)
    sizes += ((rows, kv_heads),) * 2
    return [
      jax.random.normal(key, (2, *size, 32), dtype)
      for key, size in zip(keys, sizes, strict=True)
    ]

  @parameterized.parameters(
    (1, 300, [0, 300], None, "float32"),
    (11, 140, [128, 129], "tree", "float32"),
    (11, 140, 77, "tree", "bfloat16"),
    (140, 40, 0, "causal", "float32"),
    (3, 140, np.int32(7), None, "float32"),
  )
  def test_equals_the_reference(self, new, rows, lengths, kind, dtype):
    args = self.inputs(new, rows, 2, dtype)
    pattern = KINDS.get(kind)
    if not isinstance(lengths, int):
      lengths = jnp.asarray(lengths)
    call = lambda decode: jax.jit(lambda *x: decode(*x, lengths, pattern))
    want = call(reference.decode)(*args)
    kernel = functools.partial(tpu_decode.decode, block=128, interpret=True)
    atol = 2e-2 if dtype == "bfloat16" else 1e-5
    for decode in (xla.decode, kernel):
      got = call(decode)(*args)
      self.assertEqual(got[0].dtype, dtype)
      for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(float32(a), float32(b), atol=atol)

  def test_equals_attention_over_everything(self):
    pattern = shapes.scales((1, 2, 3, 4))
    q, k, v, *_ = arrays(pattern)
    whole = reference.attention(q, k, v, pattern)[0]
    new = slice(14, 30)
    for decode in (reference.decode, xla.decode):
      got = decode(q[:, new], k[:, new], v[:, new], k, v, 14)[0]
      np.testing.assert_allclose(got, whole[:, new], atol=1e-5)

  def test_rows_that_are_not_filled_may_hold_anything(self):
    q, k, v, cache_k, cache_v = self.inputs(3, 140, 1)
    lengths = jnp.array([0, 130])
    poison = (
      jnp.arange(140)[None, :, None, None] >= lengths[:, None, None, None]
    )
    for decode in (
      reference.decode,
      xla.decode,
      functools.partial(tpu_decode.decode, block=128, interpret=True),
    ):
      decode = jax.jit(decode)
      clean = decode(q, k, v, cache_k, cache_v, lengths)
      for bad in (1e4, jnp.nan):
        dirty = (jnp.where(poison, bad, x) for x in (cache_k, cache_v))
        got = decode(q, k, v, *dirty, lengths)
        for a, b in zip(got, clean, strict=True):
          np.testing.assert_array_equal(a, b)

  def test_bad_arguments(self):
    args = self.inputs(3, 8, 1)
    with self.assertRaisesRegex(ValueError, "length 9 of a cache of 8"):
      reference.decode(*args, 9)
    with self.assertRaisesRegex(ValueError, "one number or"):
      reference.decode(*args, jnp.zeros(3, int))
    with self.assertRaisesRegex(ValueError, "3 new positions"):
      reference.decode(*args, 1, KINDS["tree"])


class MeshTest(parameterized.TestCase):
  def test_under_a_mesh(self):
    pattern = KINDS["tree"]
    q, k, v, *_ = arrays(pattern, 2, 2)
    mesh = jax.make_mesh(
      (1, 1), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    spec = P("x", None, "y", None)
    loss = lambda *x: interpreted(*x, pattern)[0]

    def body(*x):
      out, back = jax.vjp(loss, *x)
      return out, *back(out)

    mapped = jax.shard_map(
      body, mesh=mesh, in_specs=(spec,) * 3, out_specs=(spec,) * 4
    )
    for a, b in zip(jax.jit(mapped)(q, k, v), body(q, k, v), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)


if __name__ == "__main__":
  absltest.main()
