"""MTP by gated LoRA: what its sheet says of any model; the figures of trained
ones are in experiments/mtp_gated_lora.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from ar_jax.core.decoding import speculate
from ar_jax.core.decoding.speculate import Draft
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.families.token.drafting import self_draft
from ar_jax.families.token.masks import groups
from tests import filled, smoke

KEY, LENGTH, K = jax.random.key(0), 10, 3
WORDS = dict(name="given", form="tokens", vocab=6, length=LENGTH, stop=None)
SIZES = dict(depth=2, width=16, heads=2, num_classes=0, multiple_of=16)
TARGET = dict(name="llamagen", tokenizer=WORDS, prefix_rope="line", **SIZES)


@functools.cache
def small():
  """A tiny language model with drafts, of random variables: no change is
  none. And texts."""
  system = build("mtp_gated_lora", target=TARGET, drafts=K, rank=2)
  variables = filled.variables(system, stddev=0.5)
  units = np.random.default_rng(0).integers(0, 6, (4, LENGTH))
  return system, variables, jnp.asarray(units, jnp.int32)


@functools.cache
def forced():
  """States before units, those of drafts behind all, and those of the target
  alone."""
  system, variables, units = small()
  target, given = system.target, system.of_target(variables)
  anchors = jnp.broadcast_to(jnp.arange(LENGTH), units.shape)

  @jax.jit
  def run():
    own, net = variables["params"], target.net_variables(given)
    h, z = system.drafter.forced(target.net, net, own, {}, units, anchors)
    return h, z, target.net.bind(net)({}, units)

  return run()


class MtpTest(parameterized.TestCase):
  def test_masks_leave_the_law_alone(self):
    h, z, plain = forced()
    np.testing.assert_allclose(h, plain, rtol=1e-5, atol=3e-6)
    # The changes do something: without them masks say something else.
    system, variables, units = small()
    closed = dataclasses.replace(system.drafter, scale=0.0)
    anchors = jnp.broadcast_to(jnp.arange(LENGTH), units.shape)
    net = system.target.net_variables(system.of_target(variables))
    other = jax.jit(
      lambda own: closed.forced(system.target.net, net, own, {}, units, anchors)
    )(variables["params"])[1]
    self.assertGreater(np.abs(z - other).max(), 0.1)

  def test_groups_are_runs_of_their_own(self):
    """What masks say behind unit i is what they say behind a text that ends
    there."""
    system, variables, units = small()
    z, own = forced()[1], variables["params"]
    net = system.target.net_variables(system.of_target(variables))

    @functools.partial(jax.jit, static_argnums=0)
    def alone(i):
      bound = system.target.net.bind(net)
      _, cache = bound.read({}, units[:, :i], spare=K)
      gate = jnp.ones((1, K), bool)
      opened = system.target.net.bind(system.drafter.opened(net, own, gate))
      x = jnp.broadcast_to(own["masks"], (len(units), K, 16))
      return opened.look(x, cache)[0]

    for i in (0, 4, LENGTH - K - 1):
      np.testing.assert_allclose(alone(i), z[:, i], rtol=1e-4, atol=1e-5)

  def test_groups_see_what_their_plan_says(self):
    mask, place = groups(jnp.arange(5), jnp.array([[1, 4]]), 3)
    plan = makers.groups([1, 4], 3)
    np.testing.assert_array_equal(mask[0], plan.mask())
    np.testing.assert_array_equal(place[0], plan["anchor"] + plan["draft"])
    self.assertEqual(list(place[0, 5:]), [2, 3, 4, 5, 6, 7])

  def test_labels(self):
    """Mask j behind unit i stands for unit i + j, the first of which knows the
    unit i; what is behind the end counts in nothing."""
    system, variables, units = small()
    h, z, _ = forced()
    own, net = variables["params"], system.target.net
    bound = net.bind(system.target.net_variables(system.of_target(variables)))
    run = functools.partial(system.loss, train=False)
    loss = jax.jit(run)(variables, {"units": units}, KEY)

    @jax.jit
    def law(z, before):
      said = system.drafter.said(own, z, bound.units(before))
      return jax.nn.log_softmax(bound.head.logits(said[:, None])[:, 0])

    h, z, units = map(np.asarray, (h, z, units))
    drafted, apart, count = np.zeros(4), np.zeros(4), 0
    for i in range(LENGTH):
      for j in range(1, K + 1):
        if i + j >= LENGTH:
          continue
        logp = np.asarray(law(z[:, i, j - 1], units[:, i + j - 1]))
        drafted -= logp[np.arange(4), units[:, i + j]]
        apart += np.square(z[:, i, j - 1] - h[:, i + j]).mean(-1)
        count += 1
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
    close(loss.metrics["sampler"], drafted / count)
    close(loss.metrics["consistency"], apart / count)
    total = loss.metrics["base"] + (drafted + apart) / count
    close(loss.value, total)

  @parameterized.parameters(True, False)
  def test_greedy_texts_are_those_of_the_target(self, quadratic):
    """200 prompts, whatever is drafted."""
    system, variables, _ = small()
    rng = np.random.default_rng(1)
    prompt = jnp.asarray(rng.integers(0, 6, (200, 3)), jnp.int32)
    known = jnp.asarray(rng.integers(1, 4, 200), jnp.int32)
    cond, keys = {"prompt": prompt, "known": known}, jax.random.split(KEY, 200)
    law = dict(temperature=0.0)
    target = system.target
    plain = jax.jit(functools.partial(target.generate, **law))
    want = plain(system.of_target(variables), cond, keys)
    draw = functools.partial(system.generate, quadratic=quadratic, **law)
    found, stats = jax.jit(draw)(variables, cond, keys)
    np.testing.assert_array_equal(found, want)
    drawn = LENGTH - known
    self.assertTrue(np.all(stats.forwards <= drawn))
    # Every forward brings a unit and those that were accepted.
    np.testing.assert_array_equal(stats.forwards + stats.accepted, drawn)
    self.assertTrue(np.all(drawn <= 1 + (stats.forwards - 1) * (K + 1)))
    self.assertGreater(int(stats.accepted.sum()), 0)

  def test_in_lockstep_with_the_target(self):
    system, variables, _ = small()
    keys = jax.random.split(KEY, 64)
    want = jax.jit(system.target.generate)(
      system.of_target(variables), {}, keys
    )
    draw = functools.partial(system.sample, mode="gumbel")
    found = jax.jit(draw)(variables, {}, keys)
    np.testing.assert_array_equal(found["text"], want)
    self.assertTrue(np.all(found["units"] == LENGTH))
    self.assertTrue(np.all(found["forwards"] <= LENGTH))

  def test_the_law_is_the_target_s(self):
    """Texts of 3 symbols against all 216, drafts drawn and chosen; a law that
    is not that one fails."""
    words = dict(WORDS, length=3)
    target = dict(TARGET, tokenizer=words)
    system = build("mtp_gated_lora", target=target, drafts=2, rank=2)
    variables = filled.variables(system, stddev=0.5)
    every = np.stack(np.indices((6,) * 3).reshape(3, -1), 1)
    given = system.of_target(variables)
    logits = system.target.logits(given, {}, jnp.asarray(every, jnp.int32))
    logp = np.asarray(jax.nn.log_softmax(logits), np.float64)
    own = np.take_along_axis(logp, every[..., None], -1)
    law, count = np.exp(own.sum((1, 2))), 6000
    keys = jax.random.split(KEY, count)

    @functools.cache
    def drawn(**options):
      draw = jax.jit(functools.partial(system.generate, **options))
      return np.asarray(draw(variables, {}, keys)[0])

    def chance(law, **options):
      units = drawn(**options)
      found = np.bincount(units @ [36, 6, 1], minlength=216)
      want = count * law / law.sum()
      some = want >= 5
      pool = lambda x: np.append(x[some], x[~some].sum() + 1e-9)
      return stats.chisquare(pool(found), pool(want), sum_check=False).pvalue

    self.assertGreater(chance(law), 1e-4)
    self.assertGreater(chance(law, chosen=True), 1e-4)
    self.assertLess(chance(law**1.3, chosen=True), 1e-6)

  def test_the_cache_is_the_target_s(self):
    """Laws after two of three drafts stood, and after none."""
    system, variables, units = small()
    program = system.target.program()
    net = system.target.net_variables(system.of_target(variables))
    logits = system.target.logits(system.of_target(variables), {}, units)

    @jax.jit
    def run():
      _, cache, valid = program.read(net, {}, units[:, :0], spare=15)
      cache = dataclasses.replace(cache, index=jnp.ones(4, jnp.int32))
      found, count = [], jnp.ones(4, jnp.int32)
      row = jnp.zeros((4, 1, 6))
      for stands in (2, 0, 3):
        progress = speculate.begin(units, count, row, row, K)
        at = count[:, None] + jnp.arange(K)[None]
        drafts = jnp.take_along_axis(units, at, axis=1)
        drafts = drafts.at[:, stands:].set((drafts[:, stands:] + 1) % 6)
        score = functools.partial(
          self_draft._score, system.drafter, variables["params"], True
        )
        said, _, cache = score(
          program, net, valid, None, cache, progress, Draft(drafts)
        )
        found.append(said[:, : stands + 1])
        count = count + stands + 1
      return jnp.concatenate(found, axis=1)

    np.testing.assert_allclose(run(), logits[:, 1:9], rtol=1e-4, atol=1e-5)

  @parameterized.parameters(
    (dict(drafts=0), "at least 1"),
    (dict(anchors=0), "at least 1"),
    (dict(target=dict(smoke.config("nar").model.to_dict(), name="nar")),
     "does not draw one code after"),
  )  # fmt: skip
  def test_wrong_values(self, values, message):
    with self.assertRaisesRegex(UserError, message):
      build("mtp_gated_lora", **{"target": TARGET, **values})


if __name__ == "__main__":
  absltest.main()
