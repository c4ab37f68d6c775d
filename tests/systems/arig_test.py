"""ARIG: what its sheet says of any model; the figures of trained ones are in
experiments/arig.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.domains import conversation
from ar_jax.core.system import UserError, build
from ar_jax.families.series import dyad, interaction
from configs import arig as config
from tests import smoke

FRAMES = 200
BATCH = 2


def net(variables):
  return smoke.case("arig").system.bound(variables)


@jax.jit
def at_once(variables, known, before, mixed, hidden):
  """(z, logits of states) of all frames of conversations."""
  return net(variables)(known, before=before, mixed=mixed, hidden=hidden)


@jax.jit
def one_by_one(variables, known, before, hidden):
  """The same from a stream that is told the true motions and states."""
  own = net(variables)
  late = {k: dyad.late(v) for k, v in known.items()}
  late["now_sound"], late["now_voice"] = known["audio_a"], known["voice_a"]
  frames = {k: jnp.moveaxis(v, 1, 0) for k, v in late.items()}

  def step(carry, given):
    new, state = given
    said = {"audio_a": new["now_sound"], "voice_a": new["now_voice"]}
    carry, summary, feature, logits = own.listen(
      carry | {"state": state}, new, said
    )
    carry, z = own.move(
      carry, new["motion_a"], said["audio_a"], summary, feature, hidden
    )
    return carry, (z[:, 0], logits)

  given = frames, jnp.moveaxis(before, 1, 0)
  _, made = jax.lax.scan(step, own.begin(BATCH), given)
  return tuple(jnp.moveaxis(x, 0, 1) for x in made)


@functools.cache
def case():
  """(variables of which none is zero, 200 frames of two conversations)."""
  c = smoke.case("arig")
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(c.system.init, jax.random.key(1), c.batch)
  draw = lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32)
  variables = jax.tree.map(draw, shapes)
  size = lambda k: c.batch[k].shape[-1]
  known = {
    k: rng.normal(size=(BATCH, FRAMES, size(k))).astype(np.float32)
    for k in (*dyad.USER, *dyad.AGENT)
  }
  for k in ("voice_u", "voice_a"):
    known[k] = rng.integers(0, 2, (BATCH, FRAMES)).astype(np.int32)
  before = rng.integers(0, 7, (BATCH, FRAMES)).astype(np.int32)
  before[:, 0] = dyad.NONE
  return variables, known, before


def seen(known=None, before=None, mixed=False, hidden=(0, 0, 0)):
  variables, own, known_before = case()
  before = known_before if before is None else before
  mixed = np.full((BATCH, FRAMES), mixed)
  hidden = np.tile(np.array(hidden, bool), (BATCH, 1))
  made = at_once(variables, own | (known or {}), before, mixed, hidden)
  return jax.device_get(made)


class ArigTest(absltest.TestCase):
  def test_stream_is_batch(self):
    variables, known, before = case()
    for hidden in ((0, 0, 0), (1, 0, 1)):
      rows = np.tile(np.array(hidden, bool), (BATCH, 1))
      streamed = one_by_one(variables, known, before, rows)
      for a, b in zip(streamed, seen(hidden=hidden), strict=True):
        self.assertGreater(np.abs(b[b > -1e29]).mean(), 0.05)
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)

  def test_no_frame_sees_what_is_not_known(self):
    variables, known, _ = case()
    del variables
    z, logits = seen()
    for t in (0, 1, 3, 4, 50, 198):
      other = {k: v.copy() for k, v in known.items()}
      for name in ("audio_u", "motion_u", "motion_a"):
        other[name][:, t:] += 1.0
      other["voice_u"][:, t:] ^= 1
      other["audio_a"][:, t + 1 :] += 1.0
      other["voice_a"][:, t + 1 :] ^= 1
      z2, logits2 = seen(other)
      np.testing.assert_array_equal(z2[:, : t + 1], z[:, : t + 1])
      np.testing.assert_array_equal(logits2[:, : t + 1], logits[:, : t + 1])
      self.assertGreater(np.abs(z2[:, t + 1] - z[:, t + 1]).max(), 1e-3)
      now = known["audio_a"].copy()
      now[:, t] += 1.0
      changed = seen({"audio_a": now})[0]
      self.assertGreater(np.abs(changed[:, t] - z[:, t]).max(), 1e-3)
      np.testing.assert_array_equal(changed[:, :t], z[:, :t])

  def test_each_of_what_is_known_counts(self):
    """One frame ago, and the summary for as long as its window."""
    _, known, _ = case()
    z, logits = seen()
    t, reach = 100, 3 * 3  # two chunks of 3 and the running one
    for name in ("audio_u", "motion_u", "motion_a", "audio_a"):
      other = known[name].copy()
      other[:, t] += 1.0
      z2, logits2 = seen({name: other})
      moved = np.abs(logits2 - logits).max((0, 2)) > 1e-5
      self.assertTrue(moved[t + 1], name)
      self.assertFalse(moved[t + reach + 1 :].any(), name)
      self.assertTrue(moved[t + 5], name)  # from the chunk before
    voice = known["voice_u"].copy()
    voice[:, t] ^= 1
    moved = np.abs(seen({"voice_u": voice})[0] - z).max((0, 2)) > 1e-5
    self.assertTrue(moved[t + 1])

  def test_states_are_those_that_voices_allow(self):
    _, known, _ = case()
    p = jax.nn.softmax(seen()[1])
    heard = np.pad(known["voice_u"], ((0, 0), (1, 0)))[:, :-1]
    allowed = conversation.ALLOWED[known["voice_a"], heard]
    self.assertTrue((np.asarray(p)[~allowed] == 0).all())
    self.assertTrue((np.asarray(p)[allowed] > 0).all())
    self.assertEqual(allowed.sum(-1).max(), 3)
    c = smoke.case("arig")
    made, batch = c.draw()[0], c.batch
    heard = np.stack(
      [conversation.late(v) for v in np.asarray(batch["voice_u"])]
    )
    fits = conversation.ALLOWED[
      np.asarray(batch["voice_a"]), heard, made["state"]
    ]
    self.assertTrue(fits.all())

  def test_training_reads_states_that_were_predicted(self):
    _, _, before = case()
    logits = seen()[1]
    said = np.pad(logits.argmax(-1), ((0, 0), (1, 0)))[:, :-1]
    said[:, 0] = dyad.NONE
    self.assertTrue((said != before).any())
    for a, b in zip(seen(mixed=True), seen(before=said), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)

  def test_what_is_hidden_does_not_count(self):
    _, known, before = case()
    z, _ = seen(hidden=(1, 1, 1))
    other = {"audio_a": known["audio_a"] + 1, "audio_u": known["audio_u"] + 1}
    again = seen(other, before=(before + 1) % 7, hidden=(1, 1, 1))[0]
    np.testing.assert_array_equal(again, z)
    again = seen({"motion_a": known["motion_a"] + 1}, hidden=(1, 1, 1))[0]
    self.assertGreater(np.abs(again - z).max(), 1e-2)

  def test_frame_by_frame_is_what_sample_draws(self):
    """And what a stream keeps never grows: a frame costs the same after any
    number of them, one pass of the network and K of the head."""
    c = smoke.case("arig")
    made = jax.device_get(c.draw()[0])
    system, law = c.system, {k: v for k, v in c.law.items() if k != "guidance"}
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      smoke.KEY, np.arange(smoke.BATCH, dtype=np.int32)
    )
    frame = lambda variables, carry, heard, said: system.frame(
      variables, carry, heard, said, keys, **law
    )
    step = jax.jit(frame)
    carry = system.begin(c.variables, smoke.BATCH)
    kind = lambda x: jax.tree.map(lambda y: (y.shape, y.dtype), x)
    first = kind(carry)
    batch = {k: np.asarray(v) for k, v in c.batch.items()}
    heard = {k: 0 * batch[k][:, 0] for k in (*dyad.USER, "voice_u")}
    said = lambda t: {k: batch[k][:, t] for k in ("audio_a", "voice_a")}
    one = lambda carry: system.frame(
      c.variables, carry, None, said(0), keys, **law | {"steps": 17}
    )
    self.assertEqual(str(jax.make_jaxpr(one)(carry)).count("length=17"), 1)
    for t in range(5):
      carry, new = step(c.variables, carry, heard, said(t))
      self.assertEqual(kind(carry), first)
      heard = {k: batch[k][:, t] for k in heard}
      for name, x in new.items():
        np.testing.assert_allclose(x, made[name][:, t], atol=1e-4)

  def test_numbers_are_read_by_mean_and_deviation(self):
    c = smoke.case("arig")
    rng = np.random.default_rng(0)
    rows = [{k: np.asarray(v[0]) for k, v in c.batch.items()} for _ in range(3)]
    for row in rows:
      for name in (*dyad.USER, *dyad.AGENT):
        row[name] = 5 + 3 * rng.normal(size=row[name].shape)
    fitted = c.system.fitted({"params": {}}, rows, 0)
    batch = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    known = c.system.read(fitted, batch)
    for name in (*dyad.USER, *dyad.AGENT):
      np.testing.assert_allclose(np.mean(known[name], (0, 1)), 0, atol=1e-4)
      np.testing.assert_allclose(np.std(known[name], (0, 1)), 1, atol=1e-4)

  def test_chunks_lie_on_a_grid_of_frames(self):
    at, there = interaction.running(8, 3)
    known = [at[t][there[t]].tolist() for t in range(8)]
    self.assertEqual(
      known, [[], [0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5], [6]]
    )
    mask = interaction.recent_chunks(12, 3, 2)[0, 0]
    # Whole chunks are the rows at 0 (empty), 3, 6, 9; two of them are kept.
    self.assertEqual(np.flatnonzero(mask[10]).tolist(), [6, 9, 10])
    self.assertEqual(np.flatnonzero(mask[9]).tolist(), [3, 6, 9])
    self.assertEqual(np.flatnonzero(mask[1]).tolist(), [0, 1])

  def test_every_arm_is_built(self):
    c = smoke.case("arig")
    own = config.get_config("smoke").model.to_dict()
    for more, makes in (
      (dict(head="mean", memory="chunk", states="voice"), 2),
      (dict(states="none", memory="none", dropout=0.0), 1),
    ):
      system = build("arig", **own | more)
      self.assertLen(system.makes, makes)
      variables = jax.eval_shape(system.init, smoke.KEY, c.batch)
      loss = lambda v, b, system=system: system.loss(
        v, b, smoke.KEY, train=True
      )
      made = jax.eval_shape(loss, variables, c.batch)
      self.assertEqual(made.errors.shape, (smoke.BATCH, 16))
    with self.assertRaisesRegex(UserError, "guidance=2"):
      system.begin({}, 1, guidance=2.0)
    for wrong in (dict(memory="short"), dict(width=10), dict(chunk=0)):
      with self.assertRaises(UserError):
        build("arig", **own | wrong)
    with self.assertRaisesRegex(UserError, "voice_u"):
      silent = {k: v for k, v in c.batch.items() if k != "voice_u"}
      c.system.read(c.variables, silent)


class StatesTest(absltest.TestCase):
  def test_states_by_rule(self):
    """A script with every state, at ten frames a second."""
    runs = [
      # agent, user, frames, state
      (0, 0, 2, conversation.WAIT),
      (1, 0, 9, conversation.SPEAK),
      (1, 1, 4, conversation.RECEIVE),
      (1, 0, 5, conversation.SPEAK),
      (0, 0, 6, conversation.THINK),
      (1, 0, 7, conversation.SPEAK),
      (1, 1, 5, conversation.INTERRUPTED),  # the user goes on
      (0, 1, 8, conversation.LISTEN),
      (1, 1, 3, conversation.GIVE),
      (0, 1, 4, conversation.LISTEN),
      (0, 0, 5, conversation.WAIT),
      (1, 0, 5, conversation.SPEAK),
      (1, 1, 10, conversation.INTERRUPTED),  # as long as a second
      (1, 0, 2, conversation.SPEAK),
      (0, 0, 1, conversation.THINK),
      (1, 1, 2, conversation.GIVE),  # both begin; the user goes on
      (0, 1, 2, conversation.LISTEN),
    ]
    spread = lambda i: np.concatenate([[r[i]] * r[2] for r in runs])
    found = conversation.states(spread(0), spread(1), 10.0)
    np.testing.assert_array_equal(found, spread(3))
    allowed = conversation.ALLOWED[spread(0), spread(1)]
    self.assertTrue(np.take_along_axis(allowed, found[:, None], 1).all())

  def test_every_state_has_its_row(self):
    self.assertEqual(conversation.ALLOWED.sum(), 7)
    self.assertTrue((conversation.ALLOWED.sum((0, 1)) == 1).all())


if __name__ == "__main__":
  absltest.main()
