"""Which pictures of a folder are for training, which for test, and of what
class: the rules of `folder`, without reading a picture."""

from __future__ import annotations

import dataclasses
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data import notes
from ar_jax.data.dataset import split_by_seed
from ar_jax.data.images import scan
from ar_jax.data.images.scan import Entry, Tree

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "eval")

Labelled = tuple[Entry, int]


@dataclasses.dataclass
class Layout:
  """Both parts of a data set.

  Attributes:
    names: of the classes.
    train: pictures with labels.
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
  files, tested, said = _once(root, files, tested)
  return Layout(names, files, tested, remarks + said)


def hold_out(
  root: pathlib.Path, files: list[Labelled], fraction: float
) -> tuple[list[Labelled], list[Labelled], list[str]]:
  """(train, test, remarks): a fixed random part is held out, such that every
  class keeps a picture for training where that leaves any for test.

  Raises:
    UserError: there is nothing to divide.
  """
  if len(files) < 2:
    raise UserError(f"{root}: one image cannot be split; add more images")
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
    remarks.append(f"{len(without)} classes have no picture for training")
  pick = lambda rows: [files[int(i)] for i in rows]
  return pick(kept), pick(test), remarks


def _splits(
  root: pathlib.Path, tree: Tree, classes: int | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None, list[str]]:
  """The folders of both parts, as `parts`; None where there is no test."""
  tops = sorted({e.parts[0] for e in tree.pictures if len(e.parts) > 1})
  named = lambda names: [t for name in names for t in tops if t.lower() == name]
  trains, tests = named(_TRAIN), named(_TEST)
  others = [t for t in tops if t not in trains + tests]
  if not trains:
    if tests and not others and len(tests) > 1:
      raise UserError(
        f"{root}: has {' and '.join(tests)} but no train; name the folder of "
        "the training pictures train"
      )
    return (), None, []
  if not tests and (others or len(trains) > 1 and classes is None):
    return (), None, []  # a class that is called train
  if len(trains) > 1:
    raise UserError(
      f"{root}: has {' and '.join(trains)}; keep one of them for training"
    )
  depth = 2 if classes == 1 else 3
  fits = lambda top: any(
    len(e.parts) >= depth for e in tree.below(top).pictures
  )
  test = next((t for t in tests if fits(t)), None)
  remarks = [
    f"{notes.printable(t)}/ is not used"
    + ("" if fits(t) or t in others else ", it has no class folders")
    for t in [*tests, *others]
    if t != test
  ]
  loose = sum(len(e.parts) == 1 for e in tree.pictures)
  if loose:
    remarks.append(f"{loose} pictures outside of train/ and test/ left out")
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
    if not tree.pictures:
      raise _nothing(place, tree, "", "")
    name = _clean(root.resolve().name or "pictures")
    return (name,), [(e, 0) for e in tree.pictures], []
  folders = sorted({p[n] for p in tree.folders if p[:n] == part and len(p) > n})
  groups: dict[str, list[Entry]] = {f: [] for f in folders}
  unread: dict[str, list[Entry]] = {f: [] for f in folders}
  for found, into in ((tree.pictures, groups), (tree.others, unread)):
    for e in found:
      if len(e.parts) > n + 1:
        into[e.parts[n]].append(e)
  loose = sum(len(e.parts) == n + 1 for e in tree.pictures)
  if not any(groups.values()):
    hint = "; for images without classes set classes=1" if loose else ""
    raise _nothing(place, tree, " in class sub-folders", hint)
  remarks, names = [], {}
  for f in folders:
    if groups[f]:
      if _clean(f) in names:
        raise UserError(
          f"{place}: two class sub-folders are called {_clean(f)!r}, written "
          "in different bytes; rename one, or put their pictures together"
        )
      names[_clean(f)] = groups[f]
    elif any(not scan.is_document(e) for e in unread[f]):
      raise UserError(
        f"{place / notes.printable(f)}: no picture that can be read, only "
        f"{scan.kinds(unread[f])}; convert them (for example to .jpg), or "
        "move the folder away"
      )
    else:
      what = scan.kinds(unread[f]) or "nothing"
      remarks.append(f"{notes.printable(f)}/ is no class, it holds {what}")
  if loose:
    remarks.append(f"{loose} pictures outside of class sub-folders left out")
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
  there = f" (there are {scan.kinds(tree.others)})" if tree.others else ""
  ends = ", ".join(scan.suffixes()[:6])
  return UserError(
    f"{place}: no images{where}{there}; put {ends} ... files there{hint}"
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
  root: pathlib.Path, train: list[Labelled], test: list[Labelled]
) -> tuple[list[Labelled], list[Labelled], list[str]]:
  """Leaves out links to pictures that are there already.

  Raises:
    UserError: a picture is in train and in test, or has two labels.
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
  said = [f"{dropped} links to pictures that are there already"]
  return parts[0], parts[1], said if dropped else []
