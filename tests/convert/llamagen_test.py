"""Published weights of LlamaGen: there and back; the numbers of the text model.

Those of the class model are held in `tests/systems`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import llamagen as convert
from ar_jax.core.system import UserError, build
from tests import golden_weights, optimised


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


@functools.cache
def texts():
  """(description, arrays, official state, the system, its variables)."""
  description, arrays = golden_weights.load("llamagen_t2i")
  config, state = description["config"], golden_weights.weights(description)
  sizes = dict(heads=config["n_head"], size=64)
  system = build("llamagen", **convert.config(state, **sizes)["model"])
  return config, arrays, state, system, convert.to_ours(state, **sizes)


def captions(name):
  """Features f32[2, 120, 40], zero where there is no text."""
  lengths = np.array(texts()[0]["text_lens"])
  real = np.arange(120)[None] >= 120 - lengths[:, None]
  return golden_weights.tensor(name, (2, 120, 40)) * real[..., None]


class TextTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    _, _, state, _, variables = texts()
    back = convert.to_official(variables)
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_logits_and_loss(self):
    _, arrays, _, system, variables = texts()
    text = jnp.asarray(captions("caption"), jnp.float32)
    units = jnp.asarray(arrays["tokens"], jnp.int32)

    @optimised.jit
    def every(variables, hidden):
      logits = system.logits(variables, text, units, hidden)
      batch = {"text": text, "units": units}
      loss = system.loss(variables, batch, jax.random.key(0), train=False)
      return logits, loss.value

    for name, hidden in (("logits", False), ("logits_uncond", True)):
      logits, value = every(variables, np.full(2, hidden))
      np.testing.assert_allclose(
        logits, arrays[name], rtol=1e-4, atol=1e-4, err_msg=name
      )
    # Examples that are not valid are left out.
    means = value[0], value.mean()
    np.testing.assert_allclose(means, arrays["loss"], rtol=1e-4)

  def test_best_units(self):
    config, arrays, _, system, variables = texts()
    text = jnp.asarray(captions("caption1"), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    # All three were compared; this one has steps with guidance and without.
    for guidance, interval in config["greedy_runs"][1:2]:
      # Theirs counts steps from the second unit, up to and with the interval.
      options = dict(guidance=guidance, temperature=0.0)
      name = f"greedy_cfg{guidance:g}"
      if interval >= 0:
        options["stop"] = interval + 2
        name += f"_interval{interval}"
      units = optimised.jit(functools.partial(system.generate, **options))(
        variables, {"text": text}, keys
      )
      np.testing.assert_array_equal(units, arrays[name], err_msg=name)


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
      "cls_embedding.embedding_table.weight": empty(1001, width),
    }
    model = convert.config(state)["model"]
    self.assertEqual((model["heads"], model["multiple_of"]), (heads, multiple))
    self.assertNotIn("size", model["tokenizer"])
    model = convert.config(state, size=384)["model"]
    self.assertEqual(model["tokenizer"]["size"], 384)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no tok_embeddings.weight"):
      convert.config({})
    with self.assertRaisesRegex(UserError, "width 128 is no published LlamaG"):
      convert.config(official())
    with self.assertRaisesRegex(UserError, "heads=7 do not divide"):
      convert.config(official(), heads=7)
    state = official()
    del state["cls_embedding.embedding_table.weight"]
    with self.assertRaisesRegex(UserError, "no cls_embedding"):
      convert.config(state, heads=4)
    state = official()
    del state["layers.1.feed_forward.w2.weight"]
    with self.assertRaisesRegex(UserError, "missing: layers.1.feed_forward.w2"):
      convert.to_ours(state, heads=4)


if __name__ == "__main__":
  absltest.main()
