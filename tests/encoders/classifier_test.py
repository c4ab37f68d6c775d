"""The classifier: what it sees, how it moves images, what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax.core import system
from ar_jax.core.errors import UserError
from ar_jax.encoders import classifier

KEY = jax.random.key(0)


def bars(n=48, side=16):
  """Images whose class is where their bar is."""
  label = np.arange(n) % 4
  image = np.random.default_rng(0).integers(0, 120, (n, side, side, 1))
  for i, c in enumerate(label):
    image[i, :, c * side // 4 : (c + 1) * side // 4] += 130
  return {"image": image.astype(np.uint8), "label": label.astype(np.int32)}


class ClassifierTest(absltest.TestCase):
  def test_parameters_and_shapes(self):
    made = system.build("classifier", num_classes=10)
    batch = {"image": np.zeros((2, 32, 28, 3), np.uint8)}
    variables = jax.eval_shape(lambda key: made.init(key, batch), KEY)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    # 2 x 2 patches of 32 x 28 pixels, then 2 x 2 places.
    want = [(9 * 12, 32), (9 * 32, 64), (8 * 7 * 64, 64), (64, 10)]
    for i, (rows, columns) in enumerate(want):
      self.assertEqual(
        shapes[f"Dense_{i}"], {"kernel": (rows, columns), "bias": (columns,)}
      )
    shape = lambda of: jax.eval_shape(of, variables, batch).shape
    self.assertEqual(shape(made.grid), (2, 8, 7, 64))
    self.assertEqual(shape(made.pooled), (2, 64))
    self.assertEqual(shape(made.logits), (2, 10))
    self.assertEqual((made.classes, made.makes), (10, ("label",)))

  def test_a_convolution_without_the_matrix(self):
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 4))
    want = jax.lax.conv_general_dilated(
      x, kernel.astype(np.float32), (1, 1), "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    got = classifier._neighbours(jnp.asarray(x)) @ kernel.reshape(18, 4)
    np.testing.assert_allclose(got, want, atol=1e-5)

  def test_shifts(self):
    image = np.arange(32 * 32).reshape(1, 32, 32, 1).astype(np.int32)
    keys = jax.random.split(KEY, 64)
    moved = classifier.shifted(jnp.repeat(image, 64, 0), keys)
    found = {int(m[10, 10, 0]) - int(image[0, 10, 10, 0]) for m in moved}
    self.assertContainsSubset(
      found, {32 * dy + dx for dy in range(-2, 3) for dx in range(-2, 3)}
    )
    self.assertGreater(len(found), 15)
    # What enters repeats the edge: nothing else is in a moved image.
    self.assertTrue(np.isin(moved, image).all())
    small = jnp.zeros((2, 8, 8, 1))
    self.assertIs(classifier.shifted(small, keys[:2]), small)

  def test_learns(self):
    made, batch = system.build("classifier", num_classes=4), bars()
    variables = jax.jit(lambda key: made.init(key, batch))(KEY)
    tx = optax.adam(2e-3)

    @jax.jit
    def update(params, opt, key):
      def objective(params):
        loss = made.loss({"params": params}, batch, key, train=True)
        return loss.value.mean(), loss

      grads, loss = jax.grad(objective, has_aux=True)(params)
      moves, opt = tx.update(grads, opt)
      return optax.apply_updates(params, moves), opt, loss

    params = variables["params"]
    opt, first = jax.jit(tx.init)(params), None
    for i in range(30):
      params, opt, loss = update(params, opt, jax.random.fold_in(KEY, i))
      first = first if first is not None else float(loss.value.mean())
    self.assertEqual(loss.value.shape, (48,))
    self.assertLess(float(loss.value.mean()), first / 4)
    found = made.sample({"params": params}, batch, jax.random.split(KEY, 48))
    np.testing.assert_array_equal(found["label"], batch["label"])

  def test_refusals(self):
    with self.assertRaisesRegex(UserError, "num_classes=1"):
      system.build("classifier", num_classes=1)
    made = system.build("classifier")
    with self.assertRaisesRegex(UserError, "takes no options"):
      made.sample({}, {}, None, guidance=2.0)
    # A part of systems, and none itself.
    with self.assertRaisesRegex(UserError, "text.py is a part of systems"):
      system.builder("text")


if __name__ == "__main__":
  absltest.main()
