"""Lumos-1 against the official model and its sampler, and back."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import lumos_1 as convert
from ar_jax.core.system import UserError, build
from ar_jax.families.block import framed_program, tubes
from ar_jax.families.block.framed_program import FramedProgram, FrameLoop
from ar_jax.nn.heads.categorical import cross_entropy
from tests import golden_weights

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
NAMES = dict(
  image_start="image_start_token",
  image_end="image_end_token",
  line_end="new_line_token",
  video_start="video_start_token",
  mask="mask_token",
)


def model(name, frames, **numbers):
  """(system, variables, state, outputs) of a file; numbers are those of its
  tokens of sizes."""
  description, outputs = golden_weights.load(name)
  config = description["config"]
  state = golden_weights.weights(description)
  special = {k: config["special"][v] for k, v in NAMES.items()}
  zero = config["size_token_zero"]
  special |= {k: zero + n for k, n in dict(numbers, height=1, width=1).items()}
  body = dict(name="patch_codes", patch=1, size=4, vocab=config["codes"])
  made = dict(
    tokenizer=dict(name="given", form="frames", frames=frames, tokenizer=body),
    depth=2, width=64, heads=2, kv_heads=1, hidden=96, special=special,
    text=dict(length=5, words=config["visual_start"]),
  )  # fmt: skip
  return build("lumos_1", **made), convert.of_model(state, made), state, outputs


class ModelTest(absltest.TestCase):
  def test_outputs_of_the_official_model(self):
    system, variables, state, outputs = model(
      "lumos_model", 3, duration=2, rate=3
    )
    net, layout = system.net, system.net.layout
    bound = net.bind(system.net_variables(variables))
    at = np.stack([np.flatnonzero(f) for f in outputs["content_flag"]])

    def content(name):
      ids = np.take_along_axis(outputs[name], at, 1)
      return jnp.asarray(ids.reshape(2, 3, 20), jnp.int32)

    text = np.zeros((2, 5), np.int32)
    text[0], text[1, :3] = [7, 11, 10, 4, 12], [4, 10, 11]
    cond = {"text": jnp.asarray(text)}
    whole = content("input_ids")
    units = (whole - layout.first)[:, :, layout.codes]
    np.testing.assert_array_equal(bound.content(units), whole)

    @jax.jit
    def run():
      h = bound.states(cond, content("tube_input_ids"))
      return bound.head.logits(h), bound.logits(bound.of_frames(h))

    every, logits = run()
    close(every[0], outputs["logits"][0, : layout.rows])
    # The second text is two ids shorter: they are padding in its middle.
    np.testing.assert_array_equal(
      np.argmax(every[1, 5:], -1), np.argmax(outputs["logits"][1, 3:78], -1)
    )
    close(every[1, 5:], outputs["logits"][1, 3:78])
    np.testing.assert_array_equal(
      layout.plan.mask(), outputs["attn_mask"][0, : layout.rows, : layout.rows]
    )
    turn = bound.turns(jnp.array([5]), slice(None))[0]
    close(turn[..., 0], outputs["rope_cos"][0, : layout.rows, :16])
    close(turn[..., 1], outputs["rope_sin"][0, : layout.rows, :16])
    hide = np.asarray(content("tube_input_ids") == layout.id("mask"))
    nll = np.asarray(cross_entropy(logits, units))
    np.testing.assert_allclose(
      nll[hide[:, :, layout.codes]].mean(), outputs["loss"], rtol=1e-5
    )
    back = convert.to_official(variables)
    self.assertEqual(back.keys(), state.keys())
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_masks_of_given_draws(self):
    outputs = golden_weights.load("lumos_model")[1]
    at = np.stack([np.flatnonzero(f) for f in outputs["content_flag"]])

    def masked(name):
      ids = np.take_along_axis(outputs[f"{name}_input_ids"], at, 1)
      return ids.reshape(2, 3, 20) == 25

    for row in range(2):
      rate = tubes.share(outputs["tube_rand0"][row], 0.7)
      np.testing.assert_allclose(rate, outputs["tube_rate"][row], rtol=1e-6)
      found = tubes.places(outputs[f"tube_rand{row + 1}"], rate[None])
      want = masked("tube")[row]
      np.testing.assert_array_equal(np.tile(found, (3, 1)), want)
      rate = tubes.share(outputs["random_rand0"][row], 0.7)
      found = tubes.places(outputs[f"random_rand{row + 1}"], rate[None])
      np.testing.assert_array_equal(
        np.reshape(found, (3, 20)), masked("random")[row]
      )
      first = 1 + 4 * row
      rates = tubes.share(outputs[f"DiffForcing_rand{first}"], 0.2)
      noise = [outputs[f"DiffForcing_rand{first + 1 + f}"][0] for f in range(3)]
      found = tubes.places(np.stack(noise), rates)
      np.testing.assert_array_equal(found, masked("DiffForcing")[row])


class SamplerTest(absltest.TestCase):
  def test_the_released_loop(self):
    system, variables, _, outputs = model(
      "lumos_sampler", 2, duration=1, rate=5
    )
    net, layout = system.net, system.net.layout
    for share, count in ((70, 20), (30, 20)):
      where = np.flatnonzero(layout.history(share / 100))
      np.testing.assert_array_equal(where, outputs[f"history_{share}_{count}"])
    program = FramedProgram(
      net, 3, 2.0, decay="released", law=(("temperature", 0.0),)
    )
    np.testing.assert_allclose(
      program.temperatures().reshape(-1), outputs["temperatures"], rtol=1e-6
    )
    self.assertEqual(2 * (system.forwards(steps=3) - 1), 16)
    noise = jnp.stack([outputs[f"gumbel{k}"] for k in range(6)])
    own = system.net_variables(variables)
    cond = {"text": jnp.asarray([[4, 13, 12, 9, 10]])}
    keys = jax.random.split(jax.random.key(0), 1)

    @jax.jit
    def run():
      codes = program.run(own, cond, keys)
      bound = net.bind(own)
      doubled = {"text": jnp.repeat(cond["text"], 2, 0)}
      texts, cache = bound.begin(doubled, 2, jnp.array([False, True]))
      loop = FrameLoop(program, bound, texts, None)
      blank = loop.rows(jnp.asarray(layout.template[None, 3:-1], jnp.int32))
      h, _ = bound.step(blank, cache, texts)
      return bound.content(codes), bound.head.logits(h)[:, 3:-1]

    given = lambda keys, count, call: noise[call]
    with mock.patch.object(framed_program, "gumbel", given):
      content, first = run()
    np.testing.assert_array_equal(content[0], outputs["video"])
    close(first[0], outputs["first_cond_logits"])
    close(first[1], outputs["first_uncond_logits"])

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not of Lumos-1"):
      convert.config({"model.embed_tokens.weight": np.zeros((4, 2))})


if __name__ == "__main__":
  absltest.main()
