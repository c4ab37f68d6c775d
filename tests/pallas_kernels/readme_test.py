"""The examples of the README run as they stand."""

import pathlib
import re

from absl.testing import absltest, parameterized

import pallas_kernels

README = pathlib.Path(pallas_kernels.__file__).parent / "README.md"


class ReadmeTest(parameterized.TestCase):
  def test_examples(self):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    after = []
    for example in examples:
      after.append({})
      exec(example, after[-1])
    attention, verification, lookup = after
    self.assertEqual(attention["out"].shape, (2, 30, 4, 64))
    self.assertEqual(attention["lse"].shape, (2, 4, 30))
    self.assertEqual(verification["emitted"].shape, (8,))
    self.assertTrue((verification["emitted"] >= 1).all())
    self.assertEqual(lookup["ids"].shape, (64, 16))


if __name__ == "__main__":
  absltest.main()
