"""The kernels are useful on their own: they import jax and numpy only."""

import ast
import pathlib
import sys

from absl.testing import absltest

import pallas_kernels

ROOT = pathlib.Path(pallas_kernels.__file__).parent


class ImportsTest(absltest.TestCase):
  def test_jax_and_numpy_only(self):
    allowed = {"jax", "numpy", "pallas_kernels"} | sys.stdlib_module_names
    for path in sorted(ROOT.rglob("*.py")):
      for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
          names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
          names = [node.module]
        for name in names:
          self.assertIn(name.split(".")[0], allowed, str(path))


if __name__ == "__main__":
  absltest.main()
