"""Every preset of every config builds, at the sizes it promises."""

import importlib
import math
import pathlib

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import optim
from ar_jax.core.system import build

ROOT = pathlib.Path(__file__).parents[1]
# Trained parameters of the published models, in millions.
PUBLISHED = {
  "d16": 310.3,
  "d20": 600.9,
  "d24": 1033,
  "d30": 2010,
  "d36": 2354,
}


def parameters(config, collection="params"):
  system = build(config.system, **config.model.to_dict())
  side, channels = config.data["size"], config.data["channels"]
  batch = {
    "image": np.zeros((1, side, side, channels), np.uint8),
    "label": np.zeros(1, np.int32),
  }
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  leaves = jax.tree.leaves(shapes[collection])
  return sum(math.prod(leaf.shape) for leaf in leaves) / 1e6


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(*PUBLISHED.items())
  def test_published_sizes(self, preset, millions):
    config = importlib.import_module("configs.var").get_config(preset)
    self.assertAlmostEqual(
      parameters(config) / millions, 1.0, delta=1e-3, msg=preset
    )
    self.assertAlmostEqual(parameters(config, "tokenizer"), 108.948, places=2)
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_published_tokenizer(self):
    config = importlib.import_module("configs.multiscale_vq").get_config(
      "paper"
    )
    system = build(config.system, **config.model.to_dict())
    self.assertIsNotNone(system.adversary)
    # The autoencoder and its PatchGAN of three layers.
    self.assertAlmostEqual(parameters(config), 108.948 + 2.766, places=2)

  @parameterized.parameters(
    ("b", 110_888_448, 256),
    ("l", 342_910_976, 256),
    ("b384", 110_888_448, 576),
    ("xl", 774_699_520, 576),
    ("xxl", 1_410_972_672, 576),
    ("3b", 3_096_659_200, 576),
  )
  def test_llamagen(self, preset, count, length):
    config = importlib.import_module("configs.llamagen").get_config(preset)
    self.assertAlmostEqual(1e6 * parameters(config), count, delta=0.5)
    self.assertAlmostEqual(parameters(config, "tokenizer"), 71.883, places=2)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, length)
    system.program(
      **{k: v for k, v in config.sample.options.items() if k != "size"}
    )
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    ("l", 316), ("xl", 741), ("xxl", 1391), ("2b", 1909)
  )  # fmt: skip
  def test_elm(self, preset, millions):
    config = importlib.import_module("configs.elm").get_config(preset)
    self.assertAlmostEqual(parameters(config) / millions, 1, delta=5e-3)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, 256)
    self.assertGreater(config.cache.views, 1)  # bits are drawn anew
    self.assertTrue(system.redraws)
    system.program(**config.sample.options)
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters("paper", "bae_16", "bae_16_sure", "bae_24")
  def test_bits(self, preset):
    config = importlib.import_module("configs.bits").get_config(preset)
    system = build(config.system, **config.model.to_dict())
    self.assertEqual(system.adversary.most, 1.0)
    self.assertEqual(system.tokenizer.drawn, preset != "bae_16_sure")
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    # LlamaGen, its encoder, and the maps from 384 numbers to D and on, 9 D^2.
    ("canny_b", 110_888_448, 768, 21.666, 256),
    ("canny_l", 342_910_976, 1024, 21.666, 256),
    ("paper", 777_678_080, 1280, 22.056, 1024),
    ("multi", 777_678_080, 1280, 22.056, 2304),
  )
  def test_controlar(self, preset, base, width, encoder, length):
    config = importlib.import_module("configs.controlar").get_config(preset)
    maps = 384 * width + 9 * width**2
    sees = 1e6 * parameters(config) - base - maps
    self.assertAlmostEqual(sees / 1e6, encoder, places=3)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, length)
    system.program(
      **{k: v for k, v in config.sample.options.items() if k != "size"}
    )
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_llamagen_from_texts(self):
    module = importlib.import_module("configs.llamagen_text")
    for preset, length in (("paper", 256), ("stage2", 1024)):
      config = module.get_config(preset)
      # As by class, with two matrices in place of the table of classes.
      count = 774_699_520 + 1280 * (2048 + 1280 - 1001)
      self.assertAlmostEqual(1e6 * parameters(config), count, delta=0.5)
      self.assertAlmostEqual(parameters(config, "null"), 0.24576, places=5)
      self.assertLen(build("llamagen", **config.model.to_dict()).plan, length)

  @parameterized.parameters(("paper", 71.883), ("vq8", 70.110))
  def test_vq(self, preset, millions):
    config = importlib.import_module("configs.vq").get_config(preset)
    # The autoencoder and its PatchGAN of three layers.
    self.assertAlmostEqual(parameters(config), millions + 2.766, places=2)

  @parameterized.parameters(("paper", 66.46), ("f8", 83.65))
  def test_kl_vae(self, preset, millions):
    config = importlib.import_module("configs.kl_vae").get_config(preset)
    self.assertAlmostEqual(parameters(config), millions + 2.766, delta=0.006)
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    ("mar", "b", 207.9),
    ("mar", "l", 478.3),
    ("mar", "h", 942.4),
    ("hi_mar", "b", 244.5),
    ("hi_mar", "l", 529.2),
    ("hi_mar", "h", 1090.6),
    ("flowar", "s", 171.7),
    ("flowar", "l", 586.9),
    ("flowar", "h", 1913),
    ("xar", "b", 172.6),
    ("xar", "l", 608.4),
    ("xar", "h", 1186),
  )
  def test_continuous_units(self, name, preset, millions):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    self.assertAlmostEqual(parameters(config) / millions, 1, delta=5e-4)
    self.assertAlmostEqual(parameters(config, "tokenizer"), 66.46, delta=0.006)
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_cspd(self):
    """MAR-H, drafted for by MAR-B; the counts are those of these."""
    config = importlib.import_module("configs.cspd").get_config("paper")
    self.assertAlmostEqual(parameters(config) / 207.9, 1, delta=5e-4)
    target = importlib.import_module("configs.mar").get_config("h").model
    self.assertEqual(
      config.model.target.to_dict(), {"name": "mar", **target.to_dict()}
    )

  @parameterized.parameters(
    ("var_d16", 327), ("var_d24", 1090), ("llamagen_b", 98),
    ("llamagen_l", 326),
  )  # fmt: skip
  def test_dd1(self, preset, millions):
    config = importlib.import_module("configs.dd1").get_config(preset)
    self.assertAlmostEqual(parameters(config) / millions, 1, delta=0.01)
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(("d16", 315.6), ("d20", 607.5), ("d24", 1041))
  def test_flexvar(self, preset, millions):
    config = importlib.import_module("configs.flexvar").get_config(preset)
    self.assertAlmostEqual(parameters(config) / millions, 1, delta=5e-4)
    config = importlib.import_module("configs.sar").get_config(preset)
    build(config.system, **config.model.to_dict())
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_tokenizer_of_flexvar(self):
    config = importlib.import_module("configs.flexvar").get_config("tokenizer")
    # That of LlamaGen with other codes, and its PatchGAN.
    codes = 71.883 + (8912 * 32 - 16384 * 8 + 2 * 24 * 256 + 24) / 1e6
    self.assertAlmostEqual(parameters(config), codes + 2.766, places=2)

  @parameterized.parameters(
    "quickstart", "var", "llamagen", "llamagen_text", "mar", "flowar", "xar",
    "elm", "elm:masked", "controlar", "controlar:fashion",
    "transition_matching", "arflow", "arflow:sit", "hi_mar", "gigatok",
    "flexvar", "sar", "hmar", "m_var", "nfig", "gsd", "gsd:nar", "gsd:var",
    "lantern", "lantern:nar", "lantern:var", "sdar", "mtp_gated_lora",
  )  # fmt: skip
  def test_staged_presets_build(self, name):
    name, _, preset = name.partition(":")
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(preset or "default")
    for stage in config.stages:
      if "system" in config[stage]:
        self.assertGreater(parameters(config[stage]), 0.01)

  def test_smoke_presets_of_generators_compile_no_network_for_units(self):
    for file in sorted((ROOT / "configs").glob("*.py")):
      if file.stem in ("__init__", "common", "quickstart"):
        continue
      module = importlib.import_module(f"configs.{file.stem}")
      model = module.get_config("smoke").model
      model = model.get("target", model)
      if "tokenizer" in model:
        with self.subTest(file.stem):
          known = ("patch_codes", "patches", "given")
          self.assertIn(model.tokenizer.name, known)


if __name__ == "__main__":
  absltest.main()
