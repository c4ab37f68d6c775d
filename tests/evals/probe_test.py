"""The probe: certain where the classes lie apart, chance where they do not."""

import dataclasses

import jax
import jax.numpy as jnp
from absl.testing import absltest

from ar_jax import evals
from ar_jax.core.system import Loss, System, UserError
from tests.evals import fakes

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Seeing(System):
  """Its features are the class, hidden in noise, or noise alone."""

  def init(self, key, batch):
    return {"params": {"gain": jnp.ones(())}}

  def loss(self, variables, batch, key, *, train):
    return Loss(jnp.zeros(len(batch["image"])))

  def sample(self, variables, cond, keys):
    raise NotImplementedError

  def features(self, variables, batch, *, blind=False, flat=True):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      KEY, jnp.asarray(batch["image"], jnp.uint32).sum((1, 2, 3))
    )
    noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)
    seen = 100 * jax.nn.one_hot(batch["label"], 8)
    found = variables["params"]["gain"] * jnp.where(blind, 0, seen) + noise
    return found if flat else found[None]


class Blind(Seeing):
  features = None


class ProbeTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data = fakes.patterns(train=96, test=40)

  def probe(self, system=None, data=None, **options):
    options = {"per_class": (5, 20), "batch": 32, **options}
    evaluate = evals.build("probe", data or self.data, **options)
    system = system or Seeing()
    return evaluate(system, system.init(KEY, {}), [], KEY)

  def test_classes_apart(self):
    found = self.probe()
    for name in ("linear_5", "linear_20", "knn_5", "knn_20"):
      self.assertEqual(found[name], 1.0, name)
      self.assertEqual(found[f"{name}_std"], 0.0)
      # The bars can be told apart as pixels, too.
      self.assertGreater(found[f"{name}_baseline"], 0.9)
    self.assertEqual(found["chance"], 0.25)
    self.assertEqual(found["protocol"]["test_examples"], 40)

  def test_noise_says_nothing(self):
    found = self.probe(options={"blind": True})
    for name in ("linear_5", "linear_20", "knn_5", "knn_20"):
      self.assertBetween(found[name], 0.0, 0.5, name)
    self.assertGreater(found["linear_5_std"], 0.0)

  def test_same_again_and_whatever_the_batch(self):
    first = self.probe(options={"blind": True})
    self.assertEqual(first, self.probe(options={"blind": True}))
    other = self.probe(options={"blind": True}, batch=7)
    for name, value in first.items():
      if name != "protocol":
        self.assertAlmostEqual(other[name], value, places=6, msg=name)

  def test_refusals(self):
    with self.assertRaisesRegex(UserError, "Blind has no method features"):
      self.probe(Blind())
    with self.assertRaisesRegex(UserError, r"must be \[batch, d\]"):
      self.probe(options={"flat": False})
    with self.assertRaisesRegex(UserError, "field='video' is not in"):
      self.probe(field="video")
    with self.assertRaisesRegex(UserError, "has no classes"):
      none = dataclasses.replace(self.data, num_classes=0, class_names=())
      self.probe(data=none)
    with self.assertRaisesRegex(UserError, r"per_class=\(0,\)"):
      self.probe(per_class=(0,))


if __name__ == "__main__":
  absltest.main()
