"""The training system of tokenizers: who learns from what, and when."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core import prng
from ar_jax.core.system import UserError, build
from ar_jax.tokenizers.autoencoder import (
  Reconstruction,
  autoencoder,
  psnr,
)


class Decoder(nn.Module):
  def setup(self):
    self.conv_out = nn.Conv(1, (1, 1))

  def __call__(self, z):
    return self.conv_out(jnp.sin(z)), jnp.sin(z)

  def head(self, feature):
    return self.conv_out(feature)


class OneConv(nn.Module):
  """The least that is a tokenizer: it rounds the output of one layer."""

  vocab: int = 8

  def setup(self):
    self.encoder = nn.Dense(2)
    self.decoder = Decoder()

  def encode(self, x):
    code = jnp.clip(jnp.round(self.encoder(x)[..., 0]), 0, self.vocab - 1)
    return code.astype(jnp.int32).reshape(len(x), -1)

  def decode(self, units):
    z = units.reshape(len(units), 8, 8, 1) * jnp.ones(2)[None, None, None]
    return jnp.clip(self.decoder(z)[0], -1, 1)

  def to_image(self, feature):
    return self.decoder.head(feature)

  def __call__(self, x, keys=None):
    z = self.encoder(x)
    units = self.encode(x)
    image, feature = self.decoder(z)
    losses = {"commit": jnp.square(z - jnp.round(z)).mean((1, 2, 3))}
    return Reconstruction(image, feature, units, losses)


# Not hinge: within its margin the last bias gets as much from real images as
# it loses to generated ones.
GAN = dict(
  gan_weight=0.5,
  gan_width=4,
  gan_layers=1,
  gan_start=10,
  gan_judge="vanilla",
)


def images(count: int = 3) -> jax.Array:
  image = jax.random.randint(jax.random.key(0), (count, 8, 8, 1), 0, 256)
  return image.astype(jnp.uint8)


class AutoencoderTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.batch = {"image": images()}
    cls.system = autoencoder(OneConv(), **GAN)
    cls.variables = jax.jit(cls.system.init)(prng.key(1), cls.batch)

  def loss(self, batch, system=None, variables=None):
    run = lambda v, b: (system or self.system).loss(
      v, b, jax.random.key(0), train=True
    )
    return jax.jit(run)(variables or self.variables, batch)

  def at(self, step):
    return self.batch | {"step": jnp.full(3, step)}

  def grad(self, pick):
    """Gradient of a chosen per-example number by parameters."""

    @jax.jit
    def run(params):
      variables = self.variables | {"params": params}
      loss = self.system.loss(
        variables, self.batch, jax.random.key(0), train=True
      )
      return pick(loss).mean()

    return jax.grad(run)(self.variables["params"])

  def test_loss_is_per_example(self):
    loss = self.loss(self.batch)
    one = self.loss(jax.tree.map(lambda x: x[1:2], self.batch))
    for name, value in {"value": loss.value, **loss.metrics}.items():
      self.assertEqual(value.shape, (3,), name)
      alone = one.value if name == "value" else one.metrics[name]
      np.testing.assert_allclose(value[1:2], alone, rtol=1e-4, err_msg=name)

  def test_the_game_begins_at_its_step(self):
    m = self.loss(self.batch).metrics
    game = 0.5 * m["gan_g"] + m["gan_d"]
    before = self.loss(self.at(9)).value
    after = self.loss(self.at(10)).value
    np.testing.assert_allclose(after - before, game, atol=1e-5)
    np.testing.assert_allclose(self.loss(self.batch).value, after, rtol=1e-5)

  def test_who_learns_from_the_game(self):
    size = lambda tree: sum(
      float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)
    )
    from_g = self.grad(lambda loss: loss.metrics["gan_g"])
    from_d = self.grad(lambda loss: loss.metrics["gan_d"])
    self.assertEqual(size(from_g["discriminator"]), 0.0)
    self.assertGreater(size(from_g["tokenizer"]), 0.0)
    self.assertEqual(size(from_d["tokenizer"]), 0.0)
    self.assertGreater(size(from_d["discriminator"]), 0.0)

  def test_every_parameter_learns(self):
    for path, g in jax.tree.leaves_with_path(
      self.grad(lambda loss: loss.value)
    ):
      self.assertGreater(
        float(jnp.abs(g).max()), 0.0, jax.tree_util.keystr(path)
      )

  def test_cheap_adaptive_weight_is_the_full_one(self):
    play = dataclasses.replace(self.system.adversary, adaptive=True)
    system = dataclasses.replace(self.system, adversary=play)
    metrics = self.loss(self.batch, system).metrics
    last = lambda grads: jnp.linalg.norm(
      grads["tokenizer"]["decoder"]["conv_out"]["kernel"].ravel()
    )
    nll = last(self.grad(lambda loss: loss.metrics["pixel"]))
    gan = last(self.grad(lambda loss: loss.metrics["gan_g"]))
    np.testing.assert_allclose(
      metrics["gan_weight"], 0.5 * nll / (gan + 1e-4), rtol=1e-5
    )
    self.assertGreater(nll / (gan + 1e-4), 0.01)
    most = autoencoder(OneConv(), **GAN, gan_adaptive=0.01)
    metrics = self.loss(self.batch, most).metrics
    np.testing.assert_allclose(metrics["gan_weight"], 0.5 * 0.01, rtol=1e-6)

  def test_lecam_moves_its_means(self):
    play = dataclasses.replace(self.system.adversary, lecam=0.1, decay=0.9)
    system = dataclasses.replace(self.system, adversary=play)
    zero = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    loss = self.loss(self.batch, system, self.variables | {"lecam": zero})
    self.assertEqual(loss.updates["lecam"].keys(), zero.keys())
    self.assertNotEqual(float(loss.updates["lecam"]["real"]), 0.0)
    self.assertEqual(self.loss(self.batch).updates, {})

  def test_sample_reconstructs(self):
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.jit(self.system.sample)(self.variables, self.batch, keys)
    self.assertEqual(image.shape, (3, 8, 8, 1))
    self.assertTrue(((image >= 0) & (image <= 1)).all())
    units = jax.jit(self.system.units)(self.variables, self.batch)
    self.assertEqual(units.shape, (3, 64))
    self.assertLess(int(units.max()), self.system.vocab)

  def test_psnr(self):
    x = jnp.zeros((1, 2, 2, 1))
    np.testing.assert_allclose(psnr(x, x + 0.2), 20.0, rtol=1e-5)
    np.testing.assert_allclose(psnr(x + 1, x + 9), 100.0)

  def test_is_a_static_argument(self):
    again = autoencoder(OneConv(), **GAN)
    self.assertEqual(hash(again), hash(self.system))
    self.assertEqual(again, self.system)

  @parameterized.parameters(
    (dict(pixel="l3"), "pixel='l3'"),
    (dict(lpips_trunk="vgg.pth"), "two files"),
    (dict(vocabulary=3), "vocabulary"),
    (dict(gan_weight=1.0, gan_judge="lsgan"), "judge='lsgan'"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      build("multiscale_vq", **values)


if __name__ == "__main__":
  absltest.main()
