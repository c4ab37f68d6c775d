"""ELM: what its sheet says of a fresh and of any model, and both arms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import special

from ar_jax.core.system import UserError, build
from ar_jax.families.token.masked import masked_counts
from ar_jax.families.token.packed import bits_of
from ar_jax.systems import elm
from tests import filled, smoke

CODES = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=1)
BAE = dict(
  name="bits", bits=6, z=8, ch=8, mult=(1, 2), blocks=1, size=8, in_channels=1
)
TINY = dict(depth=1, width=16, heads=2, num_classes=3, multiple_of=16)
KEY = jax.random.key(0)


@functools.cache
def small():
  """The smoke system, its random variables, and a batch of units."""
  config = smoke.config("elm")
  system = build(config.system, **config.model.to_dict())
  units = np.random.default_rng(0).integers(0, 4, (3, 16, 2))
  batch = {
    "units": jnp.asarray(units, jnp.int32),
    "label": jnp.array([0, 1, 2], jnp.int32),
  }
  return system, filled.variables(system), batch


class ELMTest(parameterized.TestCase):
  @parameterized.parameters(
    ("l", 1, 16, 444), ("l", 2, 8, 313), ("l", 2, 10, 316), ("l", 2, 12, 328),
    ("xl", 1, 16, 901), ("xl", 2, 8, 737), ("xl", 2, 10, 741),
    ("xl", 2, 12, 757), ("xxl", 1, 16, 1562), ("xxl", 2, 8, 1367),
    ("xxl", 2, 10, 1372), ("xxl", 2, 12, 1391), ("2b", 2, 12, 1909),
  )  # fmt: skip
  def test_published_parameter_counts(self, size, codes, each, millions):
    tokenizer = BAE | dict(bits=codes * each, size=32)
    sizes = dict(elm.SIZES[size], num_classes=1000)
    system = build("elm", tokenizer=tokenizer, codes=codes, **sizes)
    self.assertEqual((hash(system), system.code_bits), (hash(system), each))
    shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)
    leaves = jax.tree.leaves(shapes["params"])
    count = sum(math.prod(x.shape) for x in leaves) / 1e6
    self.assertAlmostEqual(count / millions, 1, delta=5e-3)

  @parameterized.parameters(1, 2, 4)
  def test_a_fresh_model_knows_nothing(self, codes):
    system = build("elm", tokenizer=CODES, codes=codes, **TINY)
    units = jnp.zeros((3, 16, codes), jnp.int32)
    batch = small()[2] | {"units": units}
    variables = filled.variables(system)
    # The head begins at zero, whatever is before it.
    head = variables["params"]["head"]
    head["kernel"] = jnp.zeros_like(head["kernel"])
    fresh = jax.eval_shape(lambda k: system.init(k, {}), KEY)
    self.assertEqual(fresh["params"]["head"]["kernel"].shape[0], codes)
    loss = jax.jit(functools.partial(system.loss, train=False))(
      variables, batch, KEY
    )
    want = 4 / codes * math.log(2)
    np.testing.assert_allclose(loss.value, want, atol=1e-5)
    np.testing.assert_allclose(loss.nll, codes * want, atol=1e-5)

  def test_the_head_begins_at_zero(self):
    system = small()[0]
    head = system.net.head
    params = head.init(KEY, jnp.ones((1, 1, 32)), method="logits")["params"]
    self.assertFalse(np.asarray(params["kernel"]).any())

  def test_cached_is_uncached(self):
    system, variables, batch = small()
    net = system.net.bind(system.net_variables(variables))
    cond = {"label": batch["label"]}

    @jax.jit
    def both():
      whole = net(cond, batch["units"])
      h, cache = net.begin(cond, batch["units"][:, :3])
      states = [h]
      for s in range(3, 15):
        h, cache = net.step(batch["units"][:, s : s + 1], cache)
        states.append(h)
      return whole, jnp.concatenate(states, axis=1)

    np.testing.assert_allclose(*both(), atol=1e-5)

  def test_linear_guidance_of_one_is_none(self):
    system = small()[0]
    linear = system.program(guidance=1.0, schedule="linear")
    self.assertEqual(linear, system.program())
    scales = system.program(guidance=4.0, schedule="linear").scales
    np.testing.assert_allclose(scales, 1 + 3 * np.arange(1, 17) / 16)

  def test_a_prompt_is_kept(self):
    system, variables, batch = small()
    keys = jax.random.split(KEY, 3)
    known = dict(prompt=batch["units"][:, :5], known=jnp.array([5, 2, 0]))
    draw = jax.jit(functools.partial(system.generate, temperature=0.0))
    drawn = draw(variables, batch | known, keys)
    plain = draw(variables, batch | dict(known, known=jnp.zeros(3, int)), keys)
    for row, count in enumerate((5, 2, 0)):
      np.testing.assert_array_equal(
        drawn[row, :count], batch["units"][row, :count]
      )
    np.testing.assert_array_equal(drawn[2], plain[2])

  def test_it_is_shown_while_it_is_drawn(self):
    system, variables, batch = small()
    keys, law = jax.random.split(KEY, 3), dict(temperature=0.0)
    seen = list(system.stream(variables, batch, keys, every=8, **law))
    draw = jax.jit(functools.partial(system.sample, **law))
    image = draw(variables, batch, keys)
    np.testing.assert_allclose(seen[-1], image, atol=1e-5)
    np.testing.assert_allclose(seen[0][:, :4], image[:, :4], atol=1e-5)
    np.testing.assert_allclose(seen[0][:, 4:], 0.5)

  def test_units_are_the_bits_of_the_codes(self):
    system, variables, _ = small()
    image = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1))
    batch = {"image": image.astype(np.uint8), "label": np.zeros(2, np.int32)}

    @jax.jit
    def every(variables, batch):
      units = system.encode(variables, batch)["units"]
      x = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
      plain = system.codec(variables).encode(x)
      return units, plain, system.unpacked(units)

    units, plain, unpacked = map(np.asarray, every(variables, batch))
    np.testing.assert_array_equal(4 * units[..., 0] + units[..., 1], plain)
    np.testing.assert_array_equal(unpacked, plain)
    shown = jax.eval_shape(system.decode, variables, units)
    self.assertEqual(shown.shape, image.shape)

  @parameterized.parameters(
    (dict(codes=3), "4 bits do not fall into 3 codes"),
    (dict(masked={"step": 3}), "masked: takes .* not .'step'"),
    (dict(masked={}, adaln=True), "of the other arm"),
    (dict(tokenizer=CODES | dict(vocab=12)), "vocab=12.*power of two"),
    (dict(width=18), "RoPE|multiple"),
  )
  def test_wrong_values(self, values, message):
    sizes = TINY | dict(tokenizer=CODES, codes=2) | values
    with self.assertRaisesRegex(UserError, message):
      system = build("elm", **sizes)
      jax.eval_shape(lambda k: system.init(k, {}), KEY)


class DrawnBitsTest(absltest.TestCase):
  """Over the autoencoder: bits are drawn anew in every view and epoch."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = build("elm", tokenizer=BAE, codes=3, **TINY)
    cls.variables = filled.variables(cls.system)
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1))
    cls.batch = {
      "image": image.astype(np.uint8),
      "label": np.zeros(2, np.int32),
      "index": np.array([4, 9], np.int32),
    }
    cls.encode = staticmethod(jax.jit(cls.system.encode))

  def test_views_are_draws(self):
    view = lambda *v: self.batch | {"view": np.array(v, np.int32)}
    units = self.encode(self.variables, view(0, 0))
    self.assertNotIn("view", units)
    self.assertEqual(units["units"].shape, (2, 16, 3))
    again = self.encode(self.variables, view(0, 1))["units"]
    np.testing.assert_array_equal(again[0], units["units"][0])
    self.assertFalse(np.array_equal(again[1], units["units"][1]))
    # An example has its bits wherever it stands in a batch.
    turned = {k: v[::-1] for k, v in view(0, 0).items()}
    turned = self.encode(self.variables, turned)["units"]
    np.testing.assert_array_equal(turned[::-1], units["units"])

  def test_training_draws_by_the_key_of_the_step(self):
    @jax.jit
    def values(key):
      kept = self.system.loss(self.variables, self.batch, key, train=False)
      drawn = self.system.loss(self.variables, self.batch, key, train=True)
      return kept.value, drawn.value

    (kept, one), (same, other) = map(values, jax.random.split(KEY))
    np.testing.assert_array_equal(kept, same)
    self.assertFalse(np.array_equal(one, other))

  def test_samples_are_images(self):
    units = self.encode(self.variables, self.batch)["units"]
    bits = self.system.unpacked(units)
    self.assertEqual((bits.shape, bits_of(self.system.tokenizer)),
                     ((2, 16, 6), 6))  # fmt: skip
    image = jax.jit(self.system.decode)(self.variables, units)
    self.assertEqual(image.shape, (2, 8, 8, 1))
    self.assertTrue(((image >= 0) & (image <= 1)).all())


class MaskedTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    options = dict(steps=4, smoothing=0.0)
    make = lambda **more: build(
      "elm", tokenizer=CODES, codes=2, masked=options | more, **TINY
    )
    cls.system, cls.distinct = make(), make(distinct=True)
    cls.variables = filled.variables(cls.system)
    cls.batch = small()[2]

  def test_how_many_cells_are_hidden(self):
    np.testing.assert_array_equal(masked_counts(16, 4), [16, 14, 11, 6])
    self.assertEqual(masked_counts(4, 10).min(), 1)

  def test_loss_of_hidden_cells_alone(self):
    hide = np.zeros((3, 16), bool)
    hide[:, 5:9] = True
    # What is hidden is not read: the loss is of what other units would be.
    logits = jax.jit(self.system.logits)
    own = self.variables, self.batch, self.batch["units"], hide
    other = self.batch["units"].at[:, 5:9].set(0)
    got = logits(*own)
    np.testing.assert_array_equal(got, logits(*own[:2], other, hide))
    value, hits = jax.jit(self.system.errors)(self.variables, self.batch, hide)
    logp = special.log_softmax(got, -1)
    each = np.take_along_axis(logp, self.batch["units"][..., None], -1)
    np.testing.assert_allclose(
      value, -each[:, 5:9, :, 0].mean((1, 2)), rtol=1e-5
    )
    self.assertEqual(hits.shape, (3,))

  def test_a_vector_of_its_own_tells_the_codes_apart(self):
    hide = np.ones((3, 16), bool)
    apart = lambda logits: float(
      np.abs(logits[:, :, 0] - logits[:, :, 1]).max()
    )
    given = self.batch, self.batch["units"], hide
    plain = jax.jit(self.system.logits)(self.variables, *given)
    own = jax.jit(self.distinct.logits)(filled.variables(self.distinct), *given)
    self.assertLess(apart(plain), 1e-5)
    self.assertGreater(apart(own), 0.01)

  def test_trains_and_draws(self):
    run = functools.partial(self.system.loss, train=True)
    grad = jax.jit(jax.grad(lambda v: run(v, self.batch, KEY).value.sum()))
    norms = jax.tree.map(lambda g: float(jnp.abs(g).max()),
                         grad(self.variables)["params"])  # fmt: skip
    self.assertGreater(min(jax.tree.leaves(norms)), 0.0)
    law = dict(steps=3, guidance=2.0, top_k=3)
    draw = jax.jit(functools.partial(self.system.sample, **law))
    keys = jax.random.split(KEY, 3)
    image = draw(self.variables, self.batch, keys)
    self.assertEqual(image.shape, (3, 8, 8, 1))
    turned = {"label": self.batch["label"][::-1]}
    again = draw(self.variables, turned, keys[::-1])
    np.testing.assert_allclose(again[::-1], image, atol=1e-5)
    self.assertEqual(self.system.forwards(**law), 3)

  def test_all_cells_are_drawn_in_the_end(self):
    keys = jax.random.split(KEY, 3)
    _, hides = jax.jit(self.system.revealed, static_argnums=(3, 4, 5))(
      self.variables, self.batch, keys, 5, 1.0, "linear"
    )
    counts = np.asarray(hides).sum(2)
    left = np.floor(16 * np.cos(np.pi / 2 * np.arange(1, 6) / 5))
    np.testing.assert_array_equal(counts.T, [np.maximum(1, left)] * 3)


if __name__ == "__main__":
  absltest.main()
