"""The CPU seconds of every folder of tests, at the end of a run.

Clocks say little where workers and other people share the cores; what is
counted here is the time of the process and of its children that have ended.
The hooks are those of pytest; `conftest` takes them over. With xdist each
worker measures, and its reports carry the seconds to where they are added up.
"""

import collections
import os

import pytest

_mark = 0.0
_seconds = collections.defaultdict(float)


def _used() -> float:
  return sum(os.times()[:4])


def _lap() -> float:
  """CPU seconds since the last call."""
  global _mark
  last, _mark = _mark, _used()
  return _mark - last


def folder(nodeid: str) -> str:
  """`tests/x` of a test in tests/x/..., the file of one in tests/."""
  path = nodeid.split("::")[0]
  return "/".join(path.split("/")[:2])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
  first = not _mark  # imports and collection are before it
  outcome = yield
  # A call may have many reports, one for each subtest; a teardown has one.
  if call.when in ("setup", "teardown"):
    name = "cpu_before" if first else "cpu"
    outcome.get_result().user_properties.append((name, _lap()))


def pytest_runtest_logreport(report):
  for name, seconds in report.user_properties:
    if name == "cpu":
      _seconds[folder(report.nodeid)] += seconds
    elif name == "cpu_before":
      _seconds["imports and collection"] += seconds


def pytest_terminal_summary(terminalreporter):
  if not _seconds:
    return
  terminalreporter.section("CPU seconds by folder")
  rows = sorted(_seconds.items(), key=lambda row: -row[1])
  for name, seconds in (*rows, ("all", sum(_seconds.values()))):
    terminalreporter.write_line(f"{seconds:8.1f}  {name}")
