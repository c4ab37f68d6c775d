"""Files that are made to harm: each is refused in one line, in little memory.

A child with a bound on its memory reads them all: one that took gigabytes, or
that crashed the interpreter, would be seen.
"""

import argparse
import io
import os
import pickle
import resource
import tempfile
import warnings

import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.files import pickles, torch_file
from tests.files.hostile import CASES, SAFETENSORS, packed, safetensors

MEMORY = 512 << 20  # beyond what the process has


def outcome(path: str) -> str:
  try:
    torch_file.read(path)
  except UserError as e:
    return str(e)
  except BaseException as e:
    return f"{type(e).__name__} was raised"
  return "was read"


def problems(folder: str) -> str:
  """What went wrong, a line each."""
  files = [(f"{k}.pth", *v) for k, v in CASES.items()]
  files += [
    (f"{k}.safetensors", safetensors(head), word)
    for k, (head, word) in SAFETENSORS.items()
  ]
  lines = []
  for i, (what, content, word) in enumerate(files):
    path = os.path.join(folder, f"{i}.{what.rpartition('.')[2]}")
    with open(path, "wb") as f:
      f.write(content)
    said = outcome(path)
    if what == "a class of options.pth":
      # An attribute that is none is left out, and the file is read.
      fine = said == "was read"
    else:
      fine = said.startswith(path) and word in said
    short = len(said) < len(path) + 500 and len(said.splitlines()) == 1
    if not (fine and short):
      lines.append(f"{what}: {said[:200]!r}")
    os.remove(path)
  return "\n".join(lines)


def in_child(work) -> tuple[int, str]:
  """(status, what `work` returned) of a fork with bounded memory."""
  read, write = os.pipe()
  with warnings.catch_warnings():
    # Of JAX, whose threads the child does not use.
    warnings.simplefilter("ignore")
    pid = os.fork()
  if not pid:
    status = 1
    try:
      with open("/proc/self/statm") as f:
        now = int(f.read().split()[0]) * resource.getpagesize()
      pickles.INSTRUCTIONS = 200_000  # a tenth, to be quick
      resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
      os.write(write, work().encode()[:60_000])
      status = 0
    finally:
      os._exit(status)
  os.close(write)
  with os.fdopen(read, "rb") as f:
    said = f.read().decode()
  return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


class HostileTest(absltest.TestCase):
  def test_each_is_refused_in_one_line(self):
    self.assertGreater(len(CASES), 20)
    with tempfile.TemporaryDirectory() as folder:
      self.assertEqual(in_child(lambda: problems(folder)), (0, ""))

  def test_the_child_would_see_it(self):
    def greedy():
      try:
        return str(np.ones(4 * MEMORY, np.uint8).sum())
      except MemoryError:
        return "too much"

    self.assertEqual(in_child(greedy), (0, "too much"))

  def test_what_training_scripts_keep(self):
    """The machine reads whatever Python writes of plain things."""
    kept = {
      "numbers": [1, -1, 255, 65536, 1 << 40, -(1 << 70), 1.5, True, None],
      "texts": ("é", b"\x00\xff", "x" * 300),
      "nested": {"a": [{"b": (1, (2, (3, 4, 5, 6)))}], 3: {1, 2}},
      ("flat", 1): frozenset("ab"),
      "same": [[1]] * 3,
    }
    for protocol in range(6):
      with self.subTest(protocol=protocol):
        data = pickle.dumps(kept, protocol=protocol)
        got = pickles.load(io.BytesIO(data), len(data), {}, None)
        self.assertEqual(got, kept)

  def test_a_class_may_be_named(self):
    """As Lightning's callbacks are keys; it stands for nothing."""
    code = b"\x80\x02}cos\nsystem\nK\x01s."
    (key,) = pickles.load(io.BytesIO(code), len(code), {}, None)
    self.assertIsInstance(key, pickles.Word)

  def test_numbers_of_numpy_and_options(self):
    options = argparse.Namespace(lr=1e-3, name="x")
    kept = {"best": np.float64(3.5), "n": np.int64(7), "args": options}
    folder = self.enter_context(tempfile.TemporaryDirectory())
    for protocol in (2, 4):
      path = os.path.join(folder, f"{protocol}.pth")
      with open(path, "wb") as f:
        f.write(packed(pickle.dumps(kept, protocol)))
      got = torch_file.read(path)
      self.assertEqual((got["best"], got["n"]), (3.5, 7))
      self.assertEqual((got["args"].lr, got["args"].name), (1e-3, "x"))


if __name__ == "__main__":
  absltest.main()
