"""All that needs a device, in one command: kernels checked, everything timed.

  python -m experiments.device [--minutes=8] [--only=decode,verify/gumbel]

Checks come first: attention forward, backward and decoding, verification and
nearest codes, compiled, against their references; races, by running again.
Then speeds: the kernels beside dense attention, cuDNN and the form without a
kernel, and sampling and training of VAR-d16 and LlamaGen-B in bfloat16 with
the share of the roofline. Each part has a share of the time; what it leaves
over goes to those behind it, and what does not fit is listed.

On a GPU or a TPU the result is `experiments/results/device_PLATFORM.json`, with
--only `device_PLATFORM_part.json`, so that it does not replace a whole one. On
a CPU the kernels are interpreted at tiny sizes, which tests this program and
says nothing about a device; then the result goes to a temporary folder.

The exit code is 1 if a check failed, and 3 if none could be done.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

from experiments.shared import device_run

KERNELS = {
  "attention": "attention",
  "decode": "decode_attention",
  "verify": "verify",
  "nearest_code": "nearest_code",
}
"""What is checked -> the operation of `ar_jax.ops`."""

# Part -> its share of the time, in the order in which they are done.
SHARES = {
  "decode": 8,
  "races": 8,
  "verify": 16,
  "nearest": 3,
  "attention": 26,
  "tf32": 4,
  "attention speed": 12,
  "verify speed": 4,
  "nearest speed": 1,
  "programs": 18,
}

SILENCE = 120.0
"""Seconds in which an item compiles and runs; beyond them it hangs."""

THREADS = 4


def parts(kernels: str, only: str) -> list[device_run.Part]:
  """What is to be done; initialises the device.

  Args:
    kernels: "gpu" or "tpu"; "" for those of this device (on a CPU: "gpu").
    only: parts or items, comma-separated pieces of "part/item"; "" for all.
  """
  import jax

  from experiments.shared import (
    device_checks,
    device_draws,
    device_speeds,
  )

  platform = jax.default_backend()
  cpu = platform == "cpu"
  if kernels and not cpu and kernels != platform:
    raise SystemExit(f"--kernels={kernels}: this is a {platform}")
  here = device_checks.Here(kernels or ("gpu" if cpu else platform), cpu)
  speeds = device_speeds.kernels(here)
  made = {
    "decode": device_checks.decode(here),
    "races": device_checks.races(here),
    "verify": device_draws.verify(here),
    "nearest": device_draws.nearest(here),
    "attention": device_checks.attention(here),
    "tf32": device_draws.tf32(here),
    **{f"{name} speed": items for name, items in speeds.items()},
    "programs": device_speeds.programs(here),
  }
  pieces = [piece for piece in only.split(",") if piece]
  wanted = lambda key: not pieces or any(piece in key for piece in pieces)
  found = [
    device_run.Part(name, share, [i for i in made[name] if wanted(i.key)])
    for name, share in SHARES.items()
  ]
  found = [part for part in found if part.items]
  if not found:
    raise SystemExit(f"--only={only}: no such part or item: {', '.join(made)}")
  return found


def work(options: argparse.Namespace) -> None:
  """The process that uses the device."""
  import jax

  # That of `ar_jax.main`, which needs more packages than there may be here.
  home = pathlib.Path.home() / ".cache" / "ar_jax"
  cache = pathlib.Path(os.environ.get("AR_JAX_CACHE", home)) / "xla"
  jax.config.update("jax_compilation_cache_dir", str(cache))
  todo = parts(options.kernels, options.only)
  log = pathlib.Path(options.log)
  if not device_run.about(log):
    kernels = options.kernels or jax.default_backend()
    device_run.note(
      log, platform=jax.default_backend(), kernels=kernels, only=options.only
    )
  device_run.work(
    todo, log, begun=options.begun, seconds=60 * options.minutes,
    threads=options.threads,
  )  # fmt: skip


def verdicts(found: dict[str, device_run.Row]) -> dict[str, dict]:
  """Operation -> how many of its checks went how."""
  table = {}
  for check, op in KERNELS.items():
    lines = [x for x in found.values() if x["check"] == check]
    right = [x for x in lines if x["state"] == "done" and not x["row"]["wrong"]]
    bad = [x for x in lines if failed(x)]
    refused = sum(x["state"] == "refused" for x in lines)
    passed = bool(right) and len(right) + refused == len(lines)
    table[op] = {
      "operation": op,
      "checks": len(lines),
      "right": len(right),
      "failed": len(bad),
      "refused": refused,
      "not done": len(lines) - len(right) - len(bad) - refused,
      "passed": passed,
    }
  return table


def failed(line: device_run.Row) -> bool:
  """Whether a check was done and is not right, or broke."""
  if not line["check"]:
    return False
  wrong = line["state"] == "done" and line["row"]["wrong"]
  return bool(wrong) or line["state"] in ("failed", "crashed")


def advice(table: dict[str, dict], about: device_run.Row) -> str:
  """Which lines of `ar_jax/ops.py` may go."""
  if about.get("platform") != "gpu":
    return "nothing: no GPU kernel was run on a GPU"
  if about.get("only"):
    return "nothing: --only left checks out"
  passed = [op for op, row in table.items() if row["passed"]]
  if not passed:
    return "nothing: no operation passed all of its checks"
  lines = ", ".join(f'("{op}", "pallas_gpu")' for op in passed)
  return f"remove from _UNTRIED in ar_jax/ops.py, once committed: {lines}"


def record_all(
  found: dict[str, device_run.Row],
  about: device_run.Row,
  seconds: float,
  folder: pathlib.Path | None,
) -> int:
  """Writes the result; the exit code."""
  from experiments.shared import record

  table = verdicts(found)
  interpreted = about.get("platform", "cpu") == "cpu"
  only = about.get("only", "")
  bad = [key for key, line in found.items() if failed(line)]
  checked = sum(row["right"] + row["failed"] for row in table.values())
  tables = {"Kernels": [row for row in table.values() if row["checks"]]}
  for key, line in found.items():
    part, _, name = key.partition("/")
    if line["state"] == "done":
      row = {"item": name, **line["row"], "seconds": line["seconds"]}
      tables.setdefault(part.capitalize(), []).append(row)
  tables["Not done, or failed"] = [
    {
      "item": key,
      "state": "wrong" if line["state"] == "done" else line["state"],
      "why": line.get("why", "the numbers are in the table of its part"),
    }
    for key, line in found.items()
    if line["state"] != "done" or failed(line)
  ]
  tables = {title: rows for title, rows in tables.items() if rows}
  passing = [op for op, row in table.items() if row["passed"]]
  left = sum(x["state"] == "left out" for x in found.values())
  name = f"device_{about.get('platform', 'none')}"
  record.write(
    name + ("_interpreted" if interpreted else "_part" if only else ""),
    claim="On the device the compiled kernels give what their references "
    "give, again and again.",
    paper="none",
    baseline="dense references in float32; dense XLA, cuDNN or splash "
    "attention, and the sparse form without a kernel",
    ours=f"passed: {', '.join(passing) or 'none'}; {len(bad)} of {checked} "
    f"checks failed; {left} items left out for want of time",
    holds=checked > 0 and not bad,
    seeds=[0],
    seconds=seconds,
    tables=tables,
    folder=folder,
    passing=passing,
    only=only,
    kernels=about.get("kernels", "none"),
    to_change=advice(table, about),
    interpreted=interpreted,
    traces={k: x["trace"] for k, x in found.items() if x.get("trace")},
  )
  for row in tables.get("Not done, or failed", []):
    print(f"{row['item']}: {row['state']}: {row['why']}")
  for op, row in table.items():
    if row["checks"]:
      print(f"{op}: {json.dumps({k: row[k] for k in list(row)[1:]})}")
  print(f"to change: {advice(table, about)}")
  return 1 if bad else 0 if checked or not interested(found) else 3


def interested(found: dict[str, device_run.Row]) -> bool:
  """Whether there was anything to check."""
  return not found or any(line["check"] for line in found.values())


def run(options: argparse.Namespace) -> int:
  """Supervises the processes that do the work; the exit code."""
  begun = time.time()
  scratch = pathlib.Path(tempfile.mkdtemp(prefix="device_"))
  log = pathlib.Path(options.log) if options.log else scratch / "log.jsonl"
  log.unlink(missing_ok=True)

  def command(attempt: int) -> list[str]:
    threads = THREADS if attempt == 0 else 0
    return [
      sys.executable, "-m", "experiments.device", "--work", f"--log={log}",
      f"--begun={begun}", f"--minutes={options.minutes}",
      f"--only={options.only}", f"--kernels={options.kernels}",
      f"--threads={threads}",
    ]  # fmt: skip

  device_run.supervise(
    command, log, until=begun + 60 * options.minutes, silence=options.silence
  )
  about = device_run.about(log)
  folder = pathlib.Path(options.out) if options.out else None
  if folder is None and about.get("platform", "cpu") == "cpu":
    folder = scratch
  seconds = time.time() - begun
  return record_all(device_run.read(log), about, seconds, folder)


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.device",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--minutes", type=float, default=8.0, help="for the whole run")
  add("--only", default="", help="parts or items, comma-separated pieces; "
      f"parts: {', '.join(SHARES)}")  # fmt: skip
  add("--kernels", default="", choices=("", "gpu", "tpu"),
      help="on a CPU, which to interpret (gpu)")  # fmt: skip
  add("--out", default="", help="folder of the result")
  add("--log", default="", help="file of JSON lines, written item by item")
  hidden = argparse.SUPPRESS
  add("--work", action="store_true", help=hidden)
  add("--silence", type=float, default=SILENCE, help=hidden)
  add("--begun", type=float, default=0.0, help=hidden)
  add("--threads", type=int, default=0, help=hidden)
  options = parser.parse_args(argv)
  if not options.minutes > 0:
    parser.error(f"--minutes={options.minutes}: must be more than 0")
  if options.work:
    work(options)
    return 0
  return run(options)


if __name__ == "__main__":
  sys.exit(main())
