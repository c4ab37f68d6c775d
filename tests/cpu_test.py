"""What is asked of a CPU, each case in a process of its own."""

import os
import subprocess
import sys

from absl.testing import absltest, parameterized

# Megabytes that the system counts after a buffer was freed, and after it was
# given back.
_FREED = """
import ctypes, os
import numpy as np
from ar_jax import cpu

def held():
  pages = int(open("/proc/self/statm").read().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") >> 20

before = held()
kept = cpu.keep_memory()
x = np.ones(64 << 17)
del x
after = held()
ctypes.CDLL(None).malloc_trim(0)
print(int(kept), after - before, held() - before)
"""

# Whether flags were set, how many convolutions and how many products of a
# compiled program are YNNPACK's.
_COMPILED = """
import jax, jax.numpy as jnp
from ar_jax import cpu

done = cpu.quick_convolutions()
def convolved(x, w):
  return jax.lax.conv(x, w, (1, 1), "SAME")
def compiled(f, *shapes):
  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
  return jax.jit(f).lower(*shapes).compile().as_text().count("__ynn_fusion")
print(
  int(done),
  compiled(convolved, (2, 32, 32, 32), (32, 32, 3, 3)),
  compiled(jnp.matmul, (512, 512), (512, 512)),
)
"""


def said(program, **env):
  """The numbers that a program prints, in an environment without choices."""
  clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
  for name in ("GLIBC_TUNABLES", "LD_PRELOAD", "XLA_FLAGS"):
    clean.pop(name, None)
  done = subprocess.run(
    [sys.executable, "-c", program],
    env=clean | env, check=True, capture_output=True, text=True,
  )  # fmt: skip
  return tuple(map(int, done.stdout.split()))


@absltest.skipUnless(sys.platform == "linux", "mallopt is glibc's")
class MemoryTest(parameterized.TestCase):
  def test_what_is_freed_stays_until_it_is_given_back(self):
    kept, freed, returned = said(_FREED)
    self.assertEqual(kept, 1)
    self.assertGreaterEqual(freed, 60)
    self.assertLess(returned, 10)

  @parameterized.parameters(
    dict(MALLOC_MMAP_THRESHOLD_="131072"),
    dict(GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072"),
  )
  def test_a_choice_in_the_environment_is_left_alone(self, **env):
    kept, freed, _ = said(_FREED, **env)
    self.assertEqual(kept, 0)
    self.assertLess(freed, 10)


class ConvolutionsTest(absltest.TestCase):
  def test_convolutions_are_not_ynnpacks_and_products_are(self):
    self.assertEqual(said(_COMPILED), (1, 0, 1))

  def test_other_flags_stay(self):
    flags = "--xla_backend_optimization_level=0"
    self.assertEqual(said(_COMPILED, XLA_FLAGS=flags)[:2], (1, 0))

  def test_a_choice_in_the_environment_is_left_alone(self):
    kinds = ("DOT", "CONVOLUTION")
    both = ",".join(f"LIBRARY_FUSION_TYPE_INDIVIDUAL_{k}" for k in kinds)
    flags = f"--xla_cpu_experimental_ynn_fusion_type={both}"
    self.assertEqual(said(_COMPILED, XLA_FLAGS=flags), (0, 1, 1))


if __name__ == "__main__":
  absltest.main()
