"""Published weights of D-AR: there and back, and the same outputs."""

import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.convert import d_ar as convert
from ar_jax.convert import d_ar_transformer
from ar_jax.core.decoding import pick
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.positions import rope
from ar_jax.tokenizers.group_diffusion import GroupDiffusion
from tests import golden_weights

DESCRIPTION, OUTPUTS = golden_weights.load("dar_tokenizer")
STATE = golden_weights.weights(DESCRIPTION)
tensor = golden_weights.tensor
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def model(**changes):
  """(tokenizer, its params)."""
  config = convert.config(STATE)["model"]
  config["align"]["layer"] = 1
  sizes = dict(length=16, groups=4, size=64)
  tokenizer = build("d_ar", **config | sizes | changes).tokenizer
  return tokenizer, convert.to_ours(STATE)


def last(x):
  """Channels last."""
  return jnp.asarray(np.moveaxis(np.asarray(x), 1, -1))


def shown(net, states, noise):
  """What is shown after 1, 2, ... groups, not clipped."""
  carry, times, found = (noise, jnp.zeros_like(noise)), net.grid_times(), []
  for group in range(4):
    after, _ = net.step(states, carry, group)
    # The slope that this step has followed, to the end.
    slope = (after[0] - carry[0]) / (times[group + 1] - times[group])
    found.append((carry[0] + (1 - times[group]) * slope) / net.std)
    carry = after
  return found


class TokenizerTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    back = convert.to_official(model()[1])
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_outputs_of_the_official_model(self):
    tokenizer, params = model()
    image = last(tensor("image2", (2, 3, 64, 64)).clip(-1, 1))
    noise, start, xt = (
      last(tensor(name, (2, 3, 64, 64))) for name in ("noise", "x0", "x_t")
    )
    codes = jnp.asarray(OUTPUTS["codes"])
    # Each of the three transformers is compiled once, whoever calls it.
    parts = {}
    for name in ("latent", "states", "velocity"):
      own = functools.partial(
        tokenizer.apply,
        {"params": params},
        method=getattr(GroupDiffusion, name),
      )
      parts[name] = jax.jit(own)
    with contextlib.ExitStack() as stack:
      for name, own in parts.items():
        calls = lambda self, *args, own=own: own(*args)
        stack.enter_context(mock.patch.object(GroupDiffusion, name, calls))
      net = tokenizer.bind({"params": params})
      latent = net.latent(image)
      quantized, _, units = net.quantizer(latent)
      condition = net.states(quantized)
      times = jnp.array([0.15, 0.7])
      velocity, tapped = net.velocity(xt, times, condition[:, 4:8])
      of_codes = net.states(net.embed(codes))
      trained = net.at_times(image, jnp.array([0.2, 0.83]), start)
      terms = [trained.losses[n] for n in ("codebook_loss", "commit_loss")]
      terms = [x.mean() for x in (*terms, trained.more["flow"])]
      every = shown(net, of_codes, noise)
      found = dict(
        latent=latent.reshape(2, 1, 16, 8),
        quantized=quantized.reshape(2, 1, 16, 8),
        condition=condition,
        velocity=velocity[:1],
        repa=net.projector(net.pooled(tapped)).reshape(2, 16, 16, -1),
        condition_of_codes=of_codes,
        decode=every[3],
        preview2=every[1],
        decode_euler=shown(net.clone(solver="euler"), of_codes, noise)[3],
        train_vq_commit_fm=jnp.stack(terms),
        train_time=trained.more["judged"],
        train_x1_prediction=trained.image,
      )
    np.testing.assert_array_equal(units, OUTPUTS["indices"])
    for name, want in OUTPUTS.items():
      key, strided, every = name.partition("_strided")
      if key not in found:
        continue
      got = np.asarray(found[key])
      if key == "repa":
        got = got[:, ::5, ::5, ::32]
      elif want.ndim == 4:
        want = np.moveaxis(want, 1, -1)
        every = int(every or 4) if strided else 1
        got = got[:, ::every, ::every]
      scale = max(1.0, np.abs(want).max())
      close(got, want, atol=1e-4 * scale, err_msg=name)
    close(tokenizer.grid_times(), OUTPUTS["schedule"])
    plan = makers.prefixed(makers.blocks(16, 1), 16)
    np.testing.assert_array_equal(plan.mask(), OUTPUTS["encoder_mask"])

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "no patchify.weight"):
      convert.config({})
    with self.assertRaisesRegex(UserError, "width 96"):
      grey = {"patchify.weight": np.zeros((96, 3, 16, 16))}
      convert.config(STATE | grey)


class TransformerTest(absltest.TestCase):
  def test_transformer_over_the_codes(self):
    description, want = golden_weights.load("dar_ar")
    state = golden_weights.weights(description)
    config = d_ar_transformer.config(state, heads=4)["model"]
    self.assertEqual(config["tokenizer"], {"name": "d_ar", "vocab": 48})
    codes = dict(name="given", vocab=48, length=16)
    system = build("llamagen", **config | dict(tokenizer=codes))
    variables = d_ar_transformer.to_ours(state, heads=4)
    back = d_ar_transformer.to_official(variables)
    self.assertEqual(back.keys(), state.keys())
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    line = rope(makers.blocks(17, 1), 16, prefix=0, prefix_rope="line")
    close(line, want["freqs_cis"])
    label, units = jnp.array([3, 7]), jnp.asarray(want["tokens"])
    keys = jax.random.split(jax.random.key(0), 2)
    ways = {
      "greedy_linear": dict(guidance=7.9, schedule="ramp", start=1.3),
      "greedy_from1": dict(guidance=7.9, schedule="ramp", start=1.0),
      "greedy_cfg2": dict(guidance=2.0),
    }

    @jax.jit
    def run(variables):
      draw = lambda options: system.generate(
        variables, {"label": label}, keys, temperature=0.0, **options
      )
      drawn = {name: draw(options) for name, options in ways.items()}
      return system.logits(variables, label, units), drawn

    logits, drawn = run(variables)
    close(logits, want["logits"])
    loss = -jnp.mean(
      jnp.take_along_axis(jax.nn.log_softmax(logits), units[..., None], -1)
    )
    close(loss, want["loss"])
    for name, ids in drawn.items():
      np.testing.assert_array_equal(ids, want[name], err_msg=name)
    close(pick.schedule("ramp", 7.9, 16, start=1.3), want["schedule"])
    with self.assertRaisesRegex(UserError, "start=1.3"):
      pick.schedule("constant", 7.9, 16, start=1.3)


if __name__ == "__main__":
  absltest.main()
