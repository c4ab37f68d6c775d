"""Key tables: both directions, stacking, and what a misfit says."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError
from ar_jax.files import tables
from ar_jax.files.tables import CONV, LINEAR, Rule, affine, half_turned, norm
from ar_jax.nn.layers.positions import rotate

TABLE = (
  *affine("blocks.{i}.fc", "blocks/fc", LINEAR),
  *norm("down.{l}.block.{i}.norm", "down_{l}_block_{i}/norm"),
  *affine("conv", "conv", CONV),
  Rule("pos", "pos"),
)


def official() -> dict[str, np.ndarray]:
  draw = np.random.default_rng(0).standard_normal
  state = {"conv.weight": draw((4, 3, 2, 1)), "conv.bias": draw(4)}
  state["pos"] = draw((1, 5))
  for i in range(11):
    state[f"blocks.{i}.fc.weight"] = draw((3, 2))
    state[f"blocks.{i}.fc.bias"] = draw(3)
  for name in ("down.0.block.1", "down.10.block.0"):
    state[f"{name}.norm.weight"] = draw(2)
    state[f"{name}.norm.bias"] = draw(2)
  return {key: value.astype(np.float32) for key, value in state.items()}


SHAPES = {
  "blocks": {"fc": {"kernel": (11, 2, 3), "bias": (11, 3)}},
  "down_0_block_1": {"norm": {"scale": (2,), "bias": (2,)}},
  "down_10_block_0": {"norm": {"scale": (2,), "bias": (2,)}},
  "conv": {"kernel": (2, 1, 3, 4), "bias": (4,)},
  "pos": (1, 5),
}
LIKE = jax.tree.map(
  lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
  SHAPES,
  is_leaf=lambda x: isinstance(x, tuple),
)


class TablesTest(parameterized.TestCase):
  def test_there_and_back(self):
    state = official()
    params = tables.to_ours(TABLE, state, LIKE)
    self.assertEqual(jax.tree.map(np.shape, params), SHAPES)
    # Layer 10 comes after 9, not after 1.
    np.testing.assert_array_equal(
      params["blocks"]["fc"]["kernel"][10], state["blocks.10.fc.weight"].T
    )
    back = tables.to_official(TABLE, params)
    self.assertEqual(back.keys(), state.keys())
    for key, value in state.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_half_precision_files_become_float32(self):
    state = {k: v.astype(np.float16) for k, v in official().items()}
    params = tables.to_ours(TABLE, state, LIKE)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(params)}, {np.dtype("float32")}
    )

  def test_ignores_what_it_is_told_to(self):
    state = official() | {"blocks.3.mask": np.zeros(2)}
    tables.to_ours(TABLE, state, LIKE, ignore=("blocks.{i}.mask",))

  def test_halves_become_neighbours(self):
    k, draw = 8, np.random.default_rng(0)
    rule = Rule("q", "q", half_turned(k, LINEAR))
    weights = {n: draw.normal(size=(3 * k, 5)) for n in "qk"}
    x = draw.normal(size=(1, 4, 5))
    angles = np.arange(4)[:, None] * np.array([1.0, 0.3, 0.1, 0.01])
    cos, sin = np.cos(angles), np.sin(angles)

    def halves(y):
      a, b = np.split(y, 2, -1)
      c, s = cos[None, :, None], sin[None, :, None]
      return np.concatenate([a * c - b * s, b * c + a * s], -1)

    heads = lambda y: y.reshape(1, 4, 3, k)
    theirs = [halves(heads(x @ w.T)) for w in weights.values()]
    pos = np.stack([cos, sin], -1)
    ours = [
      rotate(jnp.asarray(heads(x @ rule.layout.ours(w))), pos)
      for w in weights.values()
    ]
    scores = [np.einsum("bthk,bshk->bhts", *pair) for pair in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    back = rule.layout.theirs(rule.layout.ours(weights["q"]))
    np.testing.assert_array_equal(back, weights["q"])

  @parameterized.parameters(
    ({"pos": None}, "missing: pos"),
    ({"blocks.10.fc.bias": None}, r"missing: blocks\.10\.fc\.bias"),
    ({"blocks.11.fc.bias": np.ones(3)}, r"unexpected: blocks\.11\.fc\.bias"),
    ({"other": np.ones(3)}, "unexpected: other"),
    ({"pos": np.ones((1, 6))}, r"pos is \[1, 6\], not \[1, 5\]"),
    (
      {f"x{i}": np.ones(1) for i in range(4)},
      "unexpected: x0, x1 and 2 more",
    ),
  )
  def test_misfits(self, change, message):
    state = {k: v for k, v in (official() | change).items() if v is not None}
    with self.assertRaisesRegex(UserError, message):
      tables.to_ours(TABLE, state, LIKE)


if __name__ == "__main__":
  absltest.main()
