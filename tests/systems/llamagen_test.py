"""LlamaGen against the official model and its own mathematics."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.convert import llamagen as convert
from ar_jax.core import decode, pick
from ar_jax.core.system import UserError, build
from ar_jax.nn.attention import Cache
from ar_jax.systems import llamagen
from tests import golden_weights

# 4 x 4 units from images of 8 pixels.
TOKENIZER = dict(
  name="vq", vocab=64, channels=4, z=8, ch=8, mult=(1, 2), blocks=1, size=8
)
TINY = dict(tokenizer=TOKENIZER, depth=2, width=32, heads=2, multiple_of=32)
KEYS = jax.random.split(jax.random.key(0), 4)


@functools.cache
def golden():
  """The system, its variables, the labels and the official outputs."""
  description, expected = golden_weights.load("llamagen_gpt")
  state = golden_weights.weights(description)
  heads = description["config"]["n_head"]
  config = convert.config(state, heads=heads)["model"]
  system = build("llamagen", **(config | dict(tokenizer=TOKENIZER)))
  variables = convert.to_ours(state, heads=heads)
  variables["tokenizer"] = fresh(system)["tokenizer"]
  label = jnp.array(description["config"]["labels"])
  return system, variables, label, expected


def fresh(system):
  key = jax.random.key(0, impl="unsafe_rbg")
  return jax.jit(lambda key: system.init(key, {}))(key)


@functools.cache
def texts():
  """A text-conditional system whose head is not zero, and four texts."""
  text = dict(name="bytes", length=6, width=16, depth=1, heads=2)
  system = build("llamagen", **TINY, text=text)
  variables = fresh(system)
  linear = variables["params"]["head"]["linear"]
  linear["kernel"] = jax.random.normal(jax.random.key(1), (32, 64))
  words = (b"a dog", b"cat", b"", b"horses")
  rows = [np.frombuffer(w.ljust(6, b"\0"), np.uint8) for w in words]
  return system, variables, jnp.asarray(np.stack(rows), jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(system, options, variables, cond, keys):
  return system.generate(variables, cond, keys, **dict(options))


def generate(system, variables, cond, keys, **options):
  """Units; compiled once per set of options."""
  return _generate(
    system, tuple(sorted(options.items())), variables, cond, keys
  )


@functools.partial(jax.jit, static_argnums=0)
def logits(system, variables, cond, units, hidden=None):
  return system.logits(variables, cond, units, hidden)


class GoldenTest(parameterized.TestCase):
  def test_logits(self):
    system, variables, label, expected = golden()
    units = jnp.asarray(expected["tokens"], jnp.int32)
    got = logits(system, variables, label, units)
    np.testing.assert_allclose(got, expected["logits"], rtol=1e-4, atol=1e-4)

  @parameterized.parameters((1.0, "greedy_cfg1"), (2.0, "greedy_cfg2"))
  def test_greedy_units(self, guidance, name):
    system, variables, label, expected = golden()
    options = dict(guidance=guidance, temperature=0.0)
    got = generate(system, variables, {"label": label}, KEYS[:2], **options)
    np.testing.assert_array_equal(got, expected[name])


class NetTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, cls.label, _ = golden()
    cls.units = jax.random.randint(jax.random.key(1), (2, 16), 0, 64)
    cls.full = logits(cls.system, cls.variables, cls.label, cls.units)

  @parameterized.product(by=("class", "text"), size=(1, 3))
  def test_cached_equals_recomputed(self, by, size):
    """In steps of one unit and of three, as a verifier takes them; and rows
    that nobody wrote do not matter."""
    system, variables, cond = self.system, self.variables, self.label
    if by == "text":
      system, variables, words = texts()
      cond = words[:2]
    want = logits(system, variables, cond, self.units)

    @jax.jit
    def stepwise(variables, cond, units):
      own = system._own(variables)
      net = system.net.bind(own)
      h, cache = net.begin(cond)
      seen, parts = net.prefix.seen(cond), [h]
      dirt = cache.causal(1)[0, 0, 0] if size == 1 else None
      if dirt is not None:
        poison = lambda x: jnp.where(dirt[..., None], x, 1e4)
        k, v = jax.tree.map(poison, (cache.k, cache.v))
        # The row to be written next is seen by that mask, and overwritten.
        cache = Cache(k, v, cache.index)
      for start in range(0, 15, size):
        h, cache = net.step(units[:, start : start + size], cache, seen)
        parts.append(h)
      return net.head.logits(jnp.concatenate(parts, 1))

    got = stepwise(variables, cond, self.units)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

  def test_stacked_and_separate_caches_agree(self):
    net = self.system.net

    @functools.partial(jax.jit, static_argnums=0)
    def two(apart, own, units):
      bound = net.bind(own)
      h, cache = bound.begin(self.label)
      if not apart:
        stack = lambda xs: xs if not isinstance(xs, tuple) else jnp.stack(xs)
        cache = Cache(stack(cache.k), stack(cache.v), cache.index)
      elif not cache.apart:
        cache = cache.taken_apart()
      for i in range(2):
        h, cache = bound.step(units[:, i : i + 1], cache)
      return h, jnp.stack(list(cache.k))

    own = self.system._own(self.variables)
    for a, b in zip(
      two(True, own, self.units), two(False, own, self.units), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

  def test_later_units_do_not_leak(self):
    for at in (0, 7, 14):
      changed = self.units.at[:, at].add(1) % 64
      after = logits(self.system, self.variables, self.label, changed)
      moved = np.abs(after - self.full).max((0, 2)) > 0
      self.assertFalse(moved[: at + 1].any())
      self.assertTrue(moved[at + 1 :].all())
    other = logits(self.system, self.variables, self.label + 1, self.units)
    self.assertTrue((np.abs(other - self.full).max((0, 2)) > 0).all())

  def test_queries_and_keys_of_a_zeroed_prefix_do_not_matter(self):
    width = self.system.net.width

    def meddle(by):
      """Adds to q and k (not v) of the first position, before rotation."""

      def intercept(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if context.module.name == "qkv" and context.method_name == "__call__":
          out = out.at[:, 0, : 2 * width].add(by)
        return out

      with nn.intercept_methods(intercept):
        return jax.jit(lambda v: system.logits(v, self.label, self.units))(
          self.variables
        )

    system = self.system
    np.testing.assert_array_equal(meddle(5.0), meddle(0.0))
    net = system.net.clone(prefix_rope="identity")
    system = dataclasses.replace(system, net=net)
    self.assertGreater(np.abs(meddle(5.0) - meddle(0.0)).max(), 1e-3)

  def test_a_fresh_model_knows_nothing(self):
    system = build("llamagen", **TINY, num_classes=3)
    batch = {"units": self.units, "label": jnp.array([0, 2])}
    loss = jax.jit(
      lambda v: system.loss(v, batch, jax.random.key(0), train=True)
    )(fresh(system))
    np.testing.assert_allclose(loss.value, math.log(64), rtol=1e-5)

  def test_training_hides_conditions_by_example(self):
    system = dataclasses.replace(self.system, label_dropout=1.0)
    block = system.net.backbone.block.clone(dropout=0.0)
    net = system.net.clone(
      backbone=system.net.backbone.clone(block=block), dropout=0.0
    )
    system = dataclasses.replace(system, net=net)
    batch = {"units": self.units, "label": self.label}

    @functools.partial(jax.jit, static_argnums=1)
    def value(batch, train):
      key = jax.random.key(0)
      return system.loss(self.variables, batch, key, train=train).value

    null = batch | {"label": jnp.array([10, 10])}
    np.testing.assert_allclose(
      value(batch, True), value(null, False), rtol=1e-5
    )


class SampleTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables, _, _ = golden()
    cls.cond = {"label": jnp.array([3, 7, 0, 9])}
    cls.options = dict(guidance=2.0, top_k=40, top_p=0.9, min_p=0.01)
    cls.four = cls.generate(cls, cls.cond, KEYS, **cls.options)

  def generate(self, cond, keys, **options):
    return generate(self.system, self.variables, cond, keys, **options)

  def test_samples_do_not_depend_on_the_batch(self):
    self.assertEqual(self.four.shape, (4, 16))
    rows = slice(2, 4)
    half = {"label": self.cond["label"][rows]}
    got = self.generate(half, KEYS[rows], **self.options)
    np.testing.assert_array_equal(got, self.four[rows])
    self.assertGreater(np.mean(self.four[:2] != self.four[2:]), 0.3)

  def test_the_law_of_every_unit_is_that_of_the_whole_pass(self):
    label, options = self.cond["label"], dict(self.options)
    hidden = jnp.ones(4, bool)
    args = self.system, self.variables, label, self.four
    guided = pick.guide(logits(*args), logits(*args, hidden), 2.0)
    del options["guidance"]
    logp = pick.law(guided, **options)
    drawn = [pick.draw(logp[:, s], decode.fold(KEYS, s)) for s in range(16)]
    np.testing.assert_array_equal(self.four, jnp.stack(drawn, 1))

  def test_a_ragged_batch_goes_on_as_each_row_alone(self):
    known = jnp.array([5, 0, 9, 3])
    cond = self.cond | {"prompt": self.four[:, :9], "known": known}
    # What follows a prompt that was drawn is what was drawn.
    got = self.generate(cond, KEYS, **self.options)
    np.testing.assert_array_equal(got, self.four)
    # And units behind `known` are not looked at.
    place = jnp.arange(9)[None] >= known[:, None]
    cond["prompt"] = jnp.where(place, 0, cond["prompt"])
    got = self.generate(cond, KEYS, **self.options)
    np.testing.assert_array_equal(got, self.four)

  def test_texts_of_different_lengths(self):
    system, variables, words = texts()
    options = dict(guidance=2.0)
    all_four = generate(system, variables, {"text": words}, KEYS, **options)
    # A text alone, without the room that the longest one needs.
    alone = generate(
      system, variables, {"text": words[1:2, :3]}, KEYS[1:2], **options
    )
    np.testing.assert_array_equal(alone, all_four[1:2])

  def test_guidance_that_stops(self):
    options = dict(temperature=0.0)
    stop = self.generate(self.cond, KEYS, guidance=3.0, stop=5, **options)
    on = self.generate(self.cond, KEYS, guidance=3.0, **options)
    np.testing.assert_array_equal(stop[:, :5], on[:, :5])
    cond = self.cond | {"prompt": stop[:, :5], "known": jnp.full(4, 5)}
    off = self.generate(cond, KEYS, **options)
    np.testing.assert_array_equal(stop, off)
    never = self.generate(self.cond, KEYS, guidance=3.0, stop=0, **options)
    np.testing.assert_array_equal(
      never, self.generate(self.cond, KEYS, **options)
    )

  def test_stream_shows_what_sample_draws(self):
    counts = lambda: (
      decode._begin._cache_size(),
      decode._advance._cache_size(),
    )
    before, cond = counts(), self.cond
    for start in (0, 1):
      cond = {"label": jnp.roll(cond["label"], start)}
      shown = list(
        self.system.stream(self.variables, cond, KEYS, every=6, **self.options)
      )
    # Two programs, however often it is called.
    self.assertEqual([b - a for a, b in zip(before, counts(), strict=True)],
                     [1, 1])  # fmt: skip
    self.assertLen(shown, 3)  # after 6, 12 and 16 units
    image = jax.jit(functools.partial(self.system.sample, **self.options))(
      self.variables, cond, KEYS
    )
    np.testing.assert_allclose(shown[-1], image, atol=1e-5)
    # Six units are one row and a half of four; the rest is grey.
    np.testing.assert_array_equal(shown[0][:, 4:], 0.5)
    np.testing.assert_array_equal(shown[0][:, 2:4, 4:], 0.5)
    self.assertGreater(shown[0][:, :2].std(), 0)

  def test_images_are_brought_to_a_size(self):
    image = jax.eval_shape(
      functools.partial(self.system.sample, size=5),
      self.variables,
      self.cond,
      KEYS,
    )
    self.assertEqual(image.shape, (4, 5, 5, 3))

  @parameterized.parameters(
    (dict(top_k=65), "top_k=65"),
    (dict(guidance=-1.0), "guidance=-1.0"),
    (dict(schedule="cosine"), "schedule='cosine'"),
    (dict(guidance=2.0, stop=17), "stop=17"),
  )
  def test_bad_options(self, options, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      self.generate(self.cond, KEYS, **options)
    self.assertNotIn("\n", str(caught.exception))

  def test_bad_requests(self):
    prompt = dict(prompt=jnp.zeros((4, 16), int), known=jnp.zeros(4, int))
    with self.assertRaisesRegex(UserError, "prompt of 16 units"):
      self.generate(self.cond | prompt, KEYS)
    plain = dataclasses.replace(self.system, label_dropout=0.0)
    with self.assertRaisesRegex(UserError, "no null class"):
      plain.program(guidance=2.0)
    system, variables, words = texts()
    wide = jnp.pad(words, ((0, 0), (0, 1)))
    with self.assertRaisesRegex(UserError, "text of 7 positions"):
      generate(system, variables, {"text": wide}, KEYS)
    cache = self.system.net.backbone.cache(1, 3, 128)
    with self.assertRaisesRegex(UserError, "3 rows cannot hold 4"):
      cache.extend(0, *jnp.zeros((2, 1, 4, 4, 32)))


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(num_classes=3, heads=3), "width=32"),
    (dict(), "either num_classes or text"),
    (dict(num_classes=3, prefix_rope="off"), None),
    (dict(text=dict(name="clip")), "text.name='clip'"),
    (dict(text=dict(layers=3)), "layers"),
  )
  def test_bad_values(self, values, message):
    if message is None:  # told when it is used
      system = build("llamagen", **(TINY | values))
      with self.assertRaisesRegex(UserError, "prefix_rope='off'"):
        jax.eval_shape(lambda k: system.init(k, {}), jax.random.key(0))
      return
    with self.assertRaisesRegex(UserError, message):
      build("llamagen", **(TINY | values))

  @parameterized.parameters(
    ("b", 110_888_448),
    ("l", 342_910_976),
    ("xl", 774_699_520),
    ("xxl", 1_410_972_672),
    ("3b", 3_096_659_200),
  )
  def test_published_parameter_counts(self, size, count):
    system = build(
      "llamagen",
      tokenizer={"name": "vq"},
      num_classes=1000,
      **llamagen.SIZES[size],
    )
    self.assertEqual(hash(system), hash(system))
    self.assertLen(system.plan, 256)
    shapes = jax.eval_shape(lambda k: system.init(k, {}), jax.random.key(0))
    leaves = jax.tree.leaves(shapes["params"])
    self.assertEqual(sum(math.prod(x.shape) for x in leaves), count)


if __name__ == "__main__":
  absltest.main()
