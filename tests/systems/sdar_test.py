"""SDAR: what its sheet says of any model; figures of trained ones are in
experiments/sdar.py, official numbers in tests/convert/sdar_test.py."""

import dataclasses
import functools
import math
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax import main
from ar_jax.core.system import UserError, build
from configs import sdar as config
from tests import filled, smoke

KEY = jax.random.key(0)
TINY = dict(depth=1, width=16, heads=2, num_classes=0, multiple_of=16)
WORDS = dict(name="given", form="tokens", vocab=4, length=3, stop=None)


@functools.cache
def small():
  """The smoke system, its random variables, and a batch of units."""
  c = smoke.config("sdar")
  system = build(c.system, **c.model.to_dict())
  units = np.random.default_rng(0).integers(0, 16, (2, 16))
  batch = {"units": jnp.asarray(units, jnp.int32), "label": jnp.array([0, 2])}
  return system, filled.variables(system), batch


@functools.cache
def noisy():
  """The hidden states of both halves of the doubled pass, compiled once."""
  system, variables, batch = small()
  net = system.net.bind(system.net_variables(variables))
  cond = {"label": batch["label"]}

  @jax.jit
  def run(units, hide):
    h = net.features(cond, units, hide[:, None])[:, 1:]
    return h.reshape(2, 2, 16, -1)  # of the noisy ones, of the clean ones

  return run


@functools.cache
def drawn(**options):
  """Units and counts of the smoke system."""
  system, variables, batch = small()
  draw = functools.partial(system.generate, **options)
  keys = jax.random.split(KEY, 2)
  return jax.jit(draw)(variables, {"label": batch["label"]}, keys)


class SdarTest(parameterized.TestCase):
  def test_who_sees_whom(self):
    units, hide = small()[2]["units"], np.zeros((2, 16), bool)
    hide[:, [1, 6, 7, 12]] = True
    before = np.asarray(noisy()(units, hide))
    moved = lambda after: np.abs(after - before).max((0, 3)) > 1e-5
    # A unit that is hidden is seen in its clean copy only: place 6, block 1.
    clean = moved(noisy()(units.at[:, 6].add(1), hide))
    place = np.arange(16)
    np.testing.assert_array_equal(clean[0], place >= 8)
    np.testing.assert_array_equal(clean[1], place >= 4)
    # What is hidden changes the noisy copy of its own block alone.
    other = hide.copy()
    other[:, 5] = True
    ours = moved(noisy()(units, other))
    np.testing.assert_array_equal(ours[0], (place >= 4) & (place < 8))
    self.assertFalse(ours[1].any())

  def test_training_says_what_decoding_says(self):
    system, variables, batch = small()
    net = system.net.bind(system.net_variables(variables))
    hide = np.zeros((2, 16), bool)
    hide[:, [8, 10]] = True
    want = noisy()(batch["units"], hide)[:, 0, 8:12]

    @jax.jit
    def cached(units):
      cond = {"label": batch["label"]}
      _, cache = net.begin(cond, units[:, :8], spare=4)
      cache = dataclasses.replace(cache, index=jnp.full(2, 9))
      place = jnp.broadcast_to(8 + jnp.arange(4), (2, 4))
      sees = jnp.ones((2, 4, 4), bool)
      own, at = units[:, 8:12], jnp.asarray(hide[:, 8:12])
      return net.step(own, at, place, sees, cache)[0]

    found = cached(batch["units"])
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(False, True)
  def test_the_loss_is_unbiased(self, each_block):
    """A model with the same loss at every unit has it as its bound."""
    system = dataclasses.replace(small()[0], each_block=each_block)

    hide, p = jax.jit(system.noise)(jax.random.split(KEY, 100_000))
    logits, units = jnp.zeros((1, 16, 16)), jnp.zeros((1, 16), jnp.int32)
    found = jnp.mean(system.bound(logits, units, hide, p, None))
    np.testing.assert_allclose(found, np.log(16), rtol=0.01)

  def test_hiding_again_makes_it_too_large(self):
    """Which is why it is off: of 16 units by 1 / (1 - (1 - p)^16)."""
    system = dataclasses.replace(small()[0], redraws=10, each_block=False)
    hide, p = jax.jit(system.noise)(jax.random.split(KEY, 20_000))
    self.assertTrue(np.asarray(hide).any(1).all())
    self.assertGreater(np.mean(np.asarray(hide / p)), 1.1)

  def test_a_mean_over_what_counts(self):
    """Hidden or not; up to the block in which a text ends."""
    text = dict(WORDS, length=8, stop=0)
    system = build("sdar", tokenizer=text, **TINY)
    units = jnp.asarray([[1, 2, 0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3, 1, 2]])
    counted = system.counted(units)
    np.testing.assert_array_equal(jnp.sum(counted, 1), [4, 8])
    hide = jnp.zeros((2, 8), bool).at[:, 1].set(True).at[:, 6].set(True)
    found = system.bound(
      jnp.zeros((2, 8, 4)), units, hide, jnp.full((2, 8), 0.5), counted
    )
    each = math.log(4) / 0.5
    np.testing.assert_allclose(found, [each / 4, 2 * each / 8], rtol=1e-6)

  def test_forwards(self):
    """One reads the start; blocks of 4 take S, and one that stores them. Fused
    forwards change no unit."""
    text = dict(WORDS, length=8)
    system = build("sdar", tokenizer=text, **TINY)
    variables, found = filled.variables(system), {}
    keys = jax.random.split(KEY, 2)
    for fused, options, each in (
      (False, dict(), 4 + 1),
      (False, dict(strategy="threshold", threshold=0.0), 2),
      (False, dict(strategy="threshold", threshold=1.1), 4 + 1),
      (True, dict(), 4),
      (True, dict(strategy="threshold", threshold=0.0), 1),
    ):
      draw = functools.partial(system.generate, fused=fused, **options)
      units, counts = jax.jit(draw)(variables, {}, keys)
      np.testing.assert_array_equal(counts.forwards, 1 + 2 * each)
      np.testing.assert_array_equal(counts.stores, 0 if fused else 2)
      np.testing.assert_array_equal(counts.units, 8)
      other = found.setdefault(str(options), units)
      np.testing.assert_array_equal(units, other)
    self.assertEqual(system.forwards(fused=False), 1 + 2 * 5)
    self.assertEqual(system.forwards(steps=2), 1 + 2 * 2)

  def test_the_law_of_one_unit_after_the_other(self):
    """That of its own conditionals; all units at once have another one."""
    system = build("sdar", tokenizer=WORDS, **TINY, block=3)
    variables = filled.variables(system, stddev=0.5)
    every = np.stack(np.indices((4, 4, 4)).reshape(3, -1), 1)
    logp = np.asarray(
      jax.jit(
        lambda units: jax.nn.log_softmax(
          system.logits(variables, {}, units), -1
        )
      )(np.asarray(every, np.int32)),
      np.float64,
    )
    own = np.take_along_axis(logp, every[..., None], -1)
    law = np.exp(own.sum((1, 2)))
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-4)
    keys, count = jax.random.split(KEY, 8000), 8000

    def chance(**options):
      draw = functools.partial(system.generate, **options)
      units = np.asarray(jax.jit(draw)(variables, {}, keys)[0])
      found = np.bincount(units @ [16, 4, 1], minlength=64)
      want = count * law / law.sum()
      some = want >= 5
      pool = lambda x: np.append(x[some], x[~some].sum() + 1e-9)
      return stats.chisquare(pool(found), pool(want), sum_check=False).pvalue

    self.assertGreater(chance(strategy="sequential"), 1e-4)
    self.assertLess(chance(steps=1), 1e-6)

  def test_what_is_known_stays(self):
    """Rows of different prompts, and each as it is alone."""
    system, variables, batch = small()
    keys = jax.random.split(KEY, 2)
    draw = jax.jit(system.generate)

    def ask(known, rows):
      cond = {
        "label": batch["label"][rows],
        "prompt": batch["units"][rows, :9],
        "known": jnp.asarray(known)[rows],
      }
      return draw(variables, cond, keys[rows])

    known = np.array([2, 9])
    units, counts = ask(known, np.array([0, 1]))
    for row, n in enumerate(known):
      np.testing.assert_array_equal(units[row, :n], batch["units"][row, :n])
    np.testing.assert_array_equal(counts.units, 16 - known)
    # A forward for each unit that is left, and one that reads what is known.
    np.testing.assert_array_equal(counts.forwards, 1 + 16 - known)
    swapped, _ = ask(known, np.array([1, 0]))
    np.testing.assert_array_equal(swapped[::-1], units)

  def test_of_a_text_and_guided(self):
    """Padding of the text is seen by nobody, with a cache as without; the last
    block is short."""
    text = dict(name="bytes", length=4, width=8, depth=1, heads=2)
    words = dict(WORDS, length=6)
    sizes = dict(TINY, num_classes=None, text=text)
    system = build("sdar", tokenizer=words, **sizes)
    variables = filled.variables(system, stddev=0.5)
    cond = {"text": jnp.array([[3, 4, 0, 0], [5, 6, 7, 8]], jnp.uint8)}
    keys = jax.random.split(KEY, 2)
    law = dict(guidance=3.0, temperature=0.0, strategy="sequential")
    draw = jax.jit(functools.partial(system.generate, **law))
    units, _ = draw(variables, cond, keys)

    @jax.jit
    def best(units):
      said = lambda hidden: system.logits(variables, cond, units, hidden)
      with_it, without = said(jnp.zeros(2, bool)), said(jnp.ones(2, bool))
      return jnp.argmax(without + 3.0 * (with_it - without), -1)

    np.testing.assert_array_equal(units, best(units))

  def test_streams(self):
    system, variables, batch = small()
    cond, keys = {"label": batch["label"]}, jax.random.split(KEY, 2)
    parts = list(system.stream(variables, cond, keys, every=2))
    self.assertLen(parts, 2)
    np.testing.assert_allclose(parts[0][:, 4:], 0.5)
    want = system.decode(variables, drawn()[0])
    np.testing.assert_allclose(parts[1], want, atol=1e-6)

  def test_it_takes_over_a_model_of_one_unit_a_step(self):
    c = smoke.config("llamagen")
    like = build(c.system, **c.model.to_dict())
    given = filled.variables(like)["params"]
    system = small()[0]
    params = system.adopt("params", given)
    shape = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shape(params), shape(small()[1]["params"]))
    table = given["units"]["embedding"]
    np.testing.assert_allclose(params["mask"], table.mean(0), rtol=1e-5)
    self.assertIs(system.adopt("tokenizer", given), given)

  def test_stages_of_a_text(self):
    """A tiny language model, then SDAR from it, and a text with a prompt."""
    c = config.get_config("smoke_text")
    c.adapted.sample.prompt = c.generator.sample.prompt = "ab"
    with tempfile.TemporaryDirectory() as folder:
      report = main.run(c, pathlib.Path(folder))
    found = report["stages"]["samples"]
    self.assertBetween(found["units_per_forward"], 0.1, 4)
    self.assertGreater(found["forwards"], 1)
    self.assertIn("bits_per_unit", report)

  def test_published_sizes(self):
    """Those of Qwen3 with a head of its own, which 4B and 1.7B lack there."""
    for name, millions in (("1.7b", 2032), ("4b", 4411), ("8b", 8191)):
      c = config.get_config(name)
      system = build(c.system, **c.model.to_dict())
      shapes = jax.eval_shape(lambda k, s=system: s.init(k, {}), KEY)["params"]
      count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) / 1e6
      self.assertAlmostEqual(count / millions, 1, delta=5e-4)

  @parameterized.parameters(
    (dict(block=0), "must be in 1..3"),
    (dict(mask_id=4), "below vocab=4"),
    (dict(redraws=-1), "at least 0"),
    (dict(start=False, num_classes=3), "only without a condition"),
    (dict(tokenizer=dict(name="patches", patch=2, size=8)), "with codes"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      build("sdar", **{**TINY, "tokenizer": WORDS, "block": 3, **values})


if __name__ == "__main__":
  absltest.main()
