"""What a program needs, told from what its compiler says."""

import types

import jax
import jax.numpy as jnp
from absl.testing import absltest
from jax.sharding import AbstractMesh, AxisType

from ar_jax import parallel
from ar_jax.planning import figures, show


class MemoryTest(absltest.TestCase):
  def test_of_a_program(self):
    found = types.SimpleNamespace(
      argument_size_in_bytes=400,
      output_size_in_bytes=350,
      alias_size_in_bytes=300,
      temp_size_in_bytes=1000,
      generated_code_size_in_bytes=10,
      peak_memory_in_bytes=900,
    )
    # Arguments, temporaries, code, and outputs in places of their own.
    self.assertEqual(figures._memory(found, "cuda")["needed"], 1460)
    self.assertEqual(figures._memory(found, "tpu")["needed"], 900)

  def test_what_fsdp_leaves_whole_is_said(self):
    kind = (AxisType.Auto,) * 3
    mesh = AbstractMesh((1, 256, 1), parallel.AXES, axis_types=kind)
    tree = {
      "odd": jax.ShapeDtypeStruct((1920, 1920), jnp.float32),
      "even": jax.ShapeDtypeStruct((1920, 7680), jnp.float32),
      "small": jax.ShapeDtypeStruct((1920,), jnp.float32),
    }
    placed = parallel.abstract(tree, parallel.shardings(tree, mesh))
    whole = {k for k, leaf in placed.items() if parallel.unsplit(leaf)}
    self.assertEqual(whole, {"odd"})
    row = {"mesh": {"fsdp": 256}, "memory": 2**34, "state bytes": 5 * 2**30}
    row["whole bytes"] = 2**32
    (said,) = show.remarks(row)
    self.assertIn("4.00 GiB", said)
    self.assertIn("fsdp=256", said)
    self.assertEmpty(show.remarks(row | {"whole bytes": 2**31}))


if __name__ == "__main__":
  absltest.main()
