"""ARRA: "It works when" of its sheet; what trained models do is in
experiments/arra.py."""

import dataclasses
import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.families.token.prompts.layout import CHAMELEON, layout
from tests import filled, smoke

CODES = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=1)
TINY = dict(
  tokenizer=CODES, depth=2, width=16, heads=2, num_classes=3, multiple_of=16,
  align={"features": 5}, dropout=0.0, token_dropout=0.0,
)  # fmt: skip
KEY = jax.random.key(0)


@functools.cache
def small():
  """The smoke system, its random variables, and a batch."""
  config = smoke.config("arra")
  system = build(config.system, **config.model.to_dict())
  rng = np.random.default_rng(0)
  batch = {
    "units": system.layout.units(jnp.asarray(rng.integers(0, 16, (2, 16)))),
    "feature": jnp.asarray(rng.normal(size=(2, 64)), jnp.float32),
    "label": jnp.array([0, 2]),
  }
  return system, filled.variables(system), batch


def with_align(**changes):
  system = small()[0]
  align = dataclasses.replace(system.align, **changes)
  return dataclasses.replace(system, align=align)


@functools.cache
def gradients(system):
  """(value, gradients) of the loss of a batch in training."""

  @jax.jit
  def find(params):
    _, variables, batch = small()
    loss = lambda p: jnp.sum(
      system.loss({**variables, "params": p}, batch, KEY, train=True).value
    )
    return jax.value_and_grad(loss)(params)

  return find(small()[1]["params"])


class Without(type(small()[0])):
  """The same without anything of alignment."""

  def terms(self, variables, batch, h, tapped):
    found = super().terms(variables, batch, h, tapped)
    return {k: v for k, v in found.items() if k != "alignment"}


class ARRATest(parameterized.TestCase):
  def test_a_weight_of_zero_is_nothing_to_the_bit(self):
    value, grads = gradients(with_align(weight=0.0))
    system = small()[0]
    fields = {f.name: getattr(system, f.name)
              for f in dataclasses.fields(system)}  # fmt: skip
    want, plain = gradients(Without(**fields))
    np.testing.assert_array_equal(value, want)
    own = grads.pop("projector")
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), own)
    plain = {k: v for k, v in plain.items() if k != "projector"}
    jax.tree.map(np.testing.assert_array_equal, grads, plain)

  def test_what_the_term_moves(self):
    """Layers up to l and what is read; nothing behind them."""
    system, variables, batch = small()

    @jax.jit
    def find(params):
      def term(p):
        own = {**variables, "params": p}
        h, tapped = system.tapped(own, batch, batch["units"], None, None)
        return system.terms(own, batch, h, tapped)["alignment"][1].sum()

      return jax.grad(term)(params)

    grads = find(variables["params"])
    behind = grads["backbone"].pop("parts_1"), grads.pop("head")
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), behind)
    for name in ("backbone", "units", "projector", "prefix"):
      for leaf in jax.tree.leaves(grads[name]):
        self.assertGreater(np.abs(leaf).max(), 0, name)

  def test_positions_of_no_code_do_not_matter(self):
    system, variables, batch = small()
    units = batch["units"]
    _, mask = system.align.read(units, system.layout, None)
    # Rows of four codes and a newline; the end is never read.
    np.testing.assert_array_equal(mask[0], ([1] * 4 + [0]) * 4)
    params = variables["params"]["projector"]
    h = jax.random.normal(KEY, (2, 20, 32))
    term = functools.partial(system.align.term, system.projector, params)
    before = term(h, mask, batch["feature"])
    other = jnp.where(mask[..., None], h, 9.0)
    np.testing.assert_array_equal(term(other, mask, batch["feature"]), before)
    moved = term(h.at[:, 0].add(1.0), mask, batch["feature"])
    self.assertGreater(np.abs(moved - before).min(), 1e-4)
    last = with_align(positions="last", last=3).align
    _, mask = last.read(units, system.layout, None)
    np.testing.assert_array_equal(np.flatnonzero(mask[0]), [17, 18, 19])

  def test_a_hybrid_symbol_in_place_of_one_code(self):
    align = dict(features=5, positions="hybrid")
    system = build("arra", **TINY | dict(symbols="rows", align=align))
    units = system.layout.units(jnp.zeros((64, 16), int))
    keys = jax.random.split(KEY, 64)
    read, mask = system.align.read(units, system.layout, keys)
    np.testing.assert_array_equal(np.sum(mask, 1), 1)
    changed = np.asarray(read != units)
    np.testing.assert_array_equal(changed[:, :-1], mask)
    self.assertFalse(changed[:, -1].any())
    np.testing.assert_array_equal(np.asarray(read)[changed], 18)
    places = np.argmax(mask, 1).tolist()
    self.assertContainsSubset(places, system.layout.places.tolist())
    self.assertGreater(len(set(places)), 8)
    # It is read, and never predicted, nor there when something is drawn.
    shapes = jax.eval_shape(lambda key: system.init(key, {}), KEY)["params"]
    self.assertEqual(shapes["units"]["embedding"].shape, (19, 16))
    self.assertEqual(shapes["head"]["linear"]["kernel"].shape, (16, 18))
    same, none = system.align.read(units, system.layout, None)
    self.assertIsNone(none)
    np.testing.assert_array_equal(same, units)

  def test_without_its_own_parts_it_is_a_llama(self):
    """So it costs as much: parameters, passes, logits."""
    system = build("arra", **TINY)
    plain = build("llamagen", **{k: v for k, v in TINY.items() if k != "align"})
    variables = filled.variables(system)
    variables["params"].pop("projector")
    own, like = system.plain(variables), filled.variables(plain)
    shape = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shape(own), shape(like))
    units = jnp.asarray(np.random.default_rng(2).integers(0, 16, (2, 16)))
    label = {"label": jnp.array([0, 2])}
    want = jax.jit(plain.logits)(own, label, units)
    found = jax.jit(system.logits)(variables, label, units)
    self.assertGreater(np.ptp(want), 0.5)
    np.testing.assert_allclose(found, want, atol=1e-5)
    self.assertEqual(system.forwards(), plain.forwards())

  def test_symbols_stand_where_they_must(self):
    system, variables, batch = small()
    draw = jax.jit(functools.partial(system.generate, guidance=2.0))
    cond, keys = {"label": batch["label"]}, jax.random.split(KEY, 2)
    units = np.asarray(draw(variables, cond, keys))
    template = system.layout.template
    known = template >= 0
    self.assertEqual(known.sum(), 5)
    np.testing.assert_array_equal(
      units[:, known], template[None, known][[0, 0]]
    )
    self.assertLess(units[:, ~known].max(), 16)
    self.assertGreater(len(set(units[:, ~known].reshape(-1).tolist())), 4)
    shown = jax.eval_shape(system.decode, variables, units)
    self.assertEqual(shown.shape, (2, 8, 8, 1))

  def test_the_z_term(self):
    system, variables, batch = small()

    @jax.jit
    def both(variables):
      loss = system.loss(variables, batch, KEY, train=False)
      given = batch, batch["units"], None, None
      return loss, system.tapped(variables, *given)[0]

    loss, h = both(variables)
    x = np.asarray(h, np.float64) @ np.asarray(
      variables["params"]["head"]["linear"]["kernel"], np.float64
    )
    z = np.square(np.log(np.exp(x).sum(-1))).mean(1)
    np.testing.assert_allclose(loss.metrics["z_loss"], z, rtol=1e-4)
    want = loss.nll.mean(1) + 1e-5 * z + loss.metrics["alignment"]
    np.testing.assert_allclose(loss.value, want, rtol=1e-5)

  def test_the_teacher_is_asked_once(self):
    system, variables, _ = small()
    image = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1))
    batch = {"image": image.astype(np.uint8), "label": jnp.zeros(2, int)}
    given = jnp.ones((2, 64))

    @jax.jit
    def every(variables, batch):
      frozen = {"params": variables["teacher"]}
      own = system.encode(variables, {**batch, "feature": given})
      stored = system.encode(variables, batch)
      return stored, system.teacher.pooled(frozen, batch), own

    stored, feature, own = every(variables, batch)
    self.assertEqual(set(stored), {"units", "feature", "label"})
    np.testing.assert_array_equal(stored["feature"], feature)
    np.testing.assert_array_equal(own["feature"], given)

  def test_a_probe_is_not_told_the_class(self):
    system, variables, batch = small()
    features = jax.jit(system.features)
    seen = features(variables, batch)
    self.assertEqual(seen.shape, (2, 32))
    other = features(variables, {**batch, "label": jnp.array([1, 1])})
    np.testing.assert_array_equal(seen, other)

  def test_codes_of_a_language_model_are_forgotten(self):
    system = dataclasses.replace(small()[0], zero_rows=True)
    variables, batch = small()[1:]
    ready = system.ready(variables)
    kernel = ready["params"]["head"]["linear"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :16], 0)
    before = variables["params"]["head"]["linear"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 16:], before[:, 16:])
    h = system.tapped(ready, batch, batch["units"], None, None)[0]
    np.testing.assert_array_equal((h @ kernel)[..., :16], 0)

  @parameterized.parameters(
    (dict(align={}), "either teacher or align.features"),
    (dict(align=dict(features=5, layer=2)), "cut behind layer 1"),
    (dict(align=dict(features=5, positions="all")), "image, hybrid, last"),
    (dict(align=dict(features=5, wait=1)), "it takes weight, layer"),
    (dict(symbols="lines"), "codes, rows, chameleon"),
    (dict(text={"name": "ids", "length": 4}), "symbols='chameleon'"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      build("arra", **{**TINY, **values})

  def test_a_feature_must_be_there(self):
    system, variables, batch = small()
    for other in (None, jnp.ones((2, 3))):
      batch = {**batch, "feature": other}
      loss = lambda v, b=batch: system.loss(v, b, KEY, train=False).value
      with self.assertRaisesRegex(UserError, "model.teacher, or data.image"):
        jax.eval_shape(loss, variables)

  @parameterized.parameters(("b", 110_888_448), ("3b", 3_096_659_200))
  def test_published_llamagens(self, preset, count):
    config = importlib.import_module("configs.arra").get_config(preset)
    self.assertEqual(parameters(config), count)
    system = build("arra", **config.model.to_dict())
    self.assertEqual(system.projector.features, 768)  # of CLIP-L/14

  def test_the_teacher_is_a_stage_of_half_of_the_images(self):
    config = importlib.import_module("configs.arra").get_config()
    self.assertEqual(config.stages[:3], ("tokenizer", "teacher", "generator"))
    self.assertEqual(config.teacher.data.share, 0.5)
    self.assertNotIn("share", config.generator.data)
    self.assertEqual(config.generator.weights.teacher, "teacher")
    system = build("arra", **config.generator.model.to_dict())
    self.assertEqual(system.projector.features, 64)
    self.assertEqual(system.align.layer, 2)

  def test_published_size(self):
    config = importlib.import_module("configs.arra").get_config("paper")
    table, layers = 2 * 65_536 * 4096, 4 * 4096**2 + 3 * 4096 * 11_008
    norms = 2 * 4096 + 2 * 2 * 32 * 128
    count = table + 32 * (layers + norms) + 4096
    self.assertEqual(parameters(config), count)
    projector = 4096 * 512 + 512 + 512 * 512 + 512
    self.assertEqual(parameters(config, "projector"), projector)
    system = build(config.system, **config.model.to_dict())
    self.assertLen(system.plan, 2 + 32 * 33 + 2)
    system.program(**config.sample.options)


def parameters(config, group=None):
  system = build(config.system, **config.model.to_dict())
  shapes = jax.eval_shape(lambda key: system.init(key, {}), KEY)["params"]
  own = shapes.pop("projector")
  tree = own if group else shapes
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


class ChameleonTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.system = build(
      "arra",
      **TINY | dict(symbols="chameleon", num_classes=None, label_dropout=0.1),
      text=dict(name="ids", length=4),
      head_norm="chameleon",
    )

  def test_the_sequence(self):
    codec = self.system.tokenizer
    where = layout("chameleon", codec)
    units = np.asarray(where.units(jnp.arange(16)[None]))[0]
    rows = np.pad(
      np.arange(16).reshape(4, 4) + 4, ((0, 0), (0, 1)), constant_values=8803
    )
    want = [8806, 8806, *rows.reshape(-1), 8196, 8710]
    np.testing.assert_array_equal(units, want)
    codes = where.of_units(jnp.asarray(units)[None])
    np.testing.assert_array_equal(codes[0], np.arange(16))

  def test_texts_and_none(self):
    system = self.system
    variables = filled.variables(system)
    units = system.layout.units(jnp.arange(32).reshape(2, 16) % 16)
    pad, start = CHAMELEON["pad"], CHAMELEON["start"]
    find = jax.jit(system.logits)
    text = jnp.array([[7, 9, pad, pad], [5, 6, 8, 20]])
    rows = lambda x: np.asarray(x)[:, system.layout.places, 4:20]
    law = rows(find(variables, {"text": text}, units))
    # A text is one line with its image: what fills it up changes nothing.
    behind = jnp.array([[pad, 7, pad, 9], [5, 6, 8, 20]])
    again = rows(find(variables, {"text": behind}, units))
    np.testing.assert_allclose(again, law, atol=1e-5)
    # Without a text the sequence begins with the image.
    hidden = jnp.array([False, True])
    some = rows(find(variables, {"text": text}, units, hidden))
    np.testing.assert_allclose(some[0], law[0], atol=1e-5)
    none = rows(find(variables, {"text": jnp.full((2, 4), pad)}, units))
    np.testing.assert_allclose(some[1], none[1], atol=1e-5)
    self.assertGreater(np.abs(some[1] - law[1]).max(), 1e-3)
    ids, seen = system.net.prefix._ids({"text": text})
    np.testing.assert_array_equal(ids[0, 2:], [7, 9, start])
    np.testing.assert_array_equal(seen[0], [0, 0, 1, 1, 1])

  def test_guided_draws(self):
    """Greedy ones are the best of guided logits, without a text in one."""
    system = self.system
    variables = filled.variables(system)
    text = jnp.array([[7, 9, 1, 1], [5, 6, 8, 20]])
    law = dict(guidance=3.0, temperature=0.0)
    draw = jax.jit(functools.partial(system.generate, **law))
    cond = {"text": text}
    units = draw(variables, cond, jax.random.split(KEY, 2))
    find = jax.jit(system.logits)
    with_it = np.asarray(find(variables, cond, units))
    without = np.asarray(find(variables, cond, units, jnp.ones(2, bool)))
    finite = np.isfinite(with_it)
    guided = 3.0 * np.where(finite, with_it, 0) - 2.0 * np.where(
      finite, without, 0
    )
    guided = np.where(finite, guided, -np.inf)
    np.testing.assert_array_equal(units, guided.argmax(-1))


if __name__ == "__main__":
  absltest.main()
