"""Every notebook runs from top to bottom, at the size of a smoke test."""

import os
import pathlib
import tempfile

import nbclient
import nbformat
from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted(p.name for p in (ROOT / "colab").glob("*.ipynb"))


class NotebooksTest(parameterized.TestCase):
  @parameterized.parameters(*[(name,) for name in NOTEBOOKS])
  def test_runs(self, name):
    notebook = nbformat.read(ROOT / "colab" / name, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
      env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": folder,
        "AR_JAX_PRESET": "smoke",
      }
      before = dict(os.environ)
      os.environ.update(env)
      try:
        # In the notebook's folder `root` is found from above; results go to
        # a folder of ours.
        os.symlink(ROOT / "ar_jax", pathlib.Path(folder) / "ar_jax")
        os.symlink(ROOT / "configs", pathlib.Path(folder) / "configs")
        nbclient.NotebookClient(
          notebook,
          timeout=600,
          resources={"metadata": {"path": folder}},
        ).execute()
      finally:
        os.environ.clear()
        os.environ.update(before)
      self.assertTrue(
        (pathlib.Path(folder) / "runs/colab/report.json").exists()
      )


if __name__ == "__main__":
  absltest.main()
