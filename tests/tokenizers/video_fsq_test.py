"""The tokenizer of videos; official numbers in convert/video_fsq_test.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data, evals
from ar_jax.core.system import UserError, build
from tests import filled, smoke

KEY = jax.random.key(0)


class VideoFsqTest(parameterized.TestCase):
  def test_every_code(self):
    system = build("video_fsq", ch=4, blocks=(1, 1, 1, 1))
    fsq = system.tokenizer.quantizer
    self.assertEqual(fsq.vocab, 64_000)
    every = jnp.arange(64_000)

    @jax.jit
    def run():
      codes = fsq.embed(every)
      # A latent whose bounded value is the code itself: on the grid.
      levels = np.asarray(fsq.quantizer.levels)
      half = (levels - 1) * (1 - 1e-3) / 2
      offset = np.where(levels % 2 == 0, 0.5, 0.0)
      shift = np.tan(offset / half)
      whole = codes * (levels // 2)[None]
      inside = (whole + offset[None]) / half[None]
      z = jnp.arctanh(jnp.clip(inside, -0.999999, 0.999999)) - shift[None]
      again, _, _ = fsq.quantizer(z)
      return codes, fsq.encode(z), again

    codes, found, again = run()
    np.testing.assert_array_equal(found, every)
    np.testing.assert_allclose(again, codes, atol=1e-6)
    self.assertLen(np.unique(np.asarray(codes), axis=0), 64_000)
    self.assertEqual(math.prod(system.tokenizer.volume), 1280)

  def test_no_frame_knows_of_later_ones(self):
    c = smoke.config("video_fsq")
    system = build(c.system, **c.model.to_dict())
    tokenizer, video = system.tokenizer, np.zeros((1, 3, 4, 4, 1), np.uint8)
    params = filled.variables(system, batch={"video": video})["params"]
    bound = tokenizer.bind({"params": params["tokenizer"]})
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 4, 1))
    other = np.concatenate([x[:, :1], -x[:, 1:]], 1)
    latent = jax.jit(bound.latent)
    a, b = latent(np.float32(x)), latent(np.float32(other))
    np.testing.assert_array_equal(a[:, 0], b[:, 0])
    self.assertGreater(np.abs(a[:, 1] - b[:, 1]).max(), 1e-3)
    with self.assertRaisesRegex(UserError, "codes the first frame and then 2"):
      tokenizer.maps(2)
    with self.assertRaisesRegex(UserError, "takes 3 frames"):
      bound.latent(jnp.zeros((1, 2, 4, 4, 1)))

  def test_training_sees_frames(self):
    """The adversary too, whatever it has; what is said is of each video."""
    c = smoke.config("video_fsq")
    gan = dict(gan_weight=0.1, gan_adaptive=True, gan_lecam=0.1, gan_layers=1)
    system = build(c.system, **c.model.to_dict() | dict(size=8), **gan)
    video = jax.ShapeDtypeStruct((2, 3, 8, 8, 1), jnp.uint8)
    step = jax.ShapeDtypeStruct((2,), jnp.int32)
    batch = {"video": video, "step": step}
    variables = jax.eval_shape(lambda: system.init(KEY, batch))
    ask = lambda v, b: system.loss(v, b, KEY, train=True)
    loss = jax.eval_shape(ask, variables, batch)
    self.assertEqual({x.shape for x in loss.metrics.values()}, {(2,)})
    self.assertEqual(loss.value.shape, (2,))
    self.assertContainsSubset({"psnr", "gan_g", "gan_d"}, loss.metrics)
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 4, 1)))
    (weight, error) = system._reconstruction_terms({}, x, 0 * x)["pixel"]
    np.testing.assert_allclose(
      error, jnp.square(x).mean((1, 2, 3, 4)), rtol=1e-5
    )

  def test_reconstructions_are_measured(self):
    clips = data.load("clips", size=4, frames=3, source="fake", length=64)
    judge = evals.build("reconstruction", clips)
    perfect = Same()
    batches = data.epoch(clips.test, batch=4)
    found = judge(perfect, {}, batches, KEY)
    self.assertAlmostEqual(found["psnr"], 100.0, places=3)
    self.assertEqual(found["protocol"]["images"], 3 * len(clips.test))
    with self.assertRaisesRegex(UserError, "say features=''"):
      evals.build("reconstruction", clips, features="judge")

  @parameterized.parameters(
    (dict(blocks=(1, 1)), "a number of both for each level"),
    (dict(strides=((1, 2, 2), (2, 2, 2), (2, 2, 1))), "the last two alike"),
    (dict(size=20), "not a multiple of stride 8"),
    (dict(frames=16), "codes the first frame and then 4"),
  )
  def test_one_line_of_what_is_wrong(self, model, message):
    with self.assertRaisesRegex(UserError, message):
      build("video_fsq", **model)


class Same:
  """In place of a tokenizer that loses nothing."""

  makes, needs = ("video",), ("video",)

  def sample(self, variables, cond, keys):
    return cond["video"] / 255.0


if __name__ == "__main__":
  absltest.main()
