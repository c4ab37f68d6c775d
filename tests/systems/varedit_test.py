"""VAREdit: what a source does to a target, where it lies, and files to edit."""

import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data, sample
from ar_jax.conditions import prompted
from ar_jax.core.plans import aspects
from ar_jax.core.system import UserError, build
from ar_jax.families.scale import referred
from ar_jax.families.scale.prompted import PromptedScales
from ar_jax.nn.layers.positions import grid_places
from ar_jax.systems import varedit
from configs import varedit as configs
from tests import smoke


def published(size, reference="aligned", **more):
  c = configs.get_config(size).model.to_dict()
  return build("varedit", **c | {"reference": reference} | more)


class SourceTest(parameterized.TestCase):
  def test_every_unit_hangs_on_the_source(self):
    """And no logit on the units of its own map or a later one, which is
    asked of all systems."""
    case = smoke.case("varedit")
    before = case.seen()
    source = np.asarray(case.batch["source"])
    for corner in np.ndindex(2, 2):
      other = source.copy()
      at = tuple(slice(4 * i, 4 * i + 4) for i in corner)
      other[:, *at] = 255 - other[:, *at]
      kept = case.batch
      case.batch = {**kept, "source": other}
      try:
        after = case.seen()
      finally:
        case.batch = kept
      np.testing.assert_array_equal(after.units, before.units)
      moved = np.abs(after.loss.nll - before.loss.nll).max(0)
      self.assertGreater(moved.min(), 1e-6)

  def test_a_given_image_stands_for_the_source(self):
    case = smoke.case("varedit")
    cond = {k: np.asarray(case.batch[k]) for k in case.system.needs}
    given = 255 - cond["source"]
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    with mock.patch.object(varedit.VAREdit, "drawn", autospec=True) as drawn:
      case.system.generate({}, {**cond, "given": given}, keys, guidance=3.0)
    found, options = drawn.call_args[0][2], drawn.call_args[1]
    np.testing.assert_array_equal(found["source"], given)
    np.testing.assert_array_equal(found["text"], cond["text"])
    self.assertIsNone(options["edit"])
    self.assertTrue(options["guided"])
    self.assertEqual(list(options["scales"]), [3.0, 3.0])

  def test_sides_of_a_given_image(self):
    case = smoke.case("varedit")
    cond = {k: np.asarray(case.batch[k]) for k in case.system.needs}
    cond["given"] = np.zeros((smoke.BATCH, 13, 9, 1), np.uint8)
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    sampled = lambda c: jax.eval_shape(
      lambda v: case.system.sample(v, c, keys), case.abstract.variables
    )
    self.assertEqual(sampled(cond).shape, (smoke.BATCH, 13, 9, 1))
    with self.assertRaisesRegex(UserError, "must be of 8x8"):
      sampled({**cond, "keep": np.ones((smoke.BATCH, 13, 9))})
    self.assertEqual(varedit.frame((13, 9), (8, 8)), (13, 13))
    self.assertEqual(varedit.frame((10, 30), (4, 8)), (15, 30))
    x = np.full((1, 4, 2, 1), -1, np.float32)
    found = np.asarray(varedit.framed(jnp.asarray(x), (8, 8)))
    self.assertLess(found[0, :, :3].max(), -0.9)  # the image itself
    self.assertGreater(found[0, :, 5:].min(), 0.9)  # white

  def test_parameters_of_an_infinity(self):
    """They are the same, and go on here."""
    case = smoke.case("varedit")
    model = case.config.model.to_dict()
    infinity = build("infinity", **model)
    given = jax.eval_shape(
      lambda: infinity.init(jax.random.key(0), {})["params"]
    )
    whole = jax.tree.map(lambda x: np.zeros(x.shape), given)
    adopted = case.system.adopt("params", whole)
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    own = case.abstract.variables["params"]
    self.assertEqual(shapes(adopted), shapes(own))
    back = referred.to_one_stack(adopted)
    self.assertEqual(shapes(back), shapes(whole))
    # What is its own already stays.
    self.assertIs(case.system.adopt("params", adopted), adopted)


class PlacesTest(parameterized.TestCase):
  def test_a_megapixel_has_one_table(self):
    system = published("8b_1024")
    exact, table = (
      system.net.clone(rope_index=index).every_turn()
      for index in referred.ROPE_INDICES
    )
    np.testing.assert_array_equal(exact, table)
    self.assertLen(exact, 4096 + 10_521)

  def test_below_it_the_released_one_takes_the_places_of_others(self):
    net = published("paper").net
    rows, columns = referred.beside(net.source, net.shapes, net.ground)
    n = np.arange(1024)
    np.testing.assert_array_equal(rows[:1024], 64 + 2 * (n // 32))
    np.testing.assert_array_equal(columns[:1024], 64 + 2 * (n % 32))
    # Source and target share one spacing.
    last = grid_places(net.shapes[-1:], net.ground)
    np.testing.assert_array_equal(rows[:1024] - 64, last[0])
    ground = aspects.ground(1.0)
    table = referred.beside((ground,), aspects.maps(1.0), ground)
    np.testing.assert_array_equal(table[0][:1024], 64 + n // 64)
    np.testing.assert_array_equal(table[1][:1024], 64 + n % 64)
    self.assertEqual(tuple(table[:, 1024]), (64 + 16, 64))

  @parameterized.parameters(("paper", 0.703), ("8b_1024", 0.695))
  def test_rows(self, size, share):
    own, every = published(size), published(size, "all")
    count = lambda system: system.net.before + len(system.plan)
    self.assertAlmostEqual(count(own) / count(every), share, places=3)
    self.assertEqual(count(every), 2 * len(own.plan))
    self.assertEqual(count(published(size, "none")), len(own.plan))
    self.assertEqual(count(published(size, "finest")), count(own))
    passes = {"paper": 11, "8b_1024": 14}
    self.assertEqual(1 + own.plan.steps, passes[size])

  def test_another_list_of_maps(self):
    system = smoke.case("varedit").system.over((1, 2, 4))
    mixer = system.net.backbone.parts[0].block.mixer
    self.assertEqual(mixer.shapes, ((1, 1), (2, 2), (4, 4)))
    self.assertEqual(mixer.source, (4, 4))
    self.assertEqual(system.net.before, 16)
    self.assertIsInstance(system.net, PromptedScales)


class FilesTest(absltest.TestCase):
  def test_a_file_and_an_instruction(self):
    c = smoke.case("varedit").config
    system, dataset = smoke.case("varedit").system, data.load(**c.data)
    cond = prompted(system, dataset, 3, "erase top half")
    self.assertEqual(
      dataset.forms["text"].read(cond["text"][1]), "erase top half"
    )
    with self.assertRaisesRegex(UserError, "'paint' is not among"):
      prompted(system, dataset, 3, "paint it black")
    with tempfile.TemporaryDirectory() as folder:
      file = pathlib.Path(folder) / "mine.png"
      Image.fromarray(np.full((5, 7), 9, np.uint8)).save(file)
      edit = c.sample.edit.copy_and_resolve_references()
      edit.image = str(file)
      found, options = sample.edited(system, dataset, edit, cond)
    self.assertEqual(found["given"].shape, (3, 5, 7, 1))
    self.assertEqual(options, {"coarse": "bilinear", "paste": False})
    edit.image = "test"
    found, _ = sample.edited(system, dataset, edit, cond)
    np.testing.assert_array_equal(found["given"][2], dataset.test[2]["source"])

  def test_mistakes(self):
    model = smoke.case("varedit").config.model.to_dict()
    for change, message in (
      ({"reference": "some"}, "reference='some': choose one of none, finest"),
      ({"rope_index": "x"}, "rope_index='x': choose one of exact, table_1m"),
      ({"depth": 1}, "depth=1: the first layer is not the last"),
      ({"tokenizer": {"name": "vq"}}, "its units are no maps of bits"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("varedit", **model | change)
    case = smoke.case("varedit")
    cond = {k: np.asarray(case.batch[k]) for k in case.system.needs}
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    for options, message in (
      ({"force_first_scales": 1}, "say what to keep"),
      ({"temperatures": (1.0,)}, "1 numbers for 2 maps"),
    ):
      with self.assertRaisesRegex(UserError, message):
        case.system.generate({}, cond, keys, **options)


if __name__ == "__main__":
  absltest.main()
