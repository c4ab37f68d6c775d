"""The README, followed word by word: its commands, as far as they fit here."""

import contextlib
import io
import os
import pathlib
import re
import shlex
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax.convert import __main__ as convert
from tests.commands import call

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def commands() -> list[list[str]]:
  """The words of every `python -m ...` that is no synopsis."""
  lines = re.findall(r"^    (.*)$", README.replace("\\\n", ""), re.M)
  parts = [part.strip() for line in lines for part in line.split("&&")]
  return [
    shlex.split(part)
    for part in parts
    if part.startswith("python -m") and "[" not in part
  ]


class ReadmeTest(absltest.TestCase):
  def test_from_nothing_to_images_in_python(self):
    (words,) = [w for w in commands() if "configs/quickstart.py" in " ".join(w)]
    self.assertEqual(words[:3], ["python", "-m", "ar_jax.main"])
    with tempfile.TemporaryDirectory() as folder:
      run = pathlib.Path(folder) / "quickstart"
      # The same stages, on fake data of three classes.
      code, lines = call(f"{words[3]}:smoke", f"--workdir={run}")
      self.assertEqual(code, 0, "\n".join(lines[-5:]))
      for name in ("samples.png", "samples.npz", "report.json"):
        self.assertIn(f"`{name}`", README)
        self.assertTrue((run / name).exists(), name)
      (three,) = re.findall(r"```python\n(.*?)```", README, re.S)
      three = three.replace("runs/quickstart", str(run)).replace("3, 8", "1, 2")
      said = {}
      exec(three, said)  # noqa: S102
      images = said["images"]
      self.assertEqual(images.dtype, np.uint8)
      self.assertEqual((len(images), images.shape[-1]), (2, 1))
      # The run alone is needed to draw again.
      code, lines = call(f"--workdir={run / 'generator'}", "--mode=sample")
      self.assertEqual(code, 0, "\n".join(lines[-5:]))
      self.assertIn("samples", lines[-1])

  def test_conversions_lack_their_files_alone(self):
    found = [w for w in commands() if w[2] == "ar_jax.convert"]
    self.assertNotEmpty(found)
    with tempfile.TemporaryDirectory() as folder:
      here = os.getcwd()
      os.chdir(folder)
      try:
        for words in found:
          said = io.StringIO()
          with contextlib.redirect_stderr(said):
            self.assertEqual(convert.main(words[3:]), 1)
          self.assertRegex(said.getvalue(), rf"^error: .*{words[3]}.*\n$")
      finally:
        os.chdir(here)


if __name__ == "__main__":
  absltest.main()
