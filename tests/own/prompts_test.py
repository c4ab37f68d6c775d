"""A file of texts that samples are asked for by, or begin with."""

import importlib
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data as sets
from ar_jax import own
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.own import prompts


def loaded(name, preset="smoke"):
  config = importlib.import_module(f"configs.{name}").get_config(preset)
  system = build(config.system, **config.model.to_dict())
  return config, system, sets.load(**config.data)


class PromptsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.file = pathlib.Path(folder, "prompts.txt")

  def asked(self, config, system, data, text):
    self.file.write_text(text, "utf-8")
    config.sample.prompts = str(self.file)
    own.check(system, config)
    called = own.names(system, config)
    n = own.count(config, called)
    return called, own.asked(system, data, n, config)

  def test_images_of_each_line(self):
    config, system, data = loaded("llamagen_text")
    config.sample.update(count=3, prompt="", prompts="")
    text = "\ufeffclass 1\n\n  class 2  \r\nred\nblue\n"
    called, cond = self.asked(config, system, data, text)
    self.assertEqual(called, ["class 1", "class 2", "red", "blue"])
    read = data.forms["text"].read
    self.assertEqual([read(row) for row in cond["text"]], called)  # each once
    config.sample.count = 6
    _, cond = self.asked(config, system, data, text)
    again = [read(row) for row in cond["text"]]
    self.assertEqual(again, [*called, *called[:2]])

  def test_texts_that_begin_with_each_line(self):
    config, system, data = loaded("llamagen", "smoke_text")
    first = data.forms["text"].symbols[2]
    config.sample.count = 2
    _, cond = self.asked(config, system, data, f"{first}\n{first * 3}\n")
    np.testing.assert_array_equal(cond["known"], [1, 3])
    np.testing.assert_array_equal(cond["prompt"], [[2, 0, 0], [2, 2, 2]])

  def test_mistakes(self):
    config, system, data = loaded("janus")
    for text, message in (
      ("\n \n", "holds no text"),
      ("three\na sevn\n", "sample.prompts=.*'sevn' is not among"),
    ):
      with self.assertRaisesRegex(UserError, message):
        self.asked(config, system, data, text)
    config.sample.prompts = str(self.file) + "x"
    with self.assertRaisesRegex(UserError, "no such file; name a file"):
      own.check(system, config)
    config.sample.update(prompt="three", prompts=str(self.file))
    with self.assertRaisesRegex(UserError, "leave one of them"):
      own.check(system, config)
    other, reads_nothing, of = loaded("var")
    other.sample.prompts = str(self.file)
    with self.assertRaisesRegex(UserError, "reads label.*cannot go on with a"):
      prompts.asked(reads_nothing, of, 1, other)


if __name__ == "__main__":
  absltest.main()
