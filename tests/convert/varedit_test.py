"""VAREdit's weights: there and back, and what the official model computes."""

import functools
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import varedit as convert
from ar_jax.core.system import build
from ar_jax.families.scale.referred import Referred
from tests import golden_weights

NAMES = ("varedit", "varedit_patchify")
KEYS = jax.random.split(jax.random.key(0), 2)


def last(x):
  """Channels behind the sides."""
  return np.moveaxis(x, -3, -1)


@functools.cache
def model(name):
  """(description, arrays, state, the system, its variables)."""
  description, arrays = golden_weights.load(name)
  config = description["config"]
  state = golden_weights.weights(description)
  scales, fold = config["scales"], bool(config["apply_spatial_patchify"])
  built = convert.config(state, scales, fold=fold)["model"]
  # Nothing of the tokenizer but its maps matters here.
  codes = dict(name="patch_bits", patch=3, bits=config["codebook_dim"])
  built["tokenizer"] = dict(built["tokenizer"], **codes)
  built["ground"] = tuple(scales[-1])
  params = convert.to_ours(state, scales, fold=fold)
  system = build("varedit", **built)
  variables = {"params": params}
  variables["tokenizer"] = system.init_tokenizer(jax.random.key(0))
  return config, arrays, state, system, variables


@functools.cache
def program(name):
  """(places, inputs, cond) -> of `varedit` its guided greedy bits and their
  sum, of the other its logits: each compiles what the other does not."""
  config, _, _, system, variables = model(name)
  (scale,), (tau,) = set(config["cfg_list"]), set(config["tau_list"])

  @jax.jit
  def run(places, embedding, cond):
    with mock.patch.object(Referred, "every_turn", lambda self: places):
      if name == "varedit_patchify":
        return system.of_inputs(variables, cond, embedding)
      return system.generate(
        variables, cond, KEYS, guidance=scale, temperature=tau, top_k=1
      )

  return run


def inputs(name):
  """(what is known before each map, the condition) of a golden file."""
  config, arrays, _, system, _ = model(name)
  lens, maps = config["text_lens"], system.tokenizer.maps
  shape = (2, max(lens), config["text_channels"])
  words = golden_weights.tensor("text", shape)
  words = words * (np.arange(shape[1])[None] < np.c_[lens])[..., None]
  source = golden_weights.tensor("source", (2, maps.bits, *maps.grids[-1]))
  reference = maps.folded(last(source))
  np.testing.assert_array_equal(reference, arrays["source_tokens"])
  shape = 2, len(system.plan) - 1, maps.width
  given = golden_weights.tensor("tokens_in", shape)
  embedding = np.pad(given, ((0, 0), (1, 0), (0, 0)))
  return embedding, {"text": words, "reference": reference}


def of_golden(name, index):
  """(arrays, what `program` makes of the inputs, by places of this index)."""
  _, arrays, _, system, variables = model(name)
  places = system.net.clone(rope_index=index).bind(variables).every_turn()
  return arrays, program(name)(places, *inputs(name))


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters("exact", "table_1m")
  def test_logits_of_folded_units(self, index):
    arrays, found = of_golden("varedit_patchify", index)
    want = arrays[f"logits_{index}"]
    np.testing.assert_allclose(
      found.reshape(want.shape), want, rtol=1e-4, atol=1e-4
    )

  @parameterized.parameters("exact", "table_1m")
  def test_guided_greedy_edits(self, index):
    arrays, (units, total) = of_golden("varedit", index)
    np.testing.assert_array_equal(units, arrays[f"greedy_bits_{index}"])
    want = last(arrays[f"greedy_sum_{index}"])
    np.testing.assert_allclose(total, want, atol=1e-4)

  @parameterized.parameters(*NAMES)
  def test_round_trip_is_exact(self, name):
    config, _, state, _, variables = model(name)
    back = convert.to_official(variables["params"], config["block_chunks"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_sizes(self):
    state = model("varedit")[2]
    for size, maps in ((None, 10), (1024, 13)):
      found = convert.config(state, size=size)["model"]
      self.assertLen(found["tokenizer"]["scales"], maps)
      self.assertEqual(found["rope_index"], "table_1m")


if __name__ == "__main__":
  absltest.main()
