"""Published drafters of LANTERN: there and back, and the same features."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import lantern as convert
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting.eagle import Eagle
from ar_jax.nn.layers.attention import Attention
from ar_jax.nn.layers.mlp import SwiGLU
from ar_jax.nn.layers.positions import rope_grid
from tests import golden_weights, optimised

DESCRIPTION, ARRAYS = golden_weights.load("lantern_drafter")


def official(kind):
  return golden_weights.of_shapes(DESCRIPTION["state_dict"][kind])


class LanternTest(parameterized.TestCase):
  @parameterized.parameters("c2i", "t2i")
  def test_features(self, kind):
    config, state = DESCRIPTION["config"][kind], official(kind)
    params = convert.drafter(state)
    width, heads = config["hidden_size"], config["num_heads"]
    prefix, count = config["prefix"], config["prefix"] + config["tokens"]
    eagle = Eagle(
      width,
      Attention(heads, out_bias=False),
      SwiGLU(config["intermediate_size"]),
      eps=convert.config(state)["model"]["eps"],
    )
    side = round(config["block_size"] ** 0.5)
    pos = rope_grid(
      makers.raster(side, side),
      width // heads,
      prefix=prefix,
      prefix_rope="zero",
    )
    ids = golden_weights.integers(
      f"ids_{kind}", config["vocab_size"], (2, count)
    )
    ids[:, :prefix] = 0
    units = state["embed_tokens.weight"][ids]
    features = golden_weights.tensor(f"features_{kind}", (2, count, width))
    causal = np.tril(np.ones((count, count), bool))[None, None]
    masks = {f"{kind}_features": np.repeat(causal, 2, 0)}
    if kind == "t2i":
      padded = masks["t2i_features"].copy()
      padded[0, :, :, :100] = False
      padded |= np.eye(count, dtype=bool)[None, None]
      masks["t2i_features_padded"] = padded
    forward = optimised.jit(
      lambda mask: eagle.apply(
        {"params": params}, units, features, mask, pos=pos[:count]
      )[0]
    )
    for name, mask in masks.items():
      want = ARRAYS[name]
      got = forward(mask)[:, -want.shape[1] :]
      np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=name)

  def test_over_its_target_and_back(self):
    shapes = DESCRIPTION["state_dict"]["c2i"]
    wider = lambda shape: [192 if n == 160 else n for n in shape]
    state = golden_weights.of_shapes({k: wider(s) for k, s in shapes.items()})
    tokenizer = dict(name="vq", vocab=47, channels=4, z=8, ch=8, mult=(1, 2),
                     blocks=1, size=8)  # fmt: skip
    model = dict(tokenizer=tokenizer, depth=1, width=64, heads=4,
                 multiple_of=64, num_classes=3)  # fmt: skip
    target = build("llamagen", **model)
    shapes = jax.eval_shape(lambda key: target.init(key, {}), jax.random.key(0))
    given = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    units = given["params"]["units"]
    meta = {"system": "llamagen", "model": model}
    variables = convert.to_ours(state)
    with self.assertRaisesRegex(UserError, "made for another target"):
      convert.join(state, variables, given, meta)
    units["embedding"] = state["embed_tokens.weight"]
    both, config = convert.join(state, variables, given, meta)
    system = build(config["system"], **config["model"])
    like = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
    self.assertEqual(
      jax.tree.map(np.shape, both), jax.tree.map(jnp.shape, like)
    )
    self.assertEqual(system.eagle.eps, 1e-6)
    back = convert.to_official(both)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    with self.assertRaisesRegex(UserError, "those of a llamagen"):
      convert.join(state, variables, given, {**meta, "system": "var"})

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "there is no fc.weight"):
      convert.config({})
    more = official("t2i") | {"layers.0.input_layernorm.weight": np.ones(24)}
    with self.assertRaisesRegex(UserError, "norm before its layer"):
      convert.config(more)


if __name__ == "__main__":
  absltest.main()
