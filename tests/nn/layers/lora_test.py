"""Low-rank changes of linear maps, behind a gate."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.nn.layers import lora
from ar_jax.nn.layers.linear import Linear

KEY = jax.random.key(0)


class LoraTest(absltest.TestCase):
  def test_it_changes_what_its_gate_lets_through(self):
    linear, x = Linear(5), jax.random.normal(KEY, (2, 4, 3))
    params = linear.init(KEY, x)["params"]
    plain = linear.apply({"params": params}, x)
    a, b = jax.random.normal(KEY, (3, 2)), jax.random.normal(KEY, (2, 5))
    gate = jnp.array([[True, False, True, False], [False, False, True, True]])
    own = lora.gated({"a": a, "b": b}, gate, 3.0)
    found = linear.apply({"params": params, "lora": own}, x)
    want = plain + 3.0 * x @ a @ b
    np.testing.assert_allclose(found[gate], want[gate], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[~gate], plain[~gate])

  def test_a_closed_gate_hides_what_is_not_finite(self):
    """It selects: a product with 0 would be NaN."""
    linear, x = Linear(5), jnp.ones((1, 2, 3))
    params = linear.init(KEY, x)["params"]
    tree = {"a": jnp.full((3, 1), jnp.inf), "b": jnp.ones((1, 5))}
    own = lora.gated(tree, jnp.array([[False, True]]), 1.0)
    found = linear.apply({"params": params, "lora": own}, x)
    self.assertTrue(np.isfinite(found[:, 0]).all())
    self.assertFalse(np.isfinite(found[:, 1]).any())

  def test_layers_of_a_stack(self):
    params = {
      "block": {"qkv": {"kernel": jnp.zeros((2, 3, 6))}, "norm": {"scale": 1}},
      "out": {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)},
    }
    made = lora.init(KEY, params, 4)
    shapes = jax.tree.map(jnp.shape, made)
    self.assertEqual(
      shapes,
      {
        "block": {"qkv": {"a": (2, 3, 4), "b": (2, 4, 6)}},
        "out": {"a": (6, 4), "b": (4, 3)},
      },
    )
    self.assertFalse(np.any(made["out"]["b"]))
    gated = lora.gated(made, jnp.ones((1, 5), bool), 1.0)
    self.assertEqual(gated["block"]["qkv"]["gate"].shape, (2, 1, 5))
    only = lora.init(KEY, params, 4, only=["block"])
    self.assertEqual(set(only), {"block"})

  def test_wrong_values(self):
    params = {"out": {"kernel": jnp.zeros((6, 3))}}
    with self.assertRaisesRegex(UserError, "rank=0"):
      lora.init(KEY, params, 0)
    with self.assertRaisesRegex(UserError, "did you mean out"):
      lora.init(KEY, params, 1, only=["ot"])


if __name__ == "__main__":
  absltest.main()
