"""What a person may set: every argument of every system, and no other."""

import importlib
import inspect
import pkgutil

from absl.testing import absltest

from ar_jax import encoders, systems, tokenizers
from ar_jax.core import system
from ar_jax.core.errors import UserError


def names():
  """Every module with a `build`, of systems, tokenizers and encoders."""
  for package in (systems, tokenizers, encoders):
    for module in pkgutil.iter_modules(package.__path__):
      path = f"{package.__name__}.{module.name}"
      if hasattr(importlib.import_module(path), "build"):
        yield module.name, importlib.import_module(path).build


class ArgumentsTest(absltest.TestCase):
  def test_what_is_passed_on_is_known(self):
    for name, build in names():
      with self.subTest(name):
        kinds = {p.kind for p in inspect.signature(build).parameters.values()}
        passes = inspect.Parameter.VAR_KEYWORD in kinds
        self.assertEqual(passes, hasattr(build, "rest"))
        self.assertNotEmpty(system.arguments(name))

  def test_own_defaults_count(self):
    llamagen, flowar = map(system.arguments, ("llamagen", "flowar"))
    self.assertIs(llamagen["tokenizer"], system.REQUIRED)
    self.assertEqual(llamagen["multiple_of"], 256)
    self.assertNotIn("out_norm", llamagen)  # of the code, not of a config
    self.assertEqual(flowar["dropout"], 0.0)
    self.assertEqual(system.arguments("xar")["dropout"], 0.1)
    # Through two others.
    self.assertIn("qk_norm", system.arguments("nfig"))
    self.assertIn("gan_weight", system.arguments("frequency_vq"))

  def test_bad_arguments(self):
    with self.assertRaisesRegex(UserError, "'voc'; did you mean 'vocab'"):
      system.build("vq", voc=2)
    sizes = dict(depth=1, width=8, heads=2, num_classes=2)
    with self.assertRaisesRegex(UserError, "'dropuot'; did you mean 'dropout'"):
      system.build("llamagen", tokenizer={"name": "vq"}, dropuot=0.0, **sizes)
    with self.assertRaisesRegex(UserError, "no ar_jax/systems/nothing.py"):
      system.arguments("nothing")
    with self.assertRaisesRegex(UserError, r"needs a name.*\['vocab'\]"):
      system.part({"vocab": 2})


if __name__ == "__main__":
  absltest.main()
