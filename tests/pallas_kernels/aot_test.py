"""Every kernel at its named shapes: lowered here, compiled where one can."""

import jax
from absl.testing import absltest, parameterized

from pallas_kernels import aot, aot_cuda
from pallas_kernels.sparse_attention import shapes


class LoweringTest(parameterized.TestCase):
  @parameterized.parameters(*aot.ops())
  def test_for_tpu(self, op):
    for name, (fn, args) in aot.cases(op, "tpu").items():
      with self.subTest(name):
        exported = aot.lower_for_tpu(fn, *args)
        calls = exported.mlir_module().count("@tpu_custom_call")
        # Outside decoding attention is compiled with its gradients.
        both = op == "sparse_attention" and "decode" not in name
        self.assertEqual(calls, 3 if both else 1)
        if op == "sparse_attention":
          want = (args[0], *args[:3]) if both else args[:1]
          for a, b in zip(exported.out_avals, want, strict=True):
            self.assertEqual((a.shape, a.dtype), (b.shape, b.dtype))

  @parameterized.parameters(*aot.ops())
  def test_for_cuda(self, op):
    done = set()
    for name, (fn, args) in aot.cases(op, "gpu").items():
      if op == "sparse_attention":
        # Its tiles have one size: lengths and batches change numbers only.
        shape = shapes.shapes()[name]
        group = shape.heads // shape.kv_heads
        program = shape.pattern.rule, shape.features, group, shape.cache is None
        if program in done:
          continue
        done.add(program)
      with self.subTest(name):
        text = aot_cuda.lower_for_h100(fn, *args).as_text()
        # Decoding attends to the cache and to the new rows apart.
        want = 1
        if op == "sparse_attention":
          want = 2 if "decode" in name else 3
        self.assertEqual(text.count("@mosaic_gpu"), want)

  def test_there_is_something_to_lower(self):
    for impl in ("tpu", "gpu"):
      for op in ("nearest_code", "sparse_attention", "spec_verify"):
        self.assertGreater(len(aot.cases(op, impl)), 4)


class AotTest(parameterized.TestCase):
  """What the extra `aot` is for; minutes to an hour."""

  @parameterized.parameters(*aot.PLATFORMS)
  def test_compiles(self, platform):
    if reason := aot.missing(platform):
      self.skipTest(reason)
    rows = list(aot.rows(platforms=[platform]))
    self.assertNotEmpty(rows)
    self.assertEmpty([row for row in rows if "error" in row])
    # The assembler's complaints, of products that wait for each other say.
    self.assertEmpty([row for row in rows if "warnings" in row])
    for row in rows:
      # The rule of mtp_training, on 128 features, costs dkv 120 bytes.
      self.assertLessEqual(row.get("spilled", 0), 256, row["shape"])

  def test_what_is_missing_is_said(self):
    for platform in aot.PLATFORMS:
      if reason := aot.missing(platform):
        with self.assertRaisesRegex(RuntimeError, platform):
          aot.compile_for(platform, lambda x: x, jax.ShapeDtypeStruct((), int))
        self.assertRegex(reason, "no[t ]")


if __name__ == "__main__":
  absltest.main()
