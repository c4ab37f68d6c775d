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
