"""CPPD: what its sheet says of any model; the figures of trained ones are in
experiments/cppd.py."""

import functools
import math
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from ar_jax import data, parallel, sample
from ar_jax.core import forms
from ar_jax.core.forms import Text
from ar_jax.core.system import UserError, build
from ar_jax.families.seq2seq import context
from ar_jax.nn.stacks import svtr
from ar_jax.own import readings, written
from configs import cppd as config
from tests import filled, golden_weights, smoke

NODES = 3


@functools.cache
def case(edge_layers=1):
  """(variables of the smoke system's decoder, what reads visual tokens with
  them: of characters i32[n], counted or not)."""
  own = smoke.case("cppd").system.net.decoder.clone(edge_layers=edge_layers)
  rng = np.random.default_rng(0)
  visual = rng.normal(size=(2, own.tokens, own.width)).astype(np.float32)
  shapes = jax.eval_shape(own.init, jax.random.key(0), visual)
  fill = lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype)

  @functools.partial(jax.jit, static_argnums=2)
  def read(variables, ids, counts):
    ids = jnp.broadcast_to(ids, (2, 27))
    return own.apply(variables, visual, ids, counts=counts)

  return jax.tree.map(fill, shapes), read


def moved(edge_layers):
  """f[P]: by how much the characters at each place change with the node of
  place 1."""
  variables, read = case(edge_layers)
  before = read(variables, np.arange(27), False).logits
  place = dict(variables["params"]["place"])
  place["embedding"] = place["embedding"].copy()
  place["embedding"][1] += 1
  changed = {"params": {**variables["params"], "place": place}}
  after = read(changed, np.arange(27), False).logits
  return np.abs(after - before).max((0, 2))


class NodesTest(absltest.TestCase):
  def test_nothing_depends_on_the_counting_nodes(self):
    variables, read = case()
    order = np.random.default_rng(1).permutation(27)
    whole, alone = (read(variables, np.arange(27), x) for x in (True, False))
    np.testing.assert_allclose(whole.logits, alone.logits, atol=1e-6)
    np.testing.assert_allclose(whole.places, alone.places, atol=1e-6)
    self.assertIsNone(alone.counts)
    mixed = read(variables, order, True)
    np.testing.assert_allclose(mixed.counts, whole.counts[:, order], atol=1e-6)
    np.testing.assert_allclose(mixed.logits, whole.logits, atol=1e-6)

  def test_places_do_not_see_each_other(self):
    change = moved(1)
    self.assertGreater(change[1], 1e-3)
    np.testing.assert_array_equal(np.delete(change, 1), 0)

  def test_masked_edge_layers_see_earlier_places(self):
    change = moved(2)
    self.assertEqual(change[0], 0)
    self.assertGreater(change[1:].min(), 0)


class TargetsTest(absltest.TestCase):
  def test_counts_and_places(self):
    system = smoke.case("cppd").system
    form = Text(("", *"abcdefghijklmnopqrstuvwxyz"))
    units = jnp.asarray(form.ids("aab", 5))[None]
    counts = np.asarray(system.counts_of(units))[0]
    self.assertEqual(counts[:4].tolist(), [1, 2, 1, 0])
    np.testing.assert_array_equal(counts[4:], 0)
    np.testing.assert_array_equal(system.real(units)[0], [1, 1, 1, 1, 0])
    self.assertEqual(form.read(units[0]), "aab")

  def test_how_many_are_left(self):
    left = smoke.case("cppd").system.__class__
    system = smoke.case("cppd").system
    system = left(
      system.net, system.tokenizer, place_target="left"
    )  # fmt: skip
    units = jnp.array([[3, 3, 0, 0, 0]])
    rows = jnp.full((1, 5, 5), -9.0)
    right = rows.at[0, 0, 2].set(9).at[0, 1, 1].set(9).at[0, 2, 0].set(9)
    said = lambda r: float(
      system.sides(
        context.Read(None, r, jnp.zeros((1, 27, 4))), units,
        jnp.zeros((1, 27), jnp.int32),
      )["place"][0]
    )  # fmt: skip
    self.assertLess(said(right), 1e-6)
    self.assertAlmostEqual(said(rows), math.log(5), places=5)

  def test_sampled_characters_hold_all_that_come(self):
    counts = jnp.zeros((4, 27), jnp.int32).at[:, jnp.array([0, 5, 9])].set(1)
    keys = jax.random.split(jax.random.key(0), 4)
    ids = np.asarray(context.sampled(keys, counts, 7))
    self.assertEqual(ids.shape, (4, 7))
    for row in ids:
      self.assertContainsSubset([0, 5, 9], row.tolist())
      self.assertTrue((np.diff(row) > 0).all())
    self.assertGreater(len({tuple(row) for row in ids}), 1)

  def test_losses_before_training(self):
    c = smoke.case("cppd")
    found = c.seen(c.fresh().variables).loss.metrics
    chance = {"edge": 27, "count": 4, "place": 2}
    for name, n in chance.items():
      self.assertAlmostEqual(
        float(found[name].mean()), math.log(n), delta=0.25, msg=name
      )


class BaselinesTest(absltest.TestCase):
  def model(self, **changes):
    c = config.get_config("smoke")
    return build("cppd", **c.model.to_dict() | changes)

  def test_without_the_side_losses(self):
    """No gradient reaches what only these need."""
    c, system = smoke.case("cppd"), self.model(side=0.0)
    variables = filled.variables(system)
    rows = jax.tree.map(jnp.asarray, dict(c.batch))

    def loss(params):
      own = {**variables, "params": params}
      return system.loss(own, rows, smoke.KEY, train=True).value.mean()

    grads = jax.jit(jax.grad(loss))(variables["params"])["decoder"]
    size = lambda tree: sum(
      float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree)
    )
    for name in ("count_head", "place_head", "characters"):
      self.assertEqual(size(grads[name]), 0.0, name)
    self.assertGreater(size(grads["head"]), 0.0)

  def test_passes(self):
    """One, whatever the word; of AR one for each character and the end."""
    c = smoke.case("cppd")
    images = jnp.asarray(c.batch["image"])
    keys = jax.random.split(smoke.KEY, len(images))
    made = c.system.sample(c.variables, {"image": images}, keys)
    np.testing.assert_array_equal(made["passes"], 1)
    system = self.model(decoder="ar")
    variables = filled.variables(system)

    @jax.jit
    def both(variables):
      units, passes = system.generate(variables, {"image": images}, keys)
      return units, passes, system.logits(variables, images, units)

    units, passes, logits = both(variables)
    real = np.asarray(system.real(units))
    np.testing.assert_array_equal(passes, real.sum(1))
    best = np.argmax(logits, -1)
    np.testing.assert_array_equal(best[real], np.asarray(units)[real])

  def test_norms_over_the_batch_are_noted(self):
    c = smoke.case("cppd")
    system = self.model(stem="batch")
    self.assertEqual(system.moving, {"batch_stats"})
    variables = filled.variables(system)
    rows = jax.tree.map(jnp.asarray, dict(c.batch))
    loss = jax.jit(
      lambda v, train: system.loss(v, rows, smoke.KEY, train=train),
      static_argnums=1,
    )
    found = loss(variables, True).updates["batch_stats"]["encoder"]
    x = np.asarray(rows["image"], np.float32) / 127.5 - 1
    kernel = variables["params"]["encoder"]["stem0"]["kernel"]
    x = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    old = variables["batch_stats"]["encoder"]["stem_norm0"]["mean"]
    np.testing.assert_allclose(
      found["stem_norm0"]["mean"], 0.9 * old + 0.1 * x.mean((0, 1, 2)),
      rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    self.assertEqual(loss(variables, False).updates, {})

  def test_wrong_options(self):
    for change, says in (
      (dict(decoder="none"), "choose one of context, ar"),
      (dict(place_target="x"), "choose one of taken, left"),
      (dict(nodes=2), "from 5, the places of a word, to 27"),
      (dict(heads=(3, 2)), "even multiple of 3"),
      (dict(stem="x"), "batch, image"),
      (dict(depths=(1,)), "one of each for every stage"),
      (dict(node_heads=3), "16 is no multiple"),
      (dict(size=(2, 3)), "both at least 4"),
    ):
      with self.assertRaisesRegex(UserError, says):
        self.model(**change)
    with self.assertRaisesRegex(UserError, "16x16: this model reads 8x24"):
      system = smoke.case("cppd").system
      image = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.uint8)
      jax.eval_shape(
        lambda v, x: system.logits(v, x, None), filled.variables(system), image
      )


class EncoderTest(parameterized.TestCase):
  def test_groups_are_those_of_a_grouped_convolution(self):
    own = svtr.ConvMixer((3, 4), 2)
    x = golden_weights.tensor("x", (2, 12, 8))
    variables = {
      "params": {
        "kernel": golden_weights.tensor("k", (5, 5, 4, 8)),
        "bias": golden_weights.tensor("b", (8,)),
      }
    }
    found, _ = own.apply(variables, x)
    want = jax.lax.conv_general_dilated(
      x.reshape(2, 3, 4, 8), variables["params"]["kernel"], (1, 1), "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2,
    )  # fmt: skip
    want = want.reshape(2, 12, 8) + variables["params"]["bias"][None, None]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)

  @parameterized.parameters("paper", "tiny")
  def test_published(self, preset):
    system = build("cppd", **config.get_config(preset).model.to_dict())
    self.assertEqual(system.net.encoder.tokens, 50)
    self.assertEqual(system.plan.sizes, (26,))
    self.assertEqual(system.tokenizer.length, 26)


class ReadingTest(absltest.TestCase):
  """Files of a person's own."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.config = config.get_config("smoke")
    self.config.sample.read = str(self.root)
    self.system = smoke.case("cppd").system

  def test_a_folder_is_read(self):
    for name in ("b.png", "a.png", "deep/c.png"):
      path = self.root / name
      path.parent.mkdir(exist_ok=True)
      Image.new("RGB", (50, 20), (200, 0, 0)).save(path)
    (self.root / "notes.md").write_text("x")
    called = readings.names(self.system, self.config)
    self.assertLen(called, 3)
    rows = readings.asked(self.system, None, 4, self.config)
    self.assertEqual(rows["image"].shape, (4, 8, 24, 1))
    form = Text(("", *"abc"))
    made = {"text": np.array([[1, 2, 0], [3, 0, 0], [0, 0, 0]])}
    with mock.patch("builtins.print") as said:
      path = written.write(called, made, {"text": form}, self.root)
    lines = ["a.png\tab", "b.png\tc", "deep/c.png\t"]
    self.assertEqual(path.read_text().splitlines(), lines)
    self.assertEqual([c.args[0] for c in said.call_args_list], lines)

  def test_of_a_picture_of_ones_own_no_truth_is_known(self):
    Image.new("RGB", (50, 20), (200, 0, 0)).save(self.root / "a.png")
    c = self.config
    mesh, dataset = parallel.make_mesh(c.mesh), data.load(**c.data)
    variables = filled.variables(self.system)
    for read in (str(self.root), ""):
      c.sample.read = read
      drawn = sample.draw(c, self.system, variables, dataset, 1, mesh)
      self.assertEqual(list(drawn.truth), [] if read else ["text"])
    (shown,) = (
      row
      for row in map(dataset.test.__getitem__, range(len(dataset.test)))
      if np.array_equal(row["image"], drawn.cond["image"][0])
    )
    np.testing.assert_array_equal(drawn.truth["text"][0], shown["text"])

  def test_a_model_without_data_reads_numbers(self):
    facts = readings.facts(self.system)
    self.assertEqual(facts["fields"]["image"]["shape"], [8, 24, 1])
    form = forms.made(facts["forms"]["text"])
    self.assertEqual(form.read([3, 26, 0, 4]), "3 26")

  def test_what_cannot_be_read(self):
    with self.assertRaisesRegex(UserError, "no picture in this folder"):
      readings.check(self.system, self.config)
    (self.root / "a.png").write_bytes(b"no")
    with self.assertRaisesRegex(UserError, "a.png: cannot be read as an image"):
      readings.check(self.system, self.config)
    self.config.sample.read = str(self.root / "none")
    with self.assertRaisesRegex(UserError, "no such file or folder"):
      readings.check(self.system, self.config)
    other = smoke.case("cppd").system.tokenizer
    with self.assertRaisesRegex(UserError, "this system reads no files"):
      readings.files(other, "x")


if __name__ == "__main__":
  absltest.main()
