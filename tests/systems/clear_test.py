"""CLEAR: what its sheet says of any model; the figures of trained ones are in
experiments/clear.py."""

import functools
import pathlib
import tempfile
import wave

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl.testing import absltest

from ar_jax import data, own
from ar_jax.core.decoding.steps import fold
from ar_jax.core.errors import UserError
from ar_jax.core.system import build
from ar_jax.families.token import spoken
from ar_jax.nn.heads import flow
from ar_jax.own import voices
from configs import clear as config
from tests import smoke

BATCH = smoke.BATCH
LAW = dict(guidance=2.5, times=2)


@functools.cache
def case():
  """(system, variables, batch) of the smoke run, with a threshold at which
  sounds end here and there."""
  c = smoke.case("clear")
  return c.system, c.variables, jax.device_get(c.batch)


def keys(n=BATCH):
  return jax.random.split(jax.random.key(7), n)


@functools.cache
def drawn():
  """`steps.Until` of the texts of the batch."""
  system, variables, batch = case()
  cond = {"text": batch["text"]}
  draw = jax.jit(lambda v, c, k: system.generate(v, c, k, **LAW))
  return jax.device_get(draw(variables, cond, keys()))


@functools.cache
def replayed(guidance=2.5):
  """Units drawn from one pass over those of `drawn`, and the chance of a stop
  at each: without a cache, with the same keys."""
  system, variables, batch = case()
  made = drawn()
  net = system.net.bind(system.net_variables(variables))

  @jax.jit
  def again(units):
    cond = {"text": batch["text"]}
    h = net(cond, units)
    null = net(cond, units, jnp.ones(BATCH, bool))
    found = []
    for s in range(units.shape[1]):
      one = lambda x, s=s: x[:, s : s + 1]
      found.append(
        net.head.draw(one(h), fold(keys(), s), h_null=one(null),
                      scale=guidance, times=2)[:, 0]
      )  # fmt: skip
    return jnp.stack(found, 1), jax.nn.sigmoid(net.ends(h))

  return jax.device_get(again(made.units))


class ClearTest(absltest.TestCase):
  def test_what_is_drawn_is_drawn_from_the_whole(self):
    """Cached = uncached, and each sound ends where its stop says so."""
    made, (again, chance) = drawn(), replayed()
    for i, n in enumerate(made.count.tolist()):
      np.testing.assert_allclose(again[i, :n], made.units[i, :n], atol=1e-4)
      self.assertFalse(made.units[i, n:].any())
      stops = np.flatnonzero(chance[i] > 0.5)
      self.assertEqual(n, min(stops[0] + 1 if len(stops) else 8, 8))

  def test_pieces_are_the_sound(self):
    system, variables, batch = case()
    cond = {"text": batch["text"]}
    made = jax.device_get(system.sample(variables, cond, keys(), **LAW))
    pieces = list(system.stream(variables, cond, keys(), every=3, **LAW))
    self.assertEqual(pieces[0].shape, (BATCH, 24))
    whole = np.concatenate(pieces, 1)
    whole = np.pad(whole, ((0, 0), (0, 96 - whole.shape[1])))
    self.assertFalse(whole[:, 64:].any() and made["audio_length"].max() < 64)
    np.testing.assert_allclose(whole[:, :64], made["audio"], atol=1e-5)
    self.assertLessEqual(len(pieces), -(-int(drawn().count.max()) // 3))

  def test_no_text_is_zeros_in_its_place(self):
    system, variables, batch = case()
    prefix = system.net.prefix
    own = prefix.bind({"params": variables["params"]["prefix"]})
    cond = {"text": batch["text"]}
    x, null = own(cond), own(cond, jnp.ones(BATCH, bool))
    self.assertEqual(x.shape, null.shape)
    np.testing.assert_array_equal(x[:, [0, -1]], null[:, [0, -1]])
    self.assertFalse(np.any(null[:, 1:-1]))
    count = (batch["text"] > 0).sum(1)
    np.testing.assert_array_equal(own.valid(cond).sum(1), count + 2)

  def test_equal_streams_are_not_guided(self):
    """Where the text says nothing, both streams are one."""
    system, variables, batch = case()
    params = dict(variables["params"])
    params["prefix"] = jax.tree.map(np.copy, params["prefix"])
    params["prefix"]["text"]["embedding"][:] = 0
    blank = {**variables, "params": params}
    draw = jax.jit(system.sample, static_argnames=("guidance", "times"))
    cond = {"text": batch["text"]}
    a, b = (draw(blank, cond, keys(), guidance=w, times=2) for w in (1.0, 2.5))
    np.testing.assert_allclose(a["audio"], b["audio"], atol=1e-5)
    np.testing.assert_array_equal(a["audio_length"], b["audio_length"])

  def test_a_voice(self):
    system, variables, batch = case()
    audio = batch["audio"][:, :32]
    text = batch["text"]
    cond = {
      "text": text,
      "voice": audio,
      "voice_text": np.zeros((BATCH, 4), np.int32),
      "voice_length": np.zeros(BATCH, np.int32),
    }
    draw = jax.jit(lambda c: system.generate(variables, c, keys(), **LAW))
    # A voice without a sound is none.
    none = draw(cond)
    np.testing.assert_allclose(none.units, drawn().units, atol=1e-4)
    # What goes on behind a voice is what a pass over both says.
    cond["voice_text"] = np.asarray([[1, 2, 0, 0], [2, 0, 0, 0]] * 2, np.int32)
    cond["voice_length"] = np.asarray([0, 8, 17, 32], np.int32)
    made = jax.device_get(draw(cond))
    count = cond["voice_length"] // 8

    @jax.jit
    def again(cond, units):
      known = system.latents(variables, system.tokenize(variables, audio))
      at = jnp.arange(12)[None] - count[:, None]
      drawn = jnp.take_along_axis(units, jnp.maximum(at, 0)[..., None], 1)
      whole = jnp.pad(known, ((0, 0), (0, 8), (0, 0)))
      whole = jnp.where((at < 0)[..., None], whole, drawn)
      both = spoken.joined(cond["voice_text"], cond["text"], 0, 8)
      net = system.net.bind(system.net_variables(variables))
      row = lambda h: jnp.take_along_axis(h, count[:, None, None], 1)
      hidden = jnp.ones(BATCH, bool)
      h, null = (row(net({"text": both}, whole, x)) for x in (None, hidden))
      law = dict(h_null=null, scale=2.5, times=2)
      return net.head.draw(h, fold(keys(), 0), **law)[:, 0]

    np.testing.assert_allclose(
      again(cond, made.units), made.units[:, 0], atol=1e-4
    )
    self.assertTrue((made.count <= 12 - count).all())

  def test_a_voice_of_a_file(self):
    system = case()[0]
    c = smoke.case("clear")
    found = data.load(**c.config.data)
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "me.wav")
      with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1000)
        file.writeframes(np.full(40, 16384, "<i2").tobytes())
      settings = lambda **more: ml_collections.ConfigDict(
        {"sample": {"voice": str(path), "prompt": "ab", **more}}
      )
      asked = lambda **more: voices.asked(system, found, 3, settings(**more))
      with self.assertRaisesRegex(UserError, "what does .* say"):
        asked()
      path.with_suffix(".txt").write_bytes(b"b\xe4")
      with self.assertRaisesRegex(UserError, "me.txt: not a text in UTF-8"):
        asked()
      path.with_suffix(".txt").write_text("ba")
      cond = asked()
      np.testing.assert_allclose(cond["voice"], np.full((3, 40), 0.5))
      self.assertEqual(cond["voice_text"].tolist(), [[2, 1]] * 3)
      self.assertEqual(cond["voice_length"].tolist(), [40] * 3)
      for more, message in (
        (dict(voice_text="x"), "'x' is not among the 3"),
        (dict(voice_text="abababa"), "this model reads 8 in all"),
        (dict(voice="/no/such.wav"), "sample.voice: "),
      ):
        with self.assertRaisesRegex(UserError, message):
          asked(**more)
      with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1000)
        file.writeframes(np.zeros(200, "<i2").tobytes())
      with self.assertRaisesRegex(UserError, "takes 0.01 to 0.09 s"):
        asked()
    self.assertEmpty(own.given(settings(voice="")))

  def test_texts_are_joined(self):
    a = jnp.asarray([[1, 2, 0], [0, 0, 0], [3, 3, 3]])
    b = jnp.asarray([[4, 5], [6, 0], [7, 0]])
    np.testing.assert_array_equal(
      spoken.joined(a, b, 0, 5),
      [[1, 2, 4, 5, 0], [6, 0, 0, 0, 0], [3, 3, 3, 7, 0]],
    )
    with self.assertRaisesRegex(UserError, "reads 2 in all"):
      spoken.joined(a, b, 0, 2)

  def test_direction(self):
    """At first the velocity is 0 and so is the cosine; its slope has an end.
    It knows nothing of how long a velocity is."""
    rng = np.random.default_rng(0)
    u = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)
    np.testing.assert_array_equal(flow.cosine(u, 0 * u), np.zeros(5))
    slope = jax.grad(lambda v: flow.cosine(u, v).sum())(0 * u)
    self.assertTrue(np.isfinite(slope).all())
    self.assertLess(float(jnp.abs(slope).max()), 1e3)
    np.testing.assert_allclose(flow.cosine(u, 3 * u), np.ones(5), atol=1e-5)
    np.testing.assert_allclose(flow.cosine(u, -u), -np.ones(5), atol=1e-5)
    # A head that begins at 0: the error of u, and a direction of 1.
    head = build("clear", **config.smoke().model.to_dict()).net.head
    h, y = jnp.zeros((2, 3, 16)), jnp.ones((2, 3, 8))
    params = head.init(jax.random.key(0), h, y, keys(2), method="loss")
    plain = head.clone(direction=0.0)
    loss = lambda head: head.apply(params, h, y, keys(2), method="loss")
    np.testing.assert_allclose(loss(head) - loss(plain), 1, atol=1e-6)

  def test_latents_are_brought_to_one_scale(self):
    c = smoke.case("clear")
    fresh = jax.device_get(c.fresh().variables)
    law = fresh["latents"]
    self.assertTrue((law["deviation"] != 1).all())
    moments = c.system.encode(fresh, c.batch)["units"]
    y = np.asarray(c.system.latents(fresh, moments))
    own = (np.asarray(moments)[..., :8] - law["mean"]) / law["deviation"]
    np.testing.assert_allclose(y, own, atol=1e-5)
    self.assertBetween(y.std(), 0.6, 1.5)

  def test_what_lies_behind_the_end_does_not_count(self):
    system, variables, batch = case()
    cut = dict(batch, audio_length=np.full(BATCH, 17, np.int32))
    other = dict(cut, audio=np.array(batch["audio"]))
    other["audio"][:, 24:] = 0.5
    loss = jax.jit(lambda v, x: system.loss(v, x, smoke.KEY, train=False))
    a, b = (loss(variables, x) for x in (cut, other))
    np.testing.assert_array_equal(a.value, b.value)
    np.testing.assert_array_equal(a.errors[:, 3:], 0)
    self.assertTrue((np.asarray(a.errors[:, :3]) > 0).all())
    np.testing.assert_allclose(a.value, a.errors.sum(1) / 3, rtol=1e-5)

  def test_codes_and_means(self):
    """The two that it is compared with read and draw latents as it does."""
    model = config.smoke().model.to_dict()
    _, known, batch = case()
    source = [{k: v[i] for k, v in batch.items()} for i in range(BATCH)]
    for head in ("codes", "mean"):
      system = build("clear", **model | dict(head=head, codes=5))
      variables = jax.eval_shape(system.init, smoke.KEY, batch)
      given = {"text": batch["text"]}
      made = jax.eval_shape(
        lambda v, s=system, g=given: s.generate(v, g, keys(), most=2), variables
      )
      self.assertEqual(made.units.shape, (BATCH, 12, 8))
      self.assertEqual(head == "codes", "codebook" in variables)
      if head == "codes":
        blank = {"codebook": {"head": {"codes": np.zeros((5, 8), np.float32)}}}
        found = system.fitted({**known, **blank}, source, 0)
        codes = found["codebook"]["head"]["codes"]
        self.assertEqual(codes.shape, (5, 8))
        self.assertLen(np.unique(codes, axis=0), 5)

  def test_mistakes(self):
    model = config.smoke().model.to_dict()
    for changes, message in (
      (dict(head="gan"), "head='gan': choose one of flow, mean, codes"),
      (dict(latents=3), "an example of the tokenizer has 8"),
      (
        dict(tokenizer=dict(name="given", vocab=3, length=4)),
        "reads continuous latents of sounds",
      ),
    ):
      with self.assertRaisesRegex(UserError, message):
        build("clear", **model | changes)
    system, variables, batch = case()
    cond = {"text": batch["text"]}
    with self.assertRaisesRegex(UserError, "most=13 latents"):
      system.sample(variables, cond, keys(), most=13)
    with self.assertRaisesRegex(UserError, "every=0"):
      next(system.stream(variables, cond, keys(), every=0))
    long = {"text": np.ones((BATCH, 9), np.int32)}
    with self.assertRaisesRegex(UserError, "reads at most 8 ids"):
      system.sample(variables, long, keys())


if __name__ == "__main__":
  absltest.main()
