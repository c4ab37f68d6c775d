"""The files that a key of `config.sample` names."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.folders import walk


def named(
  key: str, path: str, what: str, endings: Sequence[str], listed: str = ""
) -> list[pathlib.Path]:
  """A file, or those of a folder by their names, sub-folders too; what else
  lies there is said.

  Args:
    key: of `config.sample`, which names it.
    path: the file or folder.
    what: one such file is called so in messages.
    endings: of the files of a folder that are taken, as ".wav".
    listed: what may be named, where the word does not say it.

  Raises:
    UserError: there is none.
  """
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    if not root.exists():
      raise UserError(
        f"sample.{key}={path!r}: no such file or folder; name a {what} or a "
        f"folder of {what}s{listed}"
      )
    return [root]
  tree = walk.walk(root, endings, what)
  if not tree.files:
    raise UserError(f"sample.{key}={path!r}: no {what} in this folder{listed}")
  others = notes.listed(e.name for e in tree.others)
  notes.once(
    f"sample.{key}: {len(tree.files)} {what}s in {notes.printable(str(root))}"
    + (f"; no {what}s: {others}" if others else "")
  )
  return sorted(pathlib.Path(e.path) for e in tree.files)


def called(path: str, found: Sequence[pathlib.Path]) -> list[str]:
  """What files that `named` found are called: by their place in the folder."""
  root = pathlib.Path(path).expanduser()
  return [str(x.relative_to(root)) if root.is_dir() else x.name for x in found]


def say_fitted(
  key: str,
  what: str,
  sizes: Sequence[tuple[int, int]],
  height: int,
  width: int,
) -> None:
  """Says how many pictures of these sizes (width, height) are made smaller, and
  how many cut, to have the sides that a system reads."""
  # Pixels of the result that stand over, once a picture covers it.
  over = lambda w, h: max(w * height / h - width, h * width / w - height)
  cut = sum(over(*size) >= 0.5 for size in sizes)
  shrunk = sum(w > width and h > height for w, h in sizes)
  counts = (shrunk, "made smaller"), (cut, "cut to their middle")
  done = ", ".join(f"{n} {how}" for n, how in counts if n)
  if done:
    notes.once(
      f"sample.{key}: of {len(sizes)} {what}s {done}: the system reads "
      f"{height}x{width} pixels"
    )
