"""What was encoded comes back, whole or not at all."""

import logging
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data
from ar_jax.core.system import UserError
from ar_jax.data import digests
from ar_jax.data.images import transforms
from ar_jax.data.wrap import cache

KEY = jax.random.key(0)


def _encode(batch):
  """Units that tell the pixels: the image itself, as numbers."""
  units = batch["image"].reshape(len(batch["image"]), -1).astype(np.int32)
  return {**{k: v for k, v in batch.items() if k != "image"}, "units": units}


_KILLED = """
import os, sys
from ar_jax import data
from ar_jax.data.wrap import cache
source = data.load("fake", size=4, length=8).train
def encode(batch):
  if batch["index"][0] == 4:
    os._exit(9)
  return {"units": batch["label"]}
cache.write(sys.argv[1], source, encode, batch=4, seed=0, digest="d")
"""


class CacheTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.source = data.load("fake", size=4, channels=1, length=10).train

  def write(self, name="units", encode=_encode, **options):
    options = dict(batch=4, seed=0, digest="d") | options
    cache.write(self.root / name, self.source, encode, **options)
    return self.root / name

  def test_round_trip(self):
    found = cache.read(self.write(), digest="d")
    self.assertLen(found, 10)
    for i in range(10):
      example = self.source[i]
      self.assertEqual(sorted(found[i]), ["label", "units"])
      np.testing.assert_array_equal(found[i]["units"], example["image"].ravel())
      self.assertEqual(found[i]["label"], example["label"])
    b = next(data.batches(found, batch=4, seed=0))
    self.assertEqual(b["units"].shape, (4, 16))
    self.assertEqual(b["units"].dtype, np.int32)

  def test_bfloat16_units(self):
    def encode(batch):
      return {"units": jnp.asarray(batch["image"], jnp.bfloat16)}

    found = cache.read(self.write(encode=encode))
    self.assertEqual(found[3]["units"].dtype, jnp.bfloat16)
    np.testing.assert_array_equal(
      found[3]["units"], _encode_bf16(self.source[3]["image"])
    )

  def test_the_encoder_sees_one_shape_and_a_mask(self):
    masks = []

    def encode(batch):
      self.assertLen(batch["image"], 4)
      masks.extend(batch["mask"])
      return _encode(batch)

    self.write(encode=encode)
    np.testing.assert_array_equal(masks, [1] * 10 + [0] * 2)

  def test_views_are_encoded_from_augmented_pixels(self):
    augment = transforms.augmentation("flip")
    found = cache.read(self.write(views=6, augment=augment))
    self.assertEqual(found.views, 6)
    seen = set()
    for i in range(10):
      plain = self.source[i]["image"]
      honest = {plain.tobytes(): "plain", plain[:, ::-1].tobytes(): "mirrored"}
      for v in range(6):
        units = found.view(i, v)["units"].astype(np.uint8).tobytes()
        self.assertIn(units, honest)
        seen.add((v, honest[units]))
    self.assertLen(seen, 12)

  def test_a_model_makes_its_data_by_index_and_view(self):
    """Noise and what a model makes of it, another pair for every view."""

    def one(index, view):
      key = jax.random.fold_in(jax.random.fold_in(KEY, index), view)
      noise = jax.random.normal(key, (4,))
      return {"noise": noise, "units": jnp.argsort(noise)}

    def encode(batch):
      made = jax.vmap(one)(batch["index"], batch["view"])
      return {**batch, **made}

    found = cache.read(self.write(encode=encode, views=3))
    other = cache.read(self.write("other", encode=encode, views=3, batch=7))
    self.assertEqual(
      set(found[0]), {"image", "label", "noise", "units"}
    )  # neither index nor view is kept
    seen = set()
    for i in range(10):
      for v in range(3):
        got, want = found.view(i, v), one(i, v)
        for name in ("noise", "units"):
          np.testing.assert_array_equal(got[name], want[name])
          np.testing.assert_array_equal(got[name], other.view(i, v)[name])
        seen.add(got["noise"].tobytes())
    self.assertLen(seen, 30)

  def test_training_picks_views_by_seed_and_index(self):
    augment = transforms.augmentation("shift")
    found = cache.read(self.write(views=3, augment=augment))
    options = dict(batch=5, seed=2)
    at = [data.batch_at(found, s, **options)["units"] for s in range(8)]
    stream = data.batches(found, start=3, **options)
    np.testing.assert_array_equal(next(stream)["units"], at[3])
    views = {units.tobytes() for b in at for units in b}
    self.assertGreater(len(views), 15)  # of 30; one view each would be 10
    for b in data.epoch(found, batch=5):
      for i, units in zip(b["index"], b["units"], strict=True):
        np.testing.assert_array_equal(units, found.view(int(i), 0)["units"])

  def test_units_are_never_flipped(self):
    found = cache.read(self.write())
    with self.assertRaisesRegex(UserError, "units cannot be flipped"):
      flip = transforms.augmentation("flip")
      for s in range(4):
        data.batch_at(found, s, batch=4, seed=0, augment=flip)

  def test_as_a_data_set(self):
    for part in ("train", "test"):
      self.write(part)
    path = str(self.root)
    found = data.load("cached", size=4, path=path, digest="d")
    self.assertEqual(found.num_classes, 10)
    self.assertLen(found.test, 10)
    with self.assertRaisesRegex(UserError, "label 3 is out of range"):
      data.load("cached", size=4, path=path, num_classes=3)

  def test_a_killed_writer_leaves_nothing_to_read(self):
    path = self.root / "units"
    command = [sys.executable, "-c", _KILLED, str(path)]
    self.assertEqual(subprocess.run(command, check=False).returncode, 9)
    self.assertTrue((self.root / "units.partial").exists())
    with self.assertRaisesRegex(UserError, "no cached units"):
      cache.read(path)
    self.assertLen(cache.read(self.write()), 10)
    self.assertFalse((self.root / "units.partial").exists())

  def test_killed_between_the_last_byte_and_the_rename(self):
    with mock.patch("os.rename", side_effect=SystemExit):
      with self.assertRaises(SystemExit):
        self.write()
    with self.assertRaisesRegex(UserError, "no cached units"):
      cache.read(self.root / "units")
    self.assertLen(cache.read(self.write()), 10)

  def test_errors(self):
    path = self.write()
    with self.assertRaisesRegex(UserError, "exists; remove it"):
      self.write()
    with self.assertRaisesRegex(UserError, "another tokenizer"):
      cache.read(path, digest="other")
    with self.assertRaisesRegex(UserError, "0 views"):
      self.write("none", views=0)
    file = path / "units.npy"
    file.write_bytes(file.read_bytes()[:-5])
    with self.assertRaisesRegex(UserError, "units.npy: cut short"):
      cache.read(path)
    file.write_bytes(b"")
    with self.assertRaisesRegex(UserError, "units.npy: cut short"):
      cache.read(path)
    (path / "meta.json").write_text("{}")
    with self.assertRaisesRegex(UserError, "cache of format None"):
      cache.read(path)
    (path / "meta.json").write_text("{")
    with self.assertRaisesRegex(UserError, "meta.json: damaged"):
      cache.read(path)

  def test_a_full_disk_is_foreseen(self):
    usage = mock.Mock(free=650)  # for either field, not for both
    with mock.patch("shutil.disk_usage", return_value=usage):
      with self.assertRaisesRegex(
        UserError, "label, units need .* has 0.0 GB left"
      ):
        self.write()

  def test_units_follow_what_they_are_made_of(self):
    folder = self.root / "photos"
    folder.mkdir()

    def picture(name, level):
      image = Image.fromarray(np.full((4, 4), level, np.uint8))
      image.save(folder / f"{name}.png")

    for i in range(4):
      picture(i, 10 * i)
    units = self.root / "units"
    options = dict(size=4, channels=1, classes=1)

    def made(path, tokenizer="t", **changes):
      dataset = data.load("folder", path=path, **(options | changes))
      digest = {"data": dataset.digest, "tokenizer": tokenizer}
      with self.assertLogs("ar_jax", "INFO") as logs:
        logging.getLogger("ar_jax").info("start")
        found = cache.up_to_date(
          units, dataset.train, _encode, digest=digest, batch=4, seed=0
        )
      lines = [r.getMessage() for r in logs.records if "encoding" in r.msg]
      same = [found[i]["units"][0] for i in range(len(found))]
      read = [dataset.train[i]["image"][0, 0, 0] for i in range(len(found))]
      self.assertEqual(same, read)
      return " ".join(lines).partition(f"{units}: ")[2]

    self.assertEqual(made(str(folder)), "there are none yet")
    self.assertEqual(made(str(folder)), "")
    self.assertEqual(made(f"{folder}/"), "")
    self.assertEqual(made(f"{folder}/../photos"), "")
    for i in range(4):  # the same names, other pictures
      picture(i, 200 + i)
    self.assertEqual(made(str(folder)), "changed since: data")
    self.assertEqual(made(str(folder)), "")
    picture("another", 99)
    self.assertEqual(made(str(folder)), "changed since: data")
    self.assertEqual(made(str(folder), crop="random"), "changed since: data")
    self.assertEqual(
      made(str(folder), tokenizer="u"), "changed since: data, tokenizer"
    )
    moved = folder.rename(self.root / "elsewhere")
    self.assertEqual(made(str(moved), tokenizer="u"), "")

  def test_fingerprint_tells_things_apart(self):
    things = [
      {"a": 1, "b": np.zeros(3)},
      {"a": 1, "b": np.zeros((3, 1))},
      {"a": 1, "b": np.ones(3)},
      {"a": "1", "b": np.zeros(3)},
      [["a"], "b"],
      ["a", ["b"]],
    ]
    self.assertLen({digests.fingerprint(t) for t in things}, len(things))
    self.assertEqual(
      digests.fingerprint({"b": jnp.zeros(3), "a": (1,)}),
      digests.fingerprint({"a": [1], "b": np.zeros(3, np.float32)}),
    )


def _encode_bf16(image):
  return np.asarray(image, jnp.bfloat16)


if __name__ == "__main__":
  absltest.main()
