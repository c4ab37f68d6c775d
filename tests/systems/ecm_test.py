"""ECM: "It works when", line by line.

On the smoke preset the contract test shows that the base stays and every
adapter moves, that no map sees a finer one, and that cached steps are one pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from ar_jax.families.scale import draw
from ar_jax.families.scale.adapters import cut, cut_params
from configs import ecm as config
from tests import filled
from tests.systems import scale_models
from tests.systems.scale_models import SIZES, TOKENIZER

TARGET = dict(
  name="var", tokenizer=dict(TOKENIZER, form="pyramid"), drop_path=0.0, **SIZES
)
SMALL = dict(depth=1, width=16, heads=2)
UNITS = jax.random.randint(jax.random.key(1), (2, 21), 0, 16)
EDGES = jax.random.randint(jax.random.key(2), (2, 8, 8, 1), 0, 256)
COND = {"label": jnp.array([0, 2]), "edges": EDGES.astype(jnp.uint8)}
GUIDANCE, STRENGTH = 2.0, 0.5


def ecm(**more):
  return build("ecm", **dict(target=TARGET, adapters=2, encoder=SMALL) | more)


@functools.cache
def model():
  system = ecm()
  return system, filled.variables(system)


@functools.partial(jax.jit, static_argnums=0)
def every(system, variables, units):
  """Logits of the net alone, with adapters, of the first two maps alone, and
  guided against neither class nor control with a weak control."""
  embedding = system.codec(variables).embed(units)

  def weak(label, hidden):
    net = system.steered(variables, COND["edges"], hidden, STRENGTH)
    return net.head.logits(net(label, embedding))

  net = system.steered(variables, COND["edges"])
  label = COND["label"]
  null = jnp.full_like(label, system.null)
  scales = pick.schedule("ramp", GUIDANCE, system.plan.steps)
  scales = np.array(scales)[system.plan.step_of()][None, :, None]
  alone = system.bound(variables)
  return {
    "alone": alone.head.logits(alone(label, embedding)),
    "own": system.logits(variables, system.condition(COND), units),
    "part": net.head.logits(net(label, embedding, 2)),
    "guided": pick.guide(
      weak(label, None), weak(null, jnp.ones(2, bool)), scales
    ),
  }


class EcmTest(absltest.TestCase):
  def test_it_begins_as_the_base(self):
    system, variables = model()
    own = variables["params"]
    self.assertLen([k for k in own if k.startswith("out_")], 2)
    zero = {k: v for k, v in own.items() if k.startswith("out_")}
    zero = jax.tree.map(jnp.zeros_like, zero)
    found = every(system, {**variables, "params": {**own, **zero}}, UNITS)
    np.testing.assert_allclose(found["own"], found["alone"], atol=1e-6)
    found = every(system, variables, UNITS)
    self.assertGreater(np.abs(found["own"] - found["alone"]).max(), 0.1)
    shapes = jax.eval_shape(system.own, jax.random.key(0))
    begun = jax.jit(system.own)(jax.random.key(0))
    self.assertEqual(
      jax.tree.map(jnp.shape, own), jax.tree.map(jnp.shape, shapes)
    )
    for m in range(2):
      self.assertFalse(np.any(begun[f"out_{m}"]["kernel"]))
    np.testing.assert_array_equal(begun["gates"], 1)

  def test_no_map_sees_a_finer_one(self):
    system, variables = model()
    before = every(system, variables, UNITS)["own"]
    for s in range(system.plan.steps):
      at = system.plan.span(s)
      other = UNITS.at[:, at].set((UNITS[:, at] + 1) % 16)
      after = every(system, variables, other)["own"]
      np.testing.assert_array_equal(after[:, : at.stop], before[:, : at.stop])
      last = s + 1 == system.plan.steps
      self.assertEqual(np.array_equal(after, before), last)

  def test_the_first_maps_alone_are_the_start_of_all(self):
    system, variables = model()
    found = every(system, variables, UNITS)
    self.assertEqual(found["part"].shape, (2, 5, 16))
    np.testing.assert_allclose(found["part"], found["own"][:, :5], atol=1e-5)
    seen = {system.at(i).maps for i in range(20)}
    self.assertEqual(seen, {1, 2, None})
    short = next(s for s in map(system.at, range(20)) if s.maps == 2)
    batch = {**COND, "units": UNITS}
    loss = jax.eval_shape(
      lambda v: short.loss(v, batch, jax.random.key(0), train=True), variables
    )
    self.assertEqual(loss.value.shape, (2,))
    self.assertIsNone(loss.nll)

  def test_draws(self):
    """With a cache, a weak control, guidance against nothing at all, and the
    last map greedy."""
    system, variables = model()
    options = dict(guidance=GUIDANCE, strength=STRENGTH, guide_control=True)
    call = lambda variables, keys: system.generate(
      variables, COND, keys, last_temperature=0.0, **options
    )[0]
    units = jax.jit(call)(variables, jax.random.split(jax.random.key(0), 2))
    logits = np.asarray(every(system, variables, units)["guided"])
    drawn = np.take_along_axis(logits, np.asarray(units)[..., None], -1)
    behind = (logits.max(-1) - drawn[..., 0])[:, 5:]
    np.testing.assert_allclose(behind, 0, atol=1e-4)

  def test_temperatures(self):
    law = dict(temperature=1.0, top_k=5)
    found = draw.cooled(law, 0.8, 10)
    np.testing.assert_allclose(
      [own["temperature"] for own in found], np.linspace(1, 0.8, 10)
    )
    self.assertEqual({own["top_k"] for own in found}, {5})
    self.assertEqual(draw.cooled(law, None, 3), (law,) * 3)
    system, variables = model()
    asked = []

    def spy(*args, laws, **more):
      asked.append([own["temperature"] for own in laws])
      return args, more

    for name, options in (("ecm", {}), ("var", {"last_temperature": 0.8})):
      target, given = (
        (system, variables) if name == "ecm" else scale_models.var()
      )
      with absltest.mock.patch.object(draw, "generate", spy), \
          absltest.mock.patch(
            "ar_jax.families.scale.system.generate", spy
          ):  # fmt: skip
        target.generate(given, COND, jax.random.split(jax.random.key(0), 2),
                        **options)  # fmt: skip
    np.testing.assert_allclose(asked, [[1, 0.9, 0.8]] * 2)

  def test_a_cut_net_is_the_whole(self):
    """With one modulation of all layers, too."""
    more = dict(depth=4, shared_ada=True)
    whole = build(
      "var", **{k: v for k, v in TARGET.items() if k != "name"} | more
    )
    params = filled.variables(whole)["params"]
    x = jax.random.normal(jax.random.key(1), (2, 21, 12))[..., :4]

    @jax.jit
    def both(params):
      run = lambda net, params: net.apply({"params": params}, COND["label"], x)
      parts = cut(whole.net, 2)
      return run(whole.net, params), run(parts, cut_params(params, 2))

    want, got = both(params)
    np.testing.assert_allclose(got, want, atol=1e-5)

  def test_less_than_half_of_the_units_are_trained(self):
    c = config.get_config("paper")
    system = build(c.system, **c.model.to_dict())
    self.assertEqual(system.kept, (6, 7, 8, 9, 10))
    sizes = np.cumsum(system.plan.sizes)
    seen = [sizes[(system.at(i).maps or 10) - 1] for i in range(2000)]
    self.assertEqual(set(seen), {91, 155, 255, 424, 680})
    self.assertAlmostEqual(np.mean(seen) / 680, 321 / 680, delta=0.015)
    self.assertEqual(system.at(7), system.at(7))
    self.assertEqual(ecm(kept=()).at(3).maps, None)

  def test_an_encoder_to_begin_with(self):
    system, variables = model()
    given = {"encoder": variables["params"]["encoder"], "head": {}}
    found = jax.eval_shape(lambda x: system.adopt("params", x), given)
    shapes = jax.eval_shape(lambda x: x, variables["params"])
    self.assertEqual(found, shapes)
    for name, own in (("params", variables["params"]), ("target", given)):
      self.assertIs(system.adopt(name, own), own)

  def test_pictures_of_other_sides(self):
    system, variables = model()
    shape = lambda side: (
      jax.eval_shape(
        lambda v: system.steered(v, jnp.zeros((2, side, side, 1))).rows,
        variables,
      ).shape
    )
    self.assertEqual({shape(8), shape(12)}, {(2, 21, 32)})

  def test_wrong_use(self):
    flexvar = dict(
      TARGET,
      name="flexvar",
      tokenizer=dict(TOKENIZER, form="resized"),
      lists=dict(always=(1, 2, 4), some=((1, (3,)),), limit=30),
      grid=8,
    )
    llamagen = dict(
      name="llamagen", tokenizer=dict(TOKENIZER, form="map"), depth=2, width=32,
      heads=2, num_classes=3,
    )  # fmt: skip
    del llamagen["tokenizer"]["scales"]
    for more, message in (
      (dict(adapters=3), "adapters=3: the 2 layers"),
      (dict(adapters=0), "adapters=0"),
      (dict(kept=(4,)), "kept=.4,.: the target has 3 maps"),
      (dict(target=flexvar), "'flexvar': adapters are of VAR"),
      (dict(target=llamagen), "'llamagen': adapters are of VAR"),
    ):
      with self.assertRaisesRegex(UserError, message):
        ecm(**more)


if __name__ == "__main__":
  absltest.main()
