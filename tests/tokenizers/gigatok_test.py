"""GigaTok: "It works when", line by line, and what may be chosen."""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.nn.quantize.vq import rotated
from ar_jax.tokenizers import queried
from tests import filled

MODEL = dict(
  encoder=(16, 1, 2), decoder=(16, 2, 2), length=16, vocab=16, channels=4,
  nets=dict(z=8, ch=8, mult=(1, 2), blocks=1), size=8, in_channels=1,
  align={"layer": 1}, teacher={"name": "classifier", "num_classes": 3},
)  # fmt: skip


def image(n=2):
  return np.random.default_rng(0).integers(256, size=(n, 8, 8, 1), dtype="u1")


@functools.cache
def model():
  """(system, variables)."""
  system = build("gigatok", **MODEL)
  batch = {"image": jnp.asarray(image())}
  return system, filled.variables(system, batch=batch)


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("s_s", 136.07, 129.25),
    ("s_b", 232.40, 218.24),
    ("b_l", 621.64, 597.51),
    ("xl_xxl", 2893.97, 2842.05),
  )
  def test_published_sizes(self, name, whole, without):
    config = importlib.import_module("configs.gigatok").get_config(name)
    net = build("gigatok", **config.model.to_dict()).tokenizer
    self.assertEqual(net.aligned, 768)
    shapes = jax.eval_shape(
      net.init, jax.random.key(0), np.zeros((1, 256, 256, 3), np.float32)
    )["params"]
    count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    counts = [count(shapes), count(shapes) - count(shapes["projector"])]
    self.assertEqual([round(n / 1e6, 2) for n in counts], [whole, without])

  def test_the_window_of_guidance(self):
    scales = pick.schedule("constant", 1.75, 256, window=(0.18, 1.0))
    self.assertEqual(scales.count(1.0), 45)
    self.assertEqual((scales[0], scales[45], scales[46]), (1.75, 1.0, 1.75))
    with self.assertRaisesRegex(UserError, "window"):
      pick.schedule("constant", 1.75, 256, window=(0.9, 0.1))


class PartsTest(absltest.TestCase):
  def test_queries_begin_as_means(self):
    sizes = [h * w for h, w in queried.groups(256)]
    self.assertEqual(sizes, [1, 1, 2, 4, 8, 16, 32, 64, 128])
    same = queried.means(jnp.full((1, 16, 16, 2), 3.0), 256)
    np.testing.assert_array_equal(same, np.full((1, 256, 2), 3.0))
    left = jnp.zeros((1, 16, 16, 1)).at[:, :, :8].set(1)
    found = queried.means(left, 256)[0, :4, 0]
    np.testing.assert_array_equal(found, [0.5, 0.5, 1, 0])

  def test_gradients_are_turned(self):
    rng = np.random.default_rng(1)
    z, e = (jnp.asarray(rng.normal(size=4), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(rotated(z, e), e, atol=1e-5)
    turn = jax.jacobian(rotated)(z, e)
    ratio = jnp.linalg.norm(e) / jnp.linalg.norm(z)
    np.testing.assert_allclose(turn.T @ turn, ratio**2 * np.eye(4), atol=1e-4)
    self.assertEqual(float(jnp.abs(jax.jacobian(rotated, 1)(z, e)).max()), 0)

  def test_bad_arguments(self):
    for wrong, said in (
      (dict(length=12), "length=12"),
      (dict(length=64), "grid of 4x4"),
      (dict(size=9), "size=9"),
      (dict(encoder="m"), "encoder='m'"),
      (dict(mask="future"), "mask='future'"),
      (dict(align={"layer": 3}), "tap=3"),
      (dict(align={"depth": 3}), "weight, layer and features"),
    ):
      with self.assertRaisesRegex(UserError, said):
        build("gigatok", **MODEL | wrong)


class TrainingTest(absltest.TestCase):
  def test_codes_and_terms(self):
    system, variables = model()
    batch = {"image": jnp.asarray(image()), "label": jnp.arange(2)}
    direct = build("gigatok", **MODEL, direct_steps=10)
    self.assertIs(direct.at(9), direct)
    self.assertEqual(direct.at(10).direct_steps, 0)
    net = system.tokenizer.bind({"params": variables["params"]["tokenizer"]})

    @jax.jit
    def run(variables, batch):
      loss = lambda params, of: (
        direct.loss(
          {**variables, "params": params}, batch, jax.random.key(0), train=False
        )
        .metrics[of]
        .mean()
      )
      pulled = jax.grad(loss)(variables["params"], "semantic")
      units = net.encode(batch["image"] / 127.5 - 1)
      early = direct.loss(
        variables, {**batch, "step": jnp.zeros(2, int)}, jax.random.key(0),
        train=True,
      )  # fmt: skip
      codes = net.quantizer(net.latent(batch["image"] / 127.5 - 1))
      return pulled, early, units, codes, net.embed(units)

    pulled, early, units, codes, own = run(variables, batch)
    # The same codes to decode as in the forward pass, through which gradients
    # go straight: but for the rounding of z + (e - z).
    np.testing.assert_array_equal(units, codes[2])
    np.testing.assert_allclose(own, codes[0], atol=1e-6)
    names = ("pixel", "semantic", "direct", "apart")
    value = lambda loss, weights: (
      sum(w * loss.metrics[n] for w, n in zip(weights, names, strict=True))
      + sum(loss.metrics[n] for n in ("codebook_loss", "commit_loss"))
    )
    np.testing.assert_allclose(
      early.value, value(early, (1, 0.5, 1, 1)), rtol=1e-5
    )
    size = lambda tree: max(
      float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)
    )
    pulled = pulled["tokenizer"]
    for name in ("projector", "encoder", "reads", "draws_embed"):
      self.assertGreater(size(pulled[name]), 0, name)
    for name in ("decoder", "draws_out"):  # behind the tap
      self.assertEqual(size(pulled[name]), 0, name)
    block = pulled["draws"]["block"]["fc1"]["kernel"]
    self.assertGreater(size(block[0]), 0)
    self.assertEqual(size(block[1]), 0)

  def test_places_of_the_teacher(self):
    far = {"name": "classifier", "num_classes": 3}
    system = build("gigatok", **MODEL | dict(
      teacher=far, size=16, nets=dict(z=8, ch=8, mult=(1, 2, 2), blocks=1)
    ))  # fmt: skip
    batch = {"image": np.zeros((1, 16, 16, 1), np.uint8)}
    with self.assertRaisesRegex(UserError, "sees 64 places"):
      jax.eval_shape(
        lambda key: (
          system.loss(system.init(key, batch), batch, key, train=True).value
        ),
        jax.random.key(0),
      )


if __name__ == "__main__":
  absltest.main()
