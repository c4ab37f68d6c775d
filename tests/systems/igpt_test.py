"""iGPT against a plain reference of its network, and its colours."""

import importlib

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from tests import filled, laws

LEVELS = dict(name="given", form="levels", levels=3, size=2)
SIZES = dict(depth=2, width=8, heads=2)


def reference(params, units):
  """Logits f64[B, L, V], and what the second layer reads behind its norm,
  f64[B, L, D]: RMS norms, no biases, learned positions, quick GELU."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  rms = lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * g
  start = np.broadcast_to(p["prefix"]["start"], (len(units), 1, 8))
  x = np.concatenate([start, p["units"]["embedding"][units[:, :-1]]], 1)
  x = x + p["places"]
  block, read = p["backbone"]["block"], []
  count = x.shape[1]
  hidden = np.triu(np.ones((count, count), bool), 1)
  for i in range(2):
    h = rms(x, block["norm1"]["scale"][i])
    read.append(h)
    qkv = h @ block["mixer"]["qkv"]["kernel"][i]
    split = lambda y: y.reshape(*y.shape[:2], 2, 4).swapaxes(1, 2)
    q, k, v = map(split, np.split(qkv, 3, -1))
    score = np.where(hidden, -np.inf, q @ k.swapaxes(-1, -2) / 2)
    score = np.exp(score - score.max(-1, keepdims=True))
    h = (score / score.sum(-1, keepdims=True)) @ v
    h = h.swapaxes(1, 2).reshape(x.shape)
    x = x + h @ block["mixer"]["out"]["kernel"][i]
    h = rms(x, block["norm2"]["scale"][i]) @ block["mlp"]["fc1"]["kernel"][i]
    h = h / (1 + np.exp(-1.702 * h))
    x = x + h @ block["mlp"]["fc2"]["kernel"][i]
  h = rms(x, p["backbone"]["out_norm"]["scale"])
  return h @ p["head"]["linear"]["kernel"], read[1]


class NetTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("igpt", tokenizer=LEVELS, **SIZES)
    cls.variables = filled.variables(cls.system)
    cls.units = laws.sequences(3, 4)

  def test_it_is_the_published_network(self):
    call = lambda u: self.system.logits(self.variables, {}, u)
    logits = np.asarray(jax.jit(call)(self.units))
    wanted, read = reference(self.variables["params"], self.units)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    # All images have one in all.
    logp = np.asarray(jax.nn.log_softmax(logits), np.float64)
    own = np.take_along_axis(logp, self.units[..., None], -1).sum((1, 2))
    self.assertAlmostEqual(np.exp(own).sum(), 1, delta=1e-5)
    # What a linear probe of the middle layer has.
    probed = self.system.features(self.variables, {"units": self.units[:4]})
    np.testing.assert_allclose(probed, read[:4].mean(1), rtol=1e-4, atol=1e-5)
    self.assertEqual(self.system.forwards(), 4)

  def test_layers_of_a_probe(self):
    with self.assertRaisesRegex(UserError, r"layer=2: must be in 0\.\.1"):
      self.system.features(self.variables, {"units": self.units}, layer=2)

  def test_what_it_is_not_made_of(self):
    with self.assertRaisesRegex(UserError, "no codes of pixels"):
      build("igpt", tokenizer=dict(name="patches"), **SIZES)
    with self.assertRaisesRegex(UserError, "not a multiple of heads"):
      build("igpt", tokenizer=LEVELS, depth=1, width=8, heads=3)


class PaletteTest(absltest.TestCase):
  def test_colours_are_found_in_the_data(self):
    """Clusters of the colours that there are, near every pixel."""
    config = importlib.import_module("configs.igpt").get_config("smoke")
    codes = config.model.tokenizer.to_dict()
    palette = build(codes.pop("name"), **codes)
    source = data.load(**config.data).train
    params = filled.variables(
      palette, batch={"image": source[0]["image"][None]}
    )
    fitted = palette.fitted(params, source, 0)
    again = palette.fitted(params, source, 0)
    colours = fitted["params"]["tokenizer"]["quantizer"]["codebook"]
    self.assertEqual(colours.shape, (8, 3))
    np.testing.assert_array_equal(
      colours, again["params"]["tokenizer"]["quantizer"]["codebook"]
    )
    image = np.stack([source[i]["image"] for i in range(8)]) / 127.5 - 1
    apart = np.linalg.norm(image[..., None, :] - colours, axis=-1).min(-1)
    plain = np.linalg.norm(image - image.mean((0, 1, 2)), axis=-1)
    self.assertLess(apart.mean(), 0.6 * plain.mean())

  def test_published_sizes(self):
    """76 and 455 million, 1.4 and 6.8 billion; 12 N D^2 and the tables."""
    module = importlib.import_module("configs.igpt")
    published = {"s": 76.4, "m": 455.9, "l": 1362, "xl": 6808}
    for preset, millions in published.items():
      config = module.get_config(preset)
      system = build(config.system, **config.model.to_dict())
      shapes = jax.eval_shape(
        lambda k, s=system: s.init(k, {}), jax.random.key(0)
      )
      count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
      self.assertAlmostEqual(count / 1e6 / millions, 1, delta=4e-3, msg=preset)
      pixels = module.PIXELS[preset] ** 2
      self.assertLen(system.plan, pixels)
      depth, width = config.model.depth, config.model.width
      tables = (2 * 512 + pixels + 1) * width + (2 * depth + 1) * width
      self.assertEqual(count, 12 * depth * width**2 + tables)


if __name__ == "__main__":
  absltest.main()
