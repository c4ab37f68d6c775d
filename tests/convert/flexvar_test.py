"""Published weights of FlexVAR, its tokenizer and SAR: there and back, and the
same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import flex_vq
from ar_jax.convert import flexvar as convert
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError, build
from tests import golden_weights, optimised
from tests.convert import scale_golden

CLOSE = dict(rtol=1e-4, atol=1e-4)


@functools.cache
def golden(name="flexvar"):
  config, arrays, state, model, variables = scale_golden.load(
    name, convert, flex_vq
  )
  return config, arrays, state, model, variables


class FlexVARTest(absltest.TestCase):
  def test_there_and_back_bit_for_bit(self):
    config, _, state, model, variables = golden()
    mask = {"attn_bias_for_masking": np.full((1, 1, 14, 14), -np.inf)}
    convert.to_ours(state | mask)
    self.assertEqual((model["grid"], model["heads"]), (32, 2))
    self.assertEqual(model["tokenizer"]["vocab"], config["vocab_size"])
    back = convert.to_official(variables["params"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    # As torch resizes it, channels first.
    want = state["pos_1LC"][0].reshape(96, 4, 8, 4, 8).mean((2, 4))
    got = resize(variables["params"]["slots"]["table"], (4, 4), "area")
    np.testing.assert_allclose(got, np.moveaxis(want, 0, -1), atol=1e-5)
    description, _ = golden_weights.load("flexvar")
    codes = golden_weights.weights(description, "vae_state_dict")
    back = flex_vq.to_official(variables["tokenizer"])
    self.assertEqual(back.keys(), codes.keys())
    for key, value in codes.items():
      np.testing.assert_array_equal(back[key], value, err_msg=key)

  def test_pyramids_inputs_and_logits_of_two_lists(self):
    config, arrays, _, model, variables = golden()
    system = build("flexvar", **model)
    label = jnp.array(config["labels"])

    def every(codes, variables, image):
      # One pass of the encoder: the maps follow from its latent. A method of
      # the module's own comes first, which shares its scope with the body.
      codebook = codes.codebook()
      latent = codes.body.latent(image)
      found = {"latent": jnp.moveaxis(latent, -1, 1)}
      for i, sides in enumerate(map(tuple, config["lists"])):
        here = system.over(sides)
        maps = [
          codes.body.quantizer.encode(resize(latent, (p, p), "area"))
          for p in sides
        ]
        units = jnp.concatenate([x.reshape(len(x), -1) for x in maps], 1)
        found |= {
          f"indices_{i}": units,
          f"input_{i}": here.codec(variables).embed(units)[:, 1:],
          f"logits_{i}": here.logits(variables, label, units),
        }
      whole = codes.body.quantizer.encode(latent).reshape(len(latent), 5, 5)
      found["reconstruction"] = jnp.moveaxis(
        codes.decode_latent(codebook[whole])[:, ::4, ::4], -1, 1
      )
      return found

    image = golden_weights.image(config["images"], 80)
    given = {"params": variables["tokenizer"]}
    found = optimised.jit(
      lambda given, variables: system.tokenizer.apply(
        given, variables, image, method=every
      )
    )(given, variables)
    arrays = {**arrays, "reconstruction": arrays["reconstruction"].clip(-1, 1)}
    for name, got in found.items():
      if name.startswith("indices"):
        np.testing.assert_array_equal(got, arrays[name], err_msg=name)
      else:
        np.testing.assert_allclose(got, arrays[name], **CLOSE, err_msg=name)

  def test_best_units_of_three_lists(self):
    config, arrays, _, model, variables = golden()
    system = build("flexvar", **model)
    for i, run in enumerate(config["greedy"]):
      # The growing form counts from 0, the constant one from 1.
      law = dict(guidance=1 + run["cfg"])
      if run["constant"]:
        law = dict(guidance=run["cfg"], schedule="constant")
      units, latent = scale_golden.greedy(
        system, variables, config["labels"], scales=tuple(run["scales"]), **law
      )
      np.testing.assert_array_equal(units, arrays[f"tokens_{i}"])
      if i == 0:
        image = optimised.jit(system.decode_latent)(variables, latent)
        # Theirs is not cut at the ends of the range.
        want = (np.moveaxis(arrays["image_0"], 1, -1).clip(-1, 1) + 1) / 2
        np.testing.assert_allclose(image[:, ::4, ::4], want, atol=1e-4)

  def test_another_file(self):
    state = golden_weights.weights(golden_weights.load("var_transformer")[0])
    with self.assertRaisesRegex(UserError, "no square table"):
      convert.config(state)


class SARTest(absltest.TestCase):
  """Its published trainer, which draws the best units and passes over the last
  map alone again."""

  def test_both_passes_and_losses(self):
    config, arrays, state, model, variables = golden("sar")
    sides = tuple(config["scales"])
    model["tokenizer"]["scales"], model["lists"] = sides, None
    system = build(
      "sar",
      target={"name": "flexvar", **model},
      sf_scales="last",
      draws="argmax",
      sigma=config["sigma"],
    )
    inner = system.target
    batch = {
      "units": jnp.asarray(arrays["units"]),
      "label": jnp.array(config["labels"]),
    }

    @optimised.jit
    def every(variables):
      key = jax.random.key(0)
      targets = inner.targets(variables, batch, key, train=False)
      given = inner.teacher_inputs(variables, targets)
      first = inner.predict(variables, targets, given)
      drawn = system.drawn(variables, targets, first, None)
      stale = inner.student_inputs(variables, targets, drawn)
      last, again, _ = inner.last(variables, targets, stale)
      second = inner.predict(variables, last, again, start=False)
      loss = system.loss(variables, batch, key, train=False)
      means = (
        inner.loss_of(targets, first).value,
        loss.metrics["ce/second"],
        loss.value,
      )
      return {
        "tf_input": given[:, 1:],
        "tf_logits": first,
        "tf_pred": drawn,
        "sf_input": again[:, 1:],
        "sf_logits": second[:, 1:],
        "losses": jnp.stack([x.mean() for x in means]),
      }

    for name, got in every(variables).items():
      np.testing.assert_allclose(got, arrays[name], **CLOSE, err_msg=name)
    image = golden_weights.image(config["images"], 80)
    units = optimised.jit(inner.tokenize)(variables, image)
    np.testing.assert_array_equal(units, arrays["units"])


if __name__ == "__main__":
  absltest.main()
