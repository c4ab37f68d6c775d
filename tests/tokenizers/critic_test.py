"""Discriminators that judge by the features of a frozen encoder."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.system import UserError, build
from ar_jax.nn.losses import augment, feature_heads
from ar_jax.tokenizers.critic import critic
from tests import filled

VIT = dict(
  name="vit", size=8, patch=4, side=2, depth=2, width=8, heads=2, behind=(1, 2)
)
MODEL = dict(
  encoder=(8, 1, 2), decoder=(8, 1, 2), length=16, vocab=16, channels=4,
  nets=dict(z=8, ch=8, mult=(1, 2), blocks=1), size=8, in_channels=1,
  align={"layer": 1}, gan_weight=0.5,
)  # fmt: skip


class HeadsTest(absltest.TestCase):
  def test_a_convolution_along_a_ring(self):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    net = feature_heads.RingConv(4, 3)
    kernel = rng.normal(size=(3, 3, 4)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    params = {"params": {"kernel": kernel, "bias": bias}}
    sigma = np.linalg.norm(kernel.reshape(-1, 4), 2)
    want = np.zeros((2, 5, 4))
    for n in range(5):
      for i in range(3):
        want[:, n] += x[:, (n + i - 1) % 5] @ kernel[i] / sigma
    np.testing.assert_allclose(net.apply(params, x), want + bias, rtol=0.02)

  def test_norms(self):
    x = np.random.default_rng(1).normal(2, 3, size=(16, 5, 4))
    for kind, group in (("batch", 8), ("group", 1)):
      net = feature_heads.VirtualNorm(kind)
      own = net.init(jax.random.key(0), x[:1])
      y = np.asarray(net.apply(own, jnp.asarray(x, jnp.float32)))
      parts = y.reshape(16 // group, -1, 4)
      np.testing.assert_allclose(parts.mean(1), 0, atol=1e-5)
      np.testing.assert_allclose(parts.std(1), 1, atol=1e-4)

  def test_images_are_changed_each_by_its_key(self):
    x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (3, 16, 16, 3)))
    keys = jax.random.split(jax.random.key(0), 3)
    whole = augment.augmented(x, keys)
    one = augment.augmented(x[1:2], keys[1:2])
    np.testing.assert_allclose(whole[1:2], one, atol=1e-6)
    self.assertGreater(np.abs(whole - x).max((1, 2, 3)).min(), 0.05)
    # A square of 3 pixels is gone, and what has moved away is no more.
    gone = (np.asarray(whole) == 0).all(-1).sum((1, 2))
    self.assertLess(gone.max(), 9 + 2 * 2 * 16 + 1)
    self.assertGreater(gone.max(), 0)
    small = augment.cropped(x, keys, 8)
    self.assertEqual(small.shape, (3, 8, 8, 3))
    less = augment.cropped(x, None, 8)
    means = np.asarray(x).reshape(3, 8, 2, 8, 2, 3).mean((2, 4))
    np.testing.assert_allclose(less, means, atol=1e-6)
    for i in range(3):  # all of it, or a part of it
      parts = [x[i, a : a + 8, b : b + 8] for a in range(9) for b in range(9)]
      near = [np.abs(small[i] - y).max() for y in (*parts, less[i])]
      self.assertLess(min(near), 1e-6)


class CriticTest(absltest.TestCase):
  def test_levels_are_states_of_the_encoder(self):
    judge = critic(VIT)
    variables = filled.variables(judge.encoder, batch={
      "image": np.zeros((1, 8, 8, 3), np.uint8)
    })  # fmt: skip
    own = {"params": variables["params"]["encoder"]}
    net = judge.encoder.net.encoder.bind(own)
    x = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (2, 8, 8, 1)))
    first, _, last = net.levels(x, (1, 2))
    h, _ = net.stack(net._begun(x)[0], None)
    np.testing.assert_allclose(last, h[:, 1:] + h[:, :1], rtol=1e-5)
    begun = net._begun(x)[0]
    np.testing.assert_allclose(first, begun[:, 1:] + begun[:, :1], rtol=1e-5)
    seen = net(x)
    np.testing.assert_allclose(
      seen.grid.reshape(2, 4, -1), net.norm(h)[:, 1:], rtol=1e-5
    )

  def test_who_learns(self):
    system = build("gigatok", **MODEL, gan_critic=VIT)
    image = np.random.default_rng(4).integers(256, size=(2, 8, 8, 1))
    batch = {"image": jnp.asarray(image, jnp.uint8)}
    variables = filled.variables(system, batch=batch)
    self.assertIn("critic", variables)

    @jax.jit
    def run(variables, gan_weight):
      def loss(params):
        own = {**variables, "params": params}
        key = jax.random.key(0)
        found = system.loss(own, batch, key, train=True)
        return (gan_weight * found.metrics["gan_g"]).sum(), found

      return jax.grad(loss, has_aux=True)(variables["params"])

    pulled, found = run(variables, 1.0)
    size = lambda tree: max(
      float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)
    )
    self.assertGreater(size(pulled["tokenizer"]["decoder"]), 0)
    self.assertEqual(size(pulled["discriminator"]), 0)
    np.testing.assert_allclose(
      found.value,
      sum(found.metrics[k] for k in ("pixel", "codebook_loss", "commit_loss"))
      + 0.5 * found.metrics["gan_g"]
      + found.metrics["gan_d"],
      rtol=1e-5,
    )

  def test_bad_arguments(self):
    for wrong, said in (
      (VIT | {"size": None}, "a size of its own"),
      ({"name": "classifier"}, "it is a vit"),
      (VIT | {"registers": 1}, "without registers"),
      (VIT | {"behind": (3,)}, "it has 2 layers"),
    ):
      with self.assertRaisesRegex(UserError, said):
        build("gigatok", **MODEL, gan_critic=wrong)
    with self.assertRaisesRegex(UserError, "needs a gan_weight"):
      build("gigatok", **MODEL | dict(gan_weight=0.0), gan_critic=VIT)
    self.assertEqual(
      critic({k: v for k, v in VIT.items() if k != "behind"}
             | {"depth": 12}).behind, (3, 6, 9, 12)
    )  # fmt: skip


if __name__ == "__main__":
  absltest.main()
