"""Agreement of edges, with its floor and its ceiling."""

import dataclasses

import jax
import numpy as np
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core.forms import Image
from ar_jax.core.system import Loss, System, UserError
from ar_jax.data import Dataset
from ar_jax.data.wrap import derived
from ar_jax.evals.images.control import Agreement, wider

KEY = jax.random.key(0)
EDGES = dict(kind="sobel", threshold=0.2)


@dataclasses.dataclass(frozen=True)
class Given(System):
  """What it makes is `draw`'s business; its units are the images darkened."""

  needs: tuple = ("label", "edges")

  def init(self, key, batch):
    return {}

  def loss(self, variables, batch, key, *, train):
    return Loss(np.zeros(1))

  def sample(self, variables, cond, keys):
    raise NotImplementedError

  def encode(self, variables, batch):
    return {"units": batch["image"]}

  def decode(self, variables, units):
    return units / 255.0


def squares(n=8):
  """A bright square at another place in each image."""
  rows = []
  for i in range(n):
    image = np.zeros((16, 16, 1), np.uint8)
    image[2 * (i % 4) + 1 :][:4, 6 * (i // 4) + 1 :][:, :5] = 255
    rows.append({"image": image, "label": np.int32(i)})
  plain = Dataset("squares", rows, rows, n, ("",) * n, forms={"image": Image()})
  return derived.add(plain, {"edges": EDGES})


def drawing(data, change):
  """A `draw` that makes the image of the label, changed."""

  def draw(system, variables, cond, key, *, batch, start=0, options=None):
    images = [data.test[int(i)]["image"] for i in cond["label"]]
    return {"image": np.stack([change(x) for x in images]) / np.float32(255)}

  return draw


class AgreementTest(absltest.TestCase):
  def test_counts(self):
    asked = np.zeros((1, 4, 4), bool)
    asked[0, 1, :] = True
    found = np.zeros((1, 4, 4), bool)
    found[0, 1, :2] = found[0, 3, 3] = True
    counts = Agreement()
    counts.add(found, asked)
    got = counts.results()
    self.assertAlmostEqual(got["precision"], 2 / 3)
    self.assertAlmostEqual(got["recall"], 2 / 4)
    self.assertAlmostEqual(got["f1"], 2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    empty = Agreement()
    empty.add(np.zeros_like(found), asked)
    self.assertEqual(
      empty.results(), {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    )

  def test_tolerance(self):
    asked = np.zeros((1, 6, 6), bool)
    asked[0, 2] = True
    moved = np.roll(asked, 1, 1)
    for tolerance, want in ((0, 0.0), (1, 1.0)):
      counts = Agreement(tolerance)
      counts.add(moved, asked)
      self.assertEqual(counts.results()["f1"], want)
    one = np.zeros((1, 5, 5), bool)
    one[0, 0, 2] = True
    self.assertEqual(int(wider(one, 1).sum()), 6)


class ControlTest(absltest.TestCase):
  def measured(self, change, system=None, **more):
    data = squares()
    judge = evals.build(
      "control", data, edges=EDGES, draw=drawing(data, change), **more
    )
    return judge(system or Given(), {}, None, KEY)

  def test_the_image_itself_and_a_moved_one(self):
    same = self.measured(lambda x: x)
    self.assertEqual((same["precision"], same["recall"]), (1.0, 1.0))
    self.assertEqual(same["f1_ceiling"], 1.0)
    self.assertLess(same["f1_floor"], 0.7)
    moved = self.measured(lambda x: np.roll(x, 5, 0))
    self.assertLess(moved["f1"], 0.7)
    self.assertEqual(moved["f1_floor"], same["f1_floor"])
    dark = self.measured(lambda x: 0 * x)
    self.assertEqual((dark["f1"], dark["protocol"]["images"]), (0.0, 8))

  def test_a_system_without_control_gets_the_class_of_the_example(self):
    alone = self.measured(lambda x: x, Given(needs=("label",)))
    self.assertEqual(alone["f1"], 1.0)

  def test_mistakes(self):
    data = squares()
    plain = dataclasses.replace(data, forms={"image": Image()})
    for given, options, message in (
      (plain, {}, "'edges' is no picture of 'squares'"),
      (data, {"edges": {"kynd": 1}}, "evals.control.edges: .*kynd"),
      (data, {"edges": {"threshold": 2}}, "threshold=2"),
    ):
      with self.assertRaisesRegex(UserError, message):
        evals.build("control", given, **options)
    with self.assertRaisesRegex(UserError, "scores the field 'image'"):
      evals.check_system("control", {}, dataclasses.replace(Sounds()))


@dataclasses.dataclass(frozen=True)
class Sounds(Given):
  makes: tuple = ("audio",)


if __name__ == "__main__":
  absltest.main()
