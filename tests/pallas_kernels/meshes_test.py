"""Every kernel and its gradient is traced under every kind of mesh.

The devices need not be there: tracing is where a kernel says over which axes
its results vary, and where it failed.
"""

import itertools

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from jax.sharding import AbstractMesh, AxisType

from ar_jax import ops
from ar_jax.core.plans import makers

MESHES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 1), (2, 1, 2)]
PLAN = makers.scales((1, 2, 4))
KINDS = ("xla", "pallas_tpu", "pallas_gpu")


def mesh(shape):
  names = ("data", "fsdp", "tensor")
  return AbstractMesh(shape, names, axis_types=(AxisType.Auto,) * 3)


def struct(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.bfloat16)


class MeshesTest(parameterized.TestCase):
  # Batches and heads that divide by the devices, and that do not.
  @parameterized.parameters(*itertools.product(KINDS, MESHES, (4, 3)))
  def test_attention_and_its_gradient(self, impl, shape, batch):
    q = struct(batch, len(PLAN), batch, 64)

    def total(q, k, v):
      out = ops.attention(q, k, v, PLAN, impl=impl)
      return jnp.sum(out.astype(jnp.float32))

    with jax.sharding.use_abstract_mesh(mesh(shape)):
      grads = jax.eval_shape(jax.grad(total, (0, 1, 2)), q, q, q)
    self.assertEqual([g.shape for g in grads], [q.shape] * 3)

  @parameterized.parameters(*itertools.product(KINDS, MESHES, (4, 3)))
  def test_decode(self, impl, shape, batch):
    q, cache = struct(batch, 1, batch, 64), struct(batch, 16, batch, 64)
    lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
    call = lambda *args: ops.decode_attention(*args, impl=impl)
    with jax.sharding.use_abstract_mesh(mesh(shape)):
      out = jax.eval_shape(call, q, q, q, cache, cache, lengths)
    self.assertEqual(out.shape, q.shape)


if __name__ == "__main__":
  absltest.main()
