"""What a wheel puts into site-packages, and that it works from any folder."""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]


class PackagingTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.folder = pathlib.Path(folder)
    cls.place = cls.folder / "lib"
    subprocess.run(
      [sys.executable, "setup.py", "-q", "build",
       f"--build-base={folder}/base", f"--build-lib={cls.place}"],
      cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip

  def test_names(self):
    self.assertEqual(
      sorted(p.name for p in self.place.iterdir()),
      ["ar_jax", "pallas_kernels"],
    )
    self.assertTrue((self.place / "ar_jax/py.typed").exists())
    ours = {p.relative_to(ROOT) for p in (ROOT / "configs").rglob("*.py")}
    there = self.place / "ar_jax"
    shipped = (there / "configs").rglob("*.py")
    self.assertEqual({p.relative_to(there) for p in shipped}, ours)

  def test_every_module_is_there(self):
    for package in ("ar_jax", "pallas_kernels"):
      ours = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*.py")}
      shipped = (self.place / package).rglob("*.py")
      there = {p.relative_to(self.place) for p in shipped}
      self.assertEqual(ours - there, set())

  def test_a_config_by_name_far_from_the_repository(self):
    # A package of the same name in the way, as other people have them.
    other = self.folder / "configs"
    other.mkdir()
    (other / "__init__.py").write_text("")
    (other / "common.py").write_text("raise ImportError('not ours')")
    ran = subprocess.run(
      [sys.executable, "-m", "ar_jax.main", "--list", "--config=var:smoke"],
      cwd=self.folder,
      env={
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(self.place),
      },
      capture_output=True,
      text=True,
    )
    self.assertEqual(ran.returncode, 0, ran.stderr)
    self.assertIn("--config.model.depth=2", ran.stdout)


if __name__ == "__main__":
  absltest.main()
