"""A few trials of experiments/benchmarks/resume_fuzz.py."""

import sys
from unittest import mock

from absl.testing import absltest

from experiments.benchmarks import resume_fuzz
from tests import toy

COUNT = 6


class ResumeFuzzTest(absltest.TestCase):
  def test_some(self):
    named = {"ar_jax.systems.toy": toy}
    self.enterContext(mock.patch.dict(sys.modules, named))
    found = resume_fuzz.run(COUNT, seed=8)
    self.assertLen(found, COUNT)
    self.assertEmpty([x for x in found if x["faults"]])
    # It did interrupt, and some configs were equal and some were not.
    self.assertContainsSubset({"SIGKILL", "SIGTERM"}, {x["how"] for x in found})
    self.assertLen({x["equal"] for x in found}, 2)


if __name__ == "__main__":
  absltest.main()
