"""What a run says of itself, after it was interrupted, too."""

import json
import os
import pathlib
import struct
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from tensorboardX.proto import event_pb2

from ar_jax import evaluate, main, metrics, parallel
from ar_jax.core import processes
from tests import toy
from tests.toy_runs import ToyTest, config


def events(workdir):
  """(step, tag) of what TensorBoard shows: a start hides what was written
  before it at its step and beyond."""
  found = []
  for path in sorted(workdir.glob("events.*"), key=os.path.getmtime):
    content = path.read_bytes()
    while content:
      size = struct.unpack("<Q", content[:8])[0]
      event = event_pb2.Event.FromString(content[12 : 12 + size])
      content = content[16 + size :]
      if event.HasField("session_log"):
        found = [(step, tag) for step, tag in found if step < event.step]
      found += [(event.step, v.tag) for v in event.summary.value]
  return found


class MetricsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.workdir = pathlib.Path(folder)

  def write(self, start, steps):
    writer = metrics.Writer(self.workdir, start=start, total=9)
    for step in steps:
      writer.write(step, {"loss": 1.0 / step})
    writer.close()

  def test_tensorboard_keeps_the_step_that_a_run_goes_on_from(self):
    with mock.patch("socket.gethostname", return_value="a"):
      self.write(0, (1, 2, 3, 4))
    with mock.patch("socket.gethostname", return_value="b"):
      self.write(2, (3, 4, 5))
    wanted = [(step, "loss") for step in (1, 2, 3, 4, 5)]
    self.assertEqual(events(self.workdir), wanted)

  def test_a_half_written_line(self):
    self.write(0, (1, 2))
    path = self.workdir / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "lo')
    self.assertEqual(metrics.at(self.workdir, 2), {"step": 2, "loss": 0.5})
    self.assertEqual(metrics.last(self.workdir), {"step": 2, "loss": 0.5})

  def test_only_the_first_process_reads(self):
    self.write(0, (1,))
    with mock.patch.object(processes, "leads", return_value=False):
      with mock.patch.object(pathlib.Path, "read_text") as read:
        metrics.at(self.workdir, 1)
        metrics.last(self.workdir)
    read.assert_not_called()

  def test_pictures_of_a_branch_that_was_left(self):
    samples = self.workdir / "samples"
    samples.mkdir()
    for name in ("00000010.png", "00000020.png", "00000030.png", "mine.png"):
      (samples / name).touch()
    self.write(20, (21,))
    left = sorted(p.name for p in samples.iterdir())
    self.assertEqual(left, ["00000010.png", "00000020.png", "mine.png"])

  def test_home(self):
    with mock.patch.dict(os.environ, HOME=str(self.workdir)):
      self.assertEqual(metrics.make_folder("~/runs/x").parent.name, "runs")
    self.assertTrue((self.workdir / "runs/x").is_dir())


class WatchTest(ToyTest):
  def test_rates_are_logged_whatever_else_is_done(self):
    c = config(log_every=5, eval_every=5, sample_every=5, sample_count=2)
    c.evals = {}
    main.run(c, self.workdir)
    text = (self.workdir / "metrics.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    logged = [r for r in found if "loss" in r]
    self.assertLen(logged, 4)
    for row in logged:
      self.assertIn("steps/s", row)

  def test_models_run_on_the_mesh(self):
    """Where kernels and activations are split by it, in all that is run."""
    seen = {}

    def encode(_, variables, batch):
      del variables
      seen["encode"] = jax.sharding.get_abstract_mesh().axis_names
      return dict(batch)

    c = config(steps=1)
    c.cache.views = 1
    with mock.patch.object(toy.Toy, "encode", encode):
      main.run(c, self.workdir)

    def evaluator(*_):
      seen["eval"] = jax.sharding.get_abstract_mesh().axis_names
      return {}

    source = [{"label": np.int32(0)}] * 2
    dataset = mock.Mock(test=source)
    evaluate.evaluate(
      c, {"some": evaluator}, toy.Toy(), {}, dataset, parallel.make_mesh()
    )
    self.assertEqual(seen, {"encode": parallel.AXES, "eval": parallel.AXES})


if __name__ == "__main__":
  absltest.main()
