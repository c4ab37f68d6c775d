"""Every notebook runs from top to bottom, at the size of a smoke test.

One goes through a Jupyter kernel, as all of them do on Colab. Of the others the
code cells run here, one after the other, where what other tests have compiled
and imported is at hand.
"""

import logging
import os
import pathlib
import sys
import tempfile
from unittest import mock

import nbclient
import nbformat
from absl.testing import absltest, parameterized

# Found here and not in the folder of a notebook, which is gone when the next
# one begins.
import ar_jax  # noqa: F401
import configs  # noqa: F401

ROOT = pathlib.Path(__file__).parents[1]
KERNEL = "quickstart.ipynb"
OTHERS = sorted(
  p.stem for p in (ROOT / "colab").glob("*.ipynb") if p.name != KERNEL
)


class NotebooksTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    # A folder in which a notebook finds the library, and leaves its runs.
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    for name in ("ar_jax", "configs"):
      os.symlink(ROOT / name, self.folder / name)
    self.enterContext(
      mock.patch.dict(
        os.environ,
        AR_JAX_PRESET="smoke",
        JAX_PLATFORMS="cpu",
        IPYTHONDIR=folder,
        PYTHONPATH=str(ROOT),
      )
    )

  def test_in_a_kernel(self):
    notebook = nbformat.read(ROOT / "colab" / KERNEL, as_version=4)
    nbclient.NotebookClient(
      notebook, timeout=600, resources={"metadata": {"path": str(self.folder)}}
    ).execute()
    self.assertTrue((self.folder / "runs/colab/report.json").exists())

  @parameterized.named_parameters(*[(name, name) for name in OTHERS])
  def test_cells_of(self, name):
    path = ROOT / "colab" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    log = logging.getLogger("ar_jax")
    self.enterContext(mock.patch.multiple(log, handlers=[], propagate=True))
    self.enterContext(mock.patch.object(sys, "path", list(sys.path)))
    before = pathlib.Path.cwd()
    self.addCleanup(os.chdir, before)
    os.chdir(self.folder)
    known = {"__name__": "__main__"}
    for i, cell in enumerate(notebook.cells):
      if cell.cell_type == "code":
        self.assertEqual(cell.outputs, [], "clear the outputs")
        exec(compile(cell.source, f"{path}[{i}]", "exec"), known)
    runs = pathlib.Path("runs", name)
    self.assertTrue(any(runs.rglob("config.json")))


if __name__ == "__main__":
  absltest.main()
