"""ELM's binary autoencoder against the official one and against itself."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import bits as convert
from ar_jax.core.system import UserError, build
from ar_jax.tokenizers.bits import BAE
from tests import golden_weights


def golden():
  """(official state, outputs, the module, its parameters)."""
  description, expected = golden_weights.load("elm_bae")
  state = golden_weights.weights(description)
  module = BAE(**convert.config(state, size=16)["model"])
  return state, expected, module, convert.to_ours(state)


class GoldenTest(absltest.TestCase):
  """The official model's own outputs, with the weights behind them."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.state, cls.expected, cls.module, cls.params = golden()
    noise = golden_weights.tensor("image18", (1, 3, 16, 16))
    image = np.moveaxis(np.clip(0.3 * noise + 0.5, 0, 1), 1, -1)
    given = np.moveaxis(cls.expected["decode_bits"], 1, -1).reshape(1, 64, 8)
    shape = (1, 32, 8, 8)
    seen = np.moveaxis(golden_weights.tensor("cotangent", shape), 1, -1)

    @jax.jit
    def everything(params, image, given, seen):
      bound = cls.module.bind({"params": params})
      z = bound.latent(2 * image - 1)
      quantised = lambda z: jnp.sum(bound.quantizer(z)[0] * seen)
      out = bound(2 * image - 1)
      return dict(
        encoder=z,
        probability=bound.quantizer.probability(z),
        bits=bound.encode(2 * image - 1),
        quantized=bound.quantizer(z)[0],
        reconstruction=(out.image + 1) / 2,
        decoded=(bound.decode(given) + 1) / 2,
        grad_encoder=jax.grad(quantised)(z),
        again=(bound.to_image(out.feature) + 1) / 2,
        embed=bound.embed(out.units),
      )

    cls.got = everything(cls.params, image, given, seen)

  def assert_close(self, name, ours=None):
    want = np.moveaxis(self.expected[name], 1, -1)
    want = want.clip(0, 1) if name == "decoded" else want
    ours = self.got[name] if ours is None else ours
    np.testing.assert_allclose(
      np.reshape(ours, want.shape), want, rtol=1e-4, atol=1e-4, err_msg=name
    )

  def test_encoder_probabilities_and_bits(self):
    self.assert_close("encoder")
    self.assert_close("probability")
    self.assert_close("bits")

  def test_drawn_bits(self):
    u = golden_weights.uniform("bernoulli", (1, 8, 8, 8)).astype(np.float32)
    p = np.moveaxis(self.got["probability"], -1, 1)
    drawn = (u < p).astype(np.int32)
    np.testing.assert_array_equal(drawn, self.expected["bits_sampled"])
    table = self.params["quantizer"]["table"]
    self.assert_close("quantized_sampled", np.moveaxis(drawn, 1, -1) @ table)

  def test_images(self):
    self.assert_close("quantized")
    self.assert_close("reconstruction")
    self.assert_close("decoded")
    self.assert_close("reconstruction", self.got["again"])
    self.assert_close("quantized", self.got["embed"])

  def test_gradient_passes_straight_through(self):
    self.assert_close("grad_encoder")

  def test_regulariser(self):
    # Theirs takes the sigmoid of what is a probability already; ours once.
    p = np.asarray(self.got["probability"], np.float64)
    twice = 1 / (1 + np.exp(-p))
    np.testing.assert_allclose(
      (twice * (1 - twice)).mean(), self.expected["regulariser"], rtol=1e-4
    )


class TableTest(absltest.TestCase):
  """Official -> ours -> official."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.state, _, _, cls.params = golden()

  def test_config_from_shapes(self):
    config = convert.config(self.state)
    want = dict(bits=8, z=32, ch=32, mult=(1, 2), blocks=1, attention=(1,))
    want |= dict(in_channels=3, norm_first=True)
    self.assertEqual(config, {"system": "bits", "model": want})

  def test_there_and_back_bit_for_bit(self):
    # A published file holds more, and the autoencoder with a prefix.
    more = {"disc.main.0.weight": np.zeros((2, 3, 4, 4), np.float32)}
    given = {f"ae.{k}": v for k, v in self.state.items()} | more
    params = convert.to_ours(given)
    jax.tree.map(np.testing.assert_array_equal, params, self.params)
    back = convert.to_official(params)
    self.assertEqual(back.keys(), {f"ae.{k}" for k in self.state})
    for key, value in self.state.items():
      got = back[f"ae.{key}"]
      self.assertEqual(got.shape, value.shape, key)
      if got.any() or ("conv_out" not in key and "logsigma" not in key):
        np.testing.assert_array_equal(got, value, err_msg=key)
    read = [k for k, v in back.items() if ".conv_out." in k and v.any()]
    self.assertLen(read, 4)  # of the two blocks that change the channels
    jax.tree.map(
      np.testing.assert_array_equal, convert.to_ours(back), self.params
    )

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "not a binary autoencoder"):
      convert.config({"tok_embedder.weight": np.zeros((3, 4))})
    first = {"encoder.blocks.0.weight": np.zeros((2, 3, 3, 3))}
    with self.assertRaisesRegex(UserError, "not a binary autoencoder"):
      convert.config({"quantize.embed.weight": np.zeros((3, 4))} | first)

  def test_a_key_too_few(self):
    state = {k: v for k, v in self.state.items() if "blocks.9.bias" not in k}
    with self.assertRaisesRegex(UserError, "missing: .*(conv|norm)_out.bias"):
      convert.to_ours(state)


class BAETest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.module = BAE(
      bits=6, z=8, ch=8, mult=(1, 2), blocks=1, size=8, in_channels=1
    )
    cls.x = jax.random.uniform(
      jax.random.key(0), (2, 8, 8, 1), minval=-1, maxval=1
    )
    cls.variables = jax.jit(cls.module.init)(jax.random.key(1), cls.x)
    cls.keys = jax.random.split(jax.random.key(2), 2)

    @jax.jit
    def everything(variables, x, keys):
      bound = cls.module.bind(variables)
      out, bits = bound(x, keys), bound.encode(x, keys)
      likely = bound.encode(x)
      return out, bits, likely, bound.decode(bits), bound.decode(likely)

    cls.everything = staticmethod(everything)
    cls.got = everything(cls.variables, cls.x, cls.keys)

  def test_training_sees_what_units_say(self):
    out, bits, likely, image, _ = self.got
    self.assertEqual(bits.shape, (2, 16, 6))
    self.assertEqual(set(np.unique(bits)), {0, 1})
    np.testing.assert_array_equal(out.units, bits)
    np.testing.assert_allclose(out.image.clip(-1, 1), image, atol=1e-5)
    self.assertFalse(np.array_equal(bits, likely))

  def test_bits_depend_on_the_key_of_the_example_alone(self):
    pairs = [np.array([1, 1]), np.array([1, 0])]
    for rows in pairs:
      part = self.everything(self.variables, self.x[rows], self.keys[rows])
      np.testing.assert_array_equal(part[1], self.got[1][rows])
    other = self.everything(self.variables, self.x, self.keys[::-1])
    self.assertFalse(np.array_equal(other[1], self.got[1]))
    np.testing.assert_array_equal(other[2], self.got[2])

  def test_a_deterministic_one_draws_nothing(self):
    module = self.module.clone(drawn=False)
    same = jax.jit(module.apply, static_argnames="method")
    given = self.variables, self.x, self.keys
    np.testing.assert_array_equal(same(*given, method="encode"), self.got[2])

  def test_a_part(self):
    part = self.module.apply(
      self.variables, self.got[2], 16, method="decode_part"
    )
    np.testing.assert_allclose(part, self.got[4], atol=1e-5)
    part = self.module.apply(
      self.variables, self.got[2], 4, method="decode_part"
    )
    self.assertFalse(np.asarray(part[:, 2:]).any())

  def test_published_sizes(self):
    module = BAE(bits=20)
    self.assertEqual((module.stride, module.length), (16, 256))
    like = jax.eval_shape(
      lambda k: module.init(k, module.example()), jax.random.key(0)
    )
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    # What the official module holds beside is never read.
    self.assertEqual(count(like["params"]["quantizer"]), 20 * (256 + 1 + 256))

  def test_training_system(self):
    system = build(
      "bits", bits=4, z=8, ch=8, mult=(1, 2), blocks=1, size=8, in_channels=1,
      pixel="l1", pixel_weight=0.5, uncertainty=0.5,
    )  # fmt: skip
    batch = {"image": np.zeros((2, 8, 8, 1), np.uint8)}
    run = lambda v: system.loss(v, batch, jax.random.key(0), train=True)
    loss = jax.eval_shape(run, jax.eval_shape(system.init, jax.random.key(0),
                                              batch))  # fmt: skip
    self.assertEqual(loss.value.shape, (2,))
    self.assertIn("uncertainty", loss.metrics)

  def test_wrong_images_say_what_to_do(self):
    encode = lambda x: self.module.apply(self.variables, x, method="encode")
    with self.assertRaisesRegex(UserError, "image 9x8.*multiples of 2"):
      jax.eval_shape(encode, jnp.zeros((1, 9, 8, 1)))
    with self.assertRaisesRegex(UserError, "size=100"):
      build("bits", size=100)


if __name__ == "__main__":
  absltest.main()
