"""LlamaGen without a condition, over the symbols of a text."""

import pathlib

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import conditions, data, step
from ar_jax.command import checks
from ar_jax.core.system import UserError, build
from configs import llamagen
from tests import filled


class LanguageModelTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.config = llamagen.get_config("smoke_text")
    cls.system = build("llamagen", **cls.config.model.to_dict())
    cls.data = data.load(**cls.config.data)

  def test_texts_begin_with_the_prompt(self):
    variables = filled.variables(self.system)
    cond = conditions.conditions(self.system, self.data, 5)
    cond |= conditions.prompted(self.system, self.data, 5, "abca")
    drawn = step.draw(
      self.system, variables, cond, jax.random.key(0), batch=5,
      options=self.config.sample.options.to_dict(),
    )["text"]  # fmt: skip
    form = self.data.forms["text"]
    form.check(drawn)
    texts = [form.read(ids) for ids in drawn]
    self.assertTrue(all(text.startswith("abca") for text in texts), texts)
    self.assertGreater(len(set(texts)), 1)

  def test_mistakes(self):
    for text, message in (
      ("abx", "'x' is not among the 5 symbols"),
      ("a" * 12, "prompt of 12 units: an example has 12"),
    ):
      with self.assertRaisesRegex(UserError, message):
        cond = conditions.prompted(self.system, self.data, 2, text)
        keys = jax.random.split(jax.random.key(0), 2)
        jax.eval_shape(
          lambda keys, cond=cond: self.system.sample(
            filled.variables(self.system), cond, keys
          ),
          keys,
        )
    images = llamagen.get_config("smoke")
    system = build("llamagen", **images.model.to_dict())
    with self.assertRaisesRegex(UserError, "makes image, and cannot go on"):
      conditions.prompted(system, data.load(**images.data), 1, "a")

  def test_a_model_has_the_symbols_of_the_data(self):
    stage = checks.Stage(
      "", "train", self.config, pathlib.Path("run"), pathlib.Path("run")
    )
    checks.symbols(stage, self.system, self.data)
    more = data.load("markov_text", symbols=6, count=8)
    with self.assertRaisesRegex(UserError, r"tokenizer\.vocab=7$"):
      checks.symbols(stage, self.system, more)
    self.assertEqual(np.shape(self.data.train[0]["text"]), (12,))


if __name__ == "__main__":
  absltest.main()
