"""Every source keeps the contract; every mistake gets one clear line."""

import gzip
import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data import sources
from ar_jax.data.dataset import Arrays, label
from ar_jax.data.images import reader, transforms


def _save(path, value=0, size=(20, 30)):
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.full((*size, 3), value, np.uint8)
  Image.fromarray(array).save(path)


class Case(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def check(self, dataset, size, channels):
    """The contract of a data set, on a few examples of both parts."""
    self.assertLen(dataset.class_names, dataset.num_classes)
    for source in (dataset.train, dataset.test):
      self.assertNotEmpty(source)
      for i in (0, len(source) // 2, len(source) - 1):
        example = source[i]
        self.assertEqual(example["image"].shape, (size, size, channels))
        self.assertEqual(example["image"].dtype, np.uint8)
        self.assertEqual(example["label"].dtype, np.int32)
        self.assertBetween(example["label"], 0, dataset.num_classes - 1)
        np.testing.assert_array_equal(example["image"], source[i]["image"])

  def fails(self, message, name, size=8, **options):
    with self.assertRaisesRegex(UserError, message) as caught:
      data.load(name, size=size, **options)
    self.assertNotIn("\n", str(caught.exception))


def _pixels(source):
  return {source[i]["image"].tobytes() for i in range(len(source))}


class EmbeddedTest(Case):
  @parameterized.product(size=(8, 17), channels=(1, 3))
  def test_digits(self, size, channels):
    digits = data.load("digits", size=size, channels=channels)
    self.check(digits, size, channels)
    self.assertEqual((len(digits.train), len(digits.test)), (1500, 297))
    self.assertEqual(max(digits.train[i]["image"].max() for i in range(9)), 255)

  def test_digits_parts_share_nothing(self):
    digits = data.load("digits", size=8, channels=1)
    self.assertEmpty(_pixels(digits.train) & _pixels(digits.test))

  def test_fake_is_deterministic_and_has_class_structure(self):
    one, two = (
      data.load("fake", size=8, num_classes=3, length=30) for _ in range(2)
    )
    self.check(one, 8, 3)
    np.testing.assert_array_equal(one.train[7]["image"], two.train[7]["image"])
    self.assertEmpty(_pixels(one.train) & _pixels(one.test))

    def distance(i, j):
      a, b = (one.train[k]["image"].astype(float) for k in (i, j))
      return np.abs(a - b).mean()

    self.assertLess(2 * distance(0, 3), distance(0, 1))

  def _fashion(self, labels=(0, 9)):
    for stem in ("train", "t10k"):
      image = np.full((2, 28, 28), 200, np.uint8)
      for kind, rank, array in (
        ("images", 3, image),
        ("labels", 1, np.asarray(labels, np.uint8)),
      ):
        sizes = np.asarray(array.shape, ">i4").tobytes()
        raw = bytes([0, 0, 8, rank]) + sizes + array.tobytes()
        file = self.root / f"{stem}-{kind}-idx{rank}-ubyte.gz"
        file.write_bytes(gzip.compress(raw))
    return str(self.root)

  def test_fashion_mnist_is_padded_at_32_and_resized_elsewhere(self):
    path = self._fashion()
    padded = data.load("fashion_mnist", size=32, channels=1, path=path)
    self.check(padded, 32, 1)
    image = padded.train[0]["image"]
    self.assertTrue((image[2:-2, 2:-2] == 200).all())
    self.assertEqual(int(image.sum()), 200 * 28 * 28)
    resized = data.load("fashion_mnist", size=16, path=path)
    self.check(resized, 16, 3)
    self.assertTrue((resized.train[0]["image"] == 200).all())

  def test_fashion_mnist_errors(self):
    path = self._fashion()
    self.fails("cannot pad", "fashion_mnist", 24, path=path, fit="pad")
    self.fails("one of pad, resize", "fashion_mnist", path=path, fit="crop")
    self._fashion(labels=(0, 10))
    self.fails("label 10 is out of range", "fashion_mnist", path=path)
    file = self.root / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    self.fails("idx3-ubyte.gz: missing or damaged", "fashion_mnist", path=path)

  def test_arrays_of_different_lengths(self):
    fields = {"image": np.zeros((3, 8, 8)), "label": np.zeros(2)}
    with self.assertRaisesRegex(UserError, "x: 3 of 'image' but 2 of 'label'"):
      Arrays(fields, num_classes=2, where="x")

  def test_arrays_without_images_or_labels(self):
    source = Arrays({"series": np.eye(4, dtype=np.float32)}, where="x")
    self.assertEqual(list(source[2]), ["series"])
    self.assertFalse(hasattr(source, "labels"))
    with self.assertRaisesRegex(UserError, "no label, only series"):
      label(source, 0)


class LoadTest(Case):
  def test_impossible_requests(self):
    self.fails("size=0: must lie", "fake", size=0)
    self.fails("size=100000: must lie", "fake", size=100000)
    self.fails("channels=2", "fake", channels=2)
    self.fails(
      "data.lenght: no option of 'fake', did you mean length", "fake", lenght=3
    )
    self.fails("length must be at least 1", "fake", length=0)

  def test_a_set_takes_what_its_loader_takes(self):
    with self.assertRaisesRegex(UserError, "data.size: 'digits' needs it"):
      data.load("digits")
    self.fails("data.path: no option of 'digits'", "digits", path="/x")
    self.assertLen(data.load("digits", size=8, path="").test, 297)
    self.fails("order='sorted': must be 'shuffled' or", "fake", order="sorted")
    self.fails("did you mean order", "fake", ordre="given")

  def test_options_that_are_not_set_are_not_given(self):
    found = data.load("fake", size=8, length=None, num_classes=3)
    self.assertEqual((len(found.train), found.num_classes), (1024, 3))

  def test_every_set_says_what_it_is_and_takes(self):
    for name, text in sources.described().items():
      with self.subTest(name):
        for part in ("From: ", "Command: ", "Fields: ", "Args:"):
          self.assertIn(part, text)
        for option in data.options(name):
          self.assertRegex(text, rf"  {option}: ")

  def test_unknown_names_come_with_a_guess(self):
    self.fails("did you mean digits", "digit")
    self.fails("did you mean cifar10", "cifar_10")
    self.fails("'xyzzy': unknown; see", "xyzzy")


class FolderTest(Case):
  def _two_classes(self, root, count=5):
    for k, name in enumerate(("cat", "dog")):
      for i in range(count):
        _save(root / name / f"{i}.png", 100 * k + i)

  def test_split_is_fixed_and_shares_nothing(self):
    self._two_classes(self.root)
    one, two = (
      data.load("folder", size=8, path=str(self.root), test_fraction=0.3)
      for _ in range(2)
    )
    self.check(one, 8, 3)
    self.assertEqual(one.class_names, ("cat", "dog"))
    self.assertEqual((len(one.train), len(one.test)), (7, 3))
    self.assertEqual(_pixels(one.test), _pixels(two.test))
    self.assertEmpty(_pixels(one.train) & _pixels(one.test))

  def test_train_and_test_folders(self):
    self._two_classes(self.root / "train")
    self._two_classes(self.root / "val", count=2)
    folder = data.load("folder", size=8, channels=1, path=str(self.root))
    self.check(folder, 8, 1)
    self.assertEqual((len(folder.train), len(folder.test)), (10, 4))
    _save(self.root / "val" / "emu" / "0.png")
    self.fails("val has", "folder", path=str(self.root))

  def test_random_crop_is_for_training_only(self):
    gradient = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (32, 1, 3))
    for i in range(2):
      Image.fromarray(gradient).save(self.root / f"{i}.png")
    folder = data.load(
      "folder", size=8, path=str(self.root), crop="random", classes=1
    )
    self.check(folder, 8, 3)
    self.assertEqual(folder.num_classes, 1)
    drawn = data.batch_at(folder.train, 0, batch=8, seed=0)["image"]
    self.assertGreater(len({x.tobytes() for x in drawn}), 4)

  def test_centre_crop_follows_adm(self):
    image = np.random.default_rng(0).integers(256, size=(50, 70, 3))
    picture = Image.fromarray(image.astype(np.uint8))
    half = picture.resize((35, 25), Image.Resampling.BOX)
    small = half.resize((22, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
      transforms.center_crop(picture, 16), np.asarray(small)[:, 3:19]
    )

  def test_errors(self):
    path = str(self.root)
    self.fails("no such folder", "folder")
    self.fails("no such folder", "folder", path=path + "/nowhere")
    self.fails("no pictures in class sub-folders; put", "folder", path=path)
    _save(self.root / "loose.png")
    self.fails("set classes=1", "folder", path=path)
    self.fails("one picture cannot be split", "folder", path=path, classes=1)
    _save(self.root / "cat" / "0.png")
    self.fails("only one class .*classes=1", "folder", path=path)
    _save(self.root / "dog" / "0.png")
    self.fails(
      "2 class sub-folders, but classes=3", "folder", path=path, classes=3
    )
    self.fails("crop='left'", "folder", path=path, crop="left")

  def test_a_broken_file_is_named(self):
    self._two_classes(self.root, count=2)
    for file in self.root.glob("*/*.png"):
      file.write_bytes(file.read_bytes()[:40])
    self.fails(
      r"of 4 pictures 4 cannot be read: cat/0\.png .*dog/1\.png",
      "folder",
      path=str(self.root),
    )

  def test_damage_after_the_start_is_named(self):
    self._two_classes(self.root, count=2)
    folder = data.load("folder", size=8, path=str(self.root))
    for file in self.root.glob("*/*.png"):
      file.write_bytes(file.read_bytes()[:40])
    with self.assertRaisesRegex(UserError, r"\d\.png: cannot be read"):
      next(data.batches(folder.train, batch=2, seed=0))

  def test_transparency_is_laid_on_white(self):
    file = self.root / "clear.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(file)
    image = transforms.to_array(reader.open_image(file, 3))
    self.assertTrue((image == 255).all())


class PhotosTest(Case):
  def test_packaged_samples(self):
    photos = data.load("photos", size=32, length=16, folders=())
    self.check(photos, 32, 3)
    self.assertEqual((len(photos.train), len(photos.test)), (16, 2))
    self.assertEmpty(_pixels(photos.train) & _pixels(photos.test))
    self.check(data.load("photos", size=8, channels=1, folders=()), 8, 1)

  def test_training_windows_never_repeat(self):
    photos = data.load("photos", size=16, length=4, folders=())
    stream = [data.batch_at(photos.train, s, batch=4, seed=0) for s in (0, 1)]
    windows = np.concatenate([b["image"] for b in stream])
    self.assertLen({w.tobytes() for w in windows}, 8)

  def test_all_pictures_of_the_users_folder_are_taken(self):
    for i in range(20):
      _save(self.root / f"holiday{i // 10}" / f"{i}.png", 10 * i, (20, 20))
    _save(self.root / "small.png", 255, (5, 5))
    options = dict(size=8, length=200, path=str(self.root), samples=False)
    with self.assertLogs("ar_jax", "INFO") as logs:
      photos = data.load("photos", **options)
    self.assertRegex(
      logs.output[0], r"photos: \d+ . \d+ pictures .*skipped 1 smaller than 8"
    )
    seen = [
      {int(part[i]["image"][0, 0, 0]) for i in range(len(part))}
      for part in (photos.train, photos.test)
    ]
    self.assertEqual(seen[0] | seen[1], set(range(0, 200, 10)))
    self.assertEmpty(seen[0] & seen[1])
    (self.root / "small.png").write_bytes(b"")
    self.fails("of 21 pictures 1 cannot be read", "photos", **options)

  def test_errors(self):
    self.fails("largest picture has", "photos", size=5000, folders=())
    self.fails("no such folder", "photos", path=str(self.root / "none"))
    empty = dict(path=str(self.root), samples=False)
    self.fails("no pictures that can be read", "photos", **empty)
    self.fails("no pictures; give", "photos", folders=(), samples=False)


class EmojiTest(Case):
  """On a made-up package with the layout of the real ones."""

  def _package(self, style, signs=40):
    package = self.root / "node_modules" / f"emoji-datasource-{style}"
    sheets = package / "img" / style / "sheets"
    sheets.mkdir(parents=True)
    sheet = np.zeros((8 * 66, 8 * 66, 4), np.uint8)
    entries = []
    for i in range(signs):
      x, y = divmod(i, 8)
      sheet[66 * y + 1 : 66 * y + 65, 66 * x + 1 : 66 * x + 65] = (i, 0, 0, 255)
      entries.append(
        {
          "name": f"SIGN {i}",
          "short_name": f"sign{i}",
          "unified": f"{i:04X}",
          "category": ("Animals", "Food")[i % 2],
          "sheet_x": x,
          "sheet_y": y,
          f"has_img_{style}": i != 3,
        }
      )
    tone = {**entries[0], "sheet_x": 7, "sheet_y": 7}
    entries[0]["skin_variations"] = {"1F3FB": tone}
    Image.fromarray(sheet).save(sheets / "64.png")
    (package / "emoji.json").write_text(json.dumps(entries))
    return package

  def test_signs_with_class_style_and_name(self):
    self._package("google")
    self._package("apple")
    emoji = data.load(
      "emoji",
      size=16,
      path=str(self.root),
      styles=("google", "apple"),
      text=8,
    )
    self.check(emoji, 16, 3)
    self.assertEqual(emoji.class_names, ("Animals", "Food"))
    self.assertEqual(len(emoji.train) + len(emoji.test), 2 * 40)
    seen = {}
    for part in (emoji.train, emoji.test):
      for i in range(len(part)):
        sign = part[i]
        name = bytes(sign["text"].astype(np.uint8)).rstrip(b"\0").decode()
        seen.setdefault(name, set()).add(id(part))
        self.assertEqual(sign["style"].dtype, np.int32)
        if sign["image"].any() and sign["image"].min() == 0:
          number = int(name.removeprefix("sign "))
          self.assertEqual(sign["label"], number % 2)
    self.assertLen(seen, 39)
    self.assertTrue(all(len(parts) == 1 for parts in seen.values()))

  def test_errors(self):
    path = str(self.root)
    self.fails("npm install emoji-datasource-google", "emoji", path=path)
    self.fails("'nokia' is unknown", "emoji", path=path, styles=("nokia",))
    self.fails("at least one style", "emoji", path=path, styles=())
    package = self._package("google")
    sheet = package / "img" / "google" / "sheets" / "64.png"
    Image.new("RGBA", (66, 66)).save(sheet)
    self.fails("does not fit emoji.json", "emoji", path=path)
    sheet.unlink()
    self.fails("64.png: cannot be read", "emoji", path=path)
    (package / "emoji.json").write_text("[{")
    self.fails("emoji.json: missing or damaged", "emoji", path=path)


if __name__ == "__main__":
  absltest.main()
