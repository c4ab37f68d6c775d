"""Token-Shuffle: what its sheet says of any model; the figures of trained ones
are in experiments/token_shuffle.py."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.decoding import pick
from ar_jax.core.system import UserError, build
from configs import token_shuffle as config
from tests import filled, smoke

CODES = dict(name="patch_codes", vocab=16, patch=2, size=8, in_channels=1)
TINY = dict(
  tokenizer=CODES, depth=1, width=16, heads=2, num_classes=3, multiple_of=16
)
KEY = jax.random.key(0)


@functools.cache
def small():
  """The smoke system, its random variables, and a batch of windows."""
  config = smoke.config("token_shuffle")
  system = build(config.system, **config.model.to_dict())
  codes = np.random.default_rng(0).integers(0, 16, (3, 16))
  batch = {
    "units": system.windows(jnp.asarray(codes, jnp.int32)),
    "label": jnp.array([0, 1, 2], jnp.int32),
  }
  return system, filled.variables(system), batch


@functools.cache
def logits():
  """The logits of units, compiled once."""
  system, variables, batch = small()
  return jax.jit(lambda units: system.logits(variables, batch, units))


def count(tree):
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def products(system, length):
  """Multiplications of the layers for an image."""
  shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)
  return count(shapes["params"]["backbone"]) * length


class TokenShuffleTest(parameterized.TestCase):
  def test_windows_and_back(self):
    system = small()[0]
    codes = np.arange(32).reshape(2, 16)
    units = np.asarray(system.windows(codes))
    # Space to depth: (h p) (w q) -> (h w) (p q).
    plain = codes.reshape(2, 2, 2, 2, 2).swapaxes(2, 3).reshape(2, 4, 4)
    np.testing.assert_array_equal(units, plain)
    np.testing.assert_array_equal(units[0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(system.codes(units), codes)

  def test_units_are_windows_of_the_codes(self):
    system, variables, _ = small()
    image = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 1))
    batch = {"image": image.astype(np.uint8), "label": np.zeros(2, np.int32)}

    @jax.jit
    def every(variables, batch):
      units = system.encode(variables, batch)["units"]
      codec = system.codec(variables)
      codes = codec.encode(batch["image"].astype(jnp.float32) / 127.5 - 1)
      # Three windows are one full row of them: the upper half of the image.
      part = system.decode_part(variables, units, 3)
      shown = system.decode(variables, units)
      plain = (codec.decode(codes) + 1) / 2
      return system.codes(units), codes, shown, plain, part

    own, codes, shown, plain, part = jax.device_get(every(variables, batch))
    np.testing.assert_array_equal(own, codes)
    np.testing.assert_allclose(shown, plain)
    np.testing.assert_allclose(part[:, :4], shown[:, :4], atol=1e-6)
    np.testing.assert_allclose(part[:, 4:], 0.5)

  def test_with_adapters_that_do_nothing_it_is_a_plain_decoder(self):
    plain = build("llamagen", **TINY)
    ours = build("token_shuffle", **TINY, window=1, blocks=0)
    params = filled.variables(plain)["params"]
    backbone = dict(params["backbone"])
    norm, eye = backbone.pop("out_norm"), {"kernel": jnp.eye(16)}
    kernel = params["head"]["linear"]["kernel"]
    head = dict(split=eye, widen=eye, norm=norm, kernel=kernel)
    units = {**params["units"], "part": eye}
    own = params | dict(backbone=backbone, head=head, units=units)
    variables = filled.variables(ours) | {"params": own}
    shape = lambda tree: jax.tree.map(jnp.shape, tree)
    self.assertEqual(shape(variables), shape(filled.variables(ours)))
    codes = jnp.asarray(np.random.default_rng(2).integers(0, 16, (2, 16)))
    label = {"label": jnp.array([0, 2])}
    want = plain.logits({"params": params}, label, codes)
    found = ours.logits(variables, label, codes[..., None])[:, :, 0]
    self.assertGreater(np.ptp(want), 0.5)
    np.testing.assert_allclose(found, want, atol=1e-6)

  @parameterized.parameters(*range(4))
  def test_no_code_reaches_its_own_window(self, slot):
    """A shift by one code would let three codes of a window see it."""
    units = small()[2]["units"]
    before = np.asarray(logits()(units))
    for w in range(4):
      other = units.at[:, w, slot].set((units[:, w, slot] + 1) % 16)
      after = np.asarray(logits()(other))
      np.testing.assert_array_equal(after[:, : w + 1], before[:, : w + 1])
      if w < 3:
        moved = np.abs(after - before)[:, w + 1 :].max((0, 2, 3))
        self.assertGreater(moved.min(), 1e-4)

  def test_passes_and_the_cache(self):
    system, variables, batch = small()
    self.assertEqual((system.forwards(), len(system.plan)), (16 // 4, 4))
    plain = build("token_shuffle", **TINY, window=1)
    self.assertEqual(plain.forwards(), 4 * system.forwards())
    net, cond = system.net, {"label": batch["label"]}
    own = system.net_variables(variables)

    @jax.jit
    def both():
      bound = net.bind(own)
      h, cache = bound.begin(cond, batch["units"][:, :1])
      states, rows = [h], cache.k[0].shape[-2]
      for s in range(1, 3):
        h, cache = bound.step(batch["units"][:, s : s + 1], cache)
        states.append(h)
      whole = bound(cond, batch["units"])
      return whole, jnp.concatenate(states, 1), rows, cache.index

    whole, cached, rows, index = both()
    np.testing.assert_allclose(cached, whole, rtol=1e-5, atol=1e-4)
    # The class and the windows, of which the last is never read.
    self.assertEqual((int(rows), int(index)), (1 + 4 - 1, 1 + 4 - 1))

  def test_the_layers_work_a_quarter(self):
    """With s^2 fewer positions, whose weights are as many."""
    one, two = (build("token_shuffle", **TINY, window=s) for s in (1, 2))
    work = [products(x, len(x.plan)) for x in (one, two)]
    self.assertGreaterEqual(work[0] / work[1], 4)

  def test_slots_have_keys_of_their_own(self):
    """Codes of a window under one law: with one key all would be equal."""
    system, variables, _ = small()
    head = system.net.bind(system.net_variables(variables)).head
    keys = jax.random.split(KEY, 400)
    flat = head.clone(parent=None)
    params = jax.tree.map(jnp.zeros_like, variables["params"]["head"])
    h = jnp.zeros((400, 1, 32))
    drawn = flat.apply({"params": params}, h, keys, method="draw")[:, 0]
    self.assertEqual(drawn.shape, (400, 4))
    for a in range(4):
      for b in range(a):
        same = np.mean(drawn[:, a] == drawn[:, b])
        self.assertBetween(same, 0.01, 0.15)  # 1 / 16 by chance

  def test_the_schedule(self):
    """Off at first, all of it from the middle on."""
    for n in (4, 5, 1024):
      found = np.asarray(pick.schedule("half_linear", 7.5, n))
      w = np.arange(n)
      np.testing.assert_allclose(found, 1 + 6.5 * np.minimum(1, w / (n / 2)))
      np.testing.assert_array_equal(found[w >= n / 2], 7.5)
      self.assertEqual(found[0], 1.0)
    self.assertEqual(set(pick.schedule("half_linear", 1.0, 4)), {1.0})

  def test_logits_are_guided(self):
    """At w = 0 those with the condition to the bit; then null + a (c - null),
    which guided hidden states would miss: the head bends."""
    system, variables, _ = small()
    head = system.net.bind(system.net_variables(variables)).head
    h, null = jax.random.normal(KEY, (2, 3, 4, 32))
    scale = jnp.asarray(pick.schedule("half_linear", 7.5, 4))
    found = head.guided(h, null, scale[None, :, None])
    with_it, without = head.logits(h), head.logits(null)
    full = without + 7.5 * (with_it - without)
    np.testing.assert_array_equal(found[:, 0], with_it[:, 0])
    np.testing.assert_allclose(found[:, 2:], full[:, 2:], rtol=1e-5, atol=1e-4)
    bent = head.logits(pick.guide(h, null, 7.5))
    self.assertGreater(np.abs(bent - full).max(), 0.1)

  def test_the_loss_is_of_codes_and_has_the_z_term(self):
    system, variables, batch = small()
    run = functools.partial(system.loss, train=False)
    loss = jax.jit(run)(variables, batch, KEY)
    x = np.asarray(logits()(batch["units"]), np.float64)
    total = np.log(np.exp(x).sum(-1))
    own = np.take_along_axis(x, np.asarray(batch["units"])[..., None], -1)
    each = total - own[..., 0]
    np.testing.assert_allclose(loss.nll, each.sum(-1), rtol=1e-4)
    z = np.square(total).mean((1, 2))
    np.testing.assert_allclose(loss.metrics["z_loss"], z, rtol=1e-4)
    want = each.mean((1, 2)) + 1e-4 * z
    np.testing.assert_allclose(loss.value, want, rtol=1e-5)

  def test_of_a_text(self):
    text = dict(name="bytes", length=4, width=8, depth=1, heads=2)
    sizes = dict(TINY, num_classes=None, text=text)
    system = build("token_shuffle", **sizes)
    self.assertEqual(system.needs, ("text",))
    variables, keys = filled.variables(system), jax.random.split(KEY, 2)
    cond = {"text": jnp.array([[3, 4, 0, 0], [5, 6, 7, 8]], jnp.uint8)}
    law = dict(guidance=3.0, schedule="half_linear", temperature=0.0)
    draw = jax.jit(functools.partial(system.generate, **law))
    units = draw(variables, cond, keys)
    self.assertEqual(units.shape, (2, 4, 4))
    # What is drawn is what the pass of training says, guided.
    logits, hidden = jax.jit(system.logits), jnp.ones(2, bool)
    with_it = logits(variables, cond, units, ~hidden)
    without = logits(variables, cond, units, hidden)
    scales = jnp.asarray(pick.schedule("half_linear", 3.0, 4))
    want = pick.guide(with_it, without, scales[None, :, None, None])
    np.testing.assert_array_equal(units, jnp.argmax(want, -1))

  def test_rows_can_be_squeezed(self):
    system = build("token_shuffle", **TINY, squeeze=2)
    shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)
    units = shapes["params"]["units"]
    self.assertEqual(units["down"]["kernel"].shape, (16, 2))
    self.assertEqual(units["up"]["kernel"].shape, (2, 16))

  def test_published_size(self):
    """2.7B with the words of a Llama (32,000 here) in both tables, which a
    condition that is not predicted does without."""
    c = config.get_config("paper")
    system = build(c.system, **c.model.to_dict())
    self.assertLen(system.plan, 4096)
    shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)["params"]
    size = count(shapes)
    words = 2 * 32_000 * 3072
    self.assertAlmostEqual((size + words) / 2.7e9, 1, delta=0.03)

  @parameterized.parameters(
    (dict(window=3), "does not fall into parts of 3"),
    (dict(width=18, window=4), "multiple of the 16 codes"),
    (dict(text={"name": "bytes"}), "either num_classes or text"),
    (dict(tokenizer=dict(name="patches", patch=2, size=8)), "on one grid"),
  )
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      system = build("token_shuffle", **{**TINY, **values})
      jax.eval_shape(lambda k: system.init(k, {}), KEY)


if __name__ == "__main__":
  absltest.main()
