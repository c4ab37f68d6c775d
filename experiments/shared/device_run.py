"""Items of work on a device: run one after the other, and logged.

A kernel that waits for ever or faults takes its process with it. So items run
in a process of their own (`work`), which writes into a file what it begins
and what it ends; another one (`supervise`) ends it where nothing happens any
more, and starts the next, which goes on behind the item that broke.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


class Refused(Exception):
  """Why an item cannot be run here; it is said, and is no failure."""


@dataclasses.dataclass(frozen=True)
class Item:
  """One thing to do.

  Attributes:
    part: it belongs to.
    name: within the part.
    build: compiles, possibly in a thread, and returns what runs: () -> a row
      of the part's table. A row of a check has "wrong", a number: 0 is right.
    check: the operation whose kernel it checks; "" if it only measures.
    patience: seconds after which it is held to hang, where it needs more than
      others.
  """

  part: str
  name: str
  build: Callable[[], Callable[[], Row]]
  check: str = ""
  patience: float = 0.0

  @property
  def key(self) -> str:
    return f"{self.part}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Part:
  """Items that share a table, and its share of the time."""

  name: str
  share: float
  items: Sequence[Item]


def _plain(row: Row) -> Row:
  """With numbers that JSON knows: infinities and NaN as words."""
  odd = lambda x: isinstance(x, float) and not math.isfinite(x)
  return {k: str(x) if odd(x) else x for k, x in row.items()}


def note(log: pathlib.Path, **line: Any) -> None:
  with log.open("a") as file:
    file.write(json.dumps(line) + "\n")


def read(log: pathlib.Path) -> dict[str, Row]:
  """Key -> the last line about each item, in the order of the plan."""
  lines = log.read_text().splitlines() if log.exists() else []
  found: dict[str, Row] = {}
  for line in map(json.loads, lines):
    if "key" in line:
      found[line["key"]] = found.get(line["key"], {}) | line
  return found


def about(log: pathlib.Path) -> Row:
  """What the first process said of itself."""
  lines = log.read_text().splitlines() if log.exists() else []
  return next((x for x in map(json.loads, lines) if "platform" in x), {})


def work(
  parts: Sequence[Part],
  log: pathlib.Path,
  *,
  begun: float,
  seconds: float,
  threads: int = 0,
) -> None:
  """Does what the log does not know yet.

  A part may take what the parts before it have left over. Once its time is
  over, its other items are left out, which is written down.

  Args:
    parts: in the order in which they are done.
    log: a file of JSON lines.
    begun: when the whole run began, `time.time()`.
    seconds: for the whole run.
    threads: that compile checks ahead; parts that only measure have none.
  """
  known = read(log)
  for item in (i for part in parts for i in part.items if i.key not in known):
    note(log, key=item.key, state="planned", check=item.check)
  end, whole = begun, sum(part.share for part in parts)
  for part in parts:
    end += part.share / whole * seconds
    untouched = {"state": "planned"}
    todo = collections.deque(
      i for i in part.items
      if known.get(i.key, untouched)["state"] == "planned"
    )  # fmt: skip
    checks = all(item.check for item in part.items)
    _one_part(todo, log, end, threads if checks else 0)


def _one_part(todo, log, end: float, threads: int) -> None:
  taken: list[float] = []
  ahead: dict[str, concurrent.futures.Future] = {}
  with concurrent.futures.ThreadPoolExecutor(max(1, threads)) as pool:
    while todo:
      need = statistics.median(taken) if taken else 0.0
      late = end - time.time() <= need
      for item in list(todo)[: 0 if late else threads]:
        if item.key not in ahead:
          ahead[item.key] = pool.submit(item.build)
      item = todo.popleft()
      if late:
        why = "the time of its part was over"
        note(log, key=item.key, state="left out", why=why)
        if future := ahead.pop(item.key, None):
          future.cancel()
        continue
      note(log, key=item.key, state="begun", patience=item.patience)
      start = time.perf_counter()
      end_with: Row = {"state": "done"}
      try:
        future = ahead.pop(item.key, None)
        run = future.result() if future else item.build()
        end_with["row"] = _plain(run())
      except Refused as e:
        end_with = {"state": "refused", "why": str(e)}
      except Exception as e:  # whatever it is, the others go on
        text = traceback.format_exc(limit=-3)
        lines = str(e).strip().splitlines() or [""]
        end_with = {"state": "failed", "why": f"{type(e).__name__}: {lines[0]}"}
        end_with |= {"why": end_with["why"][:300], "trace": text[-3000:]}
      taken.append(time.perf_counter() - start)
      note(log, key=item.key, seconds=round(taken[-1], 1), **end_with)
      print(item.key, json.dumps({**end_with, "trace": ""}), flush=True)
      if end_with["state"] == "failed" and not usable():
        os._exit(UNUSABLE)  # whoever supervises starts another process


UNUSABLE = 70
"""Exit code of a process whose device answers nothing any more."""


def usable() -> bool:
  """Whether the device still computes: a kernel that reads where nothing is
  makes all that follows in its process fail."""
  import jax

  try:
    return int(jax.block_until_ready(jax.numpy.arange(8).sum())) == 28
  except Exception:
    return False


def supervise(
  command: Callable[[int], list[str]],
  log: pathlib.Path,
  *,
  until: float,
  silence: float,
  pause: float = 0.5,
) -> None:
  """Runs `work` in processes until all is done or the time is over.

  Args:
    command: attempt -> the command line of the process.
    log: of `work`.
    until: when the last process is ended, `time.time()`.
    silence: seconds without a line after which a process is held to hang.
    pause: seconds between two looks.
  """
  attempt = idle = 0
  while time.time() < until and idle < 2:
    before = _ended(log)
    why = _one_process(command(attempt), log, until, silence, pause)
    if why is None:
      break
    state = "left out" if why == _LATE else "crashed"
    # The first process compiles ahead, in threads: it may not have been the
    # item. The others do not, and it is tried once more.
    if attempt == 0 and why.startswith(_CODE):
      state = "planned"
    for key, line in read(log).items():
      if line["state"] == "begun":
        note(log, key=key, state=state, why=why)
    attempt += 1
    # Two processes that end nothing: a third would not, either.
    idle = idle + 1 if _ended(log) == before else 0
  for key, line in read(log).items():
    if line["state"] == "planned":
      note(log, key=key, state="left out", why="it was not reached")


_LATE = "the time of the run was over"
_CODE = "its process ended with code"


def _running(line: Row) -> bool:
  return line["state"] == "begun" and "patience" in line


def _ended(log: pathlib.Path) -> int:
  return sum(x["state"] not in ("planned", "begun") for x in read(log).values())


def _one_process(command, log, until, silence, pause) -> str | None:
  """Why the process did not do all; None if it did."""
  process = subprocess.Popen(command)
  size, moved, limit = -1, time.time(), silence
  while (code := process.poll()) is None:
    now = time.time()
    grown = log.stat().st_size if log.exists() else 0
    if grown != size:
      size, moved = grown, now
      patient = [x["patience"] for x in read(log).values() if _running(x)]
      limit = max([silence, *patient])
    why = None
    if now >= until:
      why = _LATE
    elif now - moved > limit:
      why = f"nothing happened for {limit:.0f} s: it hangs"
    if why:
      process.kill()
      process.wait()
      return why
    time.sleep(pause)
  return None if code == 0 else f"{_CODE} {code}"
