"""Published weights of ControlAR: there and back; the numbers of both models,
and a start from a LlamaGen and an encoder."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from safetensors.numpy import save_file

from ar_jax.convert import controlar as convert
from ar_jax.core.system import UserError, build
from tests import golden_weights

HEADS = dict(heads=4, encoder_heads=3)
KEYS = jax.random.split(jax.random.key(0), 2)


@functools.cache
def official(name):
  """(config, arrays, official state, the system, its variables)."""
  description, arrays = golden_weights.load(name)
  state = golden_weights.weights(description)
  kept = description["buffers_kept"].items()
  state |= {k: np.zeros(shape, np.float32) for k, shape in kept}
  system = build("controlar", **convert.config(state, **HEADS)["model"])
  variables = convert.to_ours(state, **HEADS)
  return description["config"], arrays, state, system, variables


def picture(name, height, width):
  x = golden_weights.tensor(name, (2, 3, height, width)).clip(-1, 1)
  return jnp.asarray(np.moveaxis(x, 1, -1))


def captions(name, lengths):
  """Features f32[2, 120, 40], zero where there is no text."""
  real = np.arange(120)[None] >= 120 - np.array(lengths)[:, None]
  x = golden_weights.tensor(name, (2, 120, 40)) * real[..., None]
  return jnp.asarray(x, jnp.float32)


def close(got, want, name=""):
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=name)


class PublishedTest(absltest.TestCase):
  def test_round_trips_are_exact(self):
    for name in ("controlar_c2i", "controlar_t2i"):
      _, _, state, _, variables = official(name)
      back = convert.to_official(variables)
      for key, array in back.items():
        np.testing.assert_array_equal(array, state[key], err_msg=key)
      unused = set(state) - set(back)
      self.assertContainsSubset(unused, convert.IGNORE)

  def test_by_class(self):
    config, arrays, _, system, variables = official("controlar_c2i")
    label, pixels = np.array(config["labels"]), picture("control", 80, 80)
    cond = {"label": jnp.asarray(label), "control": pixels}
    units = jnp.asarray(tokens(config["token_seed"], 25))
    logits = jax.jit(system.logits)
    close(logits(variables, cond, units, jnp.zeros(2, bool)), arrays["logits"])
    dropped = logits(variables, cond, units, jnp.ones(2, bool))
    close(dropped[:1], arrays["logits_drop0"])

  def test_by_text_on_a_wide_grid(self):
    config, arrays, _, system, variables = official("controlar_t2i")
    text = captions("caption", config["text_lens"])
    h, w = config["grids"]["wide"]
    cond = {"text": text, "control": picture("control_wide", 16 * h, 16 * w)}
    units = jnp.asarray(tokens(config["token_seed"], h * w))

    @jax.jit
    def every(variables, hidden):
      control = system.net.bind(variables).control
      batch = {**cond, "units": units}
      loss = system.loss(variables, batch, KEYS[0], train=False)
      logits = system.logits(variables, cond, units, hidden)
      return control(cond["control"]), logits, loss.value

    fused, logits, value = every(variables, jnp.zeros(2, bool))
    close(fused[:, :1], arrays["fused_wide"])
    close(logits, arrays["logits_wide"])
    close(value.mean(), arrays["loss_wide"][0])
    dropped = every(variables, jnp.ones(2, bool))[1]
    close(dropped[:1], arrays["logits_drop0_wide"])

  def test_another_way_of_resizing(self):
    _, arrays, _, system, variables = official("controlar_t2i")
    control = system.net.control.clone(fit="bicubic_corners")
    features = jax.jit(functools.partial(control.apply, method="features"))
    own = {"params": variables["params"]["control"]}
    found = features(own, picture("control_wide", 48, 96))
    close(found, arrays["features_wide_bicubic"])

  def test_best_units_of_a_wide_grid(self):
    """With guidance and a strength. Compared once and equal: an interval of
    guidance, the square grid, guidance by class."""
    config, arrays, _, system, variables = official("controlar_t2i")
    h, w = config["grids"]["wide"]
    cond = {
      "text": captions(config["caption_greedy_wide"], config["text_lens"]),
      "control": picture("control_wide", 16 * h, 16 * w),
    }
    draw = functools.partial(
      system.generate, guidance=3.0, temperature=0.0, strength=0.6
    )
    found = jax.jit(draw)(variables, cond, KEYS)
    np.testing.assert_array_equal(found, arrays["greedy_wide_cfg3_i-1_s0.6"])


class StartTest(absltest.TestCase):
  def test_a_llamagen_and_an_encoder(self):
    """Fine-tuning begins with the very LlamaGen, whatever the picture."""
    description, arrays = golden_weights.load("llamagen_t2i")
    state, config = golden_weights.weights(description), description["config"]
    of, _ = golden_weights.load("controlar_t2i")
    start = "adapter.model."
    sees = {
      k.removeprefix(start): x
      for k, x in golden_weights.weights(of).items()
      if k.startswith(start)
    }
    folder = self.enterContext(tempfile.TemporaryDirectory())
    file = str(pathlib.Path(folder, "dino.safetensors"))
    save_file({k: np.ascontiguousarray(x) for k, x in sees.items()}, file)
    options = dict(encoder=file, size=64, **HEADS)
    model = convert.config(state, **options)["model"]
    self.assertEqual(model["encoder"]["width"], 48)
    system, ours = (
      build("controlar", **model),
      convert.to_ours(state, **options),
    )
    encoder = ours["params"]["control"]["encoder"]
    np.testing.assert_array_equal(
      encoder["norm"]["scale"], sees["layernorm.weight"]
    )
    cond = {
      "text": captions("caption", config["text_lens"]),
      "control": picture("any", 64, 64),
    }
    units = jnp.asarray(arrays["tokens"])
    logits = jax.jit(system.logits)(ours, cond, units)
    close(logits, arrays["logits"])
    with self.assertRaisesRegex(UserError, "--encoder=FILE"):
      convert.config(state, heads=4)

  def test_other_files(self):
    state = official("controlar_c2i")[2]
    with self.assertRaisesRegex(UserError, "leave --encoder out"):
      convert.config(state, encoder="x", **HEADS)
    with self.assertRaisesRegex(UserError, "not a transformer of ControlAR"):
      convert.config({})
    less = {k: x for k, x in state.items() if "condition_layers.2" not in k}
    with self.assertRaisesRegex(UserError, "missing: condition_layers.2.fc1"):
      convert.to_ours(less, **HEADS)


def tokens(seed, length):
  return np.random.default_rng(seed).integers(0, 48, (2, length))


if __name__ == "__main__":
  absltest.main()
