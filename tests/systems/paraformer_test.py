"""Paraformer: what its sheet says of any model; the figures of trained ones are
in experiments/paraformer.py."""

import dataclasses
import functools
import os
import pathlib
import tempfile
import wave

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import edits
from ar_jax.core.signals import mel
from ar_jax.core.system import UserError, build
from ar_jax.evals.text import distance
from ar_jax.families.seq2seq import speech
from ar_jax.nn.layers import cif
from ar_jax.nn.losses import mwer
from ar_jax.own import readings
from configs import paraformer as config
from tests import filled, smoke

KEYS = jax.random.split(jax.random.key(0), 4)


def loop(hidden, alphas):
  """The vectors that a row of frames fires, one frame after the other."""
  fired, total, vector = [], 0.0, np.zeros(hidden.shape[1])
  for h, a in zip(hidden, alphas, strict=True):
    if total + a < 1:
      total, vector = total + a, vector + a * h
    else:
      rest = 1 - total
      fired.append(vector + rest * h)
      total, vector = a - rest, (a - rest) * h
  return np.array(fired)


class CifTest(absltest.TestCase):
  def test_closed_form_is_the_loop(self):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 30, 5)).astype(np.float32)
    alphas = rng.uniform(size=(3, 30)).astype(np.float32)
    sums = jnp.cumsum(jnp.asarray(alphas), 1)
    found = cif.fire(jnp.asarray(hidden), sums, 30)
    weights = cif.shares(sums, 30).sum(-1)
    for i in range(3):
      want = loop(hidden[i].astype(np.float64), alphas[i].astype(np.float64))
      n = len(want)
      np.testing.assert_allclose(found[i, :n], want, atol=1e-5)
      np.testing.assert_allclose(weights[i, :n], 1, atol=1e-5)
      np.testing.assert_array_equal(found[i, n + 1 :], 0)
    one = jnp.cumsum(jnp.ones((3, 30)), 1)
    same = cif.fire(jnp.asarray(hidden), one, 30)
    np.testing.assert_allclose(same, hidden, atol=1e-6)
    grad = jax.grad(
      lambda a: cif.fire(jnp.asarray(hidden), jnp.cumsum(a, 1), 20).sum()
    )(jnp.asarray(alphas))
    self.assertTrue(np.isfinite(grad).all())
    self.assertGreater(np.abs(grad).max(), 0)

  def test_a_known_number_is_fired_exactly(self):
    """Even where a weight exceeds 1, which the loop fires once."""
    alphas = jnp.array([[0.1] * 3 + [1.8] + [0.1] * 3, [0.3] * 5 + [0.0] * 2])
    there = jnp.array([[True] * 7, [True] * 5 + [False] * 2])
    for target in ([6, 1], [3, 4], [7, 5]):
      sums = cif.scaled(alphas, jnp.array(target), there)
      weights = cif.shares(sums, 8).sum(-1)
      for i, n in enumerate(target):
        self.assertEqual(float(sums[i, -1]), n)
        np.testing.assert_allclose(weights[i, :n], 1, atol=1e-5)
        np.testing.assert_array_equal(weights[i, n:], 0)
    given = np.diff(cif.scaled(alphas, jnp.array([6, 4]), there), prepend=0.0)
    np.testing.assert_allclose(given[0, 3], 4.5, rtol=1e-5)

  def test_reading_rounds(self):
    hidden = jnp.ones((4, 6, 2))
    there = jnp.arange(6)[None] < jnp.array([6, 6, 4, 4])[:, None]
    each = jnp.array([[0.42], [0.41], [0.5], [0.01]]) * there
    longer, sums, count = cif.tailed(hidden, each, there)
    self.assertEqual(count.tolist(), [2, 2, 2, 0])
    self.assertEqual((longer.shape, sums.shape), ((4, 7, 2), (4, 7)))


class GlancingTest(absltest.TestCase):
  def test_how_many_are_replaced(self):
    real = jnp.arange(6)[None] < jnp.array([6, 4, 2, 5])[:, None]
    rank = speech.ranks(KEYS, real)
    np.testing.assert_array_equal(np.sort(rank, 1), [np.arange(6)] * 4)
    heard, said = jnp.zeros((4, 6, 3)), jnp.ones((4, 6, 3))
    count = jnp.array([3, 4, 0, 2])
    found = speech.glanced(heard, said, rank, count)[..., 0]
    np.testing.assert_array_equal(found.sum(1), count)
    np.testing.assert_array_equal(found * ~real, 0)
    others = speech.ranks(jax.random.split(jax.random.key(1), 4), real)
    self.assertFalse(np.array_equal(rank, others))

  def test_a_share_of_the_errors_is_replaced(self):
    system = smoke.case("paraformer").system
    units = jnp.array([[1, 2, 3], [4, 4, 0], [2, 2, 2], [1, 0, 0]])
    real, _ = system.targets(units)
    np.testing.assert_array_equal(real, units > 0)
    first = units.at[0, :2].set(4).at[2].set(1)  # two and three errors
    found = Passes(first)
    heard = speech.Heard(None, None, jnp.full((4, 5), 0.5), None)
    logits, terms = system.glancing(found, heard, units, real, KEYS)
    before, after = found.inputs
    replaced = (after != before).any(-1)
    np.testing.assert_array_equal(replaced.sum(1), [1, 0, 2, 0])
    np.testing.assert_array_equal(
      after[replaced], found.symbols(units)[replaced]
    )
    np.testing.assert_array_equal(logits, after)
    off = np.abs(np.array([3, 2, 3, 1]) - 2.5)
    np.testing.assert_allclose(terms["length"][1], off)

  def test_without_glancing_there_is_one_pass(self):
    system = smoke.case("paraformer").system
    units = jnp.array([[1, 2, 3]] * 4)
    heard = speech.Heard(None, None, jnp.full((4, 5), 0.5), None)
    for own, keys in (
      (dataclasses.replace(system, glance=0.0), KEYS), (system, None)
    ):  # fmt: skip
      found = Passes(jnp.zeros_like(units))
      own.glancing(found, heard, units, units > 0, keys)
      self.assertLen(found.inputs, 1)


class Passes:
  """A net whose first pass says what it is told; it keeps what the decoder is
  given."""

  def __init__(self, first):
    self.first, self.inputs = first, []

  def given(self, heard, count, places):
    return jax.nn.one_hot(self.first, 5)

  def symbols(self, units):
    return 7 + jax.nn.one_hot(units, 5)

  def decoder(self, x, memory, real):
    self.inputs.append(np.asarray(x))
    return x


@functools.cache
def trial():
  """(system, variables, logits(vectors or None, frames, there))."""
  c = smoke.case("paraformer")
  variables = filled.variables(c.system, stddev=0.5)
  batch = c.system.encode(variables, c.batch)

  @jax.jit
  def logits(frames, count, change):
    own = c.system.net.bind(c.system.net_variables(variables))
    heard = own.hear(frames, count)
    real = jnp.arange(3)[None] < jnp.array([3, 2, 3, 1])[:, None]
    x = own.given(heard, real.sum(1), 3)
    return own.decoder(x + change, heard.memory, real)

  return batch, logits


class NetTest(absltest.TestCase):
  def test_all_places_see_each_other_and_no_padding(self):
    batch, logits = trial()
    frames, count = batch["frames"], jnp.array([9, 6, 9, 5])
    none = jnp.zeros((4, 3, 16))
    before = logits(frames, count, none)
    other = none.at[:, 2].set(jnp.arange(16.0))
    last = np.abs(logits(frames, count, other) - before)
    self.assertGreater(last[0, 1].max(), 1e-4)  # before it
    np.testing.assert_array_equal(last[1, :2], 0)  # which has two
    later = jnp.arange(frames.shape[1])[None] >= count[:, None]
    changed = logits(jnp.where(later[..., None], 7.0, frames), count, none)
    for i, n in enumerate((3, 2, 3, 1)):
      np.testing.assert_allclose(changed[i, :n], before[i, :n], atol=1e-5)

  def test_passes_and_readers(self):
    c = smoke.case("paraformer")
    made, _ = c.draw()
    self.assertEqual(set(made), {"text"})
    keys = jax.random.split(smoke.KEY, smoke.BATCH)
    rows = {k: jnp.asarray(c.batch[k]) for k in c.system.needs}
    ids, passes = jax.jit(lambda v: c.system.generate(v, rows, keys, by="ctc"))(
      c.variables
    )
    np.testing.assert_array_equal(passes, 0)
    self.assertEqual(ids.shape, (4, 3))
    with self.assertRaisesRegex(UserError, "by='x'"):
      c.system.generate(c.variables, rows, keys, by="x")
    model = config.get_config("smoke").model.to_dict()
    system = build("paraformer", **model | dict(decoder="ar"))
    variables = filled.variables(system)

    @jax.jit
    def both(variables):
      units, passes = system.generate(variables, rows, keys)
      cond = system.condition(system.encode(variables, rows))
      return units, passes, system.logits(variables, cond, units)

    units, passes, logits = both(variables)
    real = np.asarray(system.real(units))
    np.testing.assert_array_equal(passes, real.sum(1))
    np.testing.assert_array_equal(
      np.argmax(logits, -1)[real], np.asarray(units)[real]
    )

  def test_wrong_options(self):
    model = config.get_config("smoke").model.to_dict()
    for change, says in (
      (dict(decoder="x"), "choose one of sanm, plain, ar"),
      (dict(per="x"), "choose one of row, symbol"),
      (dict(stage="mwer", decoder="ar"), "of a parallel decoder alone"),
      (dict(kernel=4), "kernel=4 odd"),
      (dict(bands=7, stack=1), "must be even"),
      (dict(glance=2.0), "are shares"),
      (dict(nothing=1), "unexpected keyword argument 'nothing'"),
    ):
      with self.assertRaisesRegex((UserError, TypeError), says):
        build("paraformer", **model | change)
    system = smoke.case("paraformer").system
    short = {"audio": jnp.zeros((1, 9)), "audio_length": jnp.ones(1, int)}
    with self.assertRaisesRegex(UserError, "model.samples=9"):
      system.encode({"tokenizer": {}}, short)


class MwerTest(parameterized.TestCase):
  def test_edits(self):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 16, 7))
    n, m = rng.integers(0, 8, (2, 16))
    found = edits.distance(*map(jnp.asarray, (a, n, b, m)))
    want = [
      distance.own(a[i, : n[i]].tolist(), b[i, : m[i]].tolist())
      for i in range(16)
    ]
    self.assertEqual(found.tolist(), want)

  def test_candidates_and_their_loss(self):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, 5, 6)), jnp.float32)
    real = jnp.arange(5)[None] < jnp.array([5, 4, 1, 3])[:, None]
    said = np.asarray(mwer.candidates(logits, real, KEYS, 3, 2))
    order = np.argsort(-logits, -1)
    np.testing.assert_array_equal(said[:, 0], order[..., 0])
    for i in range(4):
      n = int(real[i].sum())
      for m in (1, 2):
        other = said[i, m] != said[i, 0]
        self.assertEqual(other.sum(), min(2, n))
        self.assertFalse(other[n:].any())
        np.testing.assert_array_equal(said[i, m][other], order[i, :, 1][other])
    target = jnp.asarray(order[..., 0]).at[:, 0].set(order[:, 0, 1])
    value, mean = mwer.loss(logits, target, real, KEYS, count=3, flips=2)
    law = np.asarray(jax.nn.log_softmax(logits))
    for i in range(4):
      n = int(real[i].sum())
      total = np.array([
        sum(law[i, p, said[i, m, p]] for p in range(n)) for m in range(3)
      ])  # fmt: skip
      wrong = np.array([
        distance.own(said[i, m, :n].tolist(), target[i, :n].tolist())
        for m in range(3)
      ])  # fmt: skip
      weight = np.exp(total - total.max())
      weight /= weight.sum()
      want = float(weight @ (wrong - wrong.mean()))
      self.assertAlmostEqual(float(value[i]), want, places=5)
      self.assertAlmostEqual(float(mean[i]), wrong.mean(), places=5)

  def test_the_second_stage_trains(self):
    c = smoke.case("paraformer")
    model = config.get_config("smoke").model.to_dict()
    system = build("paraformer", **model | dict(stage="mwer"))
    variables = filled.variables(system)
    batch = system.encode(variables, c.batch)
    loss = jax.eval_shape(
      lambda v: system.loss(v, batch, smoke.KEY, train=True), variables
    )
    self.assertIn("mwer", loss.metrics)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, 3, 5)), jnp.float32)
    real = jnp.ones((4, 3), bool)
    grad = jax.grad(
      lambda x: mwer.loss(x, batch["units"], real, KEYS)[0].sum()
    )(logits)
    self.assertGreater(float(jnp.abs(grad).max()), 0)


class ReadingTest(absltest.TestCase):
  def test_recordings_of_a_person(self):
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    c, system = config.get_config("smoke"), smoke.case("paraformer").system
    for name, count, rate in (("b", 500, 8000), ("a", 100, 4000)):
      with wave.open(str(root / f"{name}.wav"), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(np.full(count, 8192, "<i2").tobytes())
    c.sample.read = str(root)
    self.assertLen(readings.names(system, c), 2)
    rows = readings.asked(system, None, 3, c)
    self.assertEqual(rows["audio"].shape, (3, 288))
    self.assertEqual(rows["audio_length"].tolist(), [100, 250, 100])
    np.testing.assert_allclose(rows["audio"][0, :100], 0.25, atol=1e-3)
    facts = readings.facts(system)
    self.assertEqual(facts["fields"]["audio"]["shape"], [288])
    os.remove(root / "a.wav")
    (root / "b.wav").rename(root / "c.wav")
    long = np.full(4000, 8192, "<i2").tobytes()
    with wave.open(str(root / "c.wav"), "wb") as f:
      f.setparams((1, 2, 4000, 0, "NONE", ""))
      f.writeframes(long)
    with self.assertRaisesRegex(UserError, "1.00 s, this model hears 0.07 s"):
      readings.check(system, c)


class FrontTest(absltest.TestCase):
  def test_frames_of_a_row_are_its_own(self):
    front = smoke.case("paraformer").system.front
    rng = np.random.default_rng(0)
    audio = rng.uniform(-0.5, 0.5, (2, 288)).astype(np.float32)
    audio[0, 150:] = 0
    x, count = front(jnp.asarray(audio), jnp.array([150, 288]))
    self.assertEqual(x.shape, (2, front.frames, front.features))
    self.assertEqual(int(count[1]), front.frames)
    there = 1 + (150 - 32) // 16
    self.assertEqual(int(count[0]), -(-there // 2))
    plain = mel.log_mel(
      jnp.asarray(audio[:1]), rate=4000, bands=8, size=32, hop=16
    )[0, :there]
    plain = (plain - plain.mean()) / np.sqrt(plain.var() + 1e-5)
    wanted = mel.stacked(plain[None], 2, 2)[0]
    np.testing.assert_allclose(
      x[0, : there // 2], wanted[: there // 2], rtol=1e-3, atol=1e-4
    )

  def test_runs_that_training_hides(self):
    x = jnp.ones((4, 20, 10))
    found = np.asarray(mel.masked(x, KEYS, times=5, bands=3))
    for row in found:
      when, which = (row == 0).all(1), (row == 0).all(0)
      np.testing.assert_array_equal(row == 0, when[:, None] | which[None])
      self.assertLessEqual(when.sum(), 10)
      self.assertLessEqual(which.sum(), 6)
    self.assertGreater((found == 0).mean(), 0.02)


if __name__ == "__main__":
  absltest.main()
