"""T5's encoder against its formulas in float64, and its files."""

import pathlib
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from safetensors.numpy import save_file

from ar_jax import data
from ar_jax.core.system import UserError
from ar_jax.encoders import t5, t5_files
from tests import golden_weights

WIDTH, DEPTH, HEADS, FEATURES, HIDDEN, VOCAB = 24, 2, 3, 4, 20, 40


def state(gated=True):
  """A tiny file, with some of a decoder."""
  d, inner, shapes = WIDTH, HEADS * FEATURES, {}
  shapes["shared.weight"] = shapes["encoder.embed_tokens.weight"] = (VOCAB, d)
  shapes["decoder.final_layer_norm.weight"] = (d,)
  shapes["lm_head.weight"] = (VOCAB, d)
  for i in range(DEPTH):
    layer = f"encoder.block.{i}.layer."
    for x in "qkv":
      shapes[f"{layer}0.SelfAttention.{x}.weight"] = (inner, d)
    shapes[f"{layer}0.SelfAttention.o.weight"] = (d, inner)
    shapes[f"{layer}0.layer_norm.weight"] = (d,)
    shapes[f"{layer}1.layer_norm.weight"] = (d,)
    for x in ("wi_0", "wi_1") if gated else ("wi",):
      shapes[f"{layer}1.DenseReluDense.{x}.weight"] = (HIDDEN, d)
    shapes[f"{layer}1.DenseReluDense.wo.weight"] = (d, HIDDEN)
  shapes[t5_files._DISTANCES] = (32, HEADS)
  shapes["encoder.final_layer_norm.weight"] = (d,)
  found = golden_weights.of_shapes(shapes)
  found["shared.weight"] = 3 * found["shared.weight"]
  return found


def bucket(distance):
  """One of 32 for a distance up to 128, as the paper's code has it."""
  found = 16 if distance > 0 else 0
  n = abs(distance)
  if n < 8:
    return found + n
  grown = 8 + int(np.log(n / 8) / np.log(128 / 8) * 8)
  return found + min(grown, 15)


def reference(w, ids):
  """f64[n, D] of one text without padding."""
  w = {k: np.float64(v) for k, v in w.items()}

  def norm(x, name):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w[name]

  def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  x, n = w["shared.weight"][ids], len(ids)
  which = [[bucket(j - i) for j in range(n)] for i in range(n)]
  bias = w[t5_files._DISTANCES][np.array(which)]
  for i in range(DEPTH):
    layer = f"encoder.block.{i}.layer."
    h, each = norm(x, layer + "0.layer_norm.weight"), []
    q, k, v = (h @ w[f"{layer}0.SelfAttention.{y}.weight"].T for y in "qkv")
    for head in range(HEADS):
      at = slice(head * FEATURES, (head + 1) * FEATURES)
      scores = np.exp(q[:, at] @ k[:, at].T + bias[..., head])
      each.append(scores / scores.sum(-1, keepdims=True) @ v[:, at])
    out = w[layer + "0.SelfAttention.o.weight"]
    x = x + np.concatenate(each, -1) @ out.T
    h = norm(x, layer + "1.layer_norm.weight")
    mlp = layer + "1.DenseReluDense."
    if mlp + "wi_0.weight" in w:
      h = gelu(h @ w[mlp + "wi_0.weight"].T) * (h @ w[mlp + "wi_1.weight"].T)
    else:
      h = np.maximum(h @ w[mlp + "wi.weight"].T, 0)
    x = x + h @ w[mlp + "wo.weight"].T
  return norm(x, "encoder.final_layer_norm.weight")


class T5Test(absltest.TestCase):
  def test_buckets(self):
    distances = np.arange(-300, 301)
    want = [bucket(d) for d in distances]
    np.testing.assert_array_equal(t5.bucket(distances, 32, 128), want)

  def test_equals_its_formulas(self):
    rng = np.random.default_rng(0)
    ids = np.zeros((2, 40), np.int32)
    ids[0], ids[1, :5] = rng.integers(1, VOCAB, 40), rng.integers(1, VOCAB, 5)
    for gated in (True, False):
      given = state(gated)
      arguments, params = t5_files.read(given)
      self.assertEqual(arguments["gated"], gated)
      encoder = t5.T5(**arguments, length=41)
      found = jax.jit(encoder.apply)({"params": params}, ids)
      np.testing.assert_array_equal(found[0, 0], 0)
      np.testing.assert_array_equal(found[1, :36], 0)
      for row, text in ((found[0, 1:], ids[0]), (found[1, 36:], ids[1, :5])):
        np.testing.assert_allclose(row, reference(given, text), atol=2e-4)
      # Back to the file, bit by bit.
      again = t5_files.write(params)
      for key, x in again.items():
        np.testing.assert_array_equal(x, given[key])
      self.assertLen(again, len(given) - 3)

  def test_published_sizes(self):
    """Flan-T5-XL's encoder and small's, counted by hand."""
    for name, d, n, h, f in (
      ("xl", 2048, 24, 32, 5120),
      ("small", 512, 8, 6, 1024),
    ):
      module = t5.T5(**t5.SIZES[name], length=8)
      ids = np.zeros((1, 8), np.int32)
      shapes = jax.eval_shape(module.init, jax.random.key(0), ids)["params"]
      count = sum(x.size for x in jax.tree.leaves(shapes))
      layer = 4 * d * 64 * h + 3 * d * f + 2 * d
      self.assertEqual(count, 32_128 * d + 32 * h + n * layer + d)

  def test_features_of_a_file_are_read_as_data(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    save_file(state(), folder / "t5.safetensors")
    rng = np.random.default_rng(1)
    plain = data.load("fake", size=4, length=20)
    for name in ("train", "test"):
      count = len(getattr(plain, name))
      ids = np.zeros((count, 6), np.int32)
      ids[:, :4] = rng.integers(2, VOCAB, (count, 4))
      ids[:, 4] = 1
      np.save(folder / f"{name}_ids.npy", ids)
      t5_files.main([
        str(folder / "t5.safetensors"), str(folder / f"{name}_ids.npy"),
        str(folder / f"{name}.npy"), "--length=7",
      ])  # fmt: skip
    found = data.load("fake", size=4, length=20, text_features=str(folder))
    row = found.test[1]["text"]
    self.assertEqual(row.shape, (7, WIDTH))
    np.testing.assert_array_equal(row[5:], 0)
    want = reference(state(), ids[1, :5])
    np.testing.assert_allclose(row[:5], want, atol=5e-3)

  def test_mistakes(self):
    with self.assertRaisesRegex(UserError, "not a T5"):
      t5_files.read({"shared.weight": np.zeros((4, 4))})
    broken = state()
    del broken["encoder.block.1.layer.0.layer_norm.weight"]
    with self.assertRaisesRegex(UserError, "missing: encoder.block.1"):
      t5_files.read(broken)
    with self.assertRaisesRegex(UserError, "numbers of pieces"):
      t5.T5().align(np.zeros((1, 4)))


if __name__ == "__main__":
  absltest.main()
