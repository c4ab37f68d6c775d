"""Compiled programs, taken apart: texts as XLA writes them for each device."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.planning import collectives, flops, hlo, work

# As for a TPU: no count of turns, products as convolutions, an exchange that
# runs beside other work in two fusions, memory on the chip.
TPU = pathlib.Path(__file__).with_name("tpu.hlo").read_text()

# As for a GPU: products and convolutions are calls, loops say their turns.
GPU = pathlib.Path(__file__).with_name("gpu.hlo").read_text()


class TextTest(parameterized.TestCase):
  def test_as_for_a_tpu(self):
    done = work.of_program(TPU, devices=8)
    self.assertEqual(done.products, {"bf16": 5 * 2 * 16 * 8 * 8})
    found = {c.kind: (c.payload, c.wire, n) for c, n in done.collectives()}
    # The gather is written twice and happens once a turn.
    self.assertEqual(found["all-gather"], (64, 64, 5))
    self.assertEqual(found["reduce-scatter"], (512, 256, 5))
    self.assertLen(found, 2)
    # Of a turn: the part is read by both fusions, x is read, the product is
    # written and read, and so is the counter; the rest stays on the chip.
    self.assertEqual(done.bytes, 5 * (64 + 64 + 256 + 512 + 512 + 12) + 8)
    self.assertEqual(done.unknown_loops, 0)

  def test_as_for_a_gpu(self):
    done = work.of_program(GPU, devices=16, node=8)
    self.assertEqual(done.products["bf16"], 7 * 2 * 16 * 8 * 4)
    # Forwards, and twice backwards.
    self.assertEqual(done.products["f32"], 3 * 2 * 4 * 16 * 9 * 3 * 5)
    ((one, times),) = done.collectives()
    self.assertEqual((one.kind, one.payload, times), ("all-reduce", 128, 7))
    self.assertTrue(one.far)  # 0, 2, 4, ... 14 are on both nodes

  def test_kernels_are_known_by_name_and_results(self):
    text = TPU.replace(
      "fusion(%x, %fusion.2), kind=kOutput, calls=%product",
      'custom-call(%x, %fusion.2), custom_call_target="tpu_custom_call", '
      'metadata={op_name="jit(f)/my_kernel"}',
    )
    kernels = {("my_kernel", ((16, 8),)): 100.0, ("other", ((16, 8),)): 7.0}
    done = work.of_program(text, devices=8, kernels=kernels)
    self.assertEqual(done.flops, 5 * 100)
    kernels = {("other", ((16, 8),)): 7.0}
    done = work.of_program(text, devices=8, kernels=kernels)
    self.assertEqual(done.flops, 5 * 7)  # no other has these results
    done = work.of_program(text, devices=8)
    self.assertEqual(done.uncounted, {"fusion": 1})

  def test_a_loop_of_unknown_length(self):
    text = TPU.replace("s32[]{:T(128)} constant(5)", "s32[] parameter(1)")
    done = work.of_program(text, devices=8)
    self.assertEqual(done.products, {"bf16": 2 * 16 * 8 * 8})
    self.assertEqual(done.unknown_loops, 1)

  @parameterized.parameters(
    ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
    ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
    (
      "replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, x",
      [[0, 2], [1, 3]],
    ),
    ("replica_groups=mesh['a'=4] {'a':(1)2}, x", [[0, 2], [1, 3]]),
    ("replica_groups=mesh['a'=4] {'a':(2)2}, x", [[0, 1], [2, 3]]),
    ("source_target_pairs={{0,1},{1,0}}, x", [[0, 1], [1, 0]]),
    ("channel_id=1, x", [[0, 1, 2, 3]]),
  )
  def test_groups(self, attributes, want):
    np.testing.assert_array_equal(collectives.groups(attributes, 4), want)

  def test_arrays_of_a_shape(self):
    text = "(s32[]{:T(128)}, bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, f8e4m3fn[4]{0})"
    found = list(hlo.arrays(text))
    self.assertEqual([a.bytes for a in found], [4, 12, 4])
    self.assertEqual([a.near for a in found], [False, True, False])
    self.assertEqual(found[1].dims, (2, 3))


class CompiledTest(absltest.TestCase):
  """What is read off a program is what was asked for."""

  def test_loops_and_cuts(self):
    def f(w, x, images, kernel):
      def turn(x, w):
        return jnp.tanh(x @ w), None

      loss = lambda w: jnp.sum(jax.lax.scan(turn, x, w)[0])
      maps = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )  # fmt: skip
      return jax.grad(loss)(w), maps

    shapes = (12, 64, 64), (2, 64), (2, 8, 8, 4), (3, 3, 4, 8)
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    traced = jax.jit(f).trace(*args)
    asked = flops.count(traced.jaxpr).flops
    done = work.of_program(traced.lower().compile().as_text())
    self.assertAlmostEqual(done.flops / asked, 1.0, delta=0.03)
    self.assertEqual(done.unknown_loops, 0)
    # A turn reads its own matrix, not all twelve: forwards, backwards, and
    # the gradient is written once; more are copies around the loops. All
    # twelve in every turn would be 12 times as much for each of the three.
    layers = 12 * 64 * 64 * 4
    self.assertBetween(done.bytes, 3 * layers, 14 * layers)


if __name__ == "__main__":
  absltest.main()
