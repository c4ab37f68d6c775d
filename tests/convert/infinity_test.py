"""Published weights of Infinity, both files: there and back, and the numbers
that the official models compute with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import bitwise as convert_tokenizer
from ar_jax.convert import infinity as convert
from ar_jax.core.decoding import pairs, pick
from ar_jax.core.plans import aspects
from ar_jax.core.system import UserError, build
from ar_jax.nn.layers.positions import grid_places, rope_on_grid
from ar_jax.nn.quantize.scaled_bits import ScaledBits
from ar_jax.tokenizers.bitwise import Bitwise
from tests import golden_weights

CODES = ("infinity_bsq_vae_f16", "infinity_bsq_vae_patchify")
MODELS = ("infinity_transformer", "infinity_transformer_patchify")
KEYS = jax.random.split(jax.random.key(0), 2)


def last(x):
  """Channels behind the sides."""
  return np.moveaxis(x, -3, -1)


@functools.cache
def codes(name):
  """(config, arrays, state, the tokenizer, its variables)."""
  description, arrays = golden_weights.load(name)
  state = golden_weights.weights(description)
  scales = description["config"]["token_scales"]
  model = convert_tokenizer.config(state, scales)["model"]
  params = convert_tokenizer.to_ours(state, scales)
  return (
    description["config"], arrays, state, Bitwise(**model), {"params": params},
  )  # fmt: skip


@functools.cache
def model(name):
  """(config, arrays, state, the system on its list of maps, its variables)."""
  description, arrays = golden_weights.load(name)
  config = description["config"]
  state = golden_weights.weights(description)
  options = dict(scales=config["scales"])
  options |= dict(fold=bool(config["apply_spatial_patchify"]))
  built = convert.config(state, **options)["model"]
  # The sides of the image do not matter here.
  built["tokenizer"] |= dict(ch=8, mult=(1, 1), blocks=1)
  built["ground"] = aspects.ground(config["ratio"])
  params = convert.to_ours(state, **options)
  return config, arrays, state, build("infinity", **built), params


def text(config, name):
  """The features of the texts, zeros behind their ends."""
  lens = config["text_lens"]
  shape = (2, max(lens), config["text_channels"])
  x = golden_weights.tensor(name, shape)
  return x * (np.arange(shape[1])[None] < np.c_[lens])[..., None]


class TokenizerTest(parameterized.TestCase):
  @parameterized.parameters(*CODES)
  def test_equals_the_official_model(self, name):
    config, arrays, _, module, variables = codes(name)
    shape = golden_shape(config["image"])
    number = config["image"].split('"')[1]
    image = last(golden_weights.tensor(number, shape).clip(-1, 1))
    maps = module.maps
    noise = [
      golden_weights.tensor(f"flip{k}", (1, 1, *grid, module.bits))[:, 0] < -1
      for k, grid in enumerate(maps.grids)
    ]
    flips = noise[: config["noise_apply_layers"]]

    @jax.jit
    def every(variables, image):
      m = module.bind(variables)
      f = m.latent(image)
      coded = m.code(f)
      return f, coded, m.decode(coded.units), m.code(f, flips=flips)

    f, coded, picture, wrong = every(variables, image)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(f, last(arrays["latent"]))
    for k, total in enumerate(coded.sums):
      close(total, last(arrays["running"][k]))
    np.testing.assert_array_equal(coded.units, arrays["targets"])
    cells = [
      maps.unfolded(own, k).reshape(1, -1, module.bits)
      for k, own in enumerate(maps.split(coded.units))
    ]
    np.testing.assert_array_equal(np.concatenate(cells, 1), arrays["bits"])
    close(coded.inputs[:, 1:], arrays["next_inputs"])
    close(maps.embed(coded.units)[:, 1:], arrays["next_inputs"])
    close(picture, last(arrays["reconstruction"]))
    # Self-correction, with the given wrong bits.
    np.testing.assert_array_equal(wrong.units, arrays["flip_targets"])
    close(wrong.inputs[:, 1:], arrays["flip_next_inputs"])
    # The quantiser's own inputs, by areas; they are not folded.
    area = ScaledBits(module.bits, maps.grids, inputs="area")
    bits = jnp.asarray(arrays["bits"], jnp.int32)
    first = maps.grids[0][0] * maps.grids[0][1]
    close(area.embed(bits)[:, first:], arrays["area_inputs"])

  @parameterized.parameters(*CODES)
  def test_round_trip_is_exact(self, name):
    _, _, state, _, variables = codes(name)
    back = convert_tokenizer.to_official(variables["params"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no encoder.conv_in.weight"):
      convert_tokenizer.config({})


def golden_shape(formula):
  """The numbers in the brackets of a formula."""
  inside = formula.split("(")[2].split(")")[0]
  return tuple(map(int, inside.split(",")))


@functools.cache
def passes(name):
  """The pass over all maps: (params, text, embedding f32[B, L, K], hidden
  bool[B]) -> logits and the loss of `target`."""
  system = model(name)[3]

  @jax.jit
  def run(params, words, embedding, hidden, target):
    variables = {"params": params}
    logits = system.of_inputs(variables, words, embedding, hidden)
    return logits, system.bit_loss(logits, target)

  return run


class TransformerTest(parameterized.TestCase):
  @parameterized.parameters(*MODELS)
  def test_logits_and_loss(self, name):
    config, arrays, _, system, params = model(name)
    bits = system.tokenizer.unit_bits
    length = len(system.plan)
    given = golden_weights.tensor("tokens_in", (2, length - 1, bits))
    embedding = np.pad(given, ((0, 0), (1, 0), (0, 0)))
    target = golden_weights.tensor("target_bits", (2, length, bits)) > 0
    words = text(config, "text")
    for hide, want in ((False, "logits"), (True, "logits_uncond")):
      logits, loss = passes(name)(
        params, words, embedding, np.full(2, hide), target.astype(np.int32)
      )
      got = logits.reshape(arrays[want].shape)
      np.testing.assert_allclose(got, arrays[want], rtol=1e-4, atol=1e-4)
      if not hide:
        value = [loss.value.mean(), loss.nll.mean() / bits]
        np.testing.assert_allclose(value, arrays["loss"], rtol=1e-4)

  def _best(self, name, of):
    """Units i32[2, L, K] that the official sampler took, and both logits of a
    pass over them: with the text and without."""
    config, arrays, _, system, params = model(name)
    maps = system.tokenizer.maps
    ends = np.cumsum([h * w for h, w in maps.grids])[:-1]
    cells = np.split(arrays[of].astype(np.int32), ends, 1)
    units = np.concatenate([
      maps.folded(own.reshape(2, *grid, maps.bits))
      for own, grid in zip(cells, maps.grids, strict=True)
    ], 1)  # fmt: skip
    words = text(config, config["text_greedy"].split('"')[1])
    embedding = np.asarray(maps.embed(units), np.float32)
    both = [
      passes(name)(params, words, embedding, np.full(2, hide), units)[0]
      for hide in (False, True)
    ]
    return units, both

  @parameterized.parameters(*MODELS)
  def test_best_bits(self, name):
    """What the official sampler drew step by step is the likeliest of one pass
    over it."""
    config, arrays, _, system, _ = model(name)
    units, (logits, null) = self._best(name, "greedy_bits")
    step = system.plan.step_of()
    of = lambda key: np.array(config[key])[step][None, :, None, None]
    g, tau = of("cfg_list"), of("tau_list")
    guided = (g * logits + (1 - g) * null) / tau
    want = arrays["sampler_logits"]
    np.testing.assert_allclose(
      guided.reshape(want.shape), want, rtol=1e-4, atol=1e-3
    )
    np.testing.assert_array_equal(guided.argmax(-1), units)
    total = system.tokenizer.maps.walk(units)[-1]
    np.testing.assert_allclose(
      total, last(arrays["greedy_sum"]), rtol=1e-4, atol=1e-4
    )
    units, (logits, _) = self._best(name, "greedy_bits_no_cfg")
    np.testing.assert_array_equal(logits.argmax(-1), units)

  def test_guidance_behind_a_layer(self):
    """In one pass over the bits of the one model, drawn by the other."""
    config, _, _, system, params = model(MODELS[0])
    units, _ = self._best(MODELS[0], "greedy_bits_layer_cfg")
    source = config["text_greedy"].split('"')[1]
    words = {"text": jnp.asarray(text(config, source))}
    deep = system.net.backbone.depth - 2
    scale = np.array(config["cfg_list"], np.float32)[system.plan.step_of()]

    @jax.jit
    def one_pass(params):
      net = system.bound({"params": params})
      cond = pairs.double(words) | {"hidden": pairs.without(2)}
      mixed = lambda h: pairs.double(
        pick.guide(*pairs.split(h), scale[None, :, None])
      )
      embedding = pairs.double(system.tokenizer.maps.embed(units))
      h = net(cond, embedding, after=(deep, mixed))
      return net.head.logits(pairs.split(h)[0])

    np.testing.assert_array_equal(one_pass(params).argmax(-1), units)
    config, arrays, _, system, params = model(MODELS[1])
    source = config["text_greedy"].split('"')[1]
    words = {"text": jnp.asarray(text(config, source))}
    steps = system.plan.steps

    @jax.jit
    def draw(params):
      return system.drawn(
        {"params": params, "tokenizer": {}}, words, KEYS, guided=True,
        scales=config["cfg_list"], laws=({"temperature": 0.0},) * steps,
        deep=system.net.backbone.depth - 2,
      )[0]  # fmt: skip

    maps = system.tokenizer.maps
    cells = [
      maps.unfolded(own, k).reshape(2, -1, maps.bits)
      for k, own in enumerate(maps.split(draw(params)))
    ]
    np.testing.assert_array_equal(
      np.concatenate(cells, 1), arrays["greedy_bits_layer_cfg"]
    )

  @parameterized.parameters(*MODELS)
  def test_round_trip_is_exact(self, name):
    config, _, state, _, params = model(name)
    back = convert.to_official(params, config["block_chunks"])
    self.assertEqual(set(back), set(state))
    for key, array in state.items():
      np.testing.assert_array_equal(back[key], array, err_msg=key)

  def test_another_file(self):
    with self.assertRaisesRegex(UserError, "no word_embed.weight"):
      convert.config({})
    state = dict(model(MODELS[0])[2])
    del state["block_chunks.1.module.0.ca.v_bias"]
    with self.assertRaisesRegex(UserError, "missing: blocks.2.ca.v_bias"):
      convert.to_ours(state)

  def test_published_lists(self):
    """A unit of 56 bits is folded; the list is that of a megapixel."""
    state = golden_weights.of_shapes({
      "word_embed.weight": (8, 56), "cfg_uncond": (4, 8),
      "lvl_embed.weight": (15, 8), "blocks.0.sa.scale_mul_1H11": (1, 2, 1, 1),
    })  # fmt: skip
    found = convert.config(state)["model"]
    self.assertEqual(found["tokenizer"]["bits"], 14)
    self.assertTrue(found["tokenizer"]["fold"])
    self.assertEqual(found["tokenizer"]["scales"][-1], 64)
    self.assertEqual(found["ground"], (64, 64))


class PlacesTest(absltest.TestCase):
  def test_lists(self):
    text = (golden_weights.FOLDER / "infinity_schedules.json").read_text()
    want = golden_weights.json.loads(text)
    self.assertEqual(list(aspects.RATIOS), want["config"]["order_of_ratios"])
    for ratio, own in want["schedules"].items():
      for budget, of in own["pn"].items():
        maps = aspects.maps(float(ratio), budget)
        self.assertEqual([list(x) for x in maps],
                         own["scales"][: of["num_scales"]])  # fmt: skip
        height, width = of["pixel"]
        self.assertEqual((16 * maps[-1][0], 16 * maps[-1][1]), (height, width))
        self.assertEqual(aspects.nearest(height, width), float(ratio))

  def test_rotations(self):
    description, arrays = golden_weights.load("infinity_rope")
    config = description["config"]
    for ratio in config["ratios"]:
      maps, ground = aspects.maps(ratio), aspects.ground(ratio)
      rows = [grid_places([(h, 1)], (ground[0], 1))[0] for h, _ in maps]
      cols = [grid_places([(1, w)], (1, ground[1]))[1] for _, w in maps]
      for name, found in (("rows", rows), ("cols", cols)):
        np.testing.assert_array_equal(
          np.concatenate(found), arrays[f"{name}_{ratio}"]
        )
      shapes = maps[: config["table_scales"]]
      table = rope_on_grid(shapes, ground, config["head_dim"])
      np.testing.assert_allclose(
        np.moveaxis(table, -1, 0), arrays[f"table_{ratio}"], atol=1e-5
      )


if __name__ == "__main__":
  absltest.main()
