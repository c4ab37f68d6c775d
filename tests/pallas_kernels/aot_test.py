"""Every kernel at its named shapes: lowered here, compiled where one can."""

import jax
from absl.testing import absltest, parameterized

from pallas_kernels import aot


def named():
  return [
    (f"{op}_{name}", op, name)
    for op in aot.ops()
    for name in aot.cases(op, "tpu")
  ]


class AotTest(parameterized.TestCase):
  @parameterized.named_parameters(*named())
  def test_lowers_for_tpu(self, op, name):
    fn, args = aot.cases(op, "tpu")[name]
    self.assertIn("tpu_custom_call", aot.lower_for_tpu(fn, *args))

  def test_there_is_something_to_lower(self):
    self.assertContainsSubset({"nearest_code", "spec_verify"}, aot.ops())

  @parameterized.parameters(*aot.PLATFORMS)
  def test_compiles(self, platform):
    if reason := aot.missing(platform):
      self.skipTest(reason)
    rows = list(aot.rows(platforms=[platform]))
    self.assertNotEmpty(rows)
    self.assertEmpty([row for row in rows if "error" in row])

  def test_what_is_missing_is_said(self):
    for platform in aot.PLATFORMS:
      if reason := aot.missing(platform):
        with self.assertRaisesRegex(RuntimeError, platform):
          aot.compile_for(platform, lambda x: x, jax.ShapeDtypeStruct((), int))
        self.assertRegex(reason, "no[t ]")


if __name__ == "__main__":
  absltest.main()
