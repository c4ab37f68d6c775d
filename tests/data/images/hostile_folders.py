"""Folders of pictures as people have them: name -> (how to make one, the
options of `folder`, (pictures for training, for test, classes), the line that
tells of it); or in place of the last two the line with which it is refused.
"""

from __future__ import annotations

import os
import shutil
import unicodedata

from PIL import Image

_COUNT = iter(range(10**9))


def _pic(path):
  """A picture that no other one equals."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  n = next(_COUNT)
  colour = (n % 256, n // 256 % 256, 99)
  kind = "JPEG" if path.endswith("jpg") else "PNG"
  Image.new("RGB", (20, 20), colour).save(path, format=kind)


def put(*classes, n=3, below=""):
  """n pictures of each class."""

  def make(root):
    for name in classes:
      for i in range(n):
        _pic(os.path.join(root, below, name, f"{i}.png"))

  return make


def _split(train, test, *classes, more=()):
  def make(root):
    put(*classes, below=train)(root)
    put(*classes, below=test)(root)
    for other in more:
      other(root)

  return make


def _flat(*paths):
  return lambda root: [_pic(os.path.join(root, path)) for path in paths]


def _files(*paths, content=b"x"):
  def make(root):
    for path in paths:
      path = os.path.join(root, path)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, "wb") as f:
        f.write(content)

  return make


def _link(target, path, folder=False):
  del folder
  return lambda root: os.symlink(target, os.path.join(root, path))


def _hard(target, path):
  return lambda root: os.link(
    os.path.join(root, target), os.path.join(root, path)
  )


def _folder(path):
  return lambda root: os.makedirs(os.path.join(root, path))


def _all(*makers):
  def make(root):
    for maker in makers:
      maker(root)

  return make


def _latin1(root):
  put("dogs")(root)
  bad = os.fsencode(root) + b"/caf\xe9"
  os.makedirs(bad)
  for i in range(3):
    shutil.copy(f"{root}/dogs/{i}.png", bad + f"/{i}.png".encode())


def _nfd(name):
  return unicodedata.normalize("NFD", name)


_TWO = put("cats", "dogs")
_CD = ("cats", "dogs")
_CDF = ("cats", "dogs", "fish")
_ONE = {"classes": 1}

FOLDERS = {
  # What systems and programs leave behind.
  "notebook_checkpoints": (
    _all(_TWO, _flat(".ipynb_checkpoints/0-checkpoint.png")),
    {}, (5, 1, _CD), "skipped 1 hidden",
  ),
  "trash": (
    _all(_TWO, _flat(".Trash-1000/files/0.png")),
    {}, (5, 1, _CD), "skipped 1 hidden",
  ),
  "mac_zip": (
    _all(_TWO, _files("__MACOSX/cats/._0.png", "cats/._0.png", "._cats")),
    {}, (5, 1, _CD), "skipped 1 hidden",
  ),
  "synology": (
    _all(_TWO, _flat("cats/@eaDir/SYNOPHOTO_THUMB_M.jpg", "@eaDir/x.jpg")),
    {}, (5, 1, _CD), "skipped 2 hidden",
  ),
  "windows": (
    _all(_TWO, _files("cats/Thumbs.db", "desktop.ini", "$RECYCLE.BIN/x.png")),
    {}, (5, 1, _CD), "skipped 1 hidden",
  ),
  "hidden_picture": (
    _all(_TWO, _flat("cats/.hidden.png")),
    {}, (5, 1, _CD), "skipped 1 hidden",
  ),
  "hidden_in_test": (
    _split("train", "test", *_CD, more=[_flat("test/.checkpoints/0.png")]),
    {}, (6, 6, _CD), "skipped 1 hidden",
  ),
  # Names of the parts.
  "train_test": (_split("train", "test", *_CDF), {}, (9, 9, _CDF), "9 . 9"),
  "train_valid": (_split("train", "valid", *_CDF), {}, (9, 9, _CDF), "9 . 9"),
  "Train_Test": (_split("Train", "Test", *_CDF), {}, (9, 9, _CDF), "9 . 9"),
  "TRAIN_VAL": (_split("TRAIN", "VAL", *_CDF), {}, (9, 9, _CDF), "9 . 9"),
  "training_testing": (
    _split("training", "testing", *_CDF), {}, (9, 9, _CDF), "9 . 9",
  ),
  "training_validation": (
    _split("training", "validation", *_CDF), {}, (9, 9, _CDF), "9 . 9",
  ),
  "train_alone": (put(*_CD, below="train"), {}, (5, 1, _CD), "5 . 1 pict"),
  "a_class_called_train": (
    put("bus", "car", "train"), {}, (8, 1, ("bus", "car", "train")), "train",
  ),
  "kaggle": (
    _split("train", "val", *_CD, more=[_flat("test/0.png", "test/1.png")]),
    {}, (6, 6, _CD), "test/ is not used, it has no class folders",
  ),
  "imagenet": (
    _all(put("n0", "n1", below="train"), _flat("val/ILSVRC2012_val_1.png")),
    {}, (5, 1, ("n0", "n1")), "val/ is not used, it has no class folders",
  ),
  "train_val_test": (
    _split("train", "val", *_CD, more=[put(*_CD, below="test")]),
    {}, (6, 6, _CD), "val/ is not used",
  ),
  "unlabelled_beside": (
    _split("train", "test", *_CD, more=[_flat("unlabeled/0.png")]),
    {}, (6, 6, _CD), "unlabeled/ is not used",
  ),
  "val_test_without_train": (
    _split("val", "test", *_CD), {}, "has test and val but no train",
  ),
  "train_and_training": (
    _split("train", "training", *_CD, more=[put(*_CD, below="test")]),
    {}, "has train and training; keep one",
  ),
  # Classes.
  "class_of_heic": (
    _all(put("dogs", "fish"), _files("cats/0.cr2", "cats/1.cr2")),
    {}, "cats: no picture that can be read, only 2 .cr2; convert",
  ),
  "class_without_endings": (
    _all(put("dogs", "fish"), _files("cats/0", "cats/1")),
    {}, "cats: no picture that can be read, only 2 without ending",
  ),
  "some_heic": (
    _all(put(*_CD), _files("cats/0.cr2", "cats/1.CR2", "dogs/2.mov")),
    {}, (5, 1, _CD), "skipped 2 .cr2, 1 .mov",
  ),
  "all_of_a_class_damaged": (
    _all(put("dogs", "fish"), _files("cats/0.png", "cats/1.png")),
    {"skip_bad": True}, "no picture of cats can be read",
  ),
  "damaged": (
    _all(_TWO, _files("cats/a.png", "dogs/b.png", content=b"")),
    {}, "of 8 pictures 2 cannot be read: cats/a.png .an empty file., dogs/b",
  ),
  "damaged_left_out": (
    _all(_TWO, _files("cats/a.png", "dogs/b.png", content=b"")),
    {"skip_bad": True}, (5, 1, _CD), "2 cannot be read: cats/a.png",
  ),
  "annotations_beside": (
    _all(_TWO, _files("annotations/0.xml", "README/x.md")),
    {}, (5, 1, _CD), "annotations/ is no class, it holds 1 .xml",
  ),
  "empty_class": (
    _all(_TWO, _folder("aardvarks")),
    {}, (5, 1, _CD), "aardvarks/ is no class, it holds nothing",
  ),
  "loose_beside_classes": (
    _all(_TWO, _flat("0.png", "1.png")),
    {}, (5, 1, _CD), "2 pictures outside of class sub-folders left out",
  ),
  "test_lacks_a_class": (
    _all(put(*_CDF, below="train"), put(*_CD, below="test")),
    {}, "train has fish, which the other has not",
  ),
  "test_has_another_class": (
    _all(put(*_CD, below="train"), put(*_CDF, below="test")),
    {}, "test has fish, which the other has not",
  ),
  "class_with_one_picture": (
    _all(put("cats", n=9), put("dogs", n=1)),
    {"test_fraction": 0.8}, (3, 7, _CD), "3 . 7 pict",
  ),
  "one_picture_each": (
    put(*map(str, range(30)), n=1),
    {}, (27, 3, tuple(sorted(map(str, range(30))))),
    "3 classes have no picture for training",
  ),
  "deep": (put("cats/a/b", "dogs/c"), {}, (5, 1, _CD), "cats, dogs"),
  "folder_named_jpg": (
    put("cats/album.jpg", "dogs"), {}, (5, 1, _CD), "cats, dogs",
  ),
  "one_class": (put("faces", n=5), {}, "only one class sub-folder .'faces'."),
  "flat": (_flat("0.png", "1.png"), {}, "no pictures in .* set classes=1"),
  "nothing": (_files("a.cr2"), {}, "no pictures in class .*there are 1 .cr2"),
  "wrong_number": (_TWO, {"classes": 3}, "2 class sub-folders, but classes=3"),
  # Without classes.
  "flat_as_one": (_flat("0.png", "1.png", "2.png"), _ONE, (2, 1, 1), "1 class"),
  "classes_as_one": (_TWO, _ONE, (5, 1, 1), "5 . 1 pictures, 1 class"),
  "parts_as_one": (
    _all(_flat("train/0.png", "train/1.png", "test/0.png")),
    _ONE, (2, 1, 1), "2 . 1 pictures, 1 class",
  ),
  "Parts_of_classes_as_one": (
    _split("Train", "Valid", *_CD), _ONE, (6, 6, 1), "6 . 6 pictures, 1 class",
  ),
  "one_picture": (_flat("0.png"), _ONE, "one picture cannot be split"),
  # Links.
  "link_up": (
    _all(_TWO, _link("..", "cats/up")),
    {}, (5, 1, _CD), "cats/up, a link to what is read already",
  ),
  "link_to_itself": (
    _all(_TWO, _link(".", "all")), {}, (5, 1, _CD), "all, a link to what is",
  ),
  "link_to_a_class": (
    _all(_TWO, _link("dogs", "best")), {}, (5, 1, _CD), "best, a link to",
  ),
  "link_that_loops": (
    _all(_TWO, _link("loop.png", "cats/loop.png")),
    {}, "cats/loop.png .too many levels of symbolic links",
  ),
  "test_is_a_link_to_train": (
    _all(put(*_CD, below="train"), _link("train", "test")),
    {}, (5, 1, _CD), "test, a link to what is read already",
  ),
  "picture_linked_in_its_class": (
    _all(_TWO, _link("0.png", "cats/again.png")),
    {}, (5, 1, _CD), "1 links to pictures that are there already",
  ),
  "picture_linked_in_two_classes": (
    _all(_TWO, _link("../dogs/0.png", "cats/again.png")),
    {}, "cats/again.png and dogs/0.png are the same file .*two classes",
  ),
  "picture_linked_in_both_parts": (
    _split(
      "train", "test", *_CD, more=[_hard("train/cats/0.png", "test/cats/9.png")]
    ),
    {}, "train/cats/0.png and test/cats/9.png are the same file .*two parts",
  ),
  # Names.
  "unicode_in_two_forms": (
    _all(
      put(_nfd("café"), "thé", below="train"),
      put("café", _nfd("thé"), below="test"),
    ),
    {}, (6, 6, ("café", "thé")), "café, thé",
  ),
  "one_name_in_two_forms": (
    put(_nfd("café"), "café"), {}, "two class sub-folders are called 'café'",
  ),
  "bytes_that_are_no_text": (
    _latin1, {}, (5, 1, ("caf\ufffd", "dogs")), "dogs",
  ),
  "odd_names": (
    put("猫", "a b\tc\nd", "quote'\"", "emoji😀"),
    {}, (11, 1, ("a b\\tc\\nd", "emoji😀", "quote'\"", "猫")), "a b.*猫",
  ),
  "numbers": (
    put(*map(str, range(1, 13)), n=2),
    {}, (22, 2, tuple(sorted(map(str, range(1, 13))))), "1, 10, 11, ..., 9",
  ),
}  # fmt: skip
