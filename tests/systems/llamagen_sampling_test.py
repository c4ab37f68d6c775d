"""How LlamaGen draws: by its law, in ragged batches, step by step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick, programs, steps
from ar_jax.core.system import UserError
from tests.systems.llamagen_models import (
  KEYS,
  generate,
  golden,
  logits,
  texts,
)


class SampleTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, _, _ = golden()
    cls.cond = {"label": jnp.array([3, 7, 0, 9])}
    cls.options = dict(guidance=2.0, top_k=40, top_p=0.9, min_p=0.01)
    cls.four = cls.generate(cls, cls.cond, KEYS, **cls.options)

  def generate(self, cond, keys, **options):
    return generate(self.system, self.variables, cond, keys, **options)

  def test_samples_do_not_depend_on_the_batch(self):
    self.assertEqual(self.four.shape, (4, 16))
    rows = slice(2, 4)
    half = {"label": self.cond["label"][rows]}
    got = self.generate(half, KEYS[rows], **self.options)
    np.testing.assert_array_equal(got, self.four[rows])
    self.assertGreater(np.mean(self.four[:2] != self.four[2:]), 0.3)

  def test_the_law_of_every_unit_is_that_of_the_whole_pass(self):
    label, options = self.cond["label"], dict(self.options)
    hidden = jnp.ones(4, bool)
    args = self.system, self.variables, label, self.four
    guided = pick.guide(logits(*args), logits(*args, hidden), 2.0)
    del options["guidance"]
    logp = pick.law(guided, **options)
    drawn = [pick.draw(logp[:, s], steps.fold(KEYS, s)) for s in range(16)]
    np.testing.assert_array_equal(self.four, jnp.stack(drawn, 1))

  def test_a_ragged_batch_goes_on_as_each_row_alone(self):
    known = jnp.array([5, 0, 9, 3])
    cond = self.cond | {"prompt": self.four[:, :9], "known": known}
    # What follows a prompt that was drawn is what was drawn.
    got = self.generate(cond, KEYS, **self.options)
    np.testing.assert_array_equal(got, self.four)
    # And units behind `known` are not looked at.
    place = jnp.arange(9)[None] >= known[:, None]
    cond["prompt"] = jnp.where(place, 0, cond["prompt"])
    got = self.generate(cond, KEYS, **self.options)
    np.testing.assert_array_equal(got, self.four)

  def test_texts_of_different_lengths(self):
    system, variables, words = texts()
    options = dict(guidance=2.0)
    all_four = generate(system, variables, {"text": words}, KEYS, **options)
    # A text alone, without the room that the longest one needs.
    alone = generate(
      system, variables, {"text": words[1:2, :3]}, KEYS[1:2], **options
    )
    np.testing.assert_array_equal(alone, all_four[1:2])

  def test_guidance_that_stops(self):
    options = dict(temperature=0.0)
    stop = self.generate(self.cond, KEYS, guidance=3.0, stop=5, **options)
    on = self.generate(self.cond, KEYS, guidance=3.0, **options)
    np.testing.assert_array_equal(stop[:, :5], on[:, :5])
    cond = self.cond | {"prompt": stop[:, :5], "known": jnp.full(4, 5)}
    off = self.generate(cond, KEYS, **options)
    np.testing.assert_array_equal(stop, off)
    never = self.generate(self.cond, KEYS, guidance=3.0, stop=0, **options)
    np.testing.assert_array_equal(
      never, self.generate(self.cond, KEYS, **options)
    )

  def test_stream_shows_what_sample_draws(self):
    counts = lambda: (
      programs._begin._cache_size(),
      programs._advance._cache_size(),
    )
    before, cond = counts(), self.cond
    for start in (0, 1):
      cond = {"label": jnp.roll(cond["label"], start)}
      shown = list(
        self.system.stream(self.variables, cond, KEYS, every=6, **self.options)
      )
    # Two programs, however often it is called.
    self.assertEqual([b - a for a, b in zip(before, counts(), strict=True)],
                     [1, 1])  # fmt: skip
    self.assertLen(shown, 3)  # after 6, 12 and 16 units
    image = jax.jit(functools.partial(self.system.sample, **self.options))(
      self.variables, cond, KEYS
    )
    np.testing.assert_allclose(shown[-1], image, atol=1e-5)
    # Six units are one row and a half of four; the rest is grey.
    np.testing.assert_array_equal(shown[0][:, 4:], 0.5)
    np.testing.assert_array_equal(shown[0][:, 2:4, 4:], 0.5)
    self.assertGreater(shown[0][:, :2].std(), 0)

  def test_images_are_brought_to_a_size(self):
    image = jax.eval_shape(
      functools.partial(self.system.sample, size=5),
      self.variables,
      self.cond,
      KEYS,
    )
    self.assertEqual(image.shape, (4, 5, 5, 3))

  @parameterized.parameters(
    (dict(top_k=65), "top_k=65"),
    (dict(guidance=-1.0), "guidance=-1.0"),
    (dict(schedule="steep"), "schedule='steep'"),
    (dict(guidance=2.0, stop=17), "stop=17"),
  )
  def test_bad_options(self, options, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      self.generate(self.cond, KEYS, **options)
    self.assertNotIn("\n", str(caught.exception))

  def test_bad_requests(self):
    prompt = dict(prompt=jnp.zeros((4, 16), int), known=jnp.zeros(4, int))
    with self.assertRaisesRegex(UserError, "prompt of 16 units"):
      self.generate(self.cond | prompt, KEYS)
    plain = dataclasses.replace(self.system, label_dropout=0.0)
    with self.assertRaisesRegex(UserError, "no null class"):
      plain.program(guidance=2.0)
    system, variables, words = texts()
    wide = jnp.pad(words, ((0, 0), (0, 1)))
    with self.assertRaisesRegex(UserError, "text of 7 positions"):
      generate(system, variables, {"text": wide}, KEYS)
    cache = self.system.net.backbone.cache(1, 3, 128)
    with self.assertRaisesRegex(UserError, "3 rows cannot hold 4"):
      cache.extend(0, *jnp.zeros((2, 1, 4, 4, 32)))


if __name__ == "__main__":
  absltest.main()
