"""Published weights of D-AR: there and back, and the same outputs."""

import functools

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


class TokenizerTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    back = convert.to_official(model()[1])
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_outputs_of_the_official_model(self):
    tokenizer, params = model()
    net = tokenizer.bind({"params": params})
    euler = tokenizer.clone(solver="euler").bind({"params": params})
    image = last(tensor("image2", (2, 3, 64, 64)).clip(-1, 1))
    noise, start = (
      last(tensor(name, (2, 3, 64, 64))) for name in ("noise", "x0")
    )
    xt = last(tensor("x_t", (2, 3, 64, 64)))[:1]
    codes = jnp.asarray(OUTPUTS["codes"])

    def shown(net, states):
      """What is shown after 1, 2, ... groups, not clipped."""
      times = jnp.asarray(net.grid_times())

      def step(carry, group):
        after, _ = net.step(states, carry, group)
        # The slope that this step has followed, to the end.
        slope = (after[0] - carry[0]) / (times[group + 1] - times[group])
        leap = carry[0] + (1 - times[group]) * slope
        return after, leap / net.std

      begin = noise, jnp.zeros_like(noise)
      return jax.lax.scan(step, begin, jnp.arange(4))[1]

    @jax.jit
    def run(image, noise, start):
      latent = net.latent(image)
      quantized, _, units = net.quantizer(latent)
      condition = net.states(quantized)
      velocity, tapped = net.velocity(xt, jnp.array([0.15]), condition[:1, 4:8])
      of_codes = net.states(net.embed(codes))
      tau = jnp.array([0.2, 0.83])
      trained = net.at_times(image, tau, start)
      names = ("codebook_loss", "commit_loss")
      terms = [trained.losses[n].mean() for n in names]
      every = shown(net, of_codes)
      return units, dict(
        latent=latent.reshape(2, 1, 16, 8),
        quantized=quantized.reshape(2, 1, 16, 8),
        condition=condition,
        velocity=velocity,
        repa=net.projector(net.pooled(tapped)).reshape(1, 16, 16, -1),
        condition_of_codes=of_codes,
        decode=every[3],
        preview2=every[1],
        decode_euler=shown(euler, of_codes)[3],
        train_vq_commit_fm=jnp.stack([*terms, trained.more["flow"].mean()]),
        train_time=trained.more["judged"],
        train_x1_prediction=trained.image,
      )

    units, found = run(image, noise, start)
    np.testing.assert_array_equal(units, OUTPUTS["indices"])
    for name, want in OUTPUTS.items():
      key, strided, every = name.partition("_strided")
      if key not in found:
        continue
      got = np.asarray(found[key])
      if key == "repa":
        want, got = want[:1], got[:, ::5, ::5, ::32]
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
