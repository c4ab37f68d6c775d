"""Every class of the survey (arXiv 2411.05902) by the same factorisation: what
a unit may see, which likelihoods are those of an image, and the page."""

import jax
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import build
from experiments.comparisons import taxonomy as measured
from experiments.shared import catalog, records, taxonomy
from tests import filled, smoke
from tests.contract import deep_test

SIDE = 6
CODES = dict(name="patch_codes", vocab=5, patch=1, size=SIDE)
SMALL = dict(depth=1, width=16, heads=2, num_classes=2)
LLAMA = SMALL | dict(multiple_of=16)
# Class -> its member on images of 6 x 6 pixels. Those of pixelcnn are in its
# own test; of MAR, whose orders differ, in tests/systems/mar_test.py.
MEMBERS = {
  taxonomy.PIXEL: ("igpt", SMALL, dict(name="given", form="levels", levels=5)),
  taxonomy.CODES: ("llamagen", LLAMA, CODES),
  taxonomy.VECTORS: ("cspd", LLAMA, dict(name="patches", patch=1)),
  taxonomy.SCALES: (
    "var", SMALL, CODES | dict(form="pyramid", scales=(1, 2, 3, SIDE)),
  ),
}  # fmt: skip
# Class -> a config that the contract takes through all modes of the command.
COMMAND = {
  taxonomy.PIXEL: "pixelcnn",
  taxonomy.CODES: "llamagen",
  taxonomy.VECTORS: "xar",
  taxonomy.SCALES: "var",
  taxonomy.BETWEEN: "mar",
}


class LeakTest(parameterized.TestCase):
  @parameterized.parameters(*MEMBERS)
  def test_a_unit_sees_earlier_groups_alone(self, of):
    name, model, codes = MEMBERS[of]
    system = build(name, tokenizer=codes | dict(size=SIDE), **model)
    variables = filled.variables(system)
    shapes = jax.eval_shape(
      system.encode, variables,
      {"image": jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), np.uint8)},
    )["units"]  # fmt: skip
    rng = np.random.default_rng(0)
    discrete = shapes.dtype == np.int32
    draw = lambda: (
      rng.integers(5, size=shapes.shape[1:]) if discrete
      else rng.normal(size=shapes.shape[1:])
    )  # fmt: skip
    first, length = draw(), shapes.shape[1]
    second = (first + 1) % 5 if discrete else first + 1
    units = np.repeat(first[None], length + 1, 0)
    at = np.arange(length)
    units[at + 1, at] = second[at]
    batch = {"units": units.astype(shapes.dtype)}
    batch["label"] = np.zeros(length + 1, np.int32)
    key = jax.random.key(0)
    call = lambda batch: system.loss(variables, batch, key, train=False).nll
    nll = np.asarray(jax.jit(call)(batch))
    changed = nll[1:] != nll[:1]  # row j: who noticed another unit j
    step = system.plan.step_of()
    others = ~np.eye(length, dtype=bool)
    late = step[:, None] >= step[None]
    self.assertFalse((changed & late & others).any())
    self.assertGreater(changed[~late].mean(), 0.9)


class RegistryTest(absltest.TestCase):
  def test_every_class_runs_by_the_same_command(self):
    self.assertEqual({*COMMAND}, {*taxonomy.CLASSES})
    covered = {*deep_test.REPRESENTATIVES.values()}
    self.assertContainsSubset({*COMMAND.values()}, covered)
    rows = catalog.rows(records.read())
    family = {
      row["system"].split("`")[1]: name
      for name, own in rows.items()
      for row in own
    }
    for of, name in COMMAND.items():
      self.assertEqual(taxonomy.kind(name, family[name]).of, of)
      self.assertIn(name, smoke.slugs())
    for member in measured.MEMBERS.values():
      entry = taxonomy.kind(member.system, family[member.system])
      self.assertEqual(entry.of, member.of)
    self.assertEqual({m.of for m in measured.MEMBERS.values()}, {*COMMAND})

  def test_passes_and_likelihoods_are_those_that_are_told(self):
    """Of pixels all of an image counts, so their bits compare; MAR says how
    wrong it was, and calls that no likelihood."""
    lengths = {}
    for name, member in measured.MEMBERS.items():
      codes = member.tokenizer or dict(name="patches", patch=2, size=8)
      system = build(
        member.system, tokenizer=codes, **member.model | dict(depth=1)
      )
      self.assertEqual(measured.passes(system, member.options), member.passes)
      batch = {
        "image": np.zeros((2, 8, 8, 1), np.uint8),
        "label": np.zeros(2, np.int32),
      }

      def loss(batch, system=system):
        variables = system.init(jax.random.key(0), batch)
        return system.loss(variables, batch, jax.random.key(0), train=False)

      found = jax.eval_shape(loss, batch)
      self.assertEqual(found.nll is not None, member.exact, name)
      if member.of == taxonomy.PIXEL:
        lengths[name] = found.nll.shape[1]
    self.assertEqual(set(lengths.values()), {64})
    self.assertLen(lengths, 2)

  def test_the_page_has_every_class(self):
    page = taxonomy.page(catalog.rows(records.read()), None)
    for system in ("pixelcnn", "igpt", "llamagen", "cspd", "var", "mar"):
      self.assertIn(f"[`{system}`]", page)
    for name in taxonomy.TEXTS:
      self.assertNotIn(f"[`{name}`]", page)


if __name__ == "__main__":
  absltest.main()
