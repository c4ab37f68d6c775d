"""NAR: fronts, parents, and a joint law that adds up."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.token import fronts
from ar_jax.systems import nar
from tests import filled

TOKENIZER = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=3)
TINY = dict(tokenizer=TOKENIZER, depth=1, width=16, heads=2, multiple_of=16)


def tiny(vocab=16, size=8, **kwargs):
  tokenizer = dict(TOKENIZER, vocab=vocab, size=size)
  system = build("nar", **{**TINY, "tokenizer": tokenizer, **kwargs})
  return system, filled.variables(system)


@functools.partial(jax.jit, static_argnums=(0, 1))
def generate(system, options, variables, label, keys):
  return system.generate(variables, {"label": label}, keys, **dict(options))


@functools.partial(jax.jit, static_argnums=0)
def logits(system, variables, label, units, hidden):
  return system.net.bind(system.net_variables(variables)).logits(
    {"label": label}, units, hidden
  )


class NARTest(parameterized.TestCase):
  def test_parents(self):
    grid = makers.diagonals(3, 3)
    slots, weights = fronts.parents(grid)
    cell = lambda slot: (int(grid["row"][slot]), int(grid["col"][slot]))
    for i in range(1, 9):
      row, col = cell(i)
      wanted = [
        (row, col - 1) if col else None,
        (row - 1, col) if row else None,
      ]
      got = [cell(s) if s >= 0 else None for s in slots[:, i]]
      self.assertEqual(got, wanted)
      count = sum(w is not None for w in wanted)
      shares = [0 if w is None else 1 / count for w in wanted]
      np.testing.assert_allclose(weights[:, i], shares)
    np.testing.assert_allclose(weights[:, 0], [0.5, 0.5])

  @parameterized.parameters((8, 15), (16, 31), (24, 47), (32, 63))
  def test_passes_of_images(self, side, passes):
    self.assertEqual(makers.diagonals(side, side).steps, passes)

  def test_passes_of_videos(self):
    self.assertEqual(makers.fronts(4, 16, 16).steps, 4 + 16 + 16 - 2)

  def test_parents_in_regions(self):
    grid = makers.regions(4, 4, 2)
    slots, weights = fronts.parents(grid)
    self.assertEqual(slots.shape, (1, 16))
    before = np.maximum(np.arange(16) - 4, -1)
    np.testing.assert_array_equal(slots[0], before)
    np.testing.assert_array_equal(weights, np.ones((1, 16)))

  @parameterized.parameters({}, {"frames": 3}, {"order": "regions"})
  def test_a_front_at_a_time_is_the_whole_at_once(self, **order):
    # The greedy choice of every unit, guided, given all before it.
    system, variables = tiny(num_classes=3, **order)
    label = jnp.arange(3)
    keys = jax.random.split(jax.random.key(0), 3)
    options = (("guidance", 2.0), ("temperature", 0))
    units = generate(system, options, variables, label, keys)
    shown, null = (
      logits(system, variables, label, units, jnp.full(3, hidden))
      for hidden in (False, True)
    )
    np.testing.assert_array_equal(units, jnp.argmax(2 * shown - null, -1))
    self.assertGreater(len(np.unique(units)), 3)

  def test_cached_logits_are_the_others(self):
    system, variables = tiny(num_classes=3)
    grid, label = system.plan, jnp.arange(2)
    units = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 16)))
    slots, weights = fronts.parents(grid)

    @jax.jit
    def stepwise(variables):
      net = system.net.bind(system.net_variables(variables))
      hs, caches = net.begin({"label": label}, 2)
      got = [net.mixed(hs, np.zeros((2, 1), int), weights[:, :1])]
      for s in range(grid.steps - 1):
        now, then = grid.span(s), grid.span(s + 1)
        # Lanes beyond the front hold what must not be seen.
        lanes = jnp.pad(units[:, now], ((0, 0), (0, 4 - grid.sizes[s])))
        hs, caches = net.step(
          lanes, jnp.int32(now.start), jnp.int32(grid.sizes[s]), caches
        )
        at = np.maximum(slots[:, then] - now.start, 0)
        got.append(net.mixed(hs, at, weights[:, then]))
      return jnp.concatenate(got, 1)

    want = logits(system, variables, label, units, jnp.zeros(2, bool))
    np.testing.assert_allclose(stepwise(variables), want, rtol=1e-5, atol=1e-5)

  def test_a_unit_is_seen_from_the_next_front_on(self):
    system, variables = tiny(num_classes=3)
    units = jnp.zeros((1, 16), jnp.int32)
    hidden, label = jnp.zeros(1, bool), jnp.zeros(1, jnp.int32)
    before = logits(system, variables, label, units, hidden)
    step = system.plan["step"]
    for slot in (0, 4, 7):
      after = logits(system, variables, label, units.at[0, slot].set(5), hidden)
      moved = np.abs(after - before).max((0, 2)) > 0
      np.testing.assert_array_equal(moved, step > step[slot])

  def test_the_joint_law_adds_up_and_is_drawn_from(self):
    system, variables = tiny(vocab=3, size=4, num_classes=1)
    every = jnp.asarray(list(itertools.product(range(3), repeat=4)))
    batch = {"label": jnp.zeros(81, jnp.int32), "units": every}
    loss = jax.jit(
      lambda variables: (
        system.loss(variables, batch, jax.random.key(0), train=False).nll
      )
    )
    p = np.exp(-np.asarray(loss(variables), np.float64).sum(1))
    self.assertAlmostEqual(p.sum(), 1.0, delta=1e-5)
    keys = jax.random.split(jax.random.key(1), 20_000)
    label = jnp.zeros(20_000, jnp.int32)
    units = generate(system, (), variables, label, keys)
    counts = np.bincount(
      np.ravel_multi_index(np.asarray(units).T, (3,) * 4), minlength=81
    )
    rare = p * 20_000 < 5
    pool = lambda x: np.append(x[~rare], x[rare].sum())[
      : 81 - (rare.sum() == 0)
    ]
    counts, wanted = pool(counts), pool(p)
    wanted *= counts.sum() / wanted.sum()
    self.assertGreater(stats.chisquare(counts, wanted).pvalue, 1e-4)

  @parameterized.parameters(
    ("b", 130_551_552),
    ("l", 372_536_320),
    ("xl", 815_991_040),
    ("xxl", 1_464_454_656),
    ("m", 295.5e6),
    ("video_l", 368.7e6),
    ("video_lp", 693.6e6),
  )
  def test_published_sizes(self, name, count):
    video = name.startswith("video")
    tokenizer = dict(name="vq", vocab=8192 if video else 16384)
    system = build(
      "nar",
      tokenizer=tokenizer,
      num_classes=101 if video else 1000,
      frames=4 if video else None,
      **nar.SIZES[name],
    )
    shapes = jax.eval_shape(
      lambda key: system.init(key, {})["params"], jax.random.key(0)
    )
    got = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    self.assertAlmostEqual(
      got, count, delta=0 if isinstance(count, int) else 5e4
    )

  def test_videos_have_their_shape(self):
    system, variables = tiny(num_classes=2, frames=2)
    draw = np.random.default_rng(0)
    video = draw.integers(0, 255, (2, 2, 8, 8, 3), dtype=np.uint8)
    batch = {"video": jnp.asarray(video), "label": jnp.arange(2)}

    @jax.jit
    def both(variables):
      units = system.encode(variables, batch)["units"]
      return system.decode(variables, units), system.tokenizer.bind(
        {"params": variables["tokenizer"]}
      )(batch["video"].reshape(4, 8, 8, 3) / 127.5 - 1).image

    got, image = both(variables)
    # Coded and decoded in the order of fronts, frame by frame again.
    want = (jnp.clip(image, -1, 1) + 1) / 2
    np.testing.assert_allclose(
      got, want.reshape(2, 2, 8, 8, 3), rtol=1e-5, atol=1e-5
    )

  def test_unknown_orders(self):
    for order, frames in (("spiral", None), ("regions", 2)):
      with self.assertRaisesRegex(UserError, "order="):
        tiny(num_classes=3, order=order, frames=frames)

  def test_guidance_needs_a_null_class(self):
    system, variables = tiny(num_classes=3, label_dropout=0.0)
    keys = jax.random.split(jax.random.key(0), 3)
    with self.assertRaisesRegex(UserError, "no null class"):
      system.generate(variables, {"label": jnp.arange(3)}, keys, guidance=2.0)


if __name__ == "__main__":
  absltest.main()
