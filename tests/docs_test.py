"""The pages: those that are written are up to date, what they point to is
there, and the example system runs."""

import importlib
import importlib.util
import pathlib
import re
import subprocess

import jax
import numpy as np
from absl.testing import absltest
from PIL import Image

from experiments import report
from experiments.shared import catalog, markdown, pictures, records

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
CONFIG = re.compile(r"--config=(configs/\w+\.py)(?::(\w+))?")
MODULE = re.compile(r"python3? -m ((?:ar_jax|experiments|tests)[\w.]*)")


def tracked(*patterns: str) -> list[pathlib.Path]:
  listed = subprocess.run(
    ["git", "ls-files", *patterns],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  ).stdout
  found = [ROOT / line for line in listed.splitlines()]
  return [path for path in found if path.exists()]


def pages() -> list[pathlib.Path]:
  docs = (ROOT / "docs").rglob("*.md")
  return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def _exists(name: str) -> bool:
  """Whether a dotted name is a module, or something in one."""
  parts = name.rstrip(".").split(".")
  for cut in range(len(parts), 0, -1):
    try:
      found = importlib.import_module(".".join(parts[:cut]))
    except ImportError:
      continue
    for part in parts[cut:]:
      if not hasattr(found, part):
        return False
      found = getattr(found, part)
    return True
  return False


class WrittenTest(absltest.TestCase):
  def test_written_pages_are_up_to_date(self):
    written = report.pages()
    self.assertNotEmpty(written)
    old = [
      str(path.relative_to(ROOT))
      for path, text in written.items()
      if not path.exists() or path.read_text() != text
    ]
    old += [str(p.relative_to(ROOT)) for p in report.stale(written)]
    self.assertEmpty(old, "run: python -m experiments.report")

  def test_failures_come_first(self):
    record = dict(claim="c", seconds=1, device="d", commit="e", seeds=[])
    found = {
      "a": record | {"holds": True},
      "b": record | {"holds": False},
      "c": record | {"holds": "(a) does not hold"},
      "d": record | {"holds": "not faster"},
    }
    lines = report.index("# Head\n", found).splitlines()
    names = [line[3] for line in lines if line.startswith("| [")]
    self.assertEqual("".join(names), "bdca")

  def test_a_text_without_marks_is_refused(self):
    with self.assertRaisesRegex(ValueError, "between"):
      markdown.between("a page", catalog.MARKS, "body")

  def test_every_system_has_a_result_and_its_page(self):
    rows = [r for own in catalog.rows(records.read()).values() for r in own]
    lacking = [r["system"] for r in rows if "none yet" in r["verdict"]]
    self.assertEmpty(lacking, "each system has an experiment and its record")

  def test_pictures_are_wide_enough(self):
    for record in records.read().values():
      if record["picture"]:
        shown = Image.open(ROOT / "docs/images" / record["picture"])
        self.assertGreaterEqual(shown.width, pictures.WIDTH, record["picture"])


class SectionsTest(absltest.TestCase):
  def test_each_has_a_name_of_its_own_and_says_something(self):
    heading = re.compile(r"^(#+) (.*)$", re.M)
    for page in pages():
      text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
      found = list(heading.finditer(text))
      ends = [x.start() for x in found[1:]] + [len(text)]
      deeper = [len(x[1]) for x in found[1:]] + [0]
      names = [x[0] for x in found]
      for x, end, depth in zip(found, ends, deeper, strict=True):
        where = f"{page}: {x[0]}"
        self.assertEqual(names.count(x[0]), 1, where)
        self.assertTrue(text[x.end() : end].strip() or depth > len(x[1]), where)


class PointersTest(absltest.TestCase):
  def test_links_lead_somewhere(self):
    for page in pages():
      for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http", "mailto")):
          continue
        path = (page.parent / target).resolve()
        self.assertTrue(path.exists(), f"{page}: {target}")
        if anchor and path.suffix == ".md":
          heads = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
          known = ["#" + re.sub(r"[^\w -]", "", h).lower().replace(" ", "-")
                   for h in heads]  # fmt: skip
          self.assertIn(anchor, known, f"{page}: {target}{anchor}")

  def test_modules_and_configs_exist(self):
    for page in pages():
      text = page.read_text()
      for module in MODULE.findall(text):
        module = module.rstrip(".")
        if module in ("experiments", "ar_jax") or "NAME" in module:
          continue
        spec = importlib.util.find_spec(module)
        self.assertIsNotNone(spec, f"{page}: python -m {module}")
      for file, preset in CONFIG.findall(text):
        if file == "configs/FILE.py":
          continue
        self.assertTrue((ROOT / file).exists(), f"{page}: {file}")
        if preset and preset != "PRESET":
          name = pathlib.Path(file).stem
          self.assertIn(preset, catalog.presets(name), f"{page}: {file}")

  def test_paths_of_the_tree_that_are_named_exist(self):
    named = re.compile(
      r"`((?:ar_jax|configs|experiments|tests|docs|pallas_kernels|colab)"
      r"/[\w./]+)`"
    )
    for page in pages():
      for path in named.findall(page.read_text()):
        if "foo" in path or path.startswith("experiments/results"):
          continue
        self.assertTrue((ROOT / path).exists(), f"{page}: {path}")

  def test_names_of_the_code_exist(self):
    named = re.compile(r"`((?:core|families|nn|experiments|configs)\.[\w.]+)")
    for page in pages():
      for name in set(named.findall(page.read_text())):
        ours = name.startswith(("experiments", "configs"))
        name = name if ours else f"ar_jax.{name}"
        self.assertTrue(_exists(name), f"{page}: {name}")

  def test_experiments_that_are_named_in_the_code_exist(self):
    named = re.compile(r"\bexperiments\.(?:\w+\.)?\w+")
    for path in tracked("*.py", "*.md", "*.ipynb"):
      for name in set(re.findall(r"python -m (experiments\.[\w.]+)",
                                 path.read_text())):  # fmt: skip
        name = name.rstrip(".")
        if name.endswith((".NAME", ".foo")) or not named.match(name):
          continue
        spec = importlib.util.find_spec(name)
        self.assertIsNotNone(spec, f"{path}: {name}")


class ExampleTest(absltest.TestCase):
  def test_the_example_system_builds_trains_and_draws(self):
    text = (ROOT / "docs/adding_a_system.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    room: dict = {"__name__": "bag"}
    exec(compile(code, "docs/adding_a_system.md", "exec"), room)
    codes = dict(name="vq", vocab=8, channels=4, z=8, ch=8, mult=(1, 2))
    codes |= dict(blocks=1, size=4)
    system = room["build"](tokenizer=codes, width=8, num_classes=3)
    label = np.arange(2, dtype=np.int32)
    batch = {"units": np.arange(8).reshape(2, 4) % 8, "label": label}
    key = jax.random.key(0)
    variables = system.init(key, batch)
    loss = system.loss(variables, batch, key, train=True)
    # A fresh head knows nothing.
    np.testing.assert_allclose(loss.value, np.log(8), rtol=1e-5)
    self.assertEqual(loss.nll.shape, (2, len(system.plan)))
    keys = jax.random.split(key, 2)
    cond = {"label": label}
    image = system.sample(variables, cond, keys, guidance=2.0, top_k=3)
    self.assertEqual(image.shape, (2, 4, 4, 3))
    self.assertTrue(np.all((image >= 0) & (image <= 1)))
    # No unit sees itself or a later one.
    other = np.array(batch["units"])
    other[:, 2:] = (other[:, 2:] + 1) % 8
    grow = lambda x: jax.random.normal(key, x.shape)
    variables = {**variables, "params": jax.tree.map(grow, variables["params"])}
    see = lambda units: np.asarray(system.logits(variables, label, units))
    moved = see(other) != see(batch["units"])
    self.assertFalse(moved[:, :3].any())
    self.assertTrue(moved[:, 3].any())


if __name__ == "__main__":
  absltest.main()
