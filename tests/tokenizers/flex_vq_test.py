"""FlexVAR's tokenizer: maps that do not depend on each other, any size."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.signals.resize import resize
from ar_jax.core.system import UserError, build
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.tokenizers.vq import VQ
from tests import filled

SIZES = dict(vocab=32, channels=4, z=8, ch=8, mult=(1, 2), blocks=1)
SIZES |= dict(in_channels=1, size=8)


class FlexVQTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("flex_vq", scales=(1, 2, 3, 4), latents=(2, 4), **SIZES)
    cls.image = jax.random.randint(jax.random.key(0), (2, 8, 8, 1), 0, 256)
    cls.image = cls.image.astype(jnp.uint8)
    cls.variables = filled.variables(cls.system, batch={"image": cls.image})
    cls.params = {"params": cls.variables["params"]["tokenizer"]}
    cls.x = cls.image.astype(jnp.float32) / 127.5 - 1

  def test_maps_do_not_depend_on_each_other(self):
    @jax.jit
    def encode(params, x):
      own = self.system.tokenizer
      lists = own, own.clone(scales=(1, 3, 4))
      return [codes.apply(params, x, method="encode") for codes in lists]

    whole, less = encode(self.params, self.x)
    np.testing.assert_array_equal(less[:, 1:], whole[:, 5:])
    # The residual maps of VAR do.
    latent = jax.random.normal(jax.random.key(2), (2, 4, 4, 4))
    residual = lambda scales: MultiScaleResidual(32, 4, scales, spread=0.5)
    draw = np.random.default_rng(0)
    shapes = dict(codebook=(32, 4), phi_kernel=(4, 3, 3, 4, 4), phi_bias=(4, 4))
    normal = lambda shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
    theirs = {"params": {k: normal(v) for k, v in shapes.items()}}
    units = jax.jit(
      lambda latent: [
        residual(scales).apply(theirs, latent, method="encode")[0]
        for scales in ((1, 3, 4), (1, 2, 3, 4))
      ]
    )
    less, whole = units(latent)
    moved = less[:, 1:] != whole[:, 5:]
    self.assertGreater(float(moved.mean()), 0.2)

  def test_same_parameters_as_the_plain_tokenizer(self):
    plain = VQ(**SIZES)
    want = jax.eval_shape(plain.init, jax.random.key(0), self.x)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shapes(want), shapes(self.params))

  def test_training_decodes_the_size_that_the_step_draws(self):
    @jax.jit
    def loss(key):
      return self.system.loss(
        self.variables, {"image": self.image}, key, train=True
      ).metrics

    body = self.system.tokenizer.body.bind(self.params)

    @jax.jit
    def want():
      latent = resize(body.latent(self.x), (2, 2), "area")
      codes, losses, _ = body.quantizer(latent)
      image, _ = body.decoder(body.post_quant_conv(codes))
      target = resize(self.x, image.shape[1:3], "area")
      return jnp.square(image - target).mean((1, 2, 3)), losses["commit_loss"]

    pixel, commit = want()
    found = [loss(jax.random.key(seed)) for seed in range(8)]
    same = [np.allclose(one["pixel"], pixel, rtol=1e-4) for one in found]
    self.assertBetween(sum(same), 1, 7)
    at = found[same.index(True)]
    np.testing.assert_allclose(at["commit_loss"], commit, rtol=1e-4)
    # All others are of the one other size.
    others = [one["pixel"] for one, s in zip(found, same, strict=True) if not s]
    np.testing.assert_array_equal(np.ptp(others, 0), 0)

  def test_decodes_any_size(self):
    codes = self.system.tokenizer.clone(scales=(1, (3, 5)))
    shape = jax.eval_shape(
      lambda units: codes.apply(self.params, units, method="decode"),
      jnp.zeros((2, 16), jnp.int32),
    ).shape
    self.assertEqual(shape, (2, 6, 10, 1))

  def test_no_weight_that_adapts(self):
    with self.assertRaisesRegex(UserError, "gan_adaptive"):
      build("flex_vq", gan_weight=1.0, gan_adaptive=True, **SIZES)


if __name__ == "__main__":
  absltest.main()
