"""What tests of the runs of the toy system share."""

import json
import pathlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest

from tests import toy

TIMES = ("steps/s", "examples/s", "input_wait")


def rows(workdir):
  """Everything that the run says of itself, but how fast it was."""
  text = (workdir / "metrics.jsonl").read_text()
  found = [json.loads(line) for line in text.splitlines()]
  return [{k: v for k, v in r.items() if k not in TIMES} for r in found]


def steps_on_disk(workdir):
  folder = workdir / "checkpoints"
  if not folder.exists():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def config(**changes):
  """Twenty steps, a save every tenth, nothing else."""
  c = toy.get_config()
  c.train.update(steps=20, eval_every=0)
  c.train.update(changes)
  return c


class ToyTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    named = {"ar_jax.systems.toy": toy}
    self.enterContext(mock.patch.dict(sys.modules, named))
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(folder) / "run"

  def assert_nothing_set_aside(self, workdir=None):
    found = (workdir or self.workdir).glob("checkpoints/broken-*")
    self.assertEmpty(list(found))
