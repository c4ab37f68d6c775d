"""Which files of a folder are for training, which for test, and of what class:
the rules of every folder of the user's, without reading a file.

  ROOT/CLASS/FILE                                a fixed part is held out
  ROOT/train/CLASS/FILE, ROOT/test/CLASS/FILE
  all of these without CLASS, where the loader takes everything as one class
"""

from __future__ import annotations

import dataclasses
import pathlib
import unicodedata
from collections.abc import Sequence

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.folders import walk
from ar_jax.data.folders.walk import Entry, Tree

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "eval")

Labelled = tuple[Entry, int]


@dataclasses.dataclass
class Layout:
  """Both parts of a data set.

  Attributes:
    names: of the classes.
    train: files with labels.
    test: the same; empty where a part of `train` is to be held out.
    remarks: what to tell the user of what was left out.
  """

  names: tuple[str, ...]
  train: list[Labelled]
  test: list[Labelled]
  remarks: list[str]


def layout(root: pathlib.Path, tree: Tree, classes: int | None) -> Layout:
  """The rules; see `folder.folder`.

  Raises:
    UserError: the folder fits no rule, see the messages.
  """
  train, test, remarks = _splits(root, tree, classes)
  names, files, said = _classes(root, tree, train, classes)
  remarks += said
  tested: list[Labelled] = []
  if test is not None:
    test_names, tested, said = _classes(root, tree, test, classes)
    remarks += said
    if test_names != names:
      raise UserError(
        f"{root}: {_differ(train, test, names, test_names)}; both need the "
        "same sub-folders"
      )
  files, tested, said = _once(root, files, tested, tree.what)
  return Layout(names, files, tested, remarks + said)


def without_classes(tree: Tree) -> bool:
  """Whether no file lies in a class sub-folder, of `train` or of the root."""
  tops = {e.parts[0].lower() for e in tree.files if len(e.parts) > 1}
  parted = bool(tops & set(_TRAIN) and tops & set(_TEST))
  parted = parted and tops <= {*_TRAIN, *_TEST}
  return all(len(e.parts) <= 1 + parted for e in tree.files)


def _splits(
  root: pathlib.Path, tree: Tree, classes: int | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None, list[str]]:
  """The folders of both parts, as `parts`; None where there is no test."""
  tops = sorted({e.parts[0] for e in tree.files if len(e.parts) > 1})
  named = lambda names: [t for name in names for t in tops if t.lower() == name]
  trains, tests = named(_TRAIN), named(_TEST)
  others = [t for t in tops if t not in trains + tests]
  if not trains:
    if tests and not others and len(tests) > 1:
      raise UserError(
        f"{root}: has {' and '.join(tests)} but no train; name the folder of "
        f"the training {tree.what}s train"
      )
    return (), None, []
  if not tests and (others or len(trains) > 1 and classes is None):
    return (), None, []  # a class that is called train
  if len(trains) > 1:
    raise UserError(
      f"{root}: has {' and '.join(trains)}; keep one of them for training"
    )
  depth = 2 if classes == 1 else 3
  fits = lambda top: any(len(e.parts) >= depth for e in tree.below(top).files)
  test = next((t for t in tests if fits(t)), None)
  remarks = [
    f"{notes.printable(t)}/ is not used"
    + ("" if fits(t) or t in others else ", it has no class folders")
    for t in [*tests, *others]
    if t != test
  ]
  loose = sum(len(e.parts) == 1 for e in tree.files)
  if loose:
    remarks.append(f"{loose} {tree.what}s outside of train/ and test/ left out")
  return (trains[0],), None if test is None else (test,), remarks


def _classes(
  root: pathlib.Path,
  tree: Tree,
  part: tuple[str, ...],
  classes: int | None,
) -> tuple[tuple[str, ...], list[Labelled], list[str]]:
  """(class names, [(picture, label)], remarks) of one part."""
  place = root.joinpath(*part)
  tree = tree.below(*part)
  n = len(part)
  if classes == 1:
    if not tree.files:
      raise _nothing(place, tree, "", "")
    name = _clean(root.resolve().name or f"{tree.what}s")
    return (name,), [(e, 0) for e in tree.files], []
  folders = sorted({p[n] for p in tree.folders if p[:n] == part and len(p) > n})
  groups: dict[str, list[Entry]] = {f: [] for f in folders}
  unread: dict[str, list[Entry]] = {f: [] for f in folders}
  for found, into in ((tree.files, groups), (tree.others, unread)):
    for e in found:
      if len(e.parts) > n + 1:
        into[e.parts[n]].append(e)
  loose = sum(len(e.parts) == n + 1 for e in tree.files)
  if not any(groups.values()):
    without = f"; for {tree.what}s without classes set classes=1"
    hint = without if loose else ""
    raise _nothing(place, tree, " in class sub-folders", hint)
  remarks, names = [], {}
  for f in folders:
    if groups[f]:
      if _clean(f) in names:
        raise UserError(
          f"{place}: two class sub-folders are called {_clean(f)!r}, written "
          f"in different bytes; rename one, or put their {tree.what}s together"
        )
      names[_clean(f)] = groups[f]
    elif any(not walk.is_document(e) for e in unread[f]):
      raise UserError(
        f"{place / notes.printable(f)}: no {tree.what} that can be read, only "
        f"{walk.kinds(unread[f])}; convert them (for example to "
        f"{tree.endings[0]}), or "
        "move the folder away"
      )
    else:
      what = walk.kinds(unread[f]) or "nothing"
      remarks.append(f"{notes.printable(f)}/ is no class, it holds {what}")
  if loose:
    remarks.append(
      f"{loose} {tree.what}s outside of class sub-folders left out"
    )
  if len(names) == 1 and classes != 1:
    raise UserError(
      f"{place}: only one class sub-folder ({next(iter(names))!r}); add "
      "another, or set classes=1 for an unconditional model"
    )
  if classes not in (None, len(names)):
    raise UserError(
      f"{place}: {len(names)} class sub-folders, but classes={classes}; "
      "mend the one or the other"
    )
  order = sorted(names)
  files = [(e, k) for k, name in enumerate(order) for e in names[name]]
  return tuple(order), files, remarks


def _nothing(place, tree: Tree, where: str, hint: str) -> UserError:
  there = f" (there are {walk.kinds(tree.others)})" if tree.others else ""
  ends = ", ".join(tree.endings[:6])
  if len(tree.endings) > 6:
    ends += " ..."
  return UserError(
    f"{place}: no {tree.what}s{where}{there}; put {ends} files there{hint}"
  )


def _clean(name: str) -> str:
  """A class's name: composed Unicode on one line, valid in UTF-8."""
  name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
  return notes.printable(unicodedata.normalize("NFC", name))


def _differ(train, test, names: Sequence[str], others: Sequence[str]) -> str:
  """How the classes of the two parts differ."""
  said = []
  for part, own, other in ((train, names, others), (test, others, names)):
    more = [name for name in own if name not in other]
    if more:
      said.append(f"{part[0]} has {notes.listed(more)}")
  return f"{' and '.join(said)}, which the other has not"


def _once(
  root: pathlib.Path,
  train: list[Labelled],
  test: list[Labelled],
  what: str,
) -> tuple[list[Labelled], list[Labelled], list[str]]:
  """Leaves out links to files that are there already.

  Raises:
    UserError: a file is in train and in test, or has two labels.
  """
  first: dict[tuple[int, int], tuple[Entry, int, bool]] = {}
  parts: list[list[Labelled]] = [[], []]
  dropped = 0
  for held_out, files in enumerate((train, test)):
    for e, label in files:
      if e.who in first:
        before, its_label, its_part = first[e.who]
        if (its_label, its_part) != (label, held_out):
          raise UserError(
            f"{root}: {before.name} and {e.name} are the same file (a link), "
            f"in two {'classes' if its_label != label else 'parts'}; remove "
            "one of them"
          )
        dropped += 1
        continue
      if e.who is not None:
        first[e.who] = e, label, held_out
      parts[held_out].append((e, label))
  said = [f"{dropped} links to {what}s that are there already"]
  return parts[0], parts[1], said if dropped else []
