"""Speculation of a target by its own drafts, whose steps have many units."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from tests import filled

VQ = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
MAPS = dict(
  name="patch_codes", form="pyramid", scales=(1, 2, 4), vocab=16, patch=2,
  size=8, in_channels=3,
)  # fmt: skip
TARGETS = {
  "nar": dict(
    name="nar", tokenizer=VQ, depth=1, width=16, heads=2, multiple_of=16,
    num_classes=3,
  ),
  "var": dict(
    name="var", tokenizer=MAPS, depth=2, width=16, heads=2, num_classes=3
  ),
}  # fmt: skip
LABEL = {"label": jnp.arange(6) % 3}
KEYS = jax.random.split(jax.random.key(7), 6)


class SelfSpeculationTest(parameterized.TestCase):
  @parameterized.product(target=("nar", "var"), over=("gsd", "lantern"))
  def test_a_looser_rule_takes_fewer_forwards(self, target, over):
    options = {"drafter": "itself"} if over == "lantern" else {}
    system = build(over, target=TARGETS[target], **options)
    variables = filled.variables(system)
    exact, loose = {
      "gsd": (dict(size=1), dict(size=15, delta_p=1.0, quantile=None)),
      "lantern": (dict(delta=0.0), dict(k=15, delta=0.9)),
    }[over]

    def forwards(**options):
      run = jax.jit(
        lambda variables: system.generate(
          variables, LABEL, KEYS, guidance=2.0, **options
        )
      )
      units, took = run(variables)
      self.assertEqual(units.shape, (6, len(system.plan)))
      return took.forwards

    most = system.plan.steps + 1
    self.assertLessEqual(forwards(**exact).max(), most)
    self.assertLess(forwards(**loose).sum(), forwards(**exact).sum())

  def test_a_deterministic_law_gives_what_the_target_draws(self):
    for name, model in TARGETS.items():
      system = build("gsd", target=model)
      target = system.target
      variables = filled.variables(system)
      options = dict(guidance=2.0, temperature=0.0)
      run = jax.jit(
        lambda variables, target=target, system=system, options=options: (
          target.generate(variables, LABEL, KEYS, **options),
          system.generate(variables, LABEL, KEYS, size=1, **options),
        )
      )
      plain, (units, _) = run(variables)
      plain = plain[0] if isinstance(plain, tuple) else plain
      np.testing.assert_array_equal(units, plain, err_msg=name)

  def test_a_part_of_an_image_is_kept(self):
    system = build("gsd", target=TARGETS["var"])
    variables = filled.variables(system)
    draw = np.random.default_rng(0)
    given = jnp.asarray(draw.integers(0, 256, (6, 8, 8, 3)), jnp.uint8)
    keep = jnp.zeros((6, 8, 8)).at[:, :4].set(1)
    cond = LABEL | {"given": given, "keep": keep}
    run = jax.jit(
      lambda variables: (
        system.generate(variables, cond, KEYS)[0],
        system.target.edit(variables, cond),
      )
    )
    units, edit = run(variables)
    self.assertGreater(edit.keep.sum(), 0)
    np.testing.assert_array_equal(units[edit.keep], edit.units[edit.keep])

  def test_what_cannot_be_drawn_from(self):
    maps = TARGETS["var"]
    with self.assertRaisesRegex(UserError, "drafter='itself'"):
      build("lantern", target=maps)
    for over in ("gsd", "lantern"):
      with self.assertRaisesRegex(UserError, "no law of discrete units"):
        build(over, target=MAPS)
    system = build("lantern", target=maps, drafter="itself")
    with self.assertRaisesRegex(UserError, "leave tree and chosen"):
      system.generate(filled.variables(system), LABEL, KEYS, chosen=True)


if __name__ == "__main__":
  absltest.main()
