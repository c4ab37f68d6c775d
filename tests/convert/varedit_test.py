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
  """(places, inputs, text, reference) -> logits, guided greedy bits, sum."""
  config, _, _, system, variables = model(name)
  (scale,), (tau,) = set(config["cfg_list"]), set(config["tau_list"])

  @jax.jit
  def every(places, embedding, cond):
    with mock.patch.object(Referred, "every_turn", lambda self: places):
      logits = system.of_inputs(variables, cond, embedding)
      units, total = system.generate(
        variables, cond, KEYS, guidance=scale, temperature=tau, top_k=1
      )
    return logits, units, total

  return every


class GoldenTest(parameterized.TestCase):
  @parameterized.parameters(
    (name, index) for name in NAMES for index in ("exact", "table_1m")
  )
  def test_equals_the_official_model(self, name, index):
    config, arrays, _, system, variables = model(name)
    lens, k = config["text_lens"], system.tokenizer.unit_bits
    shape = (2, max(lens), config["text_channels"])
    words = golden_weights.tensor("text", shape)
    words = words * (np.arange(shape[1])[None] < np.c_[lens])[..., None]
    h, w = system.tokenizer.maps.grids[-1]
    source = golden_weights.tensor("source", (2, system.tokenizer.bits, h, w))
    reference = system.tokenizer.maps.folded(last(source))
    np.testing.assert_array_equal(reference, arrays["source_tokens"])
    given = golden_weights.tensor("tokens_in", (2, len(system.plan) - 1, k))
    embedding = np.pad(given, ((0, 0), (1, 0), (0, 0)))
    cond = {"text": words, "reference": reference}
    places = system.net.clone(rope_index=index).bind(variables).every_turn()
    logits, units, total = program(name)(places, embedding, cond)
    want = arrays[f"logits_{index}"]
    np.testing.assert_allclose(
      logits.reshape(want.shape), want, rtol=1e-4, atol=1e-4
    )
    bits = arrays[f"greedy_bits_{index}"]
    maps = system.tokenizer.maps
    cells = [
      maps.unfolded(own, i).reshape(2, -1, maps.bits)
      for i, own in enumerate(maps.split(units))
    ]
    np.testing.assert_array_equal(np.concatenate(cells, 1), bits)
    np.testing.assert_allclose(
      total, last(arrays[f"greedy_sum_{index}"]), atol=1e-4
    )

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
