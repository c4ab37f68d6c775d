"""Published weights of NAR: there and back, and the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import nar as convert
from ar_jax.core.system import UserError, build
from tests import golden_weights, optimised


@functools.cache
def golden():
  """(config, arrays, official state, the system, its variables)."""
  description, arrays = golden_weights.load("nar")
  config = description["config"]
  state = golden_weights.weights(description)
  sizes = dict(heads=config["n_head"], size=16 * config["side"])
  system = build("nar", **convert.config(state, **sizes)["model"])
  return config, arrays, state, system, convert.to_ours(state, **sizes)


@functools.partial(optimised.jit, static_argnums=(0, 1))
def generate(system, options, variables, label):
  keys = jax.random.split(jax.random.key(0), len(label))
  return system.generate(
    variables, {"label": label}, keys, temperature=0.0, **dict(options)
  )


class NARTest(absltest.TestCase):
  def same(self, back, state):
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_round_trip_is_exact(self):
    config, _, state, _, variables = golden()
    model = convert.config(state, heads=2)["model"]
    self.assertEqual(model["depth"], config["n_layer"])
    self.assertEqual(model["num_classes"], config["num_classes"])
    self.assertNotIn("frames", model)
    self.same(convert.to_official(variables), state)

  def test_round_trip_of_a_text_model(self):
    state = dict(golden()[2])
    del state["cls_embedding.embedding_table.weight"]
    for name, shape in (
      ("cap_proj.fc1.weight", (64, 40)),
      ("cap_proj.fc2.weight", (64, 64)),
      ("uncond_embedding", (12, 40)),
    ):
      key = f"cls_embedding.{name}"
      state[key] = golden_weights.weight(key, shape)
    self.same(convert.to_official(convert.to_ours(state, heads=2)), state)

  def test_round_trip_of_a_video_model(self):
    """Positions are found where they are: no official numbers exist."""
    _, _, image, _, _ = golden()
    state = {
      k: v
      for k, v in image.items()
      if k not in ("norm.weight", "output.weight") and "medusa" not in k
    }
    state |= {
      k.replace("layers.3", "layers.4"): v + 1
      for k, v in image.items()
      if k.startswith("layers.3")
    }
    for i, axis in enumerate("RDB"):
      state[f"norm_{axis}.weight"] = image["norm.weight"] + i
      state[f"output_{axis}.weight"] = image["output.weight"] + i
    state["abs_pe"] = golden_weights.tensor("abs_pe", (1, 1 + 3 * 4, 64))
    options = dict(heads=2, frames=3)
    model = convert.config(state, **options)["model"]
    self.assertEqual((model["depth"], model["frames"]), (3, 3))
    self.assertEqual(model["tokenizer"]["size"], 32)
    system = build("nar", **model)
    ours = convert.to_ours(state, **options)
    cell = {k: system.plan[k] for k in ("frame", "row", "col")}
    raster = cell["frame"] * 4 + cell["row"] * 2 + cell["col"]
    places = ours["params"]["places"]
    np.testing.assert_array_equal(places[0], state["abs_pe"][0, 0])
    np.testing.assert_array_equal(places[1:], state["abs_pe"][0, 1 + raster])
    # Columns, rows, frames are read behind the trunk, and one and two more.
    np.testing.assert_array_equal(
      ours["params"]["stacks_2"]["block"]["norm1"]["scale"][0],
      state["layers.4.attention_norm.weight"],
    )
    np.testing.assert_array_equal(
      ours["params"]["norms_1"]["scale"], state["norm_D.weight"]
    )
    self.same(convert.to_official(ours, frames=3), state)
    with self.assertRaisesRegex(UserError, "no 5 square frames"):
      convert.config(state, heads=2, frames=5)

  def test_logits(self):
    config, arrays, _, system, variables = golden()
    raster = system.plan["row"] * config["side"] + system.plan["col"]
    units = jnp.asarray(arrays["tokens"])[:, raster]
    label = jnp.array(config["labels"])
    logits = optimised.jit(system.logits)(variables, label, units)
    np.testing.assert_allclose(
      logits, arrays["logits"][:, raster], rtol=1e-4, atol=1e-4
    )

  def test_best_cells(self):
    config, arrays, _, system, variables = golden()
    raster = system.plan["row"] * config["side"] + system.plan["col"]
    label = jnp.array(config["labels"])
    # All five were compared; a run is a program, and these are enough to stay.
    runs = {"greedy_cfg1.75": dict(guidance=1.75)}
    for n in config["intervals"][1:]:
      # Theirs stops behind so many units, ours is off before.
      runs[f"greedy_interval{n}"] = dict(guidance=3.0, stop=n + 1)
    for name, options in runs.items():
      units = generate(system, tuple(options.items()), variables, label)
      np.testing.assert_array_equal(
        units, arrays[name][:, raster], err_msg=name
      )

  def test_other_files(self):
    state = golden()[2]
    with self.assertRaisesRegex(UserError, "there is no medusa_norm.weight"):
      convert.config({"norm.weight": 0, "output.weight": 0})
    with self.assertRaisesRegex(UserError, "width 64 is no published NAR"):
      convert.config(state)
    less = {k: v for k, v in state.items() if k != "layers.3.ffn_norm.weight"}
    with self.assertRaisesRegex(UserError, "missing: stacks.1.0.ffn_norm"):
      convert.to_ours(less, heads=2)


if __name__ == "__main__":
  absltest.main()
