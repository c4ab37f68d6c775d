"""Every preset of every config builds, at the sizes it promises."""

import functools
import importlib
import math
import pathlib

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data, optim
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


@functools.cache
def shapes(system, side, channels):
  batch = {
    "image": np.zeros((1, side, side, channels), np.uint8),
    "label": np.zeros(1, np.int32),
  }
  return jax.eval_shape(system.init, jax.random.key(0), batch)


def parameters(config, collection="params"):
  system = build(config.system, **config.model.to_dict())
  variables = shapes(system, config.data["size"], config.data["channels"])
  leaves = jax.tree.leaves(variables[collection])
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

  @parameterized.parameters(
    # Published as 2.2B and 8.4B; the head is two classes of a bit.
    ("paper", 2_204_564_032, 32, 2048, 32),
    ("8b", 8_375_791_824, 40, 3584, 56),
  )
  def test_infinity(self, preset, count, depth, width, bits):
    config = importlib.import_module("configs.infinity").get_config(preset)
    self.assertAlmostEqual(1e6 * parameters(config), count, delta=0.5)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, 10521)
    self.assertEqual(system.net.backbone.depth, depth)
    head = system.net.head
    h = jax.ShapeDtypeStruct((1, 1, width), np.float32)
    shapes = jax.eval_shape(
      lambda h: head.init(jax.random.key(0), h, method="logits"), h
    )
    leaves = jax.tree.leaves(shapes)
    total = sum(math.prod(leaf.shape) for leaf in leaves)
    self.assertEqual(total, 2 * bits * (width + 1))
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    # No more than Infinity has.
    ("2b", 2_204_564_032, 2521),
    ("paper", 8_375_791_824, 2521),
    ("8b_1024", 8_375_791_824, 10_521),
  )
  def test_varedit(self, preset, count, length):
    config = importlib.import_module("configs.varedit").get_config(preset)
    self.assertAlmostEqual(1e6 * parameters(config), count, delta=0.5)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, length)
    self.assertEqual(system.needs, ("text", "map"))
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_nsarm(self):
    module = importlib.import_module("configs.nsarm")
    self.assertEqual(module.get_config("maps").model.stage, "maps")
    config = module.get_config("paper")
    system = build(config.system, **config.model.to_dict())
    shapes = jax.eval_shape(system.fresh_maps, jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    self.assertEqual(count, 385_103_600)
    self.assertEqual(system.known, 521)
    self.assertEqual(system.stage, "both")
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(("speakervid", 0.8e9), ("arig", None))
  def test_sizes_of_our_own(self, name, published):
    """Only the count of SpeakerVid is published, and no width or depth."""
    config = importlib.import_module(f"configs.{name}").get_config("paper")
    system = build(config.system, **config.model.to_dict())
    rows = data.load(**config.data.to_dict() | {"count": 8})
    batch = {k: np.asarray(v)[None] for k, v in rows.train[0].items()}
    made = jax.eval_shape(system.init, jax.random.key(0), batch)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(made))
    if published:
      self.assertAlmostEqual(count / published, 1, delta=0.05)
    self.assertGreater(count, 5e7)
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

  @parameterized.parameters(("d16", 4), ("d20", 5), ("d24", 6))
  def test_ecm(self, preset, count):
    """Beside VAR, whose sizes are above, its adapters."""
    config = importlib.import_module("configs.ecm").get_config(preset)
    system = build(config.system, **config.model.to_dict())
    target = importlib.import_module("configs.var").get_config(preset)
    self.assertEqual(
      config.model.target.to_dict(), {"name": "var", **target.model.to_dict()}
    )
    shapes = jax.eval_shape(system.own, jax.random.key(0))
    found = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    # Attention, modulations, last map and gate of each; one MLP; ViT-S.
    width = system.net.width
    each = 11 * width**2 + 11 * width + width // 64
    shared = 8 * width**2 + 5 * width + 384 * width
    self.assertEqual(found, count * each + shared + 21_688_704)
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

  @parameterized.parameters(
    ("base", 982.8), ("xl", 1612.4), ("3b", 4230.8), ("k600", 884.4),
  )  # fmt: skip
  def test_nbp(self, preset, millions):
    config = importlib.import_module("configs.nbp").get_config(preset)
    self.assertAlmostEqual(parameters(config), millions, delta=0.05)
    codes = importlib.import_module("configs.video_fsq").get_config("paper")
    self.assertAlmostEqual(parameters(config, "tokenizer"), 370.372, places=3)
    tokenizer = build("video_fsq", **codes.model.to_dict()).tokenizer
    own = build(config.system, **config.model.to_dict()).tokenizer
    self.assertEqual(own, tokenizer.clone(dtype=own.dtype))
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(("1b", 1503.7), ("3b", 3614.6))
  def test_lumos_1(self, preset, millions):
    config = importlib.import_module("configs.lumos_1").get_config(preset)
    self.assertAlmostEqual(parameters(config), millions, delta=0.05)
    system = build(config.system, **config.model.to_dict())
    self.assertEqual(system.net.units.vocab, 129_536)
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    ("b", 12, 12, 768), ("l", 24, 12, 1024), ("h", 32, 16, 1280)
  )
  def test_semaim(self, preset, depth, queries, width):
    """Layers of both streams, patches in and out, the token and a norm."""
    config = importlib.import_module("configs.semaim").get_config(preset)
    layer = 12 * width**2 + 13 * width
    head = 4 * width**2 + 4 * width + 4 * width * 768 + 768
    rest = 769 * width + width + 2 * width
    count = (depth + queries) * layer + head + rest
    self.assertAlmostEqual(1e6 * parameters(config), count, delta=0.5)
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

  @parameterized.parameters(
    ("var_d16", 329), ("var_d20", 619), ("var_d24", 1040), ("llamagen_l", 335)
  )
  def test_dd2(self, preset, millions):
    """The paper says the sizes of whole models, not that of its head."""
    config = importlib.import_module("configs.dd2").get_config(preset)
    count = parameters(config.scores)
    self.assertAlmostEqual(count / millions, 1, delta=0.015)
    self.assertAlmostEqual(parameters(config.student) / count, 2, places=6)
    for name in config.stages:
      optim.make(config[name].optim.to_dict(), config[name].train.steps)

  def test_d_ar(self):
    """Of the tokenizer also what only training needs, 7.3M."""
    module = importlib.import_module("configs.d_ar")
    config = module.get_config("paper")
    self.assertAlmostEqual(parameters(config), 307.444672, places=6)
    tx = optim.make(config.optim.to_dict(), config.train.steps)
    system = build(config.system, **config.model.to_dict())
    jax.eval_shape(tx.init, shapes(system, 256, 3)["params"])
    config.model.teacher = None
    self.assertAlmostEqual(parameters(config), 300.099776, places=6)
    for name, millions in (("l", 343), ("xl", 775)):
      config = module.get_config(name)
      self.assertAlmostEqual(parameters(config) / millions, 1, delta=2e-3)
      optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(("d16", 315.6), ("d20", 607.5), ("d24", 1041))
  def test_flexvar(self, preset, millions):
    config = importlib.import_module("configs.flexvar").get_config(preset)
    self.assertAlmostEqual(parameters(config) / millions, 1, delta=5e-4)
    config = importlib.import_module("configs.sar").get_config(preset)
    build(config.system, **config.model.to_dict())
    optim.make(config.optim.to_dict(), config.train.steps)

  @parameterized.parameters(
    ("cppd", "base", 26.920),
    ("cppd", "tiny", 8.331),
    ("paraformer", "paper", 220.085),
  )
  def test_readers(self, name, preset, millions):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    system = build(config.system, **config.model.to_dict())
    shapes = jax.eval_shape(
      lambda key: system.init(key, {})["params"], jax.random.key(0)
    )
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) / 1e6
    self.assertAlmostEqual(count, millions, places=2)
    optim.make(config.optim.to_dict(), config.train.steps)

  def test_tokenizer_of_flexvar(self):
    config = importlib.import_module("configs.flexvar").get_config("tokenizer")
    # That of LlamaGen with other codes, and its PatchGAN.
    codes = 71.883 + (8912 * 32 - 16384 * 8 + 2 * 24 * 256 + 24) / 1e6
    self.assertAlmostEqual(parameters(config), codes + 2.766, places=2)

  @parameterized.parameters(
    "quickstart", "var", "llamagen", "llamagen_text", "mar", "flowar", "xar",
    "elm", "elm:masked", "infinity", "nsarm", "varedit", "varedit:fashion",
    "ecm", "ecm:fashion", "controlar", "controlar:fashion",
    "transition_matching", "arflow", "arflow:sit", "hi_mar", "gigatok",
    "d_ar",
    "flexvar", "sar", "hmar", "m_var", "nfig", "gsd", "gsd:nar", "gsd:var",
    "lantern", "lantern:nar", "lantern:var", "sdar", "mtp_gated_lora", "asvr",
    "nbp", "nbp:folder", "lumos_1", "lumos_1:folder",
  )  # fmt: skip
  def test_staged_presets_build(self, name):
    name, _, preset = name.partition(":")
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(preset or "default")
    for stage in config.stages:
      if "system" in config[stage]:
        self.assertGreater(parameters(config[stage]), 1e-4)

  @parameterized.parameters(
    ("dd1", "default", "student"),
    ("dd1", "minutes", "student"),
    ("dd2", "default", "scores"),
  )
  def test_views_of_what_makes_its_own_data_differ(self, name, preset, stage):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(preset)[stage]
    system = build(config.system, **config.model.to_dict())
    self.assertGreater(config.cache.views, 1)
    self.assertTrue(system.redraws)

  def test_smoke_presets_of_generators_compile_no_network_for_units(self):
    for file in sorted((ROOT / "configs").glob("*.py")):
      if file.stem in ("__init__", "common", "quickstart"):
        continue
      module = importlib.import_module(f"configs.{file.stem}")
      model = module.get_config("smoke").model
      model = model.get("target", model)
      if "tokenizer" in model:
        with self.subTest(file.stem):
          known = "patch_codes patch_bits patches given windows".split()
          self.assertIn(model.tokenizer.name, known)


if __name__ == "__main__":
  absltest.main()
