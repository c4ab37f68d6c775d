"""Published weights of ELM, both arms: there and back, and the numbers that
the official models compute with them."""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from safetensors.numpy import load_file, save_file

from ar_jax import checkpoint
from ar_jax.convert import __main__ as main
from ar_jax.convert import elm as convert
from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.nn.heads.codes import hamming
from ar_jax.nn.quantize.bits import pack, unpack
from tests import golden_weights, optimised

KEYS = jax.random.split(jax.random.key(0), 2)


@functools.cache
def golden(name, **options):
  """(description, arrays, official state, the system, its variables)."""
  description, arrays = golden_weights.load(name)
  state = golden_weights.weights(description)
  sizes = dict(heads=description["config"]["n_head"], size=64)
  model = convert.config(state, **sizes)["model"]
  # The image side belongs to 4 x 4 cells of 16 pixels; bits are all it gives.
  system = build("elm", **model, **options)
  return description, arrays, state, system, convert.to_ours(state, **sizes)


def cond(name):
  return {"label": jnp.array(golden(name)[0]["config"]["labels"])}


def units(name):
  return jnp.asarray(golden(name)[1]["indices"], jnp.int32)


class NextTest(parameterized.TestCase):
  """One cell after the other."""

  @parameterized.parameters("elm_lm", "elm_lm_adaln", "elm_lm_single")
  def test_logits(self, name):
    _, arrays, _, system, variables = golden(name)
    got = optimised.jit(system.logits)(variables, cond(name), units(name))
    want = arrays["logits"].reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

  def test_loss(self):
    _, arrays, _, system, variables = golden("elm_lm")
    batch = cond("elm_lm") | {"units": units("elm_lm")}
    run = functools.partial(system.loss, train=False)
    loss = optimised.jit(run)(variables, batch, jax.random.key(0))
    np.testing.assert_allclose(loss.value.mean(), arrays["loss"], rtol=1e-4)
    # Of a cell, both codes.
    np.testing.assert_allclose(loss.nll.mean(), 2 * arrays["loss"], rtol=1e-4)

  def test_attention_by_cosines(self):
    _, arrays, _, system, variables = golden("elm_lm", cosine=True)
    name = "elm_lm"
    got = optimised.jit(system.logits)(variables, cond(name), units(name))
    want = arrays["logits_cosine_attention"].reshape(got.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

  def test_bits_are_packed_as_there(self):
    arrays = golden("elm_lm")[1]
    bits = np.moveaxis(arrays["bits"], 1, -1).reshape(2, 16, 10)
    np.testing.assert_array_equal(pack(jnp.asarray(bits), 2), units("elm_lm"))
    np.testing.assert_array_equal(unpack(units("elm_lm"), 5), bits)

  @parameterized.parameters(("linear", 30), ("constant", 0))
  def test_best_cells(self, schedule, top_k):
    _, arrays, _, system, variables = golden("elm_lm")
    law = dict(guidance=3.0, schedule=schedule, temperature=0.0, top_k=top_k)
    draw = optimised.jit(functools.partial(system.generate, **law))
    got = draw(variables, cond("elm_lm"), KEYS)
    np.testing.assert_array_equal(got, arrays[f"greedy_{schedule}"])

  def test_best_cells_with_modulated_layers(self):
    """Cached, the modulations in the cache, as in one pass; guidance stops."""
    _, _, _, system, variables = golden("elm_lm_adaln")
    name, law = "elm_lm_adaln", dict(guidance=2.0, stop=6, temperature=0.0)
    draw = optimised.jit(functools.partial(system.generate, **law))
    drawn = draw(variables, cond(name), KEYS)
    logits = optimised.jit(system.logits)
    hide = jnp.array([True, True])
    both = [logits(variables, cond(name), drawn, h) for h in (None, hide)]
    scale = np.where(np.arange(16) < 6, 2.0, 1.0)[None, :, None, None]
    guided = both[1] + scale * (both[0] - both[1])
    np.testing.assert_array_equal(drawn, jnp.argmax(guided, -1))

  def test_schedules(self):
    arrays = golden("elm_lm")[1]
    names = dict(cos="cosine", square_root="root")
    for key in arrays:
      if key.startswith("schedule_"):
        theirs = key.removeprefix("schedule_")
        got = pick.schedule(names.get(theirs, theirs), 3.0, 8)
        np.testing.assert_allclose(got, arrays[key], rtol=1e-6, err_msg=key)

  def test_soft_targets(self):
    got = hamming(units("elm_lm")[0, :4].reshape(-1), 32, 1)
    want = golden("elm_lm")[1]["softlabels_dist1"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


class MaskedTest(absltest.TestCase):
  """The masked arm."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    _, cls.arrays, _, cls.system, cls.variables = golden("elm_mlm")
    cls.batch = cond("elm_mlm") | {"units": units("elm_mlm")}
    cls.hide = jnp.asarray(cls.arrays["masked"])

    @optimised.jit
    def every(variables, batch, hide):
      def errors(smoothing):
        system = dataclasses.replace(cls.system, smoothing=smoothing)
        return system.errors(variables, batch, hide)[0]

      logits = cls.system.logits(variables, batch, batch["units"], hide)
      return logits, (errors(0.0), errors(0.1))

    cls.logits, cls.errors = every(cls.variables, cls.batch, cls.hide)

  def test_logits_and_loss(self):
    want = self.arrays["logits"].reshape(self.logits.shape)
    np.testing.assert_allclose(self.logits, want, rtol=1e-4, atol=1e-4)
    for name, errors in zip(
      ("loss", "loss_smoothing0.1"), self.errors, strict=True
    ):
      # Over all hidden cells of the batch, not example by example.
      some = self.hide.sum(1)
      mean = (errors * some).sum() / some.sum()
      np.testing.assert_allclose(mean, self.arrays[name], rtol=1e-4)

  def test_codes_of_a_hidden_cell_have_one_law(self):
    logits = np.asarray(self.logits)
    apart = np.abs(logits[:, :, 0] - logits[:, :, 1]).max(-1)
    hide = np.asarray(self.hide)
    np.testing.assert_allclose(apart[hide], 0, atol=1e-5)
    self.assertGreater(apart[~hide].max(), 0.01)

  def test_draws_with_given_noise(self):
    shape, steps = (2, 16, 2), 5
    u = [golden_weights.uniform(f"gumbel0.{k}", shape) for k in range(steps)]
    noise = jnp.asarray(-np.log(-np.log(np.stack(u))), jnp.float32)
    draw = lambda variables, label: self.system.revealed(
      variables, label, KEYS, steps, 2.0, "linear", noise=3.0,
      gumbel=lambda step, keys: noise[step], temperature=0.0,
    )  # fmt: skip
    got, hides = optimised.jit(draw)(self.variables, cond("elm_mlm"))
    np.testing.assert_array_equal(hides, self.arrays["sample_masks"])
    np.testing.assert_array_equal(got, self.arrays["sample_ids"])


class TableTest(parameterized.TestCase):
  @parameterized.parameters("elm_lm", "elm_lm_single", "elm_mlm")
  def test_round_trip_is_exact(self, name):
    _, _, state, _, variables = golden(name)
    back = convert.to_official(variables | {"tokenizer": {"x": np.zeros(1)}})
    unread = set(state) - set(back)
    self.assertEqual(set(back) - set(state), set())
    if name == "elm_mlm":
      names = ("proj.", "output.", "pos_embed.")
      self.assertTrue(all(key.startswith(names) for key in unread))
    else:
      self.assertEmpty(unread)
    for key, array in back.items():
      np.testing.assert_array_equal(array, state[key], err_msg=key)

  def test_norms_of_modulated_layers_go_into_the_modulation(self):
    _, _, state, system, variables = golden("elm_lm_adaln")
    back = convert.to_official(variables)
    self.assertEqual({k: v.shape for k, v in back.items()},
                     {k: v.shape for k, v in state.items()})  # fmt: skip
    np.testing.assert_array_equal(back["layers.0.ffn_norm.weight"], 1)
    again = convert.to_ours(back, heads=4, size=64)
    for a, b in zip(*map(jax.tree.leaves, (again, variables)), strict=False):
      np.testing.assert_allclose(a, b, atol=1e-6)

  def test_config_from_shapes(self):
    model = convert.config(golden("elm_lm")[2], heads=4)["model"]
    self.assertEqual(model["tokenizer"], dict(name="bits", bits=10))
    self.assertEqual((model["codes"], model["num_classes"]), (2, 10))
    self.assertNotIn("masked", model)
    model = convert.config(golden("elm_lm_single")[2], heads=4)["model"]
    self.assertEqual((model["tokenizer"]["bits"], model["codes"]), (6, 1))
    model = convert.config(golden("elm_mlm")[2], heads=4)["model"]
    self.assertEqual((model["tokenizer"]["bits"], model["codes"]), (8, 2))
    self.assertIn("masked", model)
    model = convert.config(golden("elm_lm_adaln")[2], heads=4)["model"]
    self.assertTrue(model["adaln"])

  def test_with_its_tokenizer(self):
    with tempfile.TemporaryDirectory() as folder:
      at = lambda name: str(pathlib.Path(folder, name))
      codes = golden_weights.weights(golden_weights.load("elm_bae")[0])
      save_file({f"ae.{k}": v for k, v in codes.items()}, at("bae.safetensors"))
      made = main.forward(at("bae.safetensors"), at("bae"), "bits", size=8)
      self.assertEqual(made["model"]["bits"], 8)
      for name in ("elm_mlm", "elm_lm"):
        save_file(golden(name)[2], at(f"{name}.safetensors"))
      given = at("elm_mlm.safetensors"), at("mlm"), "elm", at("bae")
      made = main.forward(*given, heads=4, size=8)["model"]
      self.assertEqual((made["tokenizer"]["ch"], made["masked"]), (32, {}))
      system = build("elm", **made)
      variables = checkpoint.load(at("mlm"))[0]
      draw = functools.partial(system.sample, steps=2)
      image = jax.eval_shape(draw, variables, cond("elm_mlm"), KEYS)
      self.assertEqual(image.shape, (2, 8, 8, 3))
      with self.assertRaisesRegex(UserError, "has bits=8.*needs 10"):
        given = at("elm_lm.safetensors"), at("lm"), "elm", at("bae")
        main.forward(*given, heads=4)
      main.reverse(at("mlm"), at("back.safetensors"), "elm")
      back = load_file(at("back.safetensors"))
      for key, array in back.items():
        np.testing.assert_array_equal(array, golden("elm_mlm")[2][key])

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no tok_embedder.weight"):
      convert.config({})
    with self.assertRaisesRegex(UserError, "width 64 is no published ELM"):
      convert.config(golden("elm_lm")[2])
    state = golden("elm_lm_adaln")[2]
    for key in ("layers.1.feed_forward.w2.weight", "output.1.weight",
                "layers.1.adaLN_modulation.1.weight"):  # fmt: skip
      less = {k: v for k, v in state.items() if k != key}
      with self.assertRaisesRegex(UserError, key):
        convert.to_ours(less, heads=4)


if __name__ == "__main__":
  absltest.main()
