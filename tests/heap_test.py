"""Memory that a process keeps, each case in a process of its own."""

import os
import subprocess
import sys

from absl.testing import absltest, parameterized

# Megabytes that the system counts after a buffer was freed, and after it was
# given back.
_PROGRAM = """
import ctypes, os
import numpy as np
from ar_jax import heap

def held():
  pages = int(open("/proc/self/statm").read().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") >> 20

before = held()
kept = heap.keep()
x = np.ones(64 << 17)
del x
after = held()
ctypes.CDLL(None).malloc_trim(0)
print(int(kept), after - before, held() - before)
"""


def found(**env):
  """(whether memory is kept, MiB held after a buffer of 64 is freed, and after
  that is given back)."""
  clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
  clean.pop("GLIBC_TUNABLES", None)
  clean.pop("LD_PRELOAD", None)
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM],
    env=clean | env, check=True, capture_output=True, text=True,
  )  # fmt: skip
  return tuple(map(int, done.stdout.split()))


@absltest.skipUnless(sys.platform == "linux", "heap.keep is for glibc")
class HeapTest(parameterized.TestCase):
  def test_what_is_freed_stays_until_it_is_given_back(self):
    kept, freed, returned = found()
    self.assertEqual(kept, 1)
    self.assertGreaterEqual(freed, 60)
    self.assertLess(returned, 10)

  @parameterized.parameters(
    dict(MALLOC_MMAP_THRESHOLD_="131072"),
    dict(GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072"),
  )
  def test_a_choice_in_the_environment_is_left_alone(self, **env):
    kept, freed, _ = found(**env)
    self.assertEqual(kept, 0)
    self.assertLess(freed, 10)


if __name__ == "__main__":
  absltest.main()
