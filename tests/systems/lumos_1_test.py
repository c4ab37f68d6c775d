"""Lumos-1: what its sheet says of any model; figures of trained ones are in
experiments/lumos_1.py, official numbers in tests/convert/lumos_1_test.py."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.system import UserError, build
from ar_jax.families.block import tubes
from ar_jax.families.block.framed_program import FramedProgram, FrameLoop
from ar_jax.nn.layers.positions import rotate
from ar_jax.nn.layers.volume_positions import channel_axes, turns
from configs import lumos_1 as config
from tests import filled

KEY = jax.random.key(0)
CODES = dict(
  name="given", form="frames", frames=3,
  tokenizer=dict(name="patch_codes", patch=1, size=2, vocab=5),
)  # fmt: skip
SIZES = dict(depth=2, width=32, heads=1, hidden=32)


@functools.cache
def small(**model):
  """(system, variables) of 3 frames of 2 x 2 codes behind a class."""
  system = build("lumos_1", tokenizer=CODES, num_classes=3, **SIZES, **model)
  return system, filled.variables(system)


def units(seed=0, batch=2):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(0, 5, (batch, 12)), jnp.int32)


class TurnsTest(parameterized.TestCase):
  def test_ranges_of_frequencies(self):
    """Of 128 features; a share of 2 : 3 : 3 of them for each axis."""
    frequency = 1e4 ** (-2 * np.arange(64) / 128)
    found = {
      kind: [frequency[channel_axes(128, kind) == axis] for axis in range(3)]
      for kind in ("interleaved", "blocks")
    }
    for kind, fastest, slowest in (
      ("interleaved", 0.42, 6.5e-4), ("blocks", 0.0032, 0.115)
    ):  # fmt: skip
      time, _, column = found[kind]
      np.testing.assert_allclose(column.max(), fastest, rtol=0.02)
      np.testing.assert_allclose(time.min(), slowest, rtol=0.01)
    counts = np.bincount(channel_axes(64))
    np.testing.assert_array_equal(counts, [8, 12, 12])
    with self.assertRaisesRegex(UserError, "a multiple of 32"):
      channel_axes(48)
    with self.assertRaisesRegex(UserError, "choose one of"):
      channel_axes(64, "naive")

  def test_scores_depend_on_differences(self):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 1, 64)).astype(np.float32)
    ask = jax.jit(
      lambda a, b: jnp.sum(
        rotate(q, turns(a[None], 64)[None])
        * rotate(k, turns(b[None], 64)[None])
      )
    )
    score = lambda a, b: float(ask(np.float32(a), np.float32(b)))
    one = score([4, 8, 16], [0, 24, 8])
    np.testing.assert_allclose(one, score([24, 40, 8], [20, 56, 0]), rtol=1e-4)
    for other in ([4, 32, 8], [0, 40, 8], [0, 24, 16]):
      self.assertGreater(abs(score([4, 8, 16], other) - one), 1e-3)
    # Where all are equal, it is a line.
    np.testing.assert_allclose(
      turns(jnp.full((1, 3), 7.0), 64),
      turns(jnp.full((1, 3), 7.0), 64, "line"),
      rtol=1e-6,
    )


class LumosTest(parameterized.TestCase):
  def test_texts_turn_as_on_a_line(self):
    """What is before the first frame knows nothing of the axes; what is behind
    does."""
    system, variables = small()
    net, layout = system.net, system.net.layout
    cond = {"label": jnp.array([1, 2])}
    own = system.net_variables(variables)

    @jax.jit
    def states(content):
      of = lambda net: net.bind(own).states(cond, content)
      return of(net), of(net.clone(rope="line"))

    content = net.bind(own).content(system.by_frame(units()))
    found, line = states(content)
    head = layout.head
    np.testing.assert_allclose(found[:, :head], line[:, :head], atol=1e-5)
    self.assertGreater(np.abs(found - line)[:, head + 4 :].max(), 1e-3)

  def test_who_sees_whom(self):
    system, variables = small()
    net, layout = system.net, system.net.layout
    bound = net.bind(system.net_variables(variables))
    cond = {"label": jnp.array([1])}
    ask = jax.jit(
      lambda content: bound.of_frames(bound.states(cond, content))[0]
    )
    content = bound.content(system.by_frame(units(batch=1)))
    before = np.asarray(ask(content))
    for frame in range(3):
      for at in range(layout.content):
        other = content.at[0, frame, at].set(layout.id("mask"))
        moved = np.abs(ask(other) - before).max(-1) > 1e-6
        self.assertFalse(moved[:frame].any())
        self.assertTrue(moved[frame].all())

  def test_cached_is_uncached(self):
    """Frame by frame, the histories masked alike, with and without a text."""
    system, variables = small()
    net, layout = system.net, system.net.layout
    own = system.net_variables(variables)
    cond = {"label": jnp.array([1, 3])}  # 3 is none
    program = FramedProgram(net)

    @jax.jit
    def both(units):
      bound = net.bind(own)
      content = bound.content(system.by_frame(units))
      texts, cache = bound.begin(cond, 2)
      loop = FrameLoop(program, bound, texts, None)
      found, hide = [], jnp.asarray(layout.history(0.7))[None, None]
      whole = bound.masked(content, hide)
      want = []
      for f in range(3):
        found.append(bound.step(content[:, f], cache, texts)[0])
        cache = loop.store(cache, content[:, f], 0.7)
        shown = whole.at[:, f].set(content[:, f])
        want.append(bound.of_frames(bound.states(cond, shown))[:, f])
      return jnp.stack(found), jnp.stack(want)

    found, want = both(units())
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)

  def test_no_text_is_a_shorter_line(self):
    """Hidden, or the class behind all, or a model of no classes."""
    system, variables = small()
    plain = build("lumos_1", tokenizer=CODES, **SIZES)
    params = variables["params"]
    table, head = (
      params["units"]["embedding"], params["head"]["linear"]["kernel"]
    )  # fmt: skip
    without = {
      **params,
      "units": {"embedding": table[3:]},
      "head": {"linear": {"kernel": head[:, 3:]}},
    }

    @jax.jit
    def ask(units):
      label = jnp.array([1, 2])
      return (
        system.logits(variables, label, units, jnp.ones(2, bool)),
        system.logits(variables, jnp.array([3, 3]), units),
        plain.logits({**variables, "params": without}, {}, units),
      )

    first, *others = ask(units())
    for other in others:
      np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)

  def test_tubes(self):
    """The same in all frames; the share is 0.7 of every second example."""
    keys = jax.random.split(KEY, 4000)
    draw = jax.jit(tubes.hidden, static_argnums=(0, 2, 3, 4))
    hide = np.asarray(draw("tube", keys, 3, 20, 0.7))
    np.testing.assert_array_equal(
      hide, np.broadcast_to(hide[:, :1], hide.shape)
    )
    rates = hide.mean((1, 2))
    self.assertAlmostEqual(rates.min(), 0.7, places=6)
    # Without rounding to places: the mean of max(cos, 0.7) is 0.800.
    uniform = (np.arange(100_000) + 0.5) / 100_000
    share = np.asarray(tubes.share(uniform, 0.7), np.float64)
    self.assertAlmostEqual(share.mean(), 0.80, delta=0.005)
    exact = 1 - 2 / math.pi * math.acos(0.7)
    self.assertAlmostEqual(np.mean(share <= 0.7 + 1e-6), exact, delta=1e-3)
    self.assertAlmostEqual(exact, 0.494, delta=5e-4)
    self.assertAlmostEqual(rates.mean(), 0.80, delta=0.01)
    other = np.asarray(draw("random", keys, 3, 20, 0.7))
    self.assertAlmostEqual(other.mean(), 0.80, delta=0.01)
    self.assertGreater(np.mean(other[:, 0] != other[:, 1]), 0.2)
    each = np.asarray(draw("independent", keys, 3, 20, 0.2)).mean(2)
    self.assertGreater(np.mean(each[:, 0] != each[:, 1]), 0.5)
    self.assertGreaterEqual(each.min(), 0.2 - 1e-6)

  def test_the_loss_is_of_what_is_masked(self):
    """Of codes alone, each example's mean over its own; masks are as drawn."""
    system, variables = small(label_dropout=0.0)
    batch = {"units": units(), "label": jnp.array([0, 2])}
    layout = system.net.layout

    @jax.jit
    def ask():
      loss = system.loss(variables, batch, KEY, train=False)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(KEY, 1), jnp.arange(2)
      )
      hide = tubes.hidden("tube", keys, 3, layout.content, 0.7)
      logits = system.logits(variables, batch, units(), hide=hide)
      return loss, hide, jax.nn.log_softmax(logits)

    loss, hide, logp = ask()
    own = np.take_along_axis(
      np.asarray(logp), np.asarray(units())[..., None], 2
    )
    nll = -own.reshape(2, 3, 4)
    asked = np.asarray(hide)[:, :, layout.codes]
    for b in range(2):
      np.testing.assert_allclose(
        loss.value[b], nll[b][asked[b]].mean(), rtol=1e-5
      )
      last = nll[b, 2][asked[b, 2]].mean()
      np.testing.assert_allclose(loss.metrics["last"][b], last, rtol=1e-5)

  def test_forwards_of_the_published_models(self):
    """7 maps, 50 steps: 714 rows, and one pass that reads the text."""
    c = config.get_config("paper")
    system = build("lumos_1", **c.model.to_dict())
    self.assertEqual(system.net.layout.frames, 7)
    self.assertEqual(2 * (system.forwards(steps=50) - 1), 714)
    program = FramedProgram(system.net)
    self.assertEqual(sum(program.sizes), 48 * 48)
    # The released temperatures are 0 for all frames but the first.
    heat = dataclasses.replace(program, decay="released").temperatures()
    self.assertGreater(heat[0, 0], 0)
    np.testing.assert_array_equal(heat[1:], 0)
    self.assertGreater(program.temperatures()[6, 0], 0.9)

  def test_blind_rows_see_no_code(self):
    """Those without a text, if so asked; and nothing sees a history that is
    wholly masked."""
    system, variables = small()
    own = system.net_variables(variables)
    program = FramedProgram(system.net, scale=2.0, blind=True)

    @jax.jit
    def after(content, codes):
      bound, hidden = system.net.bind(own), jnp.array([False, True])
      cond = {"label": jnp.array([1, 1])}
      texts, cache = bound.begin(cond, 2, hidden)
      loop = FrameLoop(program, bound, texts, None)
      blank = jnp.ones((1, 4), bool)
      shown = [loop.store(cache, content, x) for x in (0.0, 1.0)]
      # Nor do they see what is drawn of a frame already.
      laws = [loop.laws(cache, codes, x) for x in (blank, ~blank)]
      rows = loop.rows(content)
      states = [bound.step(rows * 0, c, texts)[0] for c in shown]
      return states, rows, laws

    layout = system.net.layout
    content = jnp.full((1, layout.content), layout.first, jnp.int32)
    one, rows, laws = after(content, jnp.zeros((1, 4), jnp.int32))
    two, _, others = after(content + 1, jnp.ones((1, 4), jnp.int32))
    moved = [np.abs(a - b).max((1, 2)) for a, b in zip(one, two, strict=True)]
    self.assertGreater(moved[0][0], 1e-4)  # shown whole, to what has a text
    np.testing.assert_array_equal(moved[0][1:], 0)
    np.testing.assert_array_equal(moved[1], 0)
    self.assertFalse((np.asarray(rows[1]) >= layout.first).any())
    np.testing.assert_array_equal(laws[0], others[0])
    self.assertGreater(np.abs(laws[1] - others[1]).max(), 1e-4)

  def test_draws(self):
    """A given clip stays, and what is forbidden is not drawn."""
    system, variables = small()
    keys, cond = jax.random.split(KEY, 2), {"label": jnp.array([0, 2])}
    clip = np.random.default_rng(1).integers(0, 256, (2, 1, 2, 2, 1), np.uint8)
    bias = jnp.asarray([0, -1e30, 0, 0, -1e30])

    @jax.jit
    def run(clip):
      given = {**cond, "clip": clip, "bias": bias}
      video = jnp.concatenate([clip] * 3, 1)
      return (
        system.generate(variables, given, keys, steps=2, guidance=2.0),
        system.encode(variables, {"video": video})["units"],
      )

    drawn, codes = run(jnp.asarray(clip))
    np.testing.assert_array_equal(drawn[:, :4], codes[:, :4])
    self.assertFalse(np.isin(drawn[:, 4:], [1, 4]).any())
    self.assertEqual(system.clip_lengths(), (1, 2))
    self.assertEqual(system.forwards(steps=2, given=1), 1 + 1 + 2 * 3)

  @parameterized.parameters(
    (dict(masks="tubes"), "choose one of tube"),
    (dict(width=48), "a multiple of 32"),
    (dict(rope="naive"), "choose one of"),
    (dict(least=0.0), "above 0"),
    (dict(num_classes=2, text=dict(length=1, words=2)), "either num_classes"),
    (dict(text=dict(words=2)), "has length and words"),
    (dict(special=dict(mask=1)), "it names image_start"),
    (dict(tokenizer=dict(name="patch_codes")), "no codes of videos"),
  )
  def test_one_line_of_what_is_wrong(self, model, message):
    with self.assertRaisesRegex(UserError, message):
      build("lumos_1", **dict(tokenizer=CODES, **SIZES) | model)

  @parameterized.parameters(
    (dict(decay="none"), "choose one of linear, released"),
    (dict(history=1.5), "a share, 0 to 1"),
    (dict(steps=0), "at least one step"),
    (dict(guidance=2.0), "no null class"),
  )
  def test_one_line_of_what_is_asked(self, options, message):
    system = build("lumos_1", tokenizer=CODES, **SIZES)
    with self.assertRaisesRegex(UserError, message):
      system.generate({}, {}, jax.random.split(KEY, 1), **options)


if __name__ == "__main__":
  absltest.main()
