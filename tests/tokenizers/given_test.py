"""Tokenizers whose units are the data."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core import forms, system
from ar_jax.core.system import UserError, build

RNG = np.random.default_rng(0)
CODES = dict(name="patch_codes", vocab=16, patch=2, size=4)
CASES = {
  "tokens": (dict(vocab=9, length=5), "text", RNG.integers(1, 9, (2, 5))),
  "levels": (
    dict(levels=256, size=4, in_channels=1),
    "image",
    RNG.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8),
  ),
  "series": (
    dict(length=5, channels=2, shift=3.0, scale=0.5),
    "series",
    RNG.normal(size=(2, 5, 2)).astype(np.float32),
  ),
}


class GivenTest(parameterized.TestCase):
  @parameterized.parameters(*CASES)
  def test_what_comes_back_is_what_was_given(self, form):
    options, field, x = CASES[form]
    given = build("given", form=form, **options)
    self.assertEqual((given.needs, given.makes), ((field,), (field,)))
    batch = {field: jnp.asarray(x)}
    variables = given.init(jax.random.key(0), batch)
    self.assertEmpty(jax.tree.leaves(variables))
    loss = given.loss(variables, batch, jax.random.key(0), train=False)
    np.testing.assert_allclose(loss.value, [0, 0], atol=1e-10)
    keys = jax.random.split(jax.random.key(0), 2)
    got = given.sample(variables, batch, keys)
    stored = forms.named(field).stored(np.asarray(got))
    np.testing.assert_allclose(stored, x, atol=1e-6)
    codec = given.tokenizer
    self.assertEqual(codec.example().shape[1:], x.shape[1:])
    units = codec.encode(forms.raw(jnp.asarray(x)))
    self.assertEqual(units.shape[:2], (2, codec.length))

  def test_behind_the_end_there_is_nothing(self):
    tokens = build("given", vocab=9, length=5, stop=2).tokenizer
    got = tokens.decode(jnp.array([[1, 2, 3, 4, 2], [5, 6, 7, 8, 1]]))
    np.testing.assert_array_equal(got, [[1, 2, 2, 2, 2], [5, 6, 7, 8, 1]])

  def test_cells_of_levels(self):
    codec = build("given", form="levels", levels=2, size=4, patch=2).tokenizer
    self.assertEqual((codec.vocab, codec.grid, codec.length), (16, (2, 2), 4))
    image = jnp.where(jnp.arange(16).reshape(1, 4, 4, 1) % 3 > 0, 0.9, -0.7)
    units = codec.encode(image)
    # Pixels 0, 1, 4, 5 make the first cell, the first of them counts least.
    self.assertEqual(units[0, 0], 0 + 2 + 4 + 8)
    np.testing.assert_array_equal(codec.decode(units), jnp.sign(image))
    book = np.asarray(codec.codebook())
    np.testing.assert_array_equal(book[units[0, 0]], [-1, 1, 1, 1])
    part = np.asarray(codec.decode_part(units, 3))
    np.testing.assert_array_equal(part[0, 2:, 2:], 0)
    np.testing.assert_array_equal(part[0, :2], np.sign(image)[0, :2])

  def test_frames_are_coded_one_by_one(self):
    video_codes = build("given", form="frames", frames=3, tokenizer=CODES)
    alone = system.part(CODES)
    video = jnp.asarray(RNG.integers(0, 256, (2, 3, 4, 4, 1)), jnp.uint8)
    variables = video_codes.init(jax.random.key(0), {})
    # The weights are those of the tokenizer of images.
    want = alone.init(jax.random.key(0), {"image": video[:, 0]})
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shapes(variables), shapes(want))
    own = {"params": variables["params"]["tokenizer"]}
    codec, one = video_codes.tokenizer.bind(own), alone.tokenizer.bind(own)
    self.assertEqual((codec.grid, codec.length, codec.vocab), ((6, 2), 12, 16))
    raw = forms.raw(video)
    units = codec.encode(raw)
    back = codec.decode(units)
    for t in range(3):
      own = one.encode(raw[:, t])
      np.testing.assert_array_equal(units[:, 4 * t : 4 * t + 4], own)
      np.testing.assert_array_equal(back[:, t], one.decode(own))
    with self.assertRaisesRegex(UserError, "takes 3 frames"):
      codec.encode(raw[:, :2])

  @parameterized.parameters(
    (dict(form="words"), "tokens, levels, pixels, series, frames"),
    (dict(vocab=3), "say length"),
    (dict(form="frames"), "say frames and tokenizer"),
    (dict(vocab=3, length=2, stop=3), "stop=3"),
    (dict(form="levels", size=5, patch=2), "multiple of patch=2"),
    (dict(form="levels", levels=256, patch=2), "4294967296 codes"),
  )
  def test_mistakes(self, options, message):
    with self.assertRaisesRegex(UserError, message):
      build("given", **options)

  def test_data_of_another_shape(self):
    for form, wrong, message in (
      ("tokens", jnp.zeros((1, 4), jnp.int32), "takes 5 ids"),
      ("tokens", jnp.zeros((1, 5)), "float32 of shape"),
      ("series", jnp.zeros((1, 5, 3)), r"\(5, 2\)"),
    ):
      tokenizer = build("given", form=form, **CASES[form][0]).tokenizer
      with self.assertRaisesRegex(UserError, message):
        tokenizer.encode(wrong)


if __name__ == "__main__":
  absltest.main()
