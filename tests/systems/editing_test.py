"""Editing a given image with generators that were not trained for it."""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data, sample
from ar_jax.conditions import conditions
from ar_jax.core.decoding import editing
from ar_jax.core.decoding.editing import Edit, box_mask, expand, kept
from ar_jax.core.forms import to_uint8
from ar_jax.core.system import UserError
from ar_jax.nn.quantize.residual import MultiScaleResidual
from ar_jax.show.files import save_png
from configs import common
from tests.systems import scale_models

KEYS = jax.random.split(jax.random.key(5), 2)
GIVEN = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(system, options, variables, cond):
  """(units, latent), and the units of the given image, if there is one."""
  drawn = system.generate(variables, cond, KEYS, **dict(options))
  edit = system.edit(variables, cond, 0) if "given" in cond else None
  return *drawn, edit and edit.units


@functools.cache
def programs(name):
  """The system, its variables, and what draws."""
  system, variables = getattr(scale_models, name)()

  def draw(label=(0, 1), keep=None, **options):
    cond = {"label": jnp.array(label)}
    if keep is not None:
      cond |= {"given": jnp.asarray(GIVEN), "keep": jnp.asarray(keep)}
    return _generate(system, tuple(sorted(options.items())), variables, cond)

  return system, variables, draw


class EditTest(parameterized.TestCase):
  @parameterized.parameters("flexvar", "var")
  def test_all_none_and_part_of_an_image(self, name):
    system, variables, draw = programs(name)
    p = system.plan
    # All of it: the reconstruction.
    ones = np.ones((2, 8, 8))
    units, latent, known = draw(keep=ones, force_first_scales=0)
    np.testing.assert_array_equal(units, known)

    @jax.jit
    def rebuilt(known):  # what the tokenizer decodes of these units
      codec = system.codec(variables)
      state = codec.start(2)
      for s in range(p.steps):
        state, _ = codec.advance(state, s, known[:, p.span(s)])
      return state

    np.testing.assert_allclose(latent, rebuilt(known), atol=1e-5)
    # None of it: what is drawn without.
    free, plain, _ = draw()
    none, latent, _ = draw(keep=0 * ones, force_first_scales=0)
    np.testing.assert_array_equal(none, free)
    np.testing.assert_allclose(latent, plain, atol=1e-5)
    # The right half: kept at every scale, and drawn elsewhere.
    half = np.broadcast_to(np.arange(8) >= 4, (2, 8, 8))
    units, *_ = draw(keep=half, force_first_scales=0)
    right = np.asarray(p["col"] >= np.sqrt(np.repeat(p.sizes, p.sizes)) / 2)
    np.testing.assert_array_equal(units[:, right], known[:, right])
    self.assertTrue((units != known)[:, ~right].any())

  def test_null_label_cannot_be_guided(self):
    system, _, draw = programs("flexvar")
    null = (system.null,) * 2
    free, *_ = draw(label=null)
    guided, *_ = draw(label=null, guidance=5.0)
    np.testing.assert_array_equal(free, guided)

  def test_no_pass_more(self):
    system, variables, _ = programs("var")

    cond = {"label": jnp.array([0, 1]), "given": jnp.asarray(GIVEN)}
    program = jax.make_jaxpr(lambda v, cond: system.generate(v, cond, KEYS)[0])(
      variables, cond | {"keep": jnp.ones((2, 8, 8))}
    )
    stacks = sum(e.primitive.name == "scan" for e in program.jaxpr.eqns)
    self.assertEqual(stacks, system.plan.steps)

  def test_refinement_of_a_smaller_image(self):
    system, variables, _ = programs("flexvar")
    small = jnp.asarray(GIVEN[:, :4, :4])
    keep = jax.jit(lambda given: system.edit(variables, {"given": given}).keep)
    # Its latent is 2 x 2: the first two maps are known.
    known = np.broadcast_to(system.plan["step"] < 2, (2, len(system.plan)))
    np.testing.assert_array_equal(keep(small), known)
    with self.assertRaisesRegex(UserError, "must be of 8x8"):
      system.edit(variables, {"given": small, "keep": jnp.ones((2, 4, 4))})
    with self.assertRaisesRegex(UserError, "say what to keep"):
      system.edit(variables, {"given": jnp.asarray(GIVEN)})
    with self.assertRaisesRegex(UserError, "no given image"):
      system.edit(variables, {}, 1)

  def test_how_far_a_coarse_map_leaks(self):
    # VAR's residual maps, the first three of them forced.
    scales, forced = (1, 2, 4, 8, 16), 3
    codes = MultiScaleResidual(32, 4, scales, spread=1.0)
    draw = np.random.default_rng(0)
    shapes = dict(codebook=(32, 4), phi_kernel=(4, 3, 3, 4, 4), phi_bias=(4, 4))
    normal = lambda shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
    params = {"params": {k: normal(v) for k, v in shapes.items()}}
    length = sum(p * p for p in scales)
    given, other = draw.integers(0, 32, (2, 1, length))
    keep = np.broadcast_to(np.arange(16) < 8, (1, 16, 16))
    mask = kept(keep, [(p, p) for p in scales], batch=1, first=forced)
    mixed = Edit(jnp.asarray(given), mask)(slice(None), jnp.asarray(other))
    walk = jax.jit(lambda u: codes.apply(params, u, method="walk")[-1])
    error = np.abs(walk(mixed) - walk(given)).max((0, 1, 3))  # by column
    reach = 2 * 16 // scales[forced] + 1
    self.assertLess(error[: 8 - reach].max(), 1e-5)
    self.assertGreater(error[8 - reach : 8].max(), 1e-2)

  def test_masks(self):
    keep = box_mask(8, 8, (0.25, 0.25, 0.75, 0.75))
    shapes = [(1, 1), (2, 2), (4, 4)]
    got = kept(keep[None], shapes, batch=1)
    inner = np.zeros((4, 4), bool)
    inner[1:3, 1:3] = True
    np.testing.assert_array_equal(got[0, 5:], ~inner.ravel())
    self.assertTrue(bool(got[0, 0]))
    np.testing.assert_array_equal(got[0, 1:5], True)  # three quarters each
    # Not forced, 1 x 1 asks the cells around its centre, or all of them.
    first = lambda rule: kept(
      keep[None], shapes, batch=1, first=0, coarse=rule
    )[0, 0]
    self.assertFalse(bool(first("bilinear")))
    self.assertTrue(bool(first("area")))
    # Mixtures of codes, in smooth sampling, give way as units do.
    edit = Edit(jnp.array([[2, 1]]), jnp.array([[True, False]]))
    codes = edit.codes(slice(0, 2), jnp.zeros((1, 2, 3)), jnp.eye(3))
    np.testing.assert_array_equal(codes[0], [[0, 0, 1], [0, 0, 0]])
    inside = box_mask(8, 8, (0.25, 0.25, 0.75, 0.75), "inside")
    np.testing.assert_array_equal(inside, ~keep)
    for box in ((0, 0, 0, 1), (0.5, 0, 0.4, 1), (0, 0, 2, 1), (0, 1)):
      with self.assertRaisesRegex(UserError, "top < bottom"):
        box_mask(8, 8, box)
    with self.assertRaisesRegex(UserError, "in 0..3"):
      kept(None, shapes, batch=1, first=4)
    with self.assertRaisesRegex(UserError, "choose one of bilinear, area"):
      kept(None, shapes, batch=1, coarse="nearest")

  def test_expansion_and_paste(self):
    canvas, keep = expand(GIVEN[0], (8, 12), (0, 2))
    np.testing.assert_array_equal(canvas[keep].reshape(8, 8, 1), GIVEN[0])
    np.testing.assert_array_equal(canvas[:, 0], GIVEN[0, :, 0])
    drawn = jnp.full((1, 8, 12, 1), 0.5)
    image = editing.paste(drawn, canvas[None], keep[None])
    np.testing.assert_array_equal(to_uint8(image)[0][keep], canvas[keep])
    np.testing.assert_array_equal(image[0][~keep], 0.5)
    # A larger list of maps continues it beyond its frame.
    system, variables, _ = programs("flexvar")
    there = system.over((1, (2, 3), (4, 6)))
    edit = lambda cond: there.edit(variables, cond).keep
    kept = jax.jit(edit)({"given": canvas[None], "keep": keep[None]})
    np.testing.assert_array_equal(
      kept[0, 7:].reshape(4, 6), np.tile([0, 1, 1, 1, 1, 0], (4, 1))
    )
    with self.assertRaisesRegex(UserError, "does not fit"):
      expand(GIVEN[0], (8, 12), (0, 5))


class CommandTest(absltest.TestCase):
  """What `config.sample.edit` makes of files."""

  def setUp(self):
    super().setUp()
    self.system, _ = scale_models.flexvar()
    self.dataset = data.load(name="fake", size=8, channels=1, num_classes=3,
                             length=24)  # fmt: skip
    self.config = common.base("flexvar").sample
    self.cond = {"label": np.zeros(3, np.int32)}

  def edited(self, labels=(), **edit):
    self.config.edit.update(edit)
    return sample.edited(
      self.system, self.dataset, self.config.edit, self.cond, labels
    )

  def test_nothing_by_default(self):
    self.assertEqual(self.edited(), (self.cond, {}))

  def test_an_image_and_a_mask(self):
    folder = tempfile.mkdtemp()
    keep = np.arange(64).reshape(8, 8) % 3 > 0
    save_png(pathlib.Path(folder, "i.png"), GIVEN[0])
    mask = np.uint8(255 * keep)[..., None]
    save_png(pathlib.Path(folder, "m.png"), mask)
    cond, options = self.edited(
      image=f"{folder}/i.png", mask=f"{folder}/m.png", force_first_scales=2
    )
    np.testing.assert_array_equal(cond["given"], np.repeat(GIVEN[:1], 3, 0))
    np.testing.assert_array_equal(cond["keep"], np.repeat(keep[None], 3, 0))
    self.assertEqual(options["force_first_scales"], 2)
    with self.assertRaisesRegex(
      UserError, "cannot be read as an image .no such"
    ):
      self.edited(image=f"{folder}/none.png")

  def test_a_box_in_test_images(self):
    cond, options = self.edited(image="test", box=(0.0, 0.0, 1.0, 0.5))
    want = [self.dataset.test[i] for i in range(3)]
    np.testing.assert_array_equal(cond["given"], [w["image"] for w in want])
    np.testing.assert_array_equal(cond["label"], [w["label"] for w in want])
    self.assertTrue(cond["keep"][:, :, 4:].all())
    self.assertFalse(cond["keep"][:, :, :4].any())
    cond, _ = self.edited(labels=(0,))
    np.testing.assert_array_equal(cond["label"], 0)

  def test_no_label(self):
    cond = conditions(self.system, self.dataset, 2, labels=(-1,))
    np.testing.assert_array_equal(cond["label"], self.system.null)


if __name__ == "__main__":
  absltest.main()
