"""A person's own shapes: files of all kinds, and damaged ones."""

import pathlib
import struct
import tempfile

import ml_collections
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import own
from ar_jax.core.errors import UserError
from ar_jax.data import Dataset
from ar_jax.data.science import shapes
from ar_jax.own import shapes as own_shapes
from tests.evals import fakes

# A tetrahedron.
PLACES = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def head(kind, faces=4):
  return (
    f"ply\nformat {kind} 1.0\ncomment x\nelement vertex 4\n"
    "property float x\nproperty float y\nproperty double z\n"
    f"element face {faces}\nproperty list uchar int vertex_indices\n"
    "end_header\n"
  )


def binary(order):
  rows = [struct.pack(f"{order}ffd", *p) for p in PLACES]
  rows += [struct.pack(f"{order}B3i", 3, *f) for f in FACES]
  return b"".join(rows)


class ShapesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)

  def write(self, name, content):
    path = self.folder / name
    if isinstance(content, str):
      content = content.encode()
    path.write_bytes(content)
    return path

  def test_meshes(self):
    obj = "".join("v {} {} {}\n".format(*p) for p in PLACES) + "# a face\n"
    obj += "".join("f {}/1 {}//2 {}\n".format(*(f + 1)) for f in FACES[:3])
    obj += "f -3 -2 -1\n"
    text = head("ascii") + "".join("{} {} {}\n".format(*p) for p in PLACES)
    text += "".join("3 {} {} {}\n".format(*f) for f in FACES)
    little = head("binary_little_endian").encode() + binary("<")
    big = head("binary_big_endian").encode() + binary(">")
    np.savez(self.folder / "a.npz", vertices=PLACES, faces=FACES)
    paths = [
      self.write("a.obj", obj),
      self.write("a.ply", text),
      self.write("b.ply", little),
      self.write("c.ply", big),
      self.folder / "a.npz",
    ]
    for path in paths:
      found = shapes.read(path)
      np.testing.assert_allclose(found.vertices, PLACES)
      np.testing.assert_array_equal(found.faces, FACES)
    self.assertEqual(own_shapes.files(str(self.folder)), sorted(paths))
    square = self.write("q.obj", obj[: obj.index("#")] + "f 1 2 3 4\n")
    self.assertEqual(shapes.read(square).faces.tolist(), [[0, 1, 2], [0, 2, 3]])

  def test_clouds(self):
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(200, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    np.save(self.folder / "a.npy", np.concatenate([ball, 3 * ball], 1))
    np.savez(self.folder / "b.npz", points=ball)
    rows = "\n".join(" ".join(map(str, p)) for p in ball)
    paths = ["a.npy", "b.npz", self.write("c.xyz", "# x y z\n" + rows).name]
    for name in paths:
      found = shapes.read(self.folder / name)
      np.testing.assert_allclose(found.vertices, ball, atol=1e-6)
      # Across the surface and outwards, given or estimated.
      rows = shapes.vertices(found)
      self.assertGreater(np.sum(rows[:, 3:] * ball, 1).min(), 0.9)
      points, _ = shapes.surface(found, 500, rng)
      self.assertLen(np.unique(points, axis=0), 200)  # and none is left out

  def test_points_of_a_surface(self):
    shape = shapes.Shape(PLACES, FACES)
    rng = np.random.default_rng(0)
    points, mixed = shapes.surface(shape, 4000, rng, PLACES)
    np.testing.assert_allclose(points[:, :3], mixed, atol=1e-6)
    place, normal = points[:, :3], points[:, 3:]
    slope = np.abs(place.sum(1) - 2) < 1e-5
    share = np.sqrt(3) / (3 + np.sqrt(3))  # of the area
    self.assertAlmostEqual(slope.mean(), share, delta=0.03)
    np.testing.assert_allclose(normal[slope], 3**-0.5, atol=1e-6)
    self.assertLess(np.min(np.abs(place[~slope]), 1).max(), 1e-6)
    self.assertAlmostEqual(place[slope, 0].mean(), 2 / 3, delta=0.05)

  def test_shapes_that_are_asked_for(self):
    """Sample i is of shape i mod their number; vertices get the skin."""
    rows = "v {} {} {}\n"
    for name, size in (("a.obj", 4), ("b.obj", 8)):
      rng = np.random.default_rng(size)
      places = "".join(rows.format(*p) for p in rng.normal(size=(size, 3)))
      self.write(name, places)
    config = ml_collections.ConfigDict(
      {"sample": {"shape": str(self.folder), "seed": 3}}
    )

    class Rigger:
      needs, takes = ("points",), ("query",)

    known = Dataset("x", [], [{"points": np.zeros((5, 6))}])
    found = own.asked(Rigger(), known, 5, config)
    self.assertEqual(found["points"].shape, (5, 5, 6))
    self.assertEqual(found["query"].shape, (5, 8, 6))
    self.assertEqual(found["vertices"].tolist(), [4, 8, 4, 8, 4])
    first = shapes.vertices(shapes.read(self.folder / "a.obj"))
    np.testing.assert_array_equal(found["query"][4, :4], first)
    np.testing.assert_array_equal(found["query"][4, 4:], first[[3] * 4])
    again = own.asked(Rigger(), known, 2, config)
    np.testing.assert_array_equal(found["points"][:2], again["points"])
    with self.assertRaisesRegex(UserError, "reads no shape"):
      own_shapes.check(fakes.Fake(), config)

  @parameterized.parameters(
    ("a.stl", "x", "a shape is read from"),
    ("a.obj", "v 1 2\n", "line 1: a vertex of less than 3"),
    ("a.obj", "v 1 2 x\n", "line 1"),
    ("a.obj", "v 0 0 0\n" * 4, "vertices are one"),
    ("a.obj", "# nothing\n", "no vertex"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 9\n", "vertex 9"),
    ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2\n", "line 5"),
    ("a.obj", "v 0 0 0\nv nan 0 0\nv 0 1 0\nv 0 0 1\n", "not finite"),
    ("a.obj", b"\xff\xfe\x00", "UTF-8"),
    ("a.ply", "plain", "no PLY file"),
    ("a.ply", "ply\nformat odd 1.0\nend_header\n", "head of this PLY"),
    ("a.ply", head("ascii") + "0 0 0\n", "not all there"),
    ("a.ply", head("binary_little_endian") + "abc", "not all there"),
    ("a.ply", head("ascii").replace("float x", "float u"), "not all there"),
    ("a.xyz", "0 0 0\n1 2\n", "line 2 has 2 numbers"),
    ("a.xyz", "0 0 a\n", "no row of numbers"),
    ("a.xyz", "1 2\n3 4\n", "rows of x y z"),
    ("a.npy", "text", "NumPy file"),
    ("a.npz", b"PK\x03\x04broken", "damaged|NumPy"),
    ("a.xyz", "", "rows of x y z"),
  )
  def test_damaged_files(self, name, content, message):
    path = self.write(name, content)
    with self.assertRaisesRegex(UserError, message):
      shapes.read(path)

  def test_missing(self):
    with self.assertRaisesRegex(UserError, "No such file"):
      shapes.read(self.folder / "a.obj")
    with self.assertRaisesRegex(UserError, "no such file or folder"):
      own_shapes.files(str(self.folder / "none"))
    with self.assertRaisesRegex(UserError, "no shape in this folder"):
      own_shapes.files(str(self.folder))
    np.savez(self.folder / "a.npz", other=PLACES)
    with self.assertRaisesRegex(UserError, "holds other"):
      shapes.read(self.folder / "a.npz")


if __name__ == "__main__":
  absltest.main()
