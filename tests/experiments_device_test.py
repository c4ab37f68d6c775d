"""`experiments.device`, interpreted: what runs, breaks, hangs, is left out."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from experiments import device
from experiments.shared import device_checks, device_draws, device_run
from pallas_kernels.sparse_attention import shapes

ROOT = pathlib.Path(device.__file__).parents[1]

# Appends to the log of its first argument what `work` would, then ends.
CHILD = """
import json, os, sys, time
log = open(sys.argv[1], "a")
def note(**line):
  print(json.dumps(line), file=log, flush=True)
attempt = int(sys.argv[2])
if attempt == 0:
  note(platform="gpu", kernels="gpu")
  for key in ("a", "b", "c", "d"):
    note(key=key, state="planned", check="verify")
  note(key="a", state="begun")
  note(key="a", state="done", row={"wrong": 0}, seconds=1)
  note(key="b", state="begun")
  os._exit(139)
if attempt == 1:  # it breaks again, without threads
  note(key="b", state="begun")
  os._exit(139)
if attempt == 2:  # what needs longer has longer
  note(key="c", state="begun", patience=600)
  time.sleep(6)
  note(key="c", state="begun", patience=0)
  time.sleep(600)
if attempt == 3:
  note(key="d", state="begun")
  time.sleep(600)
"""


def item(name, run, check="verify", part="checks"):
  return device_run.Item(part, name, lambda: run, check)


class RunTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.log = pathlib.Path(tempfile.mkdtemp()) / "log"

  @parameterized.parameters(0, 2)
  def test_one_failure_does_not_stop_the_rest(self, threads):
    def broken():
      raise ValueError("no\nmore")

    def refused():
      raise device_run.Refused("not here")

    items = [
      item("right", lambda: {"wrong": 0, "error": float("nan")}),
      item("broken", broken),
      item("refused", refused),
      item("wrong", lambda: {"wrong": 2}),
    ]
    part = device_run.Part("checks", 1, items)
    device_run.work(
      [part], self.log, begun=time.time(), seconds=60, threads=threads
    )
    found = device_run.read(self.log)
    states = [line["state"] for line in found.values()]
    self.assertEqual(states, ["done", "failed", "refused", "done"])
    self.assertEqual(found["checks/right"]["row"]["error"], "nan")
    self.assertEqual(found["checks/broken"]["why"], "ValueError: no")
    self.assertIn("broken", found["checks/broken"]["trace"])
    bad = [key for key, line in found.items() if device.failed(line)]
    self.assertEqual(bad, ["checks/broken", "checks/wrong"])
    row = device.verdicts(found)["verify"]
    self.assertEqual((row["right"], row["failed"], row["refused"]), (1, 2, 1))
    self.assertFalse(row["passed"])
    # A refusal alone is in nobody's way, but nothing passes without a check.
    few = lambda *keys: {f"checks/{k}": found[f"checks/{k}"] for k in keys}
    passed = lambda *keys: device.verdicts(few(*keys))["verify"]["passed"]
    self.assertTrue(passed("right", "refused"))
    self.assertFalse(passed("refused"))

  def test_what_does_not_fit_is_said_and_nothing_is_done_twice(self):
    done = []
    run = lambda name: lambda: done.append(name) or {"wrong": 0}
    parts = [
      device_run.Part(
        part, share, [item(n, run(part + n), part=part) for n in "xy"]
      )
      for part, share in (("first", 0), ("second", 1))
    ]
    device_run.note(self.log, key="second/x", state="crashed", check="verify")
    device_run.work(parts, self.log, begun=time.time(), seconds=60)
    self.assertEqual(done, ["secondy"])
    found = device_run.read(self.log)
    self.assertEqual(found["first/x"]["state"], "left out")
    self.assertIn("time", found["first/y"]["why"])
    # What was not checked has not passed, though nothing failed.
    self.assertFalse(device.verdicts(found)["verify"]["passed"])

  def test_a_process_that_breaks_or_hangs_is_followed_by_another(self):
    command = lambda n: [sys.executable, "-c", CHILD, str(self.log), str(n)]
    device_run.supervise(
      command, self.log, until=time.time() + 60, silence=4, pause=0.1
    )
    found = device_run.read(self.log)
    self.assertEqual(
      {key: line["state"] for key, line in found.items()},
      {"a": "done", "b": "crashed", "c": "crashed", "d": "crashed"},
    )
    self.assertIn("139", found["b"]["why"])
    self.assertIn("hangs", found["c"]["why"])

  def test_a_device_that_answers_nothing_ends_the_process(self):
    child = """
import pathlib, sys, time
from experiments.shared import device_run
device_run.usable = lambda: False
log, attempt = pathlib.Path(sys.argv[1]), sys.argv[2]
def broken():
  raise ValueError("address")
runs = {"a": broken, "b": lambda: {"wrong": 0, "attempt": attempt}}
items = [device_run.Item("p", k, lambda r=r: r, "verify")
         for k, r in runs.items()]
device_run.work([device_run.Part("p", 1, items)], log, begun=time.time(),
                seconds=60)
"""
    command = lambda n: [sys.executable, "-c", child, str(self.log), str(n)]
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
      device_run.supervise(
        command, self.log, until=time.time() + 60, silence=60, pause=0.1
      )
    found = device_run.read(self.log)
    self.assertEqual(found["p/a"]["state"], "failed")
    # Not in the process of which all would have failed.
    self.assertEqual(found["p/b"]["row"], {"wrong": 0, "attempt": "1"})

  def test_a_program_that_cannot_start_is_not_started_for_ever(self):
    begun = []
    command = lambda n: begun.append(n) or [sys.executable, "-c", "exit(3)"]
    device_run.supervise(
      command, self.log, until=time.time() + 60, silence=60, pause=0.1
    )
    self.assertLen(begun, 2)

  def test_only_a_whole_run_on_a_gpu_changes_the_default(self):
    table = {"verify": {"passed": True}, "attention": {"passed": False}}
    gpu = {"platform": "gpu", "only": ""}
    advice = device.advice(table, gpu)
    self.assertIn('("verify", "pallas_gpu")', advice)
    self.assertNotIn("attention", advice)
    for about in ({"platform": "cpu"}, gpu | {"only": "verify"}, {}):
      self.assertStartsWith(device.advice(table, about), "nothing")


class ChecksTest(absltest.TestCase):
  def test_nan_lost_rows_and_other_masks_are_wrong(self):
    y = jnp.asarray([1.0, -jnp.inf, 2.0])
    worst = lambda x: float(device_checks.errors([jnp.asarray(x)], [y])[0])
    self.assertEqual(worst([1.0, -jnp.inf, 2.5]), 0.25)
    self.assertEqual(worst([1.0, 0.0, 2.0]), np.inf)
    self.assertEqual(worst([np.nan, -jnp.inf, 2.0]), np.inf)
    pattern = device_checks.blind(6, 2)
    self.assertFalse(pattern.mask()[:2].any())  # rows without a visit
    self.assertFalse(pattern.mask()[:, 4:].any())

  def test_every_operation_has_checks_and_every_part_items(self):
    here = device_checks.Here("gpu", False)
    attention = device_checks.attention(here)
    names = {i.name for i in attention + device_checks.decode(here)}
    # All that the kernel serves: not float32.
    self.assertContainsSubset(
      {k for k in shapes.shapes() if not k.endswith("f32")}, names
    )
    verify = [i.name for i in device_draws.verify(here)]
    self.assertIn(f"gumbel, V = {device_draws.TOO_LARGE}", verify)
    made = device.parts("", "")
    self.assertEqual([part.name for part in made], list(device.SHARES))
    checked = {i.check for part in made for i in part.items}
    self.assertEqual(checked, {"", *device.KERNELS})
    with self.assertRaisesRegex(SystemExit, "no such part"):
      device.parts("", "foo")


class CommandTest(absltest.TestCase):
  def test_interpreted(self):
    folder = pathlib.Path(tempfile.mkdtemp())
    only = "decode/,races/rows,attention/,nearest/,verify/,programs/Llama"
    run = subprocess.run(
      [sys.executable, "-m", "experiments.device", "--kernels=tpu",
       f"--only={only}", f"--out={folder}", "--minutes=10",
       "--silence=600"],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )  # fmt: skip
    self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
    [path] = folder.iterdir()
    self.assertEqual(path.name, "device_cpu_interpreted.json")
    record = json.loads(path.read_text())
    self.assertTrue(record["holds"], run.stdout)
    self.assertCountEqual(record["passing"], device.KERNELS.values())
    self.assertStartsWith(record["to_change"], "nothing")
    titles = ["Kernels", "Decode", "Races", "Verify", "Nearest", "Attention"]
    self.assertEqual(list(record["tables"]), [*titles, "Programs"])
    [program] = record["tables"]["Programs"]
    self.assertGreater(program["share of the roofline"], 0)


if __name__ == "__main__":
  absltest.main()
