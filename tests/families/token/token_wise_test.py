"""Systems of one unit a step: heads for vectors, added terms, biased and
forced draws, texts that end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from ar_jax.core.decoding import pick, steps
from ar_jax.core.system import UserError, build
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import Latents
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow import Flow
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.systems.llamagen import LlamaGen
from tests import filled

B, L, V, D, C = 4, 6, 8, 16, 2
KEYS = jax.random.split(jax.random.key(0), B)
COND = {"label": jnp.array([0, 1, 2, 0])}
SIZES = dict(depth=2, width=D, heads=2, multiple_of=16, prefix_rope="line")
TEXT = dict(name="given", vocab=V, length=L)


@functools.cache
def codes(num_classes=3):
  system = build("llamagen", tokenizer=TEXT, num_classes=num_classes, **SIZES)
  return system, filled.variables(system, stddev=0.5)


def vectors(head):
  """A LlamaGen over the vectors of a series."""
  like = codes()[0]
  net = like.net.clone(units=Latents(C, D), head=head)
  tokenizer = build("given", form="series", length=L, channels=C).tokenizer
  return LlamaGen(net, tokenizer, label_dropout=0.3)


class VectorsTest(absltest.TestCase):
  """A head for vectors in the place of a law of codes."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system = vectors(Flow(TokenMLP(C, 16, 1, C)))
    at = jnp.arange(L)[None] / 2 + COND["label"][:, None]
    series = jnp.stack([jnp.sin(at), jnp.cos(at)], -1)
    cls.batch = {**COND, "series": series}

  def test_it_trains_and_draws_what_a_whole_pass_says(self):
    system, batch, tx = self.system, self.batch, optax.adam(1e-2)
    variables = jax.jit(lambda key: system.init(key, batch))(KEYS[0])
    self.assertEmpty(variables["tokenizer"])

    @jax.jit
    def update(params, state, key):
      def loss(params):
        found = system.loss({**variables, "params": params}, batch, key,
                            train=True)  # fmt: skip
        return found.value.mean(), found

      grads, found = jax.grad(loss, has_aux=True)(params)
      updates, state = tx.update(grads, state)
      return optax.apply_updates(params, updates), state, found

    params, losses = variables["params"], []
    state = tx.init(params)
    for i in range(60):
      params, state, found = update(params, state, jax.random.key(i))
      losses.append(found.value.mean())
    self.assertLess(np.mean(losses[-10:]), 0.8 * np.mean(losses[:10]))
    self.assertIsNone(found.nll)
    self.assertEqual(found.errors.shape, (B, L))
    np.testing.assert_allclose(found.errors.mean(1), found.value, rtol=1e-6)

    variables = {**variables, "params": params}
    options = dict(times=3, temperature=0.5)

    @jax.jit
    def twice(variables):
      drawn = system.generate(variables, COND, KEYS, guidance=2.0, **options)
      net = system.net.bind(system.net_variables(variables))
      h, null = (
        net(COND, drawn, jnp.full(B, hidden)) for hidden in (False, True)
      )
      again = [
        net.head.draw(
          h[:, s : s + 1], steps.fold(KEYS, s), h_null=null[:, s : s + 1],
          scale=2.0, **options,
        )
        for s in range(L)
      ]  # fmt: skip
      known = {"prompt": drawn[:, :3], "known": jnp.array([3, 1, 0, 2])}
      rest = system.generate(
        variables, COND | known, KEYS, guidance=2.0, **options
      )
      return drawn, jnp.concatenate(again, 1), rest

    drawn, again, rest = twice(variables)
    self.assertEqual(drawn.shape, (B, L, C))
    np.testing.assert_allclose(again, drawn, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rest, drawn, rtol=1e-5, atol=1e-5)

  def test_other_heads_and_streams(self):
    system = vectors(Diffusion(TokenMLP(C, 16, 1, 2 * C), repeats=2))
    variables = filled.variables(system)
    loss = jax.eval_shape(
      functools.partial(system.loss, train=True), variables, self.batch,
      KEYS[0],
    )  # fmt: skip
    self.assertEqual(loss.errors.shape, (B, L))
    shape = jax.eval_shape(
      functools.partial(system.sample, steps=4), variables, COND, KEYS
    ).shape
    self.assertEqual(shape, (B, L, C))
    with self.assertRaisesRegex(UserError, "no codes"):
      system.program(forced=(0,) * L)


class Tapped(NextToken):
  """Says what its stack says."""

  def _stack(self, x, mask, last, **options):
    h, cache = super()._stack(x, mask, last, **options)
    self.sow("tapped", "stack", h)
    return h, cache


@dataclasses.dataclass(frozen=True)
class WithTerms(LlamaGen):
  def terms(self, variables, batch, h, tapped):
    (stack,) = tapped["stack"]
    return {
      "size": (0.5, jnp.square(h).mean((1, 2))),
      "same": (2.0, jnp.square(stack[:, -L:] - h).mean((1, 2))),
    }


class CodesTest(absltest.TestCase):
  def test_terms_are_added_and_reported(self):
    system, variables = codes()
    net = system.net
    net = Tapped(
      net.plan, net.units, net.width, net.prefix, net.backbone, net.head,
      net.prefix_rope,
    )  # fmt: skip
    more = WithTerms(net, system.tokenizer, system.label_dropout)
    batch = {**COND, "text": jnp.ones((B, L), jnp.int32)}
    loss = lambda system: jax.jit(
      functools.partial(system.loss, train=False)
    )(variables, batch, KEYS[0])  # fmt: skip
    plain, both = loss(system), loss(more)
    size = both.metrics["size"]
    self.assertGreater(size.min(), 0)
    np.testing.assert_array_equal(both.metrics["same"], 0)
    np.testing.assert_allclose(both.value, plain.value + 0.5 * size, rtol=1e-6)
    np.testing.assert_allclose(both.nll, plain.nll, rtol=1e-6)

  def test_a_bias_acts_after_temperature_on_guided_logits(self):
    system, variables = codes()
    rng = np.random.default_rng(0)
    bias = rng.normal(size=(B, V)).astype(np.float32)
    bias[:, 3] = -1e30
    law = dict(temperature=0.5, top_k=4)

    @jax.jit
    def both(variables, bias):
      drawn = system.generate(
        variables, {**COND, "bias": bias}, KEYS, guidance=2.0, **law
      )
      shown, null = (
        system.logits(variables, COND, drawn, jnp.full(B, hidden))
        for hidden in (False, True)
      )
      # What the law is: logits / temperature + bias, then the filter.
      warm = pick.guide(shown, null, 2.0) / 0.5 + bias[:, None]
      logp = pick.law(warm, top_k=4)
      want = [pick.draw(logp[:, s], steps.fold(KEYS, s)) for s in range(L)]
      cold = system.generate(
        variables, {**COND, "bias": bias}, KEYS, temperature=0
      )
      return drawn, jnp.stack(want, 1), cold

    drawn, want, cold = both(variables, bias)
    np.testing.assert_array_equal(drawn, want)
    self.assertFalse(((drawn == 3) | (cold == 3)).any())
    # One bias for all examples, in ragged batches as well.
    only = np.full(V, -1e30, np.float32)
    only[5] = 0.0
    part = {"prompt": drawn[:, :2], "known": jnp.array([0, 1, 2, 2])}
    got = jax.jit(
      lambda v: system.generate(v, {**COND, **part, "bias": only}, KEYS)
    )(variables)  # fmt: skip
    free = np.arange(L)[None] >= np.asarray(part["known"])[:, None]
    self.assertTrue((got[free] == 5).all())

  def test_forced_units_stand_and_are_read(self):
    system, variables = codes()
    forced = (-1, 6, -1, -1, 2, -1)

    @jax.jit
    def both(variables):
      drawn = system.generate(
        variables, COND, KEYS, temperature=0, forced=forced
      )
      return drawn, jnp.argmax(system.logits(variables, COND, drawn), -1)

    drawn, best = both(variables)
    place = np.array(forced)
    np.testing.assert_array_equal(drawn[:, place >= 0], [[6, 2]] * B)
    np.testing.assert_array_equal(drawn[:, place < 0], best[:, place < 0])
    with self.assertRaisesRegex(UserError, "one for each of 6"):
      system.program(forced=(1,))
    with self.assertRaisesRegex(UserError, "below 8"):
      system.program(forced=(8,) + (-1,) * 5)


class TextTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.system, cls.variables = codes(num_classes=0)

  def test_what_is_behind_the_end_does_not_count(self):
    system, variables = self.system, self.variables
    self.assertEqual((system.needs, system.makes), ((), ("text",)))
    text = jnp.array([[3, 1, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6], [0] * 6,
                      [2, 2, 2, 2, 2, 0]])  # fmt: skip
    batch = {"text": text}
    loss = jax.jit(functools.partial(system.loss, train=False))
    found = loss(variables, batch, KEYS[0])
    np.testing.assert_array_equal(found.units, [3, 6, 1, 6])
    logits = jax.jit(system.logits)(variables, {}, text)
    logp = np.asarray(jax.nn.log_softmax(logits))
    nll = -np.take_along_axis(logp, np.asarray(text)[..., None], -1)[..., 0]
    real = np.arange(L)[None] < np.asarray(found.units)[:, None]
    np.testing.assert_allclose(found.nll, nll * real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
      found.value, (nll * real).sum(1) / real.sum(1), rtol=1e-5
    )
    # Whatever stands there.
    other = {"text": text.at[0, 3:].set(5).at[2, 1:].set(7)}
    np.testing.assert_array_equal(
      loss(variables, other, KEYS[0]).nll, found.nll
    )

  def test_drawing_ends_with_the_texts(self):
    system, variables = self.system, self.variables
    bias = jnp.zeros(V).at[0].set(1.5)  # so that they end soon
    draw = lambda options: jax.jit(
      lambda v, cond: (
        system.generate(v, {**cond, "bias": bias}, KEYS, **options),
        system.sample(v, {**cond, "bias": bias}, KEYS, **options),
      )
    )
    until, whole = draw(dict(until_stop=True)), draw({})
    prompt = jnp.asarray([[3, 1], [2, 5], [4, 4], [1, 6]])
    part = {"prompt": prompt, "known": jnp.array([2, 0, 1, 2])}
    for cond in ({}, part):
      (short, text), (all_, same) = (
        until(variables, cond),
        whole(variables, cond),
      )
      np.testing.assert_array_equal(text, same)
      ends = np.cumsum(np.asarray(all_) == 0, 1)
      behind = ends - (np.asarray(all_) == 0) > 0
      self.assertTrue(behind.any())
      np.testing.assert_array_equal(short, np.where(behind, 0, all_))
    np.testing.assert_array_equal(text[0, :2], prompt[0])

  def test_mistakes(self):
    given = dict(TEXT, stop=None)
    endless = build("llamagen", tokenizer=given, num_classes=0, **SIZES)
    with self.assertRaisesRegex(UserError, "no code that ends"):
      endless.program(until_stop=True)
    with self.assertRaisesRegex(UserError, "no null class"):
      self.system.program(guidance=2.0)


if __name__ == "__main__":
  absltest.main()
