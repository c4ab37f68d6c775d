"""Transition Matching: "It works when", line by line; the oracles are in
tests/core/flows/transitions_test.py."""

import functools
import importlib
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from ar_jax.core.flows import solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import UserError, build
from ar_jax.data.series import ring
from ar_jax.families.flow import chain
from ar_jax.families.flow.states import States, Whole
from ar_jax.nn.heads.flow import Flow
from tests import filled

SMALL = dict(
  tokenizer=dict(name="patches", patch=2, size=4), num_classes=3, width=16,
  depth=1, heads=2, head_width=16, head_depth=1, dropout=0.0,
)  # fmt: skip
N, C = 4, 4
KEYS = jax.random.split(jax.random.key(0), 2)
LABEL = jnp.array([0, 2])
TEXT = dict(name="bytes", length=4, width=8, depth=1, heads=2)


@functools.cache
def small(kind, stack="dit", steps=2, **more):
  own = SMALL | dict(kind=kind, stack=stack, steps=steps) | more
  if stack == "mlp":
    del own["dropout"]
  if own.get("text"):
    own["text"] = TEXT
  system = build("transition_matching", **own)
  return system, filled.variables(system)


def normal(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape)


@functools.cache
def reader(kind, mask):
  """States x f32[2, T, C] -> the outputs of a pass over them."""
  system = small(kind)[0]
  variables = filled.variables(system, stddev=0.1)  # nothing saturates
  t = jnp.full(2, 0.5) if kind == "artm" else None

  @jax.jit
  def read(x):
    given = functools.partial(system.net.apply, system.net_variables(variables))
    cond = given({"label": LABEL}, None, t, 2, method="given")
    return given(x, np.arange(x.shape[1]), cond, mask)[0]

  return read


class LeaksTest(parameterized.TestCase):
  def read(self, kind, x, mask):
    return np.asarray(reader(kind, mask)(x))

  def test_fhtm_sees_nothing_later(self):
    x, mask = normal(2, 3 * N - 1, C), makers.blocks(3 * N - 1, 1)
    before = self.read("fhtm", x, mask)
    for at in (0, N - 1, N + 2):
      after = self.read("fhtm", x.at[:, at + 1].add(1.0), mask)
      np.testing.assert_array_equal(after[:, : at + 1], before[:, : at + 1])
      self.assertTrue((after != before)[:, at + 1 :].any(-1).all())

  def test_the_known_state_of_artm_does_not_see_the_next(self):
    x, mask = normal(2, 2 * N - 1, C), chain.behind(N)
    before = self.read("artm", x, mask)
    for at in (N, N + 2):
      after = self.read("artm", x.at[:, at].add(1.0), mask)
      np.testing.assert_array_equal(after[:, :at], before[:, :at])
    after = self.read("artm", x.at[:, 0].add(1.0), mask)  # one another, they do
    self.assertTrue((after != before).any(-1).all())

  @parameterized.parameters("artm", "fhtm")
  def test_the_output_before_a_unit_predicts_it(self, kind):
    """Unit i of what is drawn is read at position n + i, and the hidden state
    that predicts it is the output at n - 1 + i: with the masks above, no target
    leaks."""
    system, variables = small(kind)
    own, read, found = system.net.bind(system.net_variables(variables)), [], []

    def call(self, x, at, given, mask, **_):
      read.append((x, mask))
      return jnp.broadcast_to(jnp.asarray(at)[None, :, None], x.shape), None

    def loss(self, h, target, keys, **_):
      found.append((h, target))
      return h[..., 0]

    with (
      mock.patch.object(States, "__call__", call),
      mock.patch.object(Flow, "loss", loss),
    ):
      x = normal(2, N, C, seed=1)
      system.chain.errors(own, {"label": LABEL}, x, None, KEYS, None)
    (x, mask), (h, target) = read[0], found[0]
    count = N if kind == "artm" else 2 * N
    self.assertEqual(target.shape, (2, count, C))
    np.testing.assert_array_equal(h[0, :, 0], N - 1 + np.arange(count))
    np.testing.assert_array_equal(x[:, N:], target[:, :-1])
    want = chain.behind(N) if kind == "artm" else makers.blocks(3 * N - 1, 1)
    self.assertEqual(mask, want)

  @parameterized.parameters("artm", "fhtm")
  def test_cached_is_uncached(self, kind):
    """What is drawn step by step follows from the whole pass over it."""
    system, variables = small(kind, steps=1)
    own, drawn = system.net_variables(variables), []
    cond = {"label": LABEL}

    def spy(self, h, keys, **_):
      jax.debug.callback(lambda h: drawn.append(np.asarray(h)), h)
      return h[..., :C]  # whatever: a function of h alone

    with mock.patch.object(Flow, "draw", spy):
      units = system.generate(variables, cond, KEYS)
      jax.effects_barrier()
    self.assertLen(drawn, system.forwards())
    start = solvers.noise(KEYS, (N, C), 1)
    x = jnp.concatenate([start, units[:, :-1]], 1)
    t = jnp.zeros(2) if kind == "artm" else None
    causal = makers.blocks(2 * N - 1, 1)
    mask = chain.behind(N) if kind == "artm" else causal

    @jax.jit
    def whole(own, x):
      call = functools.partial(system.net.apply, own)
      given = call(cond, None, t, 2, method="given")
      return call(x, np.arange(2 * N - 1), given, mask)[0]

    h = np.asarray(whole(own, x))
    got = np.concatenate(drawn, 1)
    np.testing.assert_allclose(got, h[:, N - 1 :], rtol=1e-5, atol=1e-5)


class CountsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("dtm", None, 16, 16), ("fm", None, 128, 128), ("artm", 3, None, 3 * N),
    ("fhtm", 3, None, 3 * N),
  )  # fmt: skip
  def test_forwards(self, kind, trained, steps, want):
    system = build("transition_matching", **SMALL, kind=kind, steps=trained)
    self.assertEqual(system.forwards(steps=steps), want)

  def test_a_transition_calls_the_network_once_and_the_head_often(self):
    system, variables = small("dtm")
    calls, net, velocity = [], States.__call__, Flow._predictor

    def counted(self, *args, **kwargs):
      jax.debug.callback(lambda: calls.append("net"))
      return net(self, *args, **kwargs)

    def predictor(self, *args):
      predict = velocity(self, *args)

      def call(*args, **kwargs):
        jax.debug.callback(lambda: calls.append("head"))
        return predict(*args, **kwargs)

      return call

    with (
      mock.patch.object(States, "__call__", counted),
      mock.patch.object(Flow, "_predictor", predictor),
    ):
      options = dict(steps=2, head_steps=3, guidance=2.0)
      system.generate(variables, {"label": LABEL}, KEYS, **options)
      jax.effects_barrier()
    self.assertEqual(calls.count("net"), 2)  # of pairs
    self.assertEqual(calls.count("head"), 2 * 3)

  @parameterized.parameters(("paper", 1697), ("llm", 1797))
  def test_published_sizes(self, preset, millions):
    """The paper says 1.7B of both, and 40M of the head of dtm."""
    config = importlib.import_module("configs.transition_matching")
    config = config.get_config(preset)
    system = build(config.system, **config.model.to_dict())
    made = jax.eval_shape(lambda key: system.init(key, {}), KEYS[0])["params"]
    count = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
    self.assertAlmostEqual(count(made) / 1e6, millions, delta=1)
    self.assertEqual(system.chain.length, 256)
    self.assertEqual(system.chain.channels, 16)
    if preset == "paper":
      self.assertAlmostEqual(count(made["head"]) / 1e6, 38.4, delta=0.05)


class TransitionsTest(parameterized.TestCase):
  def test_the_loss_of_fresh_weights(self):
    """Everything ends in zeros: what is left is the head's own target, Y -
    Y_0, of 1 + E[Y^2]."""
    b = 1000
    x, cond = 2.0 * normal(b, N, C), {"label": jnp.zeros(b, int)}
    keys = jax.random.split(jax.random.key(3), b)
    for kind in ("dtm", "fhtm"):
      system = small(kind)[0]

      @jax.jit
      def errors(key, x, system=system):
        net = system.net.bind(system.net_variables(system.init(key, {})))
        return system.chain.errors(net, cond, x, None, keys, None)

      found = np.asarray(errors(KEYS[0], x))
      if kind == "dtm":
        np.testing.assert_allclose(found.mean(), 1 + 5, rtol=0.03)
      else:  # states of variance 1/4 + 4/4, and 4
        found = found.reshape(b, 2, N).mean((0, 2))
        np.testing.assert_allclose(found, [1 + 1.25, 1 + 4], rtol=0.03)

  def test_guidance(self):
    """At scale 1 there is none, and at scale 0 no condition."""
    for kind in ("dtm", "artm"):
      system, variables = small(kind)
      null = {"label": jnp.full(2, system.classes)}

      @jax.jit
      def both(variables, system=system, null=null):
        draw = functools.partial(
          system.generate, variables, keys=KEYS, head_steps=2
        )
        zero = draw(cond={"label": LABEL}, guidance=0.0)
        return zero, draw(cond=null, guidance=None)

      np.testing.assert_allclose(*both(variables), rtol=1e-4, atol=1e-4)
    system, variables = small("fm", "mlp")
    cond = {"label": LABEL}

    @jax.jit
    def draws(variables):
      draw = functools.partial(system.generate, variables, cond, KEYS, steps=2)
      return draw(guidance=1.0), draw(guidance=2.0)

    plain, twice = draws(variables)
    self.assertFalse(np.allclose(plain, twice))

  def test_texts_are_looked_at_and_hidden(self):
    system, variables = small("dtm", num_classes=None, text=True)
    self.assertEqual(system.needs, ("text",))
    text = jnp.array([[104, 105, 0, 0], [111, 0, 0, 0]])
    draw = functools.partial(system.generate, keys=KEYS, head_steps=1)
    run = jax.jit(lambda text: draw(variables, {"text": text}))
    one, other = run(text), run(text.at[0, 1].set(99))
    self.assertFalse(np.allclose(one[0], other[0]))
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-6)
    # At scale 0 what it says does not count, but for how long it is.
    run = jax.jit(lambda text: draw(variables, {"text": text}, guidance=0.0))
    one, other = run(text), run(text + 7 * (text > 0))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

  def test_llama_reads_states_behind_a_condition(self):
    system, variables = small("fhtm", "llama", multiple_of=32)
    self.assertLen(system.net.plan, 2 * N)
    batch = {"label": LABEL, "units": normal(2, N, 2 * C)}
    loss = jax.eval_shape(
      functools.partial(system.loss, train=False), variables, batch, KEYS[0]
    )
    self.assertEqual(loss.errors.shape, (2, N))
    draw = functools.partial(system.generate, head_steps=2, guidance=2.0)
    x = jax.jit(draw)(variables, batch, KEYS)
    self.assertEqual(x.shape, (2, N, C))
    self.assertTrue(np.isfinite(x).all())

  def test_points(self):
    """A chain over points moves by tau' - tau times the whole difference."""
    codes = dict(name="given", form="series", length=1, channels=2)
    system = build(
      "transition_matching", tokenizer=codes, stack="mlp", kind="fm",
      width=8, depth=1,
    )  # fmt: skip
    variables = filled.variables(system)
    constant = jnp.array([[[3.0, -1.0]]])
    still = lambda self, x, *_, **__: (constant + 0 * x, None)
    with mock.patch.object(Whole, "__call__", still):
      draw = jax.jit(
        lambda: [
          system.sample(variables, {}, KEYS, steps=steps) for steps in (1, 3)
        ]
      )
      one, three = draw()
    np.testing.assert_allclose(three, one, atol=1e-5)
    self.assertEqual(system.makes, ("series",))

  def test_patches_of_units(self):
    whole = SMALL | dict(tokenizer=dict(name="patches", patch=1, size=4))
    system = build("transition_matching", **whole, patch=2)
    variables = filled.variables(system)
    image = jax.random.randint(KEYS[0], (2, 4, 4, 1), 0, 256).astype(jnp.uint8)
    units = system.encode(variables, {"image": image})["units"]
    self.assertEqual(units.shape, (2, N, 2 * C))
    back = system.decode(variables, units[..., :C])
    np.testing.assert_allclose(255 * back, image, atol=1e-3)

  def test_wrong_values(self):
    for values, message in (
      (dict(kind="dm"), "kind='dm', stack='dit'"),
      (dict(stack="llama"), "kind='dtm', stack='llama'"),
      (dict(kind="artm"), "say steps"),
      (dict(stack="mlp"), "dropout: residual MLPs"),
      (dict(process="independent"), "process='independent'"),
      (dict(steps=2, grid="log"), "grid 'log'"),
      (dict(patch=3), "patch=3"),
      (dict(width=18), "width=18"),
      (dict(tokenizer=dict(name="vq")), "its units are codes"),
    ):
      with self.assertRaisesRegex(UserError, message):
        system = build("transition_matching", **SMALL | values)
        jax.eval_shape(lambda key, s=system: s.init(key, {}), KEYS[0])
    system, variables = small("dtm")
    without = small("dtm", "mlp", None, num_classes=None)
    for (chosen, own), options, message in (
      ((system, variables), dict(steps=3), "trained on 2 transitions"),
      ((system, variables), dict(head_steps=0), "head_steps=0"),
      (without, dict(), "say how many transitions"),
      (without, dict(steps=2, guidance=2.0), "no null class"),
    ):
      with self.assertRaisesRegex(UserError, message):
        chosen.generate(own, {"label": LABEL}, KEYS, **options)


class RingTest(absltest.TestCase):
  def test_points_are_near_their_means(self):
    made = ring.ring(count=5000)
    rows = [made.train[i] for i in range(4000)]
    x = np.stack([row["series"] for row in rows])
    self.assertEqual(x.shape, (4000, 1, 2))
    self.assertAlmostEqual(ring.near(x, 8, 1.4, 0.07), 0.989, delta=0.005)
    own = ring.centres()[[row["label"] for row in rows]]
    self.assertAlmostEqual((x[:, 0] - own).std(), 0.07, delta=0.003)
    self.assertEqual(ring.ring(length=2).test[0]["series"].shape, (2, 1))
    with self.assertRaisesRegex(UserError, "length=3"):
      ring.ring(length=3)


if __name__ == "__main__":
  absltest.main()
