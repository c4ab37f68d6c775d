"""Published weights of GigaTok: there and back, and the same outputs."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import optim
from ar_jax.convert import gigatok as convert
from ar_jax.convert import llamagen
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.conv2d import depth_to_space
from ar_jax.nn.losses.adversary import Adversary, PatchGAN
from ar_jax.tokenizers import autoencoder, queried
from ar_jax.tokenizers.autoencoder import Reconstruction
from ar_jax.tokenizers.gigatok import GigaTokTraining
from tests import golden_weights

DESCRIPTION, OUTPUTS = golden_weights.load("gigatok_tokenizer")
STATE = golden_weights.weights(DESCRIPTION)
tensor = golden_weights.tensor
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def model(**quantizer):
  """(tokenizer, its params)."""
  config = convert.config(STATE)["model"]
  own = build("gigatok", **config, quantizer=dict(entropy=0.005))
  return own.tokenizer, convert.to_ours(STATE)


def last(x):
  """Channels last."""
  return np.moveaxis(np.asarray(x), 1, -1)


class GigaTokTest(absltest.TestCase):
  def test_round_trip_is_exact(self):
    params = model()[1]
    back = convert.to_official(params)
    self.assertEqual(set(back), set(STATE))
    for key, array in STATE.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    codes = {"quantize.codebook_used": np.zeros(65536, np.float32)}
    convert.to_ours(STATE | codes)

  def test_outputs_of_the_official_model(self):
    tokenizer, params = model()
    net = tokenizer.bind({"params": params})
    turned = tokenizer.clone(rotation=True, direct=True, aligned=24).bind(
      {"params": params}
    )
    levels = tokenizer.clone(mask="level").bind({"params": params})
    image = last(tensor("image8", (1, 3, 32, 32)).clip(-1, 1))
    lie = lambda x: jnp.asarray(last(x)).reshape(1, 16, 8)
    given = lie(tensor("vq_input0", (1, 8, 1, 16)))
    cotangent = lie(tensor("cotangent", (1, 8, 1, 16)))

    @jax.jit
    def run(x):
      features = net.features(x)
      read = net.read(features)
      latent = net.quant(read)
      units = net.quantizer.encode(latent)
      ways = {}
      for name, own in (("st", net), ("rot", turned)):
        through = lambda z, own=own: own.quantizer(z)[0]
        codes, back = jax.vjp(through, latent)
        ways[f"quantized_{name}"] = codes
        ways[f"grad_latent_{name}"] = back(cotangent)[0]
      out = turned(x)
      held = net.quantizer(latent)[1]
      drawn, tapped = net.drawn(ways["quantized_st"])
      return dict(
        cnn_feature=features,
        encoder_feature=read,
        latent=latent,
        indices=units,
        **ways,
        decoder_map=drawn,
        align_feature=net.projector(tapped),
        reconstruction=net.decoder(drawn)[0],
        vq_indices=net.quantizer.encode(given),
        vq_quantized=net.quantizer(given)[0],
        reconstruction_from_codes=net.decode(net.quantizer.encode(given)),
        encoder_feature_per_level=levels.read(features),
        losses=jnp.stack([held[k][0] for k in sorted(held)]),
        apart=out.more["apart"][0],
        direct_reconstruction=out.more["direct"],
        same=out.image,
      )

    found = {k: np.asarray(v) for k, v in run(image).items()}
    np.testing.assert_array_equal(
      found.pop("indices").reshape(-1), OUTPUTS["indices"]
    )
    np.testing.assert_array_equal(
      found.pop("vq_indices").reshape(-1), OUTPUTS["vq_indices"]
    )
    # codebook, commitment, entropy: as the names are sorted.
    np.testing.assert_allclose(
      found.pop("losses"), OUTPUTS["train_vq_commit_entropy"], rtol=1e-4
    )
    np.testing.assert_allclose(
      found.pop("apart"), OUTPUTS["train_feature_loss_mse"], rtol=1e-4
    )
    np.testing.assert_allclose(
      found.pop("same"), found["reconstruction"], atol=1e-4
    )
    for name, got in found.items():
      want = OUTPUTS[name]
      if name == "align_feature":
        want = want.reshape(got.shape)
      elif want.ndim == 4:
        want = last(want).reshape(got.shape)
      if name == "reconstruction_from_codes":
        want = want.clip(-1, 1)
      scale = max(1.0, np.abs(want).max())
      close(got, want, atol=1e-4 * scale, err_msg=name)

  def test_parts(self):
    pool = last(tensor("pool_map", (1, 2, 8, 8)))
    close(queried.means(jnp.asarray(pool), 16), OUTPUTS["pool_tokens"])
    deep = last(tensor("d2s", (1, 8, 2, 3)))
    np.testing.assert_array_equal(
      last(OUTPUTS["depth_to_space"]), depth_to_space(jnp.asarray(deep))
    )
    for kind in ("token", "level"):
      hidden = OUTPUTS[f"mask_per_{kind}"]
      np.testing.assert_array_equal(queried.visible(16, kind), ~hidden)

  def test_transformer_over_the_codes(self):
    description, want = golden_weights.load("gigatok_ar")
    state = golden_weights.weights(description)
    config = llamagen.config(state, heads=4)["model"]
    self.assertEqual(config["positions"], "learned")
    self.assertEqual(config["tokenizer"]["length"], 16)
    codes = dict(name="given", vocab=48, length=16)
    system = build("llamagen", **config | dict(tokenizer=codes))
    variables = llamagen.to_ours(state, heads=4)
    back = llamagen.to_official(variables)
    self.assertEqual(back.keys(), state.keys())
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)
    label, units = jnp.array([3, 7]), jnp.asarray(want["tokens"])
    windows = {
      "step_w0.4": dict(window=(0.4, 1.0)),
      "constant": {},
      "linear": dict(schedule="behind_linear"),
      "linear_re": dict(schedule="behind_falling"),
      "triangular": dict(schedule="behind_triangle"),
      "rectangular": dict(window=(0.3, 0.7)),
    }
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def run(variables):
      draw = lambda guidance, **options: system.generate(
        variables, {"label": label}, keys, guidance=guidance, temperature=0.0,
        **options,
      )  # fmt: skip
      two = ("step_w0.4", "linear_re")  # the others differ in numbers alone
      drawn = {name: draw(1.84, **windows[name]) for name in two}
      logits = system.logits(variables, label, units)
      other = units.at[:, 7].set((units[:, 7] + 1) % 48)
      moved = system.logits(variables, label, other)
      return logits, moved, drawn | {"cfg1": draw(1.0)}

    logits, moved, drawn = run(variables)
    close(logits, want["logits"])
    # A unit changes no law up to its own, and all behind it.
    np.testing.assert_array_equal(logits[:, :8], moved[:, :8])
    self.assertGreater(np.abs(logits - moved)[:, 8:].max(-1).min(), 1e-4)
    for name, ids in drawn.items():
      np.testing.assert_array_equal(ids, want[f"greedy_{name}"], err_msg=name)
    scale = lambda schedule="constant", **window: pick.schedule(
      schedule, 2.5, 16, **window
    )
    for name, options in windows.items():
      own = scale(**options)
      self.assertEqual(own[0], 2.5)  # the first unit has all of it
      if name != "constant":
        # Theirs are 1e-4 higher, but within a window.
        theirs = want[f"schedule_{name.partition('_w')[0]}"]
        np.testing.assert_allclose(own[1:], theirs, atol=2e-4)

  def test_losses_and_rates(self):
    description, want = golden_weights.load("gigatok_losses")
    x, recon, direct = (
      last(tensor(n, (2, 3, 32, 32))) for n in ("x", "recon", "direct")
    )
    inner, seen = (tensor(n, (2, 9, 5)) for n in ("inner", "teacher"))

    class Teacher:
      def grid(self, variables, batch):
        return jnp.asarray(seen).reshape(2, 3, 3, 5)

    state = {
      k: golden_weights.weight(k, tuple(shape))
      for k, shape in description["state_dict"].items()
    }
    judge = {}
    for i, at in enumerate((0, 2, 5, 8, 11)):
      of = lambda leaf, at=at: state.get(f"discriminator.main.{at}.{leaf}")
      judge[f"conv_{i}"] = {"kernel": of("weight").transpose(2, 3, 1, 0)}
      if of("bias") is not None:
        judge[f"conv_{i}"]["bias"] = of("bias")
    for i, at in enumerate((3, 6, 9), 1):
      of = lambda leaf, at=at: state[f"discriminator.main.{at}.{leaf}"]
      judge[f"norm_{i}"] = {"scale": of("weight"), "bias": of("bias")}

    class Net:
      cells = 9

      def apply(self, *_, **__):
        full = lambda v: jnp.full(2, v)
        return Reconstruction(
          jnp.asarray(recon), None, None,
          dict(codebook_loss=full(0.11), commit_loss=full(0.07),
               entropy=full(0.02)),
          more=dict(aligned=jnp.asarray(inner), direct=jnp.asarray(direct),
                    apart=full(0.3)),
        )  # fmt: skip

    gan = Adversary(PatchGAN(16, 3, "batch"), weight=0.5, start=20_000)
    system = GigaTokTraining(
      Net(), adversary=gan, teacher=Teacher(), direct_steps=15_000
    )
    params = {"tokenizer": {}, "discriminator": judge}
    variables = {"params": params, "teacher": {}}

    @jax.jit
    def run(step):
      batch = {"image": jnp.zeros((2, 32, 32, 3), jnp.uint8)}
      batch["step"] = jnp.full(2, step)
      return system.loss(variables, batch, jax.random.key(0), train=False)

    with mock.patch.object(autoencoder, "signed", lambda _: jnp.asarray(x)):
      found = [run(step) for step in (101, 15_001, 20_001)]
    total = [f.value.mean() for f in found]
    # Ours is 1 - cos where theirs is -cos, and has the discriminator's term,
    # which is theirs without the factor of 0.5.
    judged = found[2].metrics["gan_d"].mean()
    total[2] -= judged
    close(np.array(total) - 0.5, want["generator_total"])
    close(0.5 * judged, want["discriminator_total"][1])
    own = found[0].metrics["semantic"].mean()
    close(0.5 * (own - 1), want["semantic_term_weighted"])
    rate = optim.lr_factor("wsd", steps=1000, warmup=100)
    at = want["lr_steps"][1:]  # ours is the rate of the update that follows
    close(1e-4 * rate(jnp.asarray(at - 1)), want["lr_wsd"][1:], atol=1e-9)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "no encoder.conv_in.weight"):
      convert.config({})


if __name__ == "__main__":
  absltest.main()
