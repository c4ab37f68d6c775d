"""What a person types: flags, `--list`, `--help`, and one line for mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pkgutil
import re
import sys

from absl import flags

import ar_jax.encoders
import ar_jax.systems
import ar_jax.tokenizers
from ar_jax import evals, run_files
from ar_jax.command import arguments, overrides, presets
from ar_jax.core import system
from ar_jax.core.errors import UserError

MODES = ("train", "sample", "eval", "compile")

CONFIG = flags.DEFINE_string(
  "config", None, "What to run: NAME[:PRESET] or FILE.py[:PRESET]; see --list."
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the run lives; default runs/<name of the config>."
)
MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "HOST:PORT of process 0, where a run has several; auto: ask the cluster.",
)
PROCESSES = flags.DEFINE_integer(
  "num_processes", 0, "How many processes there are; 1: alone."
)
PROCESS = flags.DEFINE_integer(
  "process_id", -1, "Which of them this one is, from 0."
)
TIMEOUT = flags.DEFINE_integer(
  "join_timeout", 300, "Seconds to wait for the other processes."
)
HEARTBEAT = flags.DEFINE_integer(
  "heartbeat", 100, "After how many silent seconds a process counts as dead."
)
TOPOLOGY = flags.DEFINE_string(
  "topology", None, "What to compile for: v5e:4x4, v5p:4x4x4, h100:8, cpu:8 ..."
)
SWEEP = flags.DEFINE_bool(
  "sweep", False, "Compile on several meshes and batches, and name the best."
)
LIMIT = flags.DEFINE_bool(
  "limit", True, "Compile on other batches, too, to find the largest that fits."
)
_LIST = flags.DEFINE_bool(
  "list", False, "Print systems and presets; with --config, its keys."
)

USAGE = """\
python -m ar_jax.main --config=NAME[:PRESET] [--workdir=DIR]
  [--mode=train|sample|eval|compile] [--config.KEY=VALUE ...]

  python -m ar_jax.main --config=quickstart
  python -m ar_jax.main --config=var:folder --config.tokenizer.data.path=photos
  python -m ar_jax.main --list                  systems and presets
  python -m ar_jax.main --list --config=var     the keys of a config

A workdir knows the config of its run: --workdir=DIR alone goes on with it.

Of a config with stages, KEY begins with the name of a stage. What the whole
run shares, data, loader, mesh, parallel and seed, may go without one and is
then set in every stage. What a tokenizer is (TOKENIZER.model.KEY) is set in
the generators over it, too.

flags:"""


@dataclasses.dataclass
class Asked:
  """The changes that the command line makes to its config, as text."""

  changes: list[tuple[str, str]] = dataclasses.field(default_factory=list)


ASKED = Asked()


def parse(argv: list[str]) -> list[str]:
  """Flags; ends the process after `--help` and `--list`, and with one line for
  what is wrong.

  Args:
    argv: of the process, its name first.

  Returns:
    What is left that is no flag, the name first.
  """
  for flag in flags.FLAGS.get_flags_for_module(__name__):
    flag.unparse()  # a process may parse more than once
  try:
    rest, ASKED.changes = split(argv)
    wants_help = any(re.fullmatch("--?h(elp(full|short)?)?", a) for a in rest)
    if wants_help:
      rest = [a for a in rest if not re.fullmatch("--?h(elp.*)?", a)]
    left = flags.FLAGS(rest)
    if len(left) > 1:
      raise UserError(f"unknown argument {left[1]}; options begin with --")
    if wants_help or _LIST.value:
      show(help_text() if wants_help else list_text())
      sys.exit(0)
    return left
  except (flags.Error, UserError) as e:
    sys.exit("ar_jax: " + " ".join(str(e).split()))


def show(text: str) -> None:
  """Prints; whoever reads may stop early, as `head` does."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split(argv: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
  """(the other arguments, [(key, value)] of each `--config.KEY=VALUE`).

  Raises:
    UserError: a key without a value.
  """
  rest, changes, waiting = [], [], None
  for i, argument in enumerate(argv):
    if waiting is not None and not argument.startswith("--"):
      changes.append((waiting, argument))
      waiting = None
      continue
    found = re.fullmatch(r"--?config\.([^=]*)(=(.*))?", argument, re.DOTALL)
    if argument == "--":
      return rest + argv[i:], changes
    if not found:
      rest.append(argument)
    elif found[2] is None:
      waiting = found[1]
    else:
      changes.append((found[1], found[3]))
  if waiting is not None:
    raise UserError(
      f"--config.{waiting}: say its value, --config.{waiting}=..."
    )
  return rest, changes


def config():
  """(the config that was asked for, changed; its name; notes on the changes).

  Raises:
    UserError: there is none, or it cannot be so.
  """
  if CONFIG.value:
    made, name = presets.load(CONFIG.value), presets.title(CONFIG.value)
  elif WORKDIR.value:  # a run knows its own
    made, name = run_files.whole_config(workdir("")), ""
  else:
    made = None
  if made is None:
    raise UserError(
      "--config: say what to run, for example --config=quickstart; --list "
      "prints what there is"
    )
  return made, name, overrides.apply(made, ASKED.changes)


def workdir(name: str) -> pathlib.Path:
  """Where the run lives."""
  return pathlib.Path(WORKDIR.value or pathlib.Path("runs") / name).expanduser()


def systems() -> list[str]:
  """The systems, tokenizers and encoders that `build` knows."""
  found = []
  for package in (ar_jax.systems, ar_jax.tokenizers, ar_jax.encoders):
    for module in pkgutil.iter_modules(package.__path__):
      with contextlib.suppress(UserError):  # a module without `build`
        system.builder(module.name)
        found.append(module.name)
  return sorted(found)


def list_text() -> str:
  """What `--list` prints."""
  if CONFIG.value:
    made, _, notes = config()
    keys = overrides.described(made)
    head = f"keys of {CONFIG.value}; - is left to its default"
    return "\n".join([head, *keys, *notes])
  lines = ["configs, --config=NAME[:PRESET]:", ""]
  for name in presets.names():
    lines.append(f"  {name:<15} {presets.about(name)}")
    known = presets.of(presets.module(name))
    lines.append(f"  {'':<15}   {' '.join(known)}")
  lines += ["", "systems, tokenizers and encoders, config.system:", ""]
  lines.append("  " + " ".join(systems()))
  lines += ["", "data sets, config.data.name:", ""]
  lines.append("  " + " ".join(arguments.loaders()) + " and what TFDS prepared")
  lines += ["", "evaluators, config.evals:", ""]
  lines.append("  " + " ".join(evals.NAMES))
  return "\n".join(lines)


def help_text() -> str:
  """What `--help` prints: the flags, and with a config what it is and has."""
  lines = [USAGE]
  own = [f for f in flags.FLAGS.get_flags_for_module(__name__)]
  for flag in own:
    value = "" if flag.boolean else f"={flag.default or ''}"
    lines.append(f"  --{flag.name}{value}  {flag.help}")
  if not CONFIG.value:
    return "\n".join(lines)
  made, name, _ = config()
  lines += ["", f"{CONFIG.value}, in {workdir(name)}:"]
  if made.get("stages"):
    lines.append("  stages: " + ", ".join(made.stages))
  return "\n".join([*lines, *overrides.described(made)])
