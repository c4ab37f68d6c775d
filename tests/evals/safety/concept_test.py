"""Erasure, measured on systems whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core.errors import UserError
from tests.evals import fakes


@dataclasses.dataclass(frozen=True)
class Erased(fakes.Fake):
  """Draws class 0 where class 2 is asked for."""

  def sample(self, variables, cond, keys, **options):
    label = jnp.asarray(cond["label"])
    cond = {"label": jnp.where(label == 2, 0, label)}
    return super().sample(variables, cond, keys, **options)


class ConceptTest(absltest.TestCase):
  def evaluate(self, system, **options):
    data = fakes.patterns()
    sizes = dict(n=12, batch=12, steps=60)
    found = evals.build("concept", data, **sizes, **options)
    return found(system, {"params": {}}, None, jax.random.key(0))

  def test_rates(self):
    before = self.evaluate(fakes.Fake(), concept=2)
    after = self.evaluate(Erased(), concept="bar2")
    self.assertGreater(before["concept_rate"], 0.9)
    self.assertGreater(before["real_concept_rate"], 0.9)
    self.assertEqual(after["concept_rate"], 0.0)
    for found in (before, after):
      self.assertGreater(found["other_accuracy"], 0.9)
      self.assertEqual(found["concept_elsewhere"], 0.0)
      self.assertLen(found["per_class"], 4)
    self.assertEqual(after["per_class"]["bar2"], 0.0)
    collapsed = self.evaluate(fakes.Fake(collapsed=True), concept=0)
    self.assertGreater(collapsed["concept_elsewhere"], 0.9)
    self.assertLess(collapsed["other_accuracy"], 0.1)

  def test_wrong_use(self):
    for options, said in (
      (dict(concept=4), "evals.concept.concept=4"),
      (dict(concept="bar9"), "must be one of bar0"),
    ):
      with self.assertRaisesRegex(UserError, said):
        self.evaluate(fakes.Fake(), **options)
    system = fakes.Coarse()
    with self.assertRaisesRegex(UserError, "concept: scores the field"):
      evals.check_system("concept", {"field": "sound"}, system)
    texts = [{"text": np.int32([1])}]
    data = dataclasses.replace(fakes.patterns(), train=texts, num_classes=0)
    with self.assertRaisesRegex(UserError, "set evals.concept.real"):
      evals.build("concept", data, concept=1)


if __name__ == "__main__":
  absltest.main()
