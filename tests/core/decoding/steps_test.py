"""Loops over steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.decoding import programs, steps
from ar_jax.core.plans import makers


def draw(carry, s, keys):
  """Counts steps and draws from the keys alone."""
  return carry + s, jax.vmap(jax.random.bits)(keys)


class DecodeTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.keys = jax.random.split(jax.random.key(0), 3)

  def test_scan_traces_once_and_stacks_behind_the_batch(self):
    step = chex.assert_max_traces(draw, n=1)
    carry, units = steps.scan_steps(step, 0, 5, self.keys)
    self.assertEqual(carry, 10)
    self.assertEqual(units.shape, (3, 5))
    self.assertLen(np.unique(units), 15)

  def test_unrolled_equals_scanned(self):
    def wide(carry, s, keys):
      carry, units = draw(carry, s, keys)
      return carry, units[:, None]

    carry, units = steps.unroll_steps(wide, 0, makers.raster(1, 5), self.keys)
    np.testing.assert_array_equal(
      units, steps.scan_steps(draw, 0, 5, self.keys)[1]
    )
    self.assertEqual(carry, 10)

  def test_unrolled_steps_have_their_own_sizes(self):
    p = makers.scales((1, 2, 3))
    step = lambda carry, s, keys: (carry, jnp.full((3, p.sizes[s]), s))
    _, units = steps.unroll_steps(step, None, p, self.keys)
    np.testing.assert_array_equal(units[1], p.step_of())

  def test_scan_may_start_later(self):
    _, units = steps.scan_steps(draw, 0, 5, self.keys)
    _, late = steps.scan_steps(draw, 0, 3, self.keys, start=2)
    np.testing.assert_array_equal(units[:, 2:], late)

  def test_filled_equals_scanned(self):
    def place(carry, s, keys):
      carry, units = draw(carry, 0, keys)
      return carry, (units % 1000).astype(jnp.int32)

    _, want = steps.scan_steps(place, 0, 5, self.keys)
    blank = jnp.zeros((3, 5), jnp.int32)
    fill = jax.jit(functools.partial(steps.fill_steps, place, 0))
    _, got = fill(blank, 0, 5, self.keys)
    np.testing.assert_array_equal(got, want)
    # Rows that begin later stop by themselves, at the end of their units.
    offset = jnp.array([0, 2, 4])
    _, ragged = fill(blank, 0, 5, self.keys, offset)
    for row, start in enumerate(offset.tolist()):
      np.testing.assert_array_equal(ragged[row, start:], want[row, start:])
      np.testing.assert_array_equal(ragged[row, :start], 0)


class UntilTest(absltest.TestCase):
  """Loops that end with the examples."""

  def setUp(self):
    super().setUp()
    self.keys = jax.random.split(jax.random.key(0), 3)
    self.ends = jnp.array([2, 0, 4])  # the last step of each example

  def until(self, ends, n=9, keys=None, **options):
    """The carry counts the steps that are run."""
    keys = self.keys if keys is None else keys

    def step(count, s, keys):
      _, units = draw(0, s, keys)
      return count + 1, units % 1000, s >= ends

    run = lambda ends: steps.until_steps(step, 0, n, keys, **options)
    return jax.jit(run)(ends)

  def test_draws_are_those_of_a_scan_and_no_step_is_run_in_vain(self):
    scan = lambda carry, s, keys: (carry, draw(0, s, keys)[1] % 1000)
    _, want = steps.scan_steps(scan, 0, 9, self.keys)
    found = self.until(self.ends)
    self.assertEqual(found.carry, 5)
    np.testing.assert_array_equal(found.count, [3, 1, 5])
    self.assertTrue(found.done.all())
    drawn = np.arange(9)[None] < found.count[:, None]
    np.testing.assert_array_equal(found.units, np.where(drawn, want, 0))
    # n ends what does not end by itself.
    found = self.until(self.ends + 4, n=3, start=2)
    np.testing.assert_array_equal(found.done, [False, True, False])
    np.testing.assert_array_equal(found.units, want[:, 2:5])

  def test_an_example_knows_nothing_of_the_others(self):
    found = self.until(self.ends)
    for i in range(3):
      alone = self.until(self.ends[i : i + 1], keys=self.keys[i : i + 1])
      np.testing.assert_array_equal(alone.units[0], found.units[i])
      self.assertEqual(alone.count[0], found.count[i])
      self.assertEqual(alone.carry, self.ends[i] + 1)

  def test_who_has_ended_before_draws_nothing(self):
    done = jnp.array([False, True, True])
    found = self.until(self.ends, done=done)
    self.assertEqual(found.carry, 3)
    np.testing.assert_array_equal(found.count, [3, 0, 0])
    np.testing.assert_array_equal(found.units[1:], 0)

  def test_filling_ends_with_the_examples(self):
    def step(count, place, keys):
      return count + 1, place + 1

    blank, offset = jnp.zeros((3, 9), jnp.int32), jnp.array([0, 2, 5])
    ends = lambda units: units == 5
    count, units = jax.jit(
      lambda: steps.fill_steps(
        step, 0, blank, 0, 9, self.keys, offset, ends=ends,
        done=jnp.array([False, False, True]),
      )
    )()  # fmt: skip
    self.assertEqual(count, 5)
    np.testing.assert_array_equal(units[0], [1, 2, 3, 4, 5, 0, 0, 0, 0])
    np.testing.assert_array_equal(units[1], [0, 0, 3, 4, 5, 0, 0, 0, 0])
    np.testing.assert_array_equal(units[2], 0)


@dataclasses.dataclass(frozen=True)
class Sums:
  """Unit s is the condition plus the sum of the units before it."""

  length: int = 7

  def begin(self, variables, cond, keys):
    first = cond * variables
    return first, first

  def step(self, variables, carry, s, keys):
    return carry + carry, carry * variables


class ProgramTest(absltest.TestCase):
  def test_stream_equals_run(self):
    keys = jax.random.split(jax.random.key(0), 2)
    cond, one = jnp.array([1, 3]), jnp.array(1)
    want = jax.jit(programs.run, static_argnums=0)(Sums(), one, cond, keys)
    np.testing.assert_array_equal(want[0], [1, 1, 2, 4, 8, 16, 32])
    before = programs._advance._cache_size()
    for every, places in ((3, [3, 6, 7]), (1, list(range(1, 8))), (9, [7])):
      shown = list(programs.stream(Sums(), one, cond, keys, every=every))
      self.assertEqual([done for _, done in shown], places)
      for units, done in shown:
        np.testing.assert_array_equal(units[:, :done], want[:, :done])
        np.testing.assert_array_equal(units[:, done:], 0)
    self.assertEqual(programs._advance._cache_size() - before, 1)


if __name__ == "__main__":
  absltest.main()
