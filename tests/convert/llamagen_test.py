"""Published weights of LlamaGen, there and back."""

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import llamagen as convert
from ar_jax.core.system import UserError
from tests import golden_weights


def official(by: str = "class"):
  description, _ = golden_weights.load("llamagen_gpt")
  state = golden_weights.weights(description)
  if by == "class":
    return state
  del state["cls_embedding.embedding_table.weight"]
  for name, shape in (
    ("cap_proj.fc1.weight", (128, 40)),
    ("cap_proj.fc2.weight", (128, 128)),
    ("uncond_embedding", (12, 40)),
  ):
    key = f"cls_embedding.{name}"
    state[key] = golden_weights.weight(key, shape)
  return state


class LlamaGenTest(parameterized.TestCase):
  @parameterized.parameters("class", "text")
  def test_round_trip_is_exact(self, by):
    state = official(by)
    ours = convert.to_ours(state, heads=4)
    self.assertEqual("null" in ours, by == "text")
    back = convert.to_official(ours | {"tokenizer": {"x": np.zeros(1)}})
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_config_from_shapes(self):
    model = convert.config(official(), heads=4)["model"]
    self.assertEqual(model["num_classes"], 10)
    sizes = {k: model[k] for k in ("depth", "width", "heads")}
    self.assertEqual(sizes, dict(depth=3, width=128, heads=4))
    self.assertNotIn("kv_heads", model)
    text = convert.config(official("text"), heads=4)["model"]["text"]
    self.assertEqual(text, dict(name="features", length=12, width=40))

  @parameterized.parameters(
    (768, 2048, 12, 256), (3200, 8704, 32, 256), (4096, 11008, 32, 256)
  )
  def test_published_widths(self, width, hidden, heads, multiple):
    empty = lambda *shape: np.broadcast_to(np.float32(0), shape)
    state = {
      "tok_embeddings.weight": empty(16384, width),
      "layers.0.feed_forward.w1.weight": empty(hidden, width),
      "layers.0.attention.wqkv.weight": empty(3 * width, width),
      "cls_embedding.embedding_table.weight": empty(1001, width),
    }
    model = convert.config(state)["model"]
    self.assertEqual((model["heads"], model["multiple_of"]), (heads, multiple))

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no tok_embeddings.weight"):
      convert.config({})
    state = official()
    del state["cls_embedding.embedding_table.weight"]
    with self.assertRaisesRegex(UserError, "no cls_embedding"):
      convert.config(state)
    state = official()
    del state["layers.1.feed_forward.w2.weight"]
    with self.assertRaisesRegex(UserError, "missing: layers.1.feed_forward.w2"):
      convert.to_ours(state, heads=4)


if __name__ == "__main__":
  absltest.main()
