"""Mode compile, from the command line to the files it leaves."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax.numpy as jnp
from absl.testing import absltest

from ar_jax import main
from ar_jax.core.system import UserError, build
from ar_jax.planning import programs
from configs import var

ROOT = pathlib.Path(__file__).parents[1]


class CompileTest(absltest.TestCase):
  def test_eight_devices_that_are_not_there(self):
    with tempfile.TemporaryDirectory() as folder:
      ran = subprocess.run(
        [
          *(sys.executable, "-m", "ar_jax.main", "--mode=compile"),
          *("--config=configs/var.py:smoke_real", "--config.batch=8"),
          *("--config.mesh.data=4", "--config.mesh.fsdp=2"),
          *("--topology=cpu:8", "--nolimit", f"--workdir={folder}"),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
      )
      self.assertEqual(ran.returncode, 0, ran.stderr[-2000:])
      report = json.loads((pathlib.Path(folder) / "compile.json").read_text())
      self.assertGreater(
        (pathlib.Path(folder) / "compile.png").stat().st_size, 1
      )
    rows = {row["program"]: row for row in report["programs"]}
    self.assertEqual(set(rows), {"train_step", "sample"})
    for name, row in rows.items():
      with self.subTest(name):
        # XLA's products against those of the jaxpr.
        share = row["FLOPs"] / row["FLOPs analytic"]
        self.assertAlmostEqual(share, 1.0, delta=0.03)
        self.assertTrue(row["fits"])
        self.assertGreaterEqual(row["needed"], row["state bytes"])
        self.assertEqual(row["roofline seconds"], max(row["seconds"].values()))
        self.assertEqual(row["seconds"][row["bound"]], row["roofline seconds"])
        self.assertEqual(row["devices"], 8)
        self.assertIn(name, ran.stdout)
    # The state is updated in place, and gradients are summed over devices.
    step = rows["train_step"]
    self.assertGreater(step["aliased"], 0.9 * step["state bytes"])
    summed = step["collective bytes"]
    self.assertGreater(sum(summed.values()), 0.9 * 4 * step["parameters"])
    self.assertEqual(step["mesh"], {"data": 4, "fsdp": 2})
    # Examples are independent, but for gathering what is split over fsdp.
    self.assertNotIn("all-reduce", rows["sample"]["collective bytes"])

  def assert_refused(self, message, config, **options):
    with tempfile.TemporaryDirectory() as folder:
      with self.assertRaisesRegex(UserError, message) as caught:
        main.run(config, folder, "compile", **options)
    self.assertNotIn("\n", str(caught.exception))

  def test_refusals(self):
    config = var.get_config("smoke")
    self.assert_refused("say for what", config)
    self.assert_refused("v9:4x4: say KIND:SHAPE", config, topology="v9:4x4")
    config.mesh.fsdp = 3
    self.assert_refused("does not divide", config, topology="cpu:1")
    config.mesh.fsdp = 1
    config.parallel = "pmap"
    self.assert_refused("parallel=jit", config, topology="cpu:1")

  def test_unknown_topology_is_one_line(self):
    ran = subprocess.run(
      [
        *(sys.executable, "-m", "ar_jax.main", "--mode=compile"),
        *("--config=configs/var.py:smoke", "--topology=v5e:4"),
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    self.assertEqual(ran.returncode, 1)
    self.assertRegex(ran.stderr.splitlines()[-1], "^ar_jax: --topology=v5e:4")
    self.assertNotIn("Traceback", ran.stderr)


class ShapesTest(absltest.TestCase):
  def test_of_data_that_are_not_here(self):
    for name in ("llamagen_text", "infinity"):
      config = importlib.import_module(f"configs.{name}").get_config("paper")
      config.data.path = "/nowhere"
      length = config.model.text.length
      system = build(config.system, **config.model.to_dict())
      with self.assertLogs("ar_jax", "INFO") as logs:
        rows = programs.example(config, system, 3)
      self.assertIn("no such folder", logs.output[0])
      self.assertEqual(rows["text"].shape, (3, length, 2048))
      self.assertEqual(rows["text"].dtype, jnp.float32)
      size = config.data.size
      self.assertEqual(rows["image"].shape, (3, size, size, 3))
    config = importlib.import_module("configs.arflow").get_config("xl")
    system = build(config.system, **config.model.to_dict())
    rows = programs.example(config, system, 3)  # others beside stored units
    there, *shape = rows["units"].shape
    peers = config.data.peers
    self.assertEqual(rows["peer_units"].shape, (there, peers, *shape))
    self.assertEqual(rows["peer_label"].shape, (3, peers))
    # Clips, and fields that are made of the pictures.
    for name, preset in (("nbp", "paper"), ("controlar", "multi")):
      config = importlib.import_module(f"configs.{name}").get_config(preset)
      system = build(config.system, **config.model.to_dict())
      with self.assertRaisesRegex(UserError, "no such folder"):
        programs.example(config, system, 3)


if __name__ == "__main__":
  absltest.main()
