"""A user's folder from its name to the two parts of a data set, and the one
line that tells of it."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Container, Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.dataset import split_by_seed
from ar_jax.data.folders import layout as layouts
from ar_jax.data.folders import walk
from ar_jax.data.folders.layout import Labelled, Layout
from ar_jax.data.folders.walk import Tree


def root(path: str, test_fraction: float, holds: str) -> pathlib.Path:
  """The folder that a user names.

  Raises:
    UserError: there is none; `holds` says what ought to be in it. Or the part
      to be held out is none.
  """
  found = pathlib.Path(path).expanduser()
  if not path or not found.is_dir():
    raise UserError(
      f"data.path={path!r}: no such folder; name the folder that holds {holds}"
    )
  if not 0 < test_fraction < 1:
    raise UserError(f"data.test_fraction={test_fraction}: must be in 0 to 1")
  return found


def divided(
  root: pathlib.Path,
  tree: Tree,
  good: Container[tuple[str, ...]],
  classes: int | None,
  test_fraction: float,
) -> Layout:
  """Both parts of a folder that may do without classes.

  Args:
    root: the folder.
    tree: what is in it.
    good: the paths, as `parts`, of the files that can be read.
    classes: see `layout.layout`; None is 1 where no sub-folder is a class.
    test_fraction: held out where there is no test folder.

  Raises:
    UserError: as `layout.layout` and `hold_out`, or nothing of a class or of a
      part is good.
  """
  if classes is None and tree.files and layouts.without_classes(tree):
    classes = 1
  found = layouts.layout(root, tree, classes)
  pick = lambda files: [(e, k) for e, k in files if e.parts in good]
  train, test = pick(found.train), pick(found.test)
  check_classes(root, found.names, train, tree.what)
  remarks = found.remarks
  if not found.test:
    train, test, said = hold_out(root, train, test_fraction, tree.what)
    remarks = remarks + said
  elif not test:
    raise UserError(f"{root}: no {tree.what} for test that can be read")
  return Layout(found.names, train, test, remarks)


def check_classes(
  root: pathlib.Path, names: Sequence[str], train: list[Labelled], what: str
) -> None:
  """Raises UserError if a class has lost all of its files."""
  have = collections.Counter(k for _, k in train)
  none = [name for k, name in enumerate(names) if not have[k]]
  if none:
    raise UserError(
      f"{root}: no {what} of {notes.listed(none)} can be read; replace them, "
      "or move the folder away"
    )


def tell(
  name: str,
  root: pathlib.Path,
  tree: Tree,
  found: Layout,
  more: Sequence[str],
) -> None:
  """One line: "folder: 450 + 50 pictures, 3 classes: cats, dogs, fish;
  skipped 12 .heic; ..."."""
  names = found.names
  some = ", ".join(names if len(names) < 10 else [*names[:3], "...", names[-1]])
  skipped = walk.skipped(tree)
  said = [
    f"{name}: {len(found.train)} + {len(found.test)} {tree.what}s, "
    f"{len(names)} {'class' if len(names) == 1 else 'classes'}: {some}",
    *([f"skipped {skipped}"] if skipped else []),
    *found.remarks,
    *more,
  ]
  notes.once("; ".join(said), f"{root.resolve()} {said}")


def hold_out(
  root: pathlib.Path,
  files: list[Labelled],
  fraction: float,
  what: str = "picture",
) -> tuple[list[Labelled], list[Labelled], list[str]]:
  """(train, test, remarks): a fixed random part is held out, such that every
  class keeps one for training where that leaves any for test. `what` is one of
  the files called.

  Raises:
    UserError: there is nothing to divide.
  """
  if len(files) < 2:
    raise UserError(f"{root}: one {what} cannot be split; add more")
  held = min(max(round(len(files) * fraction), 1), len(files) - 1)
  kept, test = split_by_seed(len(files), held)
  label = np.asarray([k for _, k in files])
  without = np.setdiff1d(label, label[kept])
  remarks = []
  if len(without) < len(test):
    back = [test[np.flatnonzero(label[test] == k)[0]] for k in without]
    kept = np.sort(np.append(kept, back)).astype(int)
    test = np.setdiff1d(test, back)
  elif len(without):
    remarks.append(f"{len(without)} classes have no {what} for training")
  pick = lambda rows: [files[int(i)] for i in rows]
  return pick(kept), pick(test), remarks
