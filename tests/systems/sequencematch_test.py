"""SequenceMatch: what its sheet says of any model; the figures of trained ones
are in experiments/sequencematch.py."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import optim
from ar_jax.core.decoding import backspace, pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.replay import Replay
from ar_jax.core.system import UserError, build
from configs import sequencematch as config
from tests import filled, smoke

KEY = jax.random.key(0)
BATCH = 8


@functools.cache
def small():
  """The smoke system and random variables."""
  c = smoke.config("sequencematch")
  system = build(c.system, **c.model.to_dict())
  return system, filled.variables(system)


@functools.cache
def written():
  """Texts of the smoke system, 5 symbols and a backspace, half of which begin
  with a prompt, and their keys."""
  system, variables = small()
  keys = jax.random.split(KEY, BATCH)
  cond = {
    "prompt": jnp.tile(jnp.array([[1, 2, 3]]), (BATCH, 1)),
    "known": jnp.array([0, 3] * (BATCH // 2)),
  }
  # Flat enough that no text ends soon.
  law = dict(temperature=3.0, actions=16)
  write = jax.jit(lambda v, k: system.written(v, cond, k, **law))
  return cond["known"], keys, law, jax.device_get(write(variables, keys))


@functools.cache
def of_nodes():
  """(actions i32[8, A], counts) -> the walk and its logits, compiled once."""
  system = small()[0]

  @jax.jit
  def run(variables, action, count):
    walk = system.walk(action, count)
    return walk, system.node_logits(variables, walk)

  return lambda *args: jax.device_get(run(small()[1], *args))


def actions(system, walk, logits, keys, known, temperature):
  """i32[B, A]: what the keys of a sampler draw from the logits of nodes."""

  @jax.jit
  def at(t):
    node = jnp.asarray(walk.state)[:, t]
    take = lambda x: jnp.take_along_axis(
      jnp.asarray(x), node.reshape(BATCH, *(1,) * (x.ndim - 1)), 1
    )[:, 0]
    rows = system.legal(take(logits), take(walk.depth), known)
    law = pick.law(rows, temperature=temperature)
    own = jax.vmap(jax.random.split)(fold(keys, jnp.full(BATCH, t)))[:, 0]
    return pick.draw(law, own)

  return np.stack([at(t) for t in range(walk.state.shape[1])], 1)


class SequenceMatchTest(absltest.TestCase):
  def test_what_is_drawn_is_drawn_from_the_nodes(self):
    """Cached = uncached, through every detour: the same keys draw the same
    actions from one pass over all nodes."""
    system = small()[0]
    known, keys, law, made = written()
    self.assertGreater((made.action == system.vocab).sum(), 6)
    walk, logits = of_nodes()(made.action, made.count)
    drawn = actions(system, walk, logits, keys, known, law["temperature"])
    t = np.arange(made.action.shape[1])[None]
    here = (t >= known[:, None]) & (t < made.count[:, None])
    np.testing.assert_array_equal(drawn[here], made.action[here])

  def test_codes_of_an_image(self):
    """The same on a grid, without a code that ends it: against a list, an
    image is finished when it is full, and not before."""
    c = smoke.config("sequencematch:smoke_images")
    system = build(c.system, **c.model.to_dict())
    variables, keys = filled.variables(system), jax.random.split(KEY, BATCH)

    @jax.jit
    def run(variables, keys):
      made = system.written(variables, {}, keys, temperature=3.0)
      walk = system.walk(made.action, made.count)
      image = system.decode(variables, made.units)
      return made, walk, system.node_logits(variables, walk), image

    made, walk, logits, image = jax.device_get(run(variables, keys))
    known = np.zeros(BATCH, int)
    drawn = actions(system, walk, logits, keys, known, 3.0)
    self.assertIsNone(system.stop)
    self.assertEqual(image.shape, (BATCH, 8, 8, 1))
    self.assertGreater((made.action == system.vocab).sum(), 6)
    for b in range(BATCH):
      stack, count = [], made.count[b]
      np.testing.assert_array_equal(drawn[b, :count], made.action[b, :count])
      for t, a in enumerate(made.action[b, :count]):
        self.assertEqual(walk.depth[b, walk.state[b, t]], len(stack))
        stack = stack[:-1] if a == system.vocab else [*stack, a]
        self.assertEqual(walk.ends[b, t], len(stack) == len(system.plan))
      np.testing.assert_array_equal(made.units[b, : len(stack)], stack)

  def test_cached_logits(self):
    """What the sampler knew by depth, as the plain prefix has it."""
    system = small()[0]
    made = written()[-1]
    units = made.units
    _, logits = of_nodes()(
      np.pad(units, ((0, 0), (0, made.action.shape[1] - units.shape[1]))),
      np.full(BATCH, units.shape[1]),
    )
    left = (units != system.stop).sum(1)
    for b in range(BATCH):
      asked = range(min(left[b] + (made.count[b] < 19), units.shape[1]))
      for d in asked:
        np.testing.assert_allclose(
          made.said[b, d, :-1], logits[b, d, :-1], atol=1e-5
        )

  def test_detours_leave_no_trace(self):
    """The same state by ways without and with detours; and a symbol that was
    taken back changes nothing later, to the bit."""
    back = small()[0].vocab
    ways = (
      [1, 2, 3],
      [1, 4, back, 2, 3],
      [4, 3, back, back, 1, 2, 2, 2, back, back, 3],
      [1, 2, 1, back, 3, 4, back],
      [3, 3, back, back, 1, 2, 2, 2, back, back, 3],
    )
    action = np.zeros((BATCH, 24), np.int32)
    for row, way in zip(action, ways, strict=False):
      row[: len(way)] = way
    count = np.array([len(way) for way in ways] + [1] * 3)
    walk, logits = of_nodes()(action, count)
    last = [logits[b, walk.next[b, count[b] - 1]] for b in range(5)]
    for other in last[1:]:
      np.testing.assert_allclose(other, last[0], rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(last[2], last[4])
    self.assertGreater(np.abs(last[0] - logits[0, 2]).max(), 1e-2)

  def test_the_empty_stack_cannot_be_popped(self):
    system = small()[0]
    walk, logits = of_nodes()(np.ones((BATCH, 24), np.int32), np.full(BATCH, 9))
    law = np.exp(pick.law(jnp.asarray(logits)))[..., system.vocab]
    np.testing.assert_array_equal(law[walk.depth == 0], 0.0)
    self.assertGreater(law[walk.depth > 0].min(), 0.0)
    # Nor is a prompt; and without backspace none is ever used.
    known, _, _, made = written()
    np.testing.assert_array_equal(made.units[known == 3, :3], [[1, 2, 3]] * 4)
    none = dataclasses.replace(system, backspace=False)
    row = none.legal(jnp.zeros((1, 6)), jnp.array([4]))
    self.assertEqual(float(jax.nn.softmax(row)[0, 5]), 0.0)

  def test_passes_are_pushes(self):
    system = small()[0]
    known, _, _, made = written()
    there = np.arange(made.action.shape[1]) < made.count[:, None]
    there &= np.arange(made.action.shape[1]) >= np.asarray(known)[:, None]
    pushes = (there & ~np.isin(made.action, (system.stop, system.vocab))).sum(1)
    # The last push of a text that is full or out of actions is not read.
    self.assertBetween(int(made.passes), pushes.max() - 1, pushes.max())

  def test_without_alpha_it_is_the_likelihood(self):
    """Value and gradient, with wrong keys in the data and both ends."""
    c = smoke.config("sequencematch").model.to_dict()
    match = dict(alpha=0.0, value="data", penalty="none", gamma=0.9)
    # Room enough, so that nothing is cut and all telescopes.
    c |= dict(noise=0.3, actions=40, match=match)
    rng = np.random.default_rng(0)
    text = rng.integers(1, 5, (BATCH, 12))
    text[:, 6:] = 0
    batch = {"text": jnp.asarray(text)}

    def loss(system, variables):
      def value(params):
        both = {**variables, "params": params}
        return jnp.sum(system.loss(both, batch, KEY, train=True).value)

      return jax.value_and_grad(value)(variables["params"])

    systems = [
      build("sequencematch", **c | more)
      for more in (
        {},
        dict(objective="mle"),
        dict(match=match | dict(terminal="learned")),
      )
    ]
    self.assertTrue(all(s.replay is None and not s.moving for s in systems))
    first = filled.variables(systems[0])
    end = {"terminal": jnp.float32(0.7)}
    learned = {**first, "params": {**first["params"], **end}}
    variables = [first, first, learned]
    found = jax.jit(
      lambda *v: [loss(s, x) for s, x in zip(systems, v, strict=True)]
    )(*variables)
    for value, grads in (found[0], found[2]):
      np.testing.assert_allclose(value, found[1][0], rtol=1e-5)
      grads = dict(grads)
      end = grads.pop("terminal", 0.0)
      self.assertAlmostEqual(float(end), 0.0, delta=1e-4)
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        grads,
        dict(found[1][1]),
      )

  def test_the_buffer_is_a_queue(self):
    buffer = Replay(size=5, every=1, count=2)
    held = buffer.empty(3)
    row = lambda n: jnp.full((2, 3), n)
    for n in range(1, 5):
      held = buffer.add(held, row(n), jnp.full(2, n))
    # 1 1 2 2 3, then 3 and 4 4 in the place of the oldest.
    np.testing.assert_array_equal(held["count"], [3, 4, 4, 2, 3])
    np.testing.assert_array_equal(held["action"][:, 0], held["count"])
    early = buffer.add(buffer.empty(3), row(7), jnp.full(2, 7))
    rows, count = buffer.rows(early, jax.random.split(KEY, 50))
    np.testing.assert_array_equal(rows, 7)
    np.testing.assert_array_equal(count, 7)
    drawn = buffer.rows(held, jax.random.split(KEY, 200))[1]
    self.assertCountEqual(np.unique(drawn), (2, 3, 4))

  def test_roll_outs_come_when_they_are_due(self):
    system, variables = small()
    text = jnp.ones((4, 12), jnp.int32)
    run = jax.jit(
      lambda step: system.loss(
        variables, {"text": text, "step": jnp.full(4, step)}, KEY, train=True
      ).updates["replay"]["written"]
    )
    self.assertEqual([int(run(s)) for s in (0, 1, 2)], [4, 0, 4])

  def test_published_size(self):
    c = config.get_config("paper")
    system = build(c.system, **c.model.to_dict())
    shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))
    # Llama-2-7B, a row for the empty stack and one for the backspace.
    self.assertEqual(count, 6_738_415_616 + 2 * 4096)
    self.assertEqual(system.prompt, 256)

  def test_presets(self):
    c = config.get_config("default")
    first, second = (
      build(c[k].system, **c[k].model.to_dict()) for k in ("mle", "matched")
    )
    # The second begins with the weights of the first.
    self.assertEqual(first.net, second.net)
    self.assertEqual((first.moving, second.moving), (set(), {"replay"}))
    self.assertEqual(config.get_config("mle").model.objective, "mle")
    for stage in ("mle", "matched"):
      optim.make(c[stage].optim.to_dict(), c[stage].train.steps)

  def test_mistakes(self):
    text = dict(name="given", form="tokens", vocab=5, length=4)
    make = functools.partial(
      build, "sequencematch", tokenizer=text, depth=1, width=16, heads=2
    )
    for options, message in (
      (dict(objective="gan"), "objective='gan', noise=0.15: choose one of"),
      (dict(match=dict(terminal="one")), "terminal='one'"),
      (dict(match=dict(value="all")), "value='all': choose one of"),
      (dict(noise=1.0), "noise=1.0"),
      (dict(actions=3), "actions=3, prompt=0: a text has 4 units"),
      (dict(prompt=4), "prompt=4"),
      (dict(replay=dict(size=1)), "192 texts every 40 updates into a buffer"),
    ):
      with self.assertRaisesRegex(UserError, message):
        make(**options)
    system, keys = make(), jax.random.split(KEY, 2)
    cond = {"prompt": jnp.ones((2, 4), jnp.int32), "known": jnp.ones(2, int)}
    with self.assertRaisesRegex(UserError, "a prompt of 4 units"):
      system.written({}, cond, keys)
    with self.assertRaisesRegex(UserError, "errors=2"):
      system.written({}, {}, keys, errors=2)
    self.assertEqual(backspace.nodes(8, 4), 7)


if __name__ == "__main__":
  absltest.main()
