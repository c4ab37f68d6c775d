"""Two processes of four devices are one process of one; and how they meet."""

import json
import pathlib
import re
import tempfile

import numpy as np
from absl.testing import absltest

from tests import multi_process_cases as cases
from tests.forks import Forks, free_port


def rows(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def losses(workdir):
  return [r["loss"] for r in rows(workdir) if "loss" in r]


class MultiProcessTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.forks = cls.enterClassContext(Forks())
    cls.address = f"localhost:{free_port()}"
    cls.run_all([cls.start("alone", 1)])
    pair = [cls.start("together", 4, cls.address, p) for p in range(2)]
    cls.run_all(pair)
    cls.run_all([cls.start("alone_again", 1)])

  @classmethod
  def start(cls, function, devices, *args):
    name = "_".join(map(str, (function, *args[1:])))
    return cls.forks.start(
      cls.folder / f"{name}.log",
      f"tests.multi_process_cases:{function}",
      str(cls.folder),
      *args,
      devices=devices,
    )

  @classmethod
  def run_all(cls, children):
    codes = [child.wait(900) for child in children]
    if any(codes):
      raise AssertionError("\n".join(c.text()[-3000:] for c in children))

  def assert_same_losses(self, name):
    want, got = (losses(self.folder / n) for n in ("alone", name))
    self.assertLen(got, cases.LATER)
    np.testing.assert_allclose(got, want, rtol=1e-5)

  def test_all_meshes_and_pmap_train_alike(self):
    for name in (*cases.MESHES, "pmap"):
      with self.subTest(name):
        self.assert_same_losses(name)

  def test_a_run_goes_on_with_other_processes(self):
    for name in ("moved", "mixed", "pmap"):
      with self.subTest(name):
        self.assert_same_losses(name)

  def test_samples_do_not_depend_on_the_processes(self):
    alone, made = (
      np.load(self.folder / name / "samples.npz")
      for name in ("alone_made", "made")
    )
    np.testing.assert_array_equal(alone["label"], made["label"])
    self.assertEqual(made["arr_0"].shape, (6, 8, 8, 1))
    difference = made["arr_0"].astype(int) - alone["arr_0"]
    self.assertLessEqual(np.abs(difference).max(), 1)

  def test_evaluation_does_not_depend_on_the_processes(self):
    alone, made = (
      json.loads((self.folder / name / "eval.jsonl").read_text())
      for name in ("alone_made", "made")
    )
    self.assertEqual(made["examples"], 12)
    self.assertEqual(made.keys(), alone.keys())
    for name in ("loss", "nll", "bits_per_unit"):
      np.testing.assert_allclose(made[name], alone[name], rtol=1e-5)

  def test_units_are_cached_by_both(self):
    self.assertTrue((self.folder / "toy/units/meta.json").exists())
    alone, both = (losses(self.folder / n) for n in ("toy_alone", "toy"))
    np.testing.assert_allclose(both, alone, rtol=1e-5)

  def test_one_of_them_writes(self):
    self.assertLen(losses(self.folder / "mixed"), cases.LATER)
    lines = (self.folder / "made/eval.jsonl").read_text().splitlines()
    self.assertLen(lines, 1)


class JoinTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    cls.forks = cls.enterClassContext(Forks())

  def command(self, name, *flags, devices=1, env=None):
    return self.forks.command(
      self.folder / f"{self.id()}_{name}.log",
      "--config=tests/toy.py",
      f"--workdir={self.folder}/{self.id()}",
      "--config.train.steps=10",
      *flags,
      devices=devices,
      env=env or {},
    )

  def assert_refused(self, message, child):
    code = child.wait(120)
    last = child.text().strip().splitlines()[-1]
    self.assertEqual(code, 1, child.text()[-2000:])
    self.assertRegex(last, f"^ar_jax: .*{message}")
    self.assertNotIn("Traceback", child.text())

  def test_flags_that_do_not_fit(self):
    for i, (flags, message) in enumerate(
      (
        (["--num_processes=2"], "no coordinator; say"),
        (["--coordinator=here"], "is not HOST:PORT"),
        (["--coordinator=h:1", "--num_processes=2"], "both are needed"),
        (
          ["--coordinator=h:1", "--num_processes=2", "--process_id=2"],
          "0 to num_processes - 1",
        ),
        (["--coordinator=auto"], "no SLURM"),
        (["--config.batch=12"], "batch=12.*multiple of 8"),
        (["--config.train.accumulate=2"], "accumulate=2.*multiple of 16"),
        (["--config.parallel=pmap", "--config.mesh.fsdp=2"], "mesh.fsdp=1"),
      )
    ):
      with self.subTest(flags):
        self.assert_refused(message, self.command(i, *flags, devices=8))

  def test_coordinator_that_is_not_there(self):
    port = free_port()
    flags = [
      f"--coordinator=localhost:{port}",
      "--num_processes=2",
      "--process_id=1",
      "--join_timeout=1",
    ]
    self.assert_refused("cannot be reached in 1 s", self.command("", *flags))

  def test_others_that_do_not_come(self):
    port = free_port()
    flags = [
      f"--coordinator=localhost:{port}",
      "--num_processes=2",
      "--process_id=0",
      "--join_timeout=2",
    ]
    self.assert_refused("did not come together", self.command("", *flags))

  def test_slurm_is_found(self):
    job = 4096 + free_port() % 4096
    env = {
      "SLURM_JOB_ID": str(job),
      "SLURM_STEP_NODELIST": "localhost",
      "SLURM_NTASKS": "2",
      "SLURM_STEP_NUM_TASKS": "2",
    }
    pair = [
      self.command(
        p, env={**env, "SLURM_PROCID": str(p), "SLURM_LOCALID": str(p)}
      )
      for p in range(2)
    ]
    self.assertEqual([child.wait() for child in pair], [0, 0])
    found = [len(re.findall("toy starts", child.text())) for child in pair]
    self.assertEqual(found, [1, 0])


if __name__ == "__main__":
  absltest.main()
