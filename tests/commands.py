"""Commands in this process, as a person types them."""

import contextlib
import io

from ar_jax import main
from ar_jax.command import cli


def call(*argv):
  """(exit code, the lines printed) of a command, in this process."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
    try:
      main.main(cli.parse(["ar_jax", *argv]))
      code = 0
    except SystemExit as e:
      code = e.code
  if isinstance(code, str):  # which the interpreter prints, and exits with 1
    print(code, file=out)
    code = 1
  return code or 0, out.getvalue().splitlines()
