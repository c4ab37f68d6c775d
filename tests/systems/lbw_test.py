"""LBW: "It works when"; its law is in `lbw_law_test`."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special, stats

from ar_jax import data
from ar_jax.core.decoding import near_codes
from ar_jax.core.decoding.green_lists import Pool
from ar_jax.core.system import UserError, build
from ar_jax.evals.safety import mark_reader, watermark
from ar_jax.tokenizers.autoencoder import signed
from tests import filled
from tests.systems import llamagen_models, scale_models
from tests.systems.lbw_models import (
  MAPS,
  RASTER,
  TEXT,
  N,
  V,
  draw,
  logits,
  marked,
)

MANY = 100  # as many in several tests, so that they share their programs


class ListsTest(parameterized.TestCase):
  @parameterized.parameters("llamagen", "var")
  def test_no_strength_is_the_host_and_hard_is_green(self, host):
    if host == "var":
      plain, variables = scale_models.var()
      sizes = dict(scale_models.SIZES, drop_path=0.0)
      codes = dict(scale_models.TOKENIZER, form="pyramid")
    else:
      sizes = dict(llamagen_models.TINY, num_classes=3)
      codes = sizes.pop("tokenizer")
      plain = build("llamagen", tokenizer=codes, **sizes)
      variables = filled.variables(plain)
    system = build(
      "lbw", target=dict(name=host, tokenizer=codes, **sizes), key="k", lists=4
    )
    self.assertEqual(system.target, plain)
    which = jnp.arange(MANY) % 4
    cond = {"green_list": which}
    same = draw(system, variables, MANY, strength=0.0, guidance=1.5)
    want = draw(plain, variables, MANY, guidance=1.5)
    np.testing.assert_array_equal(same, want)
    # At temperature 0, too, where a list that was multiplied would be NaN.
    lists = np.asarray(system.lists(variables))
    for temperature in (1.0, 0.0):
      units = draw(
        system, variables, MANY, cond=cond, hard=True, temperature=temperature
      )
      green = np.take_along_axis(lists[which], units, 1)
      self.assertTrue(green.all())
    self.assertFalse(np.take_along_axis(lists[which], want, 1).all())

  def test_soft_lists_are_as_green_as_their_law(self):
    target = dict(name="llamagen", num_classes=3, **llamagen_models.TINY)
    system = build("lbw", target=target, key="k", lists=4)
    variables = filled.variables(system)
    which = np.arange(MANY) % 4
    cond = {"green_list": which}
    law = dict(strength=1.0, temperature=1.0)
    units = draw(system, variables, MANY, cond=cond, **law)
    lists = np.asarray(system.lists(variables))[which]
    law = np.asarray(
      jax.nn.softmax(logits(system.target, variables, units)), np.float64
    )
    mass = (law * lists[:, None]).sum(-1)
    want = mass * np.e / (mass * np.e + 1 - mass)
    error = np.sqrt((want * (1 - want)).sum()) / want.size
    rate = np.take_along_axis(lists, units, 1).mean()
    self.assertLess(abs(rate - want.mean()), 3 * error)
    self.assertGreater(abs(rate - mass.mean()), 3 * error)

  def test_greedy(self):
    target = dict(name="llamagen", num_classes=3, **llamagen_models.TINY)
    system = build("lbw", target=target, key="k", lists=1)
    variables = filled.variables(system)
    green = system.lists(variables)[0]
    greedy = dict(temperature=0.0, strength=1.0)
    plain = draw(system.target, variables, MANY, temperature=0.0)
    with self.assertLogs("ar_jax", "WARNING") as logs:
      same = draw(system, variables, MANY, **greedy)
    self.assertIn("raw=True", logs.output[0])
    np.testing.assert_array_equal(same, plain)
    units = draw(system, variables, MANY, raw=True, **greedy)
    self.assertGreater(green[units].mean(), green[plain].mean())
    own = np.asarray(logits(system.target, variables, units))
    np.testing.assert_array_equal((own + green).argmax(-1), units)

  def test_least_mass_makes_hard_lists_soft(self):
    system, variables, _ = marked("var")
    options = dict(hard=True, min_green_mass=0.2)
    made = lambda **options: system.marked(
      variables, {"label": jnp.ones(1)}, jax.random.split(jax.random.key(0), 1),
      **options,
    )[0]["bias"]  # fmt: skip
    np.testing.assert_allclose(
      made(**options), made(strength=np.log(4)), rtol=1e-6
    )

  def test_coarse_maps_may_go_without(self):
    system, variables, _ = marked("var")
    green = system.lists(variables)[0]
    units = draw(system, variables, hard=True, first_map=1)
    rate = green[units].mean(0)
    self.assertTrue((rate[1:] == 1).all())
    plain = draw(system.target, variables)
    self.assertAlmostEqual(rate[0], green[plain[:, 0]].mean(), delta=0.02)
    np.testing.assert_array_equal(system.counted(1), [0, 1, 1, 1, 1])

  def test_a_list_is_drawn_by_the_key_of_the_example(self):
    system, _, _ = marked("var")
    system = build("lbw", target=MAPS, key="k", lists=4)
    keys = jax.random.split(jax.random.key(0), 4000)
    lists = np.asarray(system.chosen({}, keys))
    np.testing.assert_array_equal(lists[:7], system.chosen({}, keys[:7]))
    self.assertGreater(stats.chisquare(np.bincount(lists)).pvalue, 1e-4)

  def test_another_bias_is_added(self):
    system, variables, _ = marked("var")
    never = jnp.where(jnp.arange(V) == 0, -jnp.inf, 0.0)
    cond = {"bias": jnp.tile(never[None], (N, 1))}
    units = draw(system, variables, cond=cond, first_map=1)
    self.assertTrue((units > 0).all())

  def test_wrong_use(self):
    system, variables, _ = marked("var")
    call = lambda **options: jax.eval_shape(
      lambda keys: system.sample(
        variables, {"label": jnp.ones(2, int)}, keys, **options
      ),
      jax.random.split(jax.random.key(0), 2),
    )
    for options, message in (
      (dict(strength=-1.0), "at least 0"),
      (dict(first_map=2), "must be below 2"),
      (dict(post_hoc=True), "no given image"),
    ):
      with self.assertRaisesRegex(UserError, message):
        call(**options)
    for name in ("mar", "elm"):
      with self.assertRaisesRegex(UserError, "no discrete units"):
        build("lbw", target=_smoke(name), key="k")
    with self.assertRaisesRegex(UserError, "some and not all"):
      build("lbw", target=MAPS, share=0.1)
    raster, own, _ = marked("llamagen by gsd")
    cond = {"label": jnp.ones(1, int), "given": np.zeros((1, 8, 8, 1))}
    with self.assertRaisesRegex(UserError, "post_hoc=True"):
      raster.marked(own, cond, jax.random.split(jax.random.key(0), 1))


class TextsTest(absltest.TestCase):
  """LBW over SDAR: green lists of symbols, which it fills block by block."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    text = dict(name="given", form="tokens", vocab=64, length=96, stop=0)
    target = dict(
      name="sdar", tokenizer=text, depth=1, width=16, heads=2, block=8,
      num_classes=0, multiple_of=16,
    )  # fmt: skip
    cls.system = build("lbw", target=target, key="k", lists=2)
    cls.variables = filled.variables(cls.system, stddev=0.2)
    cls.green = np.asarray(cls.system.lists(cls.variables))

  def drawn(self, **options):
    """Texts of both lists; one program serves all lists and strengths."""
    known = {"bias": jnp.zeros((MANY, 64)), "green_list": jnp.arange(MANY) % 2}
    law = dict(strategy="static", steps=2)
    return draw(self.system, self.variables, MANY, cond=known, **law, **options)

  def test_z_grows_with_strength_and_is_nothing_without(self):
    reader = mark_reader.reader_of(self.system, self.variables, field="text")
    found = {}
    for strength in (0.0, 0.25, 0.75, 3.0):
      units = self.drawn(strength=strength)
      own, p = reader.look(units)
      # The z of the list that was used.
      z = own.z[np.arange(MANY), np.arange(MANY) % 2].mean()
      found[strength] = z, (p <= 0.01).mean()
      if not strength:
        chance = watermark.of_chance(reader, units, 0.01, keys=200)
    z = [z for z, _ in found.values()]
    self.assertLess(abs(z[0]), 3 / np.sqrt(MANY))
    self.assertTrue((np.diff(z) > 0.5).all(), z)
    self.assertBetween(chance["rate"], 0.004, 0.016)  # under other keys
    self.assertLess(found[0.0][1], 0.05)
    self.assertGreater(found[3.0][1], 0.95)
    right = own.best == np.arange(MANY) % 2
    self.assertGreater(right.mean(), 0.95)

  def test_the_end_is_in_no_list(self):
    """Whatever its colour, it is as likely, in the mean over lists."""
    pool = dataclasses.replace(self.system.pool, count=500)
    many = dataclasses.replace(self.system, pool=pool)
    logits = np.random.default_rng(0).normal(size=64)
    for law in (dict(strength=4.0), dict(hard=True)):
      cond = {"green_list": jnp.arange(500)}
      keys = jax.random.split(jax.random.key(0), 500)
      bias = many.marked(self.variables, cond, keys, **law)[0]["bias"]
      p = special.softmax(logits + np.asarray(bias), 1)[:, 0]
      self.assertAlmostEqual(p.mean() / special.softmax(logits)[0], 1, 1)
    units = self.drawn(hard=True)
    own = self.green[np.arange(MANY) % 2]
    ok = np.take_along_axis(own, units, 1) | (units == 0)
    self.assertTrue(ok.all())
    self.assertTrue((units == 0).any())
    # Nor does the detector count it.
    reader = mark_reader.reader_of(self.system, self.variables, field="text")
    counts = reader.detector.counts(units)
    self.assertEqual(counts[:, 0].max(), 0)
    self.assertEqual(counts.sum(), (units != 0).sum())

  def test_symbols_are_not_alike(self):
    target = dict(TEXT, tokenizer=dict(TEXT["tokenizer"], vocab=64))
    with self.assertRaisesRegex(UserError, "cluster=2: .* could be alike"):
      build("lbw", target=target, cluster=2)


class PresetsTest(absltest.TestCase):
  def test_the_paper_s_is_a_published_var_marked(self):
    """Of 310.3 million parameters, none of them LBW's."""
    from configs import lbw, var

    own, plain = lbw.get_config("paper"), var.get_config("d16")
    system = build(own.system, **own.model.to_dict())
    self.assertEqual(
      system.target, build(plain.system, **plain.model.to_dict())
    )
    shapes = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    self.assertAlmostEqual(count / 310.3e6, 1, delta=1e-3)
    self.assertEqual((system.pool.vocab, system.pool.count), (4096, 8))
    for preset in ("var", "gsd", "lantern", "sdar", "fashion"):
      stages = lbw.get_config(preset)
      marked = [k for k in stages.stages if stages[k].get("system") == "lbw"]
      self.assertLen(marked, 1)


def _smoke(name):
  module = importlib.import_module(f"configs.{name}")
  c = module.get_config("smoke")
  return {"name": name, **c.model.to_dict()}


class PoolTest(absltest.TestCase):
  def test_lists_are_what_they_always_were(self):
    lists = Pool("secret", 16, 2).lists()
    found = ["".join(map(str, row.astype(int))) for row in lists]
    self.assertEqual(found, ["0001110011011100", "1111000110100100"])

  def test_lists_are_of_chance(self):
    lists = Pool("k", 64, 4000, 0.25).lists()
    np.testing.assert_array_equal(lists.sum(1), 16)
    rate = lists.mean(0)
    self.assertLess(np.abs(rate - 0.25).max(), 4.5 * np.sqrt(0.1875 / 4000))
    both = (lists[:, :1] & lists[:, 1:]).mean(0)  # without replacement
    self.assertLess(abs(both.mean() - 0.25 * 15 / 63), 0.003)
    other = Pool("l", 64, 4000, 0.25).lists()
    self.assertLess(abs((lists & other).mean() - 0.0625), 0.002)

  def test_what_is_alike_has_one_colour(self):
    codes = jax.random.normal(jax.random.key(0), (60, 2))
    pool = Pool("k", 60, 50, cluster=4)

    @jax.jit
    def every(codes):
      own = near_codes.partition(codes, 4)
      return pool.lists(codes), own, near_codes.order(codes)[:, 1]

    lists, own, nearest = map(np.asarray, every(codes))
    for group in np.unique(own):
      inside = lists[:, own == group]
      np.testing.assert_array_equal(inside.min(1), inside.max(1))
    same = (lists == lists[:, nearest]).mean()
    self.assertGreater(same, 0.65)


class PostHocTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.real = data.load("digits", size=20, channels=1)
    rows = [cls.real.test[i]["image"] for i in range(20)]
    cls.images = np.stack(rows)

  def marked(self, **form):
    """(PSNR of plain codes, of green ones, the units' green rate)."""
    sizes = dict(vocab=32, size=20, in_channels=1) | form
    codes = build("patch_codes", **sizes)
    fresh = filled.variables(codes, batch={"image": self.images[:1]})
    some = [self.real.train[i] for i in range(150)]
    frozen = codes.fitted(fresh, some, 0)["params"]["tokenizer"]
    host = dict(RASTER, name="var" if "scales" in form else "llamagen")
    host["tokenizer"] = dict(name="patch_codes", **sizes)
    if "scales" in form:
      del host["multiple_of"]
    system = build("lbw", target=host, key="k", lists=2)
    keys = jax.random.split(jax.random.key(1), len(self.images))

    @jax.jit
    def every(tokenizer, given, keys):
      variables, cond = {"tokenizer": tokenizer}, {"given": given}
      codec = system.drawn_from.codec(variables)
      own = codec.encode(signed(given))
      green = lambda **more: system.green_units(variables, cond, keys, **more)
      return {
        "units": green(),
        "slack": green(slack=1e9),
        "none": green(slack=0.0),
        "own": own,
        "plain": (codec.decode(own) + 1) / 2,
        "image": system.sample(
          variables, cond, keys, post_hoc=True, guidance=3.0
        ),
        "lists": system.chosen(cond, keys),
      }

    found = jax.device_get(every(frozen, self.images, keys))
    lists = np.asarray(system.lists({"tokenizer": frozen}))[found["lists"]]
    rate = np.take_along_axis(lists, found["units"], 1).mean()
    np.testing.assert_array_equal(found["slack"], found["units"])
    np.testing.assert_array_equal(found["none"], found["own"])
    true = self.images / 255
    psnr = lambda y: -10 * np.log10(np.square(y - true).mean())
    return psnr(found["plain"]), psnr(found["image"]), rate

  def test_units_are_green_and_residuals_lose_less(self):
    one = self.marked(patch=4)
    many = self.marked(form="pyramid", patch=5, scales=(3, 4))  # 25 units both
    self.assertEqual((one[2], many[2]), (1.0, 1.0))
    self.assertGreater(one[0] - one[1], many[0] - many[1])
    self.assertGreater(many[0] - many[1], 0)


if __name__ == "__main__":
  absltest.main()
