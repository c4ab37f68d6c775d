"""The vision transformer: published layouts, places of any grid, training."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import vit as convert
from ar_jax.core.signals.resize import matrix, resize
from ar_jax.core.system import UserError, build
from ar_jax.encoders import vit, vit_files
from ar_jax.nn.stacks import vit as stacks
from tests import golden_weights, optimised

KEY = jax.random.key(0)
START = "adapter.model."


def golden(name):
  """(arrays, official state of the encoder, its module, its parameters)."""
  description, arrays = golden_weights.load(name)
  state = {
    k.removeprefix(START): x
    for k, x in golden_weights.weights(description).items()
    if k.startswith(START)
  }
  arguments, params = vit_files.read(state, heads=3)
  arguments |= {"mean": 0.5, "std": 0.5}  # ControlAR shows it pixels as is
  return arrays, state, vit.encoder(**arguments), params


def control(name, height, width):
  x = golden_weights.tensor(name, (2, 3, height, width)).clip(-1, 1)
  return jnp.asarray(np.moveaxis(x, 1, -1))


def clip_state(width=16, depth=2, side=3, space=8):
  """A tiny file of CLIP: its tower of images and some of that of texts."""
  d, shapes = width, {}
  v = "vision_model."
  shapes[v + "embeddings.class_embedding"] = (d,)
  shapes[v + "embeddings.patch_embedding.weight"] = (d, 3, 4, 4)
  shapes[v + "embeddings.position_embedding.weight"] = (side**2 + 1, d)
  for name in ("pre_layrnorm", "post_layernorm"):
    shapes[f"{v}{name}.weight"] = shapes[f"{v}{name}.bias"] = (d,)
  for i in range(depth):
    layer = f"{v}encoder.layers.{i}."
    for part in ("q", "k", "v", "out"):
      shapes[f"{layer}self_attn.{part}_proj.weight"] = (d, d)
      shapes[f"{layer}self_attn.{part}_proj.bias"] = (d,)
    for name in ("layer_norm1", "layer_norm2"):
      shapes[f"{layer}{name}.weight"] = shapes[f"{layer}{name}.bias"] = (d,)
    shapes[layer + "mlp.fc1.weight"] = (4 * d, d)
    shapes[layer + "mlp.fc1.bias"] = (4 * d,)
    shapes[layer + "mlp.fc2.weight"] = (d, 4 * d)
    shapes[layer + "mlp.fc2.bias"] = (d,)
  shapes["visual_projection.weight"] = (space, d)
  shapes["text_projection.weight"] = (space, space)
  shapes["text_model.final_layer_norm.weight"] = (space,)
  return golden_weights.of_shapes(shapes)


def clip_reference(state, x, heads):
  """(patches, pooled) of CLIP's tower of images by its formulas, in float64;
  x f64[B, H, W, 3] in [0, 1]."""
  w = {k.removeprefix("vision_model."): np.float64(v) for k, v in state.items()}

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * w[name + ".weight"] + w[name + ".bias"]

  linear = lambda x, name: x @ w[name + ".weight"].T + w[name + ".bias"]
  x = (x - vit_files._CLIP_MEAN) / vit_files._CLIP_STD
  kernel = w["embeddings.patch_embedding.weight"]
  p, (b, height, width, _) = kernel.shape[-1], x.shape
  rows = [
    np.einsum("bijc,dcij->bd", x[:, i : i + p, j : j + p], kernel)
    for i in range(0, height, p)
    for j in range(0, width, p)
  ]
  token = np.tile(w["embeddings.class_embedding"], (b, 1))
  x = np.stack([token, *rows], 1) + w["embeddings.position_embedding.weight"]
  x = norm(x, "pre_layrnorm")
  for i in range(sum("layer_norm1.weight" in k for k in w)):
    layer = f"encoder.layers.{i}."
    h, each = norm(x, layer + "layer_norm1"), []
    q, k, v = (linear(h, f"{layer}self_attn.{n}_proj") for n in "qkv")
    for at in np.split(np.arange(q.shape[-1]), heads):
      scores = q[..., at] @ k[..., at].swapaxes(1, 2) / np.sqrt(len(at))
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      each.append(scores / scores.sum(-1, keepdims=True) @ v[..., at])
    x = x + linear(np.concatenate(each, -1), layer + "self_attn.out_proj")
    h = linear(norm(x, layer + "layer_norm2"), layer + "mlp.fc1")
    h = h / (1 + np.exp(-1.702 * h))
    x = x + linear(h, layer + "mlp.fc2")
  whole = norm(x[:, 0], "post_layernorm")
  return x[:, 1:], whole @ w["visual_projection.weight"].T


def as_openai(state):
  """The same numbers as OpenAI's files have them."""
  made = {}
  names = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
  }
  for key, x in state.items():
    if not key.startswith("vision_model."):
      continue
    key = key.removeprefix("vision_model.")
    for old, new in names.items():
      key = key.replace(old, new)
    made["visual." + key] = x
  for leaf in ("weight", "bias"):
    for i in range(2):
      start = f"visual.transformer.resblocks.{i}."
      parts = [made.pop(f"{start}self_attn.{q}_proj.{leaf}") for q in "qkv"]
      made[f"{start}attn.in_proj_{leaf}"] = np.concatenate(parts)
  made["visual.proj"] = state["visual_projection.weight"].T
  return made


class PublishedTest(parameterized.TestCase):
  def test_dinov2(self):
    arrays, state, module, params = golden("controlar_t2i")
    bound = module.bind({"params": params})
    for tag, (h, w) in {"square": (4, 4), "wide": (3, 6)}.items():
      x = resize(
        control(f"control_{tag}", 16 * h, 16 * w), (14 * h, 14 * w), "nearest"
      )
      seen = optimised.jit(module.apply)({"params": params}, x)
      self.assertEqual(seen.grid.shape, (2, h, w, 48))
      np.testing.assert_allclose(
        seen.grid.reshape(2, h * w, -1),
        arrays[f"features_{tag}"],
        rtol=1e-4,
        atol=1e-4,
      )
    table = arrays["pos_table_wide"].reshape(-1, 48)
    of = lambda bound: bound.positions((3, 6))
    np.testing.assert_allclose(of(bound), table[-18:], atol=1e-5)
    older = module.clone(table="bicubic_tenth").bind({"params": params})
    table = arrays["pos_table_wide_old"].reshape(-1, 48)
    np.testing.assert_allclose(of(older), table[-18:], atol=1e-5)
    back = convert.to_official(params)
    self.assertEqual({*state}, {*back} | {"embeddings.mask_token"} & {*state})
    for key, x in back.items():
      np.testing.assert_array_equal(x, state[key], err_msg=key)

  def test_vit(self):
    arrays, state, module, params = golden("controlar_c2i")
    seen = optimised.jit(module.apply)(
      {"params": params}, control("control", 80, 80)
    )
    np.testing.assert_allclose(
      seen.grid.reshape(2, 25, -1), arrays["features"], rtol=1e-4, atol=1e-4
    )
    back = convert.to_official(params)
    for key, x in back.items():
      np.testing.assert_array_equal(x, state[key], err_msg=key)
    self.assertEqual(
      {*state} - {*back}, {"pooler.dense.weight", "pooler.dense.bias"}
    )

  def test_clip(self):
    state = clip_state()
    model = convert.config(state, heads=4)["model"]
    self.assertEqual(model["style"], "clip")
    system = build("vit", **model)
    encoder = convert.to_ours(state, heads=4)
    variables = {"params": {"encoder": encoder}}
    images = golden_weights.integers("clip", 256, (2, 12, 12, 3))
    images = images.astype(np.uint8)
    batch = {"image": images}
    grid, pooled = clip_reference(state, images / 255, 4)
    seen = optimised.jit(system.seen)(variables, batch)
    np.testing.assert_allclose(
      seen.grid.reshape(2, 9, 16), grid, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(seen.pooled, pooled, rtol=1e-4, atol=1e-4)
    back = convert.to_official(encoder)
    for key, x in back.items():
      own = key if key in state else f"vision_model.{key}"
      np.testing.assert_array_equal(x, state[own], err_msg=key)
    # OpenAI's layout of the same numbers.
    other = as_openai(state)
    jax.tree.map(
      np.testing.assert_array_equal, convert.to_ours(other, heads=4), encoder
    )
    again = vit_files.to_official("openai", encoder)
    for key, x in again.items():
      np.testing.assert_array_equal(x, other[f"visual.{key}"], err_msg=key)

  def test_timm_and_registers(self):
    """DINOv2 by its authors: the same numbers under other names."""
    _, state, module, params = golden("controlar_t2i")
    params = params | {"others": golden_weights.tensor("others", (4, 48))}
    official = vit_files.to_official("timm", params)
    self.assertEqual(official["register_tokens"].shape, (1, 4, 48))
    self.assertIn("blocks.0.ls1.gamma", official)
    arguments, again = vit_files.read(official, heads=3)
    self.assertEqual(arguments["registers"], 4)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    # Registers change what is seen, and are no patches of it.
    made = vit.encoder(**arguments)
    seen = optimised.jit(made.apply)(
      {"params": again}, jnp.zeros((1, 28, 28, 3))
    )
    self.assertEqual(seen.grid.shape, (1, 2, 2, 48))
    del state, module

  def test_published_sizes(self):
    for size, millions in (("s", 22.06), ("b", 86.58)):
      module = vit.encoder(
        patch=14, side=37, layer_scale=1.0, **vit.SIZES[size]
      )
      count = sum(x.size for x in jax.tree.leaves(vit_files.shapes(module)))
      self.assertAlmostEqual(count / 1e6, millions, places=2)
    clip = dict(style="clip", patch=14, side=16, projection=768)
    module = vit.encoder(**clip, **vit.SIZES["l"])
    count = sum(x.size for x in jax.tree.leaves(vit_files.shapes(module)))
    self.assertAlmostEqual(count / 1e6, 303.97, places=2)

  def test_other_files(self):
    with self.assertRaisesRegex(UserError, "not a vision transformer"):
      convert.config({"x": np.zeros(1)})
    with self.assertRaisesRegex(UserError, "--heads=N"):
      convert.config(clip_state())
    state = clip_state()
    del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
    with self.assertRaisesRegex(UserError, "missing: encoder.layers.1.mlp"):
      convert.to_ours(state, heads=4)


class EncoderTest(absltest.TestCase):
  def make(self, **more):
    sizes = dict(patch=2, depth=1, width=8, heads=2, side=4, in_channels=1)
    return vit.encoder(**sizes | more)

  def test_any_grid(self):
    module = self.make()
    apply, start = module.apply, jnp.zeros((1, 8, 8, 1))
    params = jax.eval_shape(module.init, KEY, start)
    seen = jax.eval_shape(apply, params, jnp.zeros((2, 4, 12, 1)))
    self.assertEqual(seen.grid.shape, (2, 2, 6, 8))
    for shape, what in (
      ((1, 5, 4, 1), "5x4: this encoder cuts patches"),
      ((1, 4, 4, 3), "3 channels: this encoder reads 1"),
    ):
      with self.assertRaisesRegex(UserError, what):
        jax.eval_shape(apply, params, jnp.zeros(shape))

  def test_without_a_class_token(self):
    module = self.make(class_token=False, in_channels=3)
    x = jax.random.normal(KEY, (1, 4, 4, 1))
    seen, params = jax.jit(module.init_with_output)(KEY, x)
    self.assertNotIn("token", params["params"])
    np.testing.assert_allclose(
      seen.whole[0], seen.grid.reshape(-1, 8).mean(0), atol=1e-5
    )
    # Grey is the same colour in all channels.
    colour = jax.jit(module.apply)(params, jnp.repeat(x, 3, -1))
    np.testing.assert_allclose(colour.grid, seen.grid, rtol=1e-6, atol=1e-6)

  def test_layer_scale(self):
    net = stacks.vit(1, 8, 2, dropout=0.0, layer_scale=0.0)
    x = jax.random.normal(KEY, (1, 3, 8))
    (seen, _), params = jax.jit(net.init_with_output)(KEY, x)
    scales = params["params"]["block"]
    self.assertEqual(scales["scales_0"]["scale"].shape, (1, 8))
    np.testing.assert_allclose(seen.mean(), 0.0, atol=1e-6)
    zero = jax.jit(net.clone(out_norm=vit.Identity()).apply)
    np.testing.assert_array_equal(zero(params, x)[0], x)

  def test_wrong_use(self):
    with self.assertRaisesRegex(UserError, "style='x'"):
      self.make(style="x")
    with self.assertRaisesRegex(UserError, "class_token=False"):
      self.make(style="clip", class_token=False)
    system = build("vit", patch=2, depth=1, width=8, heads=2)
    with self.assertRaisesRegex(UserError, "knows no classes"):
      system.loss({}, {}, KEY, train=False)
    self.assertIsNone(system.classes)


class ResizeTest(absltest.TestCase):
  def test_corners_lie_upon_corners(self):
    for size, to in ((4, 7), (7, 4), (5, 5)):
      found = matrix(size, to, "bicubic_corners")
      np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
      np.testing.assert_allclose(found[0], np.eye(size)[0], atol=1e-6)
      np.testing.assert_allclose(found[-1], np.eye(size)[-1], atol=1e-6)


if __name__ == "__main__":
  absltest.main()
