"""Published weights of NSARM: there and back, and the numbers that the official
network of maps and sampler compute with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import nsarm as convert
from ar_jax.core.system import UserError, build
from ar_jax.families.scale import given_maps
from ar_jax.families.scale.bitwise import BitScales
from tests import golden_weights

FRONT = "map_transformer."


def first(x):
  """Channels, then places, read as the official code reads positions."""
  return np.moveaxis(x, -1, 1).reshape(len(x), -1, x.shape[-1])


@functools.cache
def golden():
  """(config, arrays, state) of the network of maps and of the sampler, whose
  shapes are the same, and the system."""
  maps, arrays = golden_weights.load("nsarm_map")
  whole, drawn = golden_weights.load("nsarm_sampler")
  state = golden_weights.weights(whole)
  own = {FRONT + k: v for k, v in golden_weights.weights(maps).items()}
  config = whole["config"]
  options = dict(scales=config["token_scales"], heads=config["heads"])
  model = convert.config(state, **options)["model"]
  model["tokenizer"] |= dict(ch=8, mult=(1, 1), blocks=1, inputs="area")
  model |= dict(words=True, ground=(5, 5))
  system = build("nsarm", **model)
  both = [convert.to_ours(x, **options) for x in (state | own, state)]
  return config, (arrays, drawn), state, system, both


@functools.cache
def computed():
  """What ours computes, with either set of weights; one program."""
  config, _, _, system, both = golden()
  latents = lambda name, shape: jnp.moveaxis(
    jnp.asarray(golden_weights.tensor(name, shape)), 1, -1
  )
  low = latents("lr_latent17", (2, 14, 8, 8))
  high = latents("hq_latent19", (1, 14, 10, 10))
  shape = (1, config["text_len"], config["text_channels"])
  text = jnp.asarray(golden_weights.tensor("text2", shape))
  trained = system.tokenizer.clone(inputs="bilinear").maps

  @jax.jit
  def every(params):
    variables = {"params": params, "tokenizer": {}}
    said = system.said(variables, low)
    one = [x[:1] for x in said]
    coded = given_maps.coded_behind(trained, high, one)
    cond = {"low_latent": low[:1], "text": text}
    keys = jax.random.split(jax.random.key(0), 1)
    units, total = system.generate(variables, cond, keys, temperature=0.0)
    logits = BitScales.logits(system, variables, cond, units)
    true = given_maps.unquantised(trained, high, system.given)
    sums = given_maps.sums(trained, one), given_maps.sums(trained, true)
    left = given_maps.left(trained, high, system.given)
    inputs = system.codec(variables).embed(units)
    return said, coded, sums, left, units, total, logits, inputs

  return [jax.device_get(every(params)) for params in both]


class GoldenTest(absltest.TestCase):
  def test_network_of_maps(self):
    arrays = golden()[1][0]
    said, coded, (acc, true), left, *_ = computed()[0]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    for i, own in enumerate(said):
      close(first(own), arrays[f"map_{i}"], err_msg=str(i))
    np.testing.assert_array_equal(coded.units, arrays["targets"])
    close(coded.inputs[:, 1:], arrays["next_inputs"])
    joined = lambda maps: np.concatenate([first(x) for x in maps], 1)
    close(joined(left), arrays["residual_targets"])
    close(joined(true), arrays["acc_true"])
    close(joined(acc), arrays["acc_pred"])

  def test_sampler(self):
    """One pass over the given maps, where the official sampler makes seven."""
    system, arrays = golden()[3], golden()[1][1]
    *_, units, total, logits, inputs = computed()[1]
    maps = system.tokenizer.maps
    cells = [
      maps.unfolded(own, k).reshape(1, -1, maps.bits)
      for k, own in enumerate(maps.split(units))
    ][system.given :]
    np.testing.assert_array_equal(np.concatenate(cells, 1), arrays["bits"])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(inputs[:, 1:], arrays["next_inputs"])
    close(logits.reshape(arrays["logits"].shape), arrays["logits"])
    close(np.moveaxis(total, -1, 1), arrays["sum"])


class TableTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    config, _, state, _, (_, params) = golden()
    back = convert.to_official(params, config["block_chunks"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_another_file(self):
    state = golden()[2]
    less = {k: v for k, v in state.items() if not k.startswith(FRONT)}
    with self.assertRaisesRegex(UserError, "not an NSARM: .*feature_extractor"):
      convert.config(less)
    options = dict(scales=(1, 2), heads=golden()[0]["heads"])
    with self.assertRaisesRegex(UserError, "maps: 7 are said"):
      convert.to_ours(state, **options)


if __name__ == "__main__":
  absltest.main()
