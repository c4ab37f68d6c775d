"""The count from the jaxpr, against sums done by hand."""

import itertools

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized

from ar_jax import ops
from ar_jax.core.plans import makers
from ar_jax.planning import flops, products
from pallas_kernels.sparse_attention import tpu


def counted(f, *shapes):
  args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  return flops.count(jax.jit(f).trace(*args).jaxpr)


class FlopsTest(parameterized.TestCase):
  def test_product_and_its_gradients(self):
    f = lambda a, b: jnp.sum(a @ b)
    self.assertEqual(counted(f, (3, 5), (5, 7)).flops, 2 * 3 * 5 * 7)
    both = counted(jax.grad(f, (0, 1)), (3, 5), (5, 7))
    self.assertEqual(both.flops, 2 * 2 * 3 * 5 * 7)

  def test_batched_product(self):
    f = lambda a, b: jnp.einsum("nhtk,nhsk->nhts", a, b)
    one = 2 * 2 * 3 * 4 * 6 * 5
    self.assertEqual(counted(f, (2, 3, 4, 5), (2, 3, 6, 5)).flops, one)

  def test_loops_count_their_turns(self):
    def f(x, w):
      turn = lambda x, _: (x @ w, None)
      x = jax.lax.scan(turn, x, None, 6)[0]
      return jax.lax.fori_loop(0, 4, lambda _, x: x @ w, x)

    found = counted(f, (2, 3), (3, 3))
    self.assertEqual(found.flops, (6 + 4) * 2 * 2 * 3 * 3)
    self.assertEqual(found.unknown_loops, 0)

  def test_a_loop_whose_length_is_data(self):
    f = lambda x, n: jax.lax.while_loop(
      lambda s: s[1] < n[0], lambda s: (s[0] @ s[0], s[1] + 1), (x, 0.0)
    )
    found = counted(f, (3, 3), (1,))
    self.assertEqual(found.flops, 2 * 27)
    self.assertEqual(found.unknown_loops, 1)

  def test_the_dearest_branch(self):
    f = lambda x, y: jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: x)
    self.assertEqual(counted(f, (3, 3), (3, 3)).flops, 2 * 27)

  def test_what_is_computed_again(self):
    f = lambda w, x: jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))
    one = 2 * 4 * 3 * 3
    plain = counted(jax.value_and_grad(f), (3, 3), (4, 3)).flops
    again = counted(jax.value_and_grad(jax.checkpoint(f)), (3, 3), (4, 3)).flops
    # Backwards two for the weights and one for what is between them.
    self.assertEqual(plain, (2 + 3) * one)
    self.assertEqual(again, (2 + 2 + 3) * one)

  @parameterized.parameters(
    itertools.product((1, 2), ((0, 0), (1, 2)), (1, 2), (1, 2))
  )
  def test_convolution(self, stride, padding, holes, groups):
    """Each pair of an element of the kernel and one of the input counts."""
    f = lambda x, w: jax.lax.conv_general_dilated(
      x, w, (stride,), [padding], (holes,), feature_group_count=groups,
      dimension_numbers=("NHC", "HIO", "NHC"),
    )  # fmt: skip
    x, w = jnp.ones((2, 9, 4)), jnp.ones((3, 4 // groups, 6))
    # Of ones, the result is the number of products that were summed.
    want = 2 * float(jnp.sum(f(x, w)))
    self.assertEqual(counted(f, x.shape, w.shape).flops, want)

  def test_kernels_count_the_tiles_they_visit(self):
    p = makers.scales((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    pattern, shape = ops.pattern_of(p), (2, 680, 4, 64)
    f = lambda *x: tpu.attention(*x, pattern)[0]
    found = counted(f, shape, shape, shape)
    least = 2 * 2 * 2 * 4 * 64 * p.pairs()  # two products for each pair
    self.assertBetween(found.flops, least, 1.7 * least)
    ((name, _),) = found.kernels
    self.assertIn("forward", name)
    self.assertEqual(found.kernels[name, _], found.flops)

  def test_pairs_know_dilated_kernels(self):
    self.assertEqual(products.pairs(5, 3, 1, dilate_kernel=2), 3)
    self.assertEqual(products.pairs(5, 3, 5, before=2, dilate_kernel=2), 11)


if __name__ == "__main__":
  absltest.main()
