"""SpeakerVid: what its sheet says of any model; the figures of trained ones are
in experiments/speakervid.py."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.system import UserError, build
from ar_jax.families.block import dialogue, maps
from ar_jax.nn.heads.diffusion import Diffusion
from configs import speakervid as config
from tests import smoke

BATCH = smoke.BATCH


def net(variables):
  system = smoke.case("speakervid").system
  return system.net.bind({"params": variables["params"]})


@jax.jit
def at_once(variables, cond, speech, units, hidden):
  """What is said of all chunks, [B, C, m + n, D]."""
  return net(variables)(cond, speech, units, hidden)


@jax.jit
def one_by_one(variables, cond, speech, units, hidden):
  """The same, chunk after chunk."""
  own = net(variables)
  each = lambda x, n: jnp.moveaxis(
    x.reshape(len(x), own.chunks, n, *x.shape[2:]), 1, 0
  )
  said = each(speech, own.slots), each(units, own.tokens)
  before = jax.tree.map(lambda x: jnp.roll(x, 1, 0), said)

  def step(cache, given):
    number, speech, units = given
    h, cache = own.step(speech, units, number, cache)
    return cache, h

  chunks = jnp.arange(own.chunks)
  _, h = jax.lax.scan(step, own.begin(cond, hidden), (chunks, *before))
  return jnp.moveaxis(h, 0, 1)


@functools.cache
def case():
  """(variables of which none is zero, condition, speech, units)."""
  c = smoke.case("speakervid")
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(c.system.init, jax.random.key(1), c.batch)
  draw = lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32)
  variables = jax.tree.map(draw, shapes)
  batch = c.system.encode(variables, c.batch)
  units = jnp.split(batch["units"], 2, -1)[0]
  cond = c.system.condition(batch)
  return jax.device_get((variables, cond, batch["speech"], units))


def seen(hidden=False, **changes):
  variables, cond, speech, units = case()
  given = dict(speech=speech, units=units) | {
    k: v for k, v in changes.items() if k in ("speech", "units")
  }
  cond = cond | {k: v for k, v in changes.items() if k in cond}
  hide = np.full(BATCH, hidden)
  return np.asarray(at_once(variables, cond, **given, hidden=hide))


class SpeakerVidTest(absltest.TestCase):
  def test_a_chunk_sees_those_before_and_all_of_each(self):
    own = smoke.case("speakervid").system.net
    _, _, speech, units = case()
    h = seen()
    for chunk in range(own.chunks - 1):
      for place in (0, own.tokens - 1):  # the first and the last of a chunk
        other = units.copy()
        other[:, chunk * own.tokens + place] += 1.0
        moved = np.abs(seen(units=other) - h).max((0, 3))
        self.assertTrue((moved[: chunk + 1] == 0).all())
        self.assertTrue((moved[chunk + 1] > 1e-5).all())
      other = speech.copy()
      other[:, (chunk + 1) * own.slots - 1] += 1
      moved = np.abs(seen(speech=other % own.vocab) - h).max((0, 3))
      self.assertTrue((moved[: chunk + 1] == 0).all())
      self.assertTrue((moved[chunk + 1] > 1e-5).all())

  def test_cached_is_uncached(self):
    for hidden in (False, True):
      hide = np.full(BATCH, hidden)
      streamed = one_by_one(*case(), hide)
      np.testing.assert_allclose(streamed, seen(hidden), atol=1e-5, rtol=1e-5)

  def test_the_question_counts_where_it_is_shown(self):
    variables, cond, *_ = case()
    params = variables["params"]["prefix"]
    prefix = smoke.case("speakervid").system.net.prefix
    text, video, speech = prefix.sizes
    parts = {"face": 1, "text": text, "video": video, "speech": speech}
    ends = np.cumsum([*parts.values()])
    other = {
      "text": (cond["text"] + 1) % 16,
      "ask_speech": (cond["ask_speech"] + 1) % 16,
      "ask_units": cond["ask_units"] + 1,
      "face": cond["face"] + 1,
    }
    for condition, shown in dialogue.CONDITIONS.items():
      rows = prefix.clone(condition=condition)
      a, b = (rows.apply({"params": params}, x) for x in (cond, other))
      moved = np.abs(a - b).max((0, 2)) > 1e-5
      split = np.split(moved, ends[:-1])
      for name, found in zip(parts, split, strict=True):
        self.assertEqual(found.all(), name in ("face", *shown), name)
        self.assertEqual(found.any(), name in ("face", *shown), name)
      hidden = np.ones(BATCH, bool)
      c, d = (rows.apply({"params": params}, x, hidden) for x in (cond, other))
      np.testing.assert_array_equal(c[:, 1:], d[:, 1:])

  def test_noise_is_in_what_is_read_alone(self):
    c = smoke.case("speakervid")
    variables, _, _, units = case()
    found = {}

    def loss(self, h, target, keys):
      found["target"] = target
      return jnp.zeros(target.shape[:2])

    def call(variables, batch):
      with (
        mock.patch.object(Diffusion, "loss", loss),
        mock.patch.object(maps, "blurred", wraps=maps.blurred) as blurred,
      ):
        c.system.loss(variables, batch, smoke.KEY, train=True)
        found["noisy"] = blurred.call_count
        return found["target"]

    target = jax.jit(call)(variables, c.batch)
    np.testing.assert_allclose(target.reshape(units.shape), units, atol=1e-6)
    self.assertEqual(found["noisy"], 1)
    jax.eval_shape(
      lambda v, b: c.system.loss(v, b, smoke.KEY, train=False).value,
      variables,
      c.batch,
    )
    self.assertEqual(found["noisy"], 1)

  def test_noise_has_a_size_of_each_map(self):
    keys = jax.random.split(jax.random.key(0), 200)
    clean = np.ones((200, 3 * 16, 4), np.float32)
    noise = np.asarray(maps.blurred(clean, keys, 3, 0.5)) - clean
    sizes = noise.reshape(200, 3, -1).std(-1)
    self.assertLess(sizes.max(), 0.65)
    self.assertAlmostEqual(sizes.mean(), 0.25, delta=0.02)
    self.assertAlmostEqual(sizes.std(), 0.5 / 12**0.5, delta=0.02)
    # The maps of an example have sizes of their own.
    self.assertLess(abs(np.corrcoef(sizes[:, 0], sizes[:, 1])[0, 1]), 0.2)

  def test_some_tokens_of_each_map_are_hidden(self):
    keys = jax.random.split(jax.random.key(0), 300)
    shown = np.asarray(maps.shown(keys, 4, 16))
    count = shown.sum(-1)
    self.assertLess(count.max(), 16)
    self.assertEqual(count.min(), 0)
    self.assertAlmostEqual(count.mean() / 16, 2 / np.pi, delta=0.06)
    np.testing.assert_allclose(shown.mean((0, 1)), count.mean() / 16, atol=0.06)

  def test_what_is_wrong_is_one_line(self):
    c = smoke.case("speakervid")
    own = config.get_config("smoke").model.to_dict()
    codes = dict(name="patch_codes", size=8, patch=2, vocab=8)
    for wrong, message in (
      (dict(condition="face"), "condition='face': choose one of dyadic"),
      (dict(width=18, heads=4), "width=18"),
      (dict(chunks=0), "model.chunks=0"),
      (dict(tokenizer=codes), "its units are codes"),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("speakervid", **own | wrong)
    with self.assertRaisesRegex(UserError, "passes=17: a map of 16"):
      c.system.generate(c.variables, c.batch, None, passes=17)
    batch = dict(c.batch, speech=c.batch["speech"][:, :-1])
    with self.assertRaisesRegex(UserError, "model.slots"):
      c.system.loss(c.variables, batch, smoke.KEY, train=False)
    batch = dict(c.batch, text=c.batch["text"][:, :-1])
    with self.assertRaisesRegex(UserError, "text of 3 ids"):
      c.system.loss(c.variables, batch, smoke.KEY, train=False)

  def test_stages_go_on_with_the_same_weights(self):
    c = config.get_config("stages")
    shapes = []
    batch = smoke.case("speakervid").batch
    for stage in c.stages:
      system = build("speakervid", **c[stage].model.to_dict())
      made = jax.eval_shape(system.init, smoke.KEY, batch)["params"]
      shapes.append(jax.tree.map(lambda x: x.shape, made))
    self.assertEqual(shapes[0], shapes[1])
    self.assertEqual(shapes[1], shapes[2])
    self.assertEqual(c.dialogue.weights.params, "both")


if __name__ == "__main__":
  absltest.main()
