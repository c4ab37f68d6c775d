"""Sharded = single, on eight CPU devices in a process of their own."""

import os
import pathlib
import subprocess
import sys

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]


class MultiDeviceTest(absltest.TestCase):
  def test_cases(self):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
      [sys.executable, "-m", "tests.multi_device_cases"],
      cwd=ROOT,
      env=env,
      capture_output=True,
      text=True,
    )
    self.assertEqual(ran.returncode, 0, ran.stderr[-4000:])
    self.assertIn("OK", ran.stderr)


if __name__ == "__main__":
  absltest.main()
