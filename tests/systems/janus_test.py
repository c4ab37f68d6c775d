"""Janus against the official model, and its prompts."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import optim
from ar_jax.core.system import UserError, build
from ar_jax.families.token.prompts.prompt import Prompt
from ar_jax.families.token.readers import Embed
from ar_jax.nn.heads.categorical import Hidden
from tests.systems import ear_models as models
from tests.systems.ear_models import ARRAYS, TEXT

PAD, BEGIN, TAG = 10, 11, 12


def prompt(length=6):
  more = dict(pad=PAD, begin=BEGIN, tag=TAG)
  return Prompt(length, 8, Embed(13, 8), **more)


class JanusTest(parameterized.TestCase):
  def test_official_outputs(self):
    system, variables = models.golden()
    own = system.net_variables(variables)
    hidden = jnp.array([False, True])
    cond = {"text": np.repeat(TEXT, 2, 0)}
    units = np.zeros((2, 16), np.int32)
    features = lambda cond: system.net.apply(
      own, cond, units, hidden, method="features"
    )
    h = features(cond)
    np.testing.assert_allclose(h[:, :9], ARRAYS["hidden_prompt"], atol=1e-4)
    net = system.net.bind(own)
    logits = net.head.logits(h[:, 8:9])[:, 0]
    want = ARRAYS["image_logits_prompt"]
    np.testing.assert_allclose(logits, want, atol=1e-4)
    rows = net.units(jnp.arange(5)[None])[0]
    np.testing.assert_allclose(rows, ARRAYS["image_embeddings"], atol=1e-5)

  def test_a_text_says_the_same_at_any_length(self):
    """Filling is not seen, and only differences of places count."""
    system, variables = models.golden()
    wide = system.net.clone(prefix=system.net.prefix.clone(length=12))
    own, units = system.net_variables(variables), np.zeros((1, 16), np.int32)
    want = system.net.apply(own, {"text": TEXT}, units)
    got = wide.apply(own, {"text": TEXT}, units)
    np.testing.assert_allclose(got, want, atol=1e-4)

  def test_ids(self):
    text = np.int32([[3, 4, 0, 0], [5, 6, 7, 8]])
    hidden = jnp.array([False, True])
    ids, real = prompt().ids({"text": text})
    self.assertEqual(
      ids.tolist(), [[PAD, PAD, BEGIN, 3, 4, TAG], [BEGIN, 5, 6, 7, 8, TAG]]
    )
    self.assertEqual(real.sum(1).tolist(), [4, 6])
    ids, _ = prompt().ids({"text": text}, hidden)
    self.assertEqual(ids[1].tolist(), [BEGIN, *[PAD] * 4, TAG])
    self.assertEqual(ids[0].tolist(), [PAD, PAD, BEGIN, 3, 4, TAG])
    with self.assertRaisesRegex(UserError, "room for 4"):
      prompt().ids({"text": np.ones((1, 5), np.int32)})
    with self.assertRaisesRegex(UserError, "ids of words"):
      prompt().ids({"text": np.ones((1, 5), np.float32)})

  def test_logits_are_guided_behind_the_hidden_layer(self):
    head = Hidden(5, width=4)
    h, null = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))
    given = head.init(jax.random.key(1), h, method="logits")
    bound = head.bind(given)
    one, other = bound.logits(h), bound.logits(null)
    want = jax.nn.log_softmax(other + 3 * (one - other), -1)
    got = bound.law(h, h_null=null, scale=3.0)
    np.testing.assert_allclose(got, want, atol=1e-6)

  @parameterized.parameters(
    ("janus", "1b", "params", 1_485_053_952),
    ("janus", "paper", "params", 6_591_791_104),
    ("ear", "paper", "params", 5 * 4 * 4096**2),
    ("ear", "van_gogh", "target", 6_591_791_104),
  )
  def test_published_sizes(self, name, preset, collection, count):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    system = build(config.system, **config.model.to_dict())
    shapes = jax.eval_shape(lambda key: system.init(key, {}), jax.random.key(0))
    leaves = jax.tree.leaves(shapes[collection])
    self.assertEqual(sum(math.prod(x.shape) for x in leaves), count)
    self.assertLen(system.plan, 576)
    optim.make(config.optim.to_dict(), config.train.steps)
    if name == "ear":
      self.assertEqual(config.data.turns, system.windows)

  def test_wrong_use(self):
    sizes = dict(tokenizer=models.CODES, depth=1, width=32, heads=2)
    for words, said in (
      (dict(vocab=0, length=3), "words.vocab=0"),
      (dict(vocab=5, length=3, framed=False, pad=7), "words.pad=7"),
      (dict(vocab=5, size=3), "words: "),
    ):
      with self.assertRaisesRegex(UserError, said):
        build("janus", words=words, **sizes)


if __name__ == "__main__":
  absltest.main()
