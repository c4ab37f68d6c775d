"""Who may import whom, as docs/architecture says it; and how fast."""

import ast
import pathlib
import subprocess
import sys

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ar_jax"

# A room may import rooms of a lower floor, and its own.
FLOORS = {
  "core": 0,
  "files": 1,
  "ops": 1,
  "nn": 2,
  "tokenizers": 3,
  "encoders": 3,
  "families": 4,
  "systems": 5,
}
LIBRARY = set(FLOORS)
# Outside libraries that only one room may import.
ONLY = {
  "orbax": {"checkpoint"},
  "tensorflow_datasets": {"data"},
  "grain": {"data"},
  "tensorboardX": {"metrics"},
  "wandb": {"wandb_board"},
}


def imports():
  """(file, room, imported dotted name) of every import in the package."""
  for path in sorted(PACKAGE.rglob("*.py")):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names = [a.name for a in node.names]
      elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}: relative import"
        names = [f"{node.module}.{a.name}" for a in node.names]
      else:
        continue
      for name in names:
        yield path.relative_to(ROOT), room, name


class ImportsTest(absltest.TestCase):
  def test_floors(self):
    for path, room, name in imports():
      parts = name.split(".")
      if parts[0] != "ar_jax" or len(parts) < 2 or room not in LIBRARY:
        continue
      other = parts[1]
      with self.subTest(f"{path} imports {name}"):
        self.assertIn(other, LIBRARY, "the library imports no mode")
        self.assertLessEqual(FLOORS[other], FLOORS[room])

  def test_systems_do_not_import_each_other(self):
    for path, room, name in imports():
      if room == "systems":
        self.assertNotStartsWith(name, "ar_jax.systems.", str(path))

  def test_core_is_jax_and_numpy_only(self):
    allowed = {"jax", "numpy", "ar_jax"} | sys.stdlib_module_names
    for path, room, name in imports():
      if room == "core":
        self.assertIn(name.split(".")[0], allowed, str(path))

  def test_one_door_to_each_outside_library(self):
    for path, room, name in imports():
      rooms = ONLY.get(name.split(".")[0])
      if rooms:
        self.assertIn(room, rooms, f"{path} imports {name}")

  def test_only_parallel_names_mesh_axes(self):
    for path in sorted(PACKAGE.rglob("*.py")):
      if path.name != "parallel.py":
        text = path.read_text()
        for word in ("PartitionSpec", '"fsdp"', '"tensor"'):
          self.assertNotIn(word, text, str(path))

  def test_import_is_quick(self):
    code = (
      "import time; t = time.process_time(); import ar_jax; "
      "print(time.process_time() - t)"
    )
    run = lambda: subprocess.run(
      [sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT
    )
    # Seconds of our process: the promise is not about a busy machine.
    self.assertLess(min(float(run().stdout) for _ in range(3)), 2.0)


if __name__ == "__main__":
  absltest.main()
