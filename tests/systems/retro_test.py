"""RETRO: what its sheet says of any model; the figures of trained ones are in
experiments/retro.py, the published numbers in tests/convert/retro_test.py."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax import data, optim
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import UserError, build
from ar_jax.families.token.retrieval.database import chunks
from configs import retro as config
from tests import filled, smoke

KEY = jax.random.key(0)
M, K, L = 4, 2, 12


@functools.cache
def small():
  """The smoke system, random variables with the database of its data, and its
  data."""
  c = smoke.config("retro")
  system = build(c.system, **c.model.to_dict())
  texts = data.load(**c.data)
  variables = system.fitted(filled.variables(system), texts.train, 0)
  return system, jax.tree.map(jnp.asarray, variables), texts


@functools.cache
def program():
  """Logits of units beside given neighbours, compiled once."""
  system = small()[0]
  return jax.jit(
    lambda variables, units, neighbours: system.logits(
      variables, {"neighbours": neighbours}, units
    )
  )


def batch():
  """units i32[3, L] without an end, and neighbours i32[3, 2, K, 2 M]."""
  rng = np.random.default_rng(0)
  units = rng.integers(1, 5, (3, L)).astype(np.int32)
  return units, rng.integers(1, 5, (3, 2, K, 2 * M)).astype(np.int32)


class RetroTest(absltest.TestCase):
  def logits(self, units, neighbours, variables=None):
    variables = small()[1] if variables is None else variables
    return np.asarray(program()(variables, units, neighbours))

  def test_nothing_leaks(self):
    """At the borders of chunks and beside them; logits i are of unit i."""
    units, neighbours = batch()
    before = self.logits(units, neighbours)
    for place in (M - 1, M, M + 1, 2 * M - 1, 2 * M):
      changed = units.copy()
      changed[:, place] = changed[:, place] % 4 + 1
      after = self.logits(changed, neighbours)
      stay = slice(place + 1)
      np.testing.assert_array_equal(after[:, stay], before[:, stay])
      self.assertTrue((after[:, place + 1] != before[:, place + 1]).any())
    for chunk in range(2):
      changed = neighbours.copy()
      changed[:, chunk] = changed[:, chunk] % 4 + 1
      after = self.logits(units, changed)
      # The last unit of the chunk sees them: they reach what follows it.
      first = (chunk + 1) * M
      np.testing.assert_array_equal(after[:, :first], before[:, :first])
      self.assertTrue((after[:, first] != before[:, first]).any())

  def test_the_order_of_neighbours_means_nothing(self):
    units, neighbours = batch()
    np.testing.assert_allclose(
      self.logits(units, neighbours[:, :, ::-1]),
      self.logits(units, neighbours),
      atol=1e-5,
    )

  def test_without_a_look_it_is_a_gpt(self):
    """Where what is looked up is multiplied by zero, and where nothing is."""
    variables = small()[1]
    units, neighbours = batch()
    params = jax.tree.map(lambda x: x, variables["params"])
    layers = [params["stack"][f"layers_{i}"] for i in range(2)]
    for layer in layers:
      out = layer["cross"]["out"]
      layer["cross"]["out"] = jax.tree.map(jnp.zeros_like, out)
    found = self.logits(units, neighbours, {**variables, "params": params})
    c = smoke.config("retro").model.to_dict()
    gpt = build("retro", **c | dict(neighbours=0, database=None))
    plain = [
      {k: v for k, v in layer.items() if k not in ("cross", "norm3")}
      for layer in layers
    ]
    block = jax.tree.map(lambda *x: jnp.stack(x), *plain)
    stack = {
      "runs_0": {"block": block}, "out_norm": params["stack"]["out_norm"]
    }  # fmt: skip
    own = {"params": {**params, "stack": stack}}
    want = jax.jit(lambda v, u: gpt.logits(v, {}, u))(own, units)
    np.testing.assert_allclose(found, want, atol=1e-6)
    nothing = self.logits(units, np.zeros_like(neighbours))
    np.testing.assert_allclose(nothing, want, atol=1e-6)
    # One that is missing is not looked at, as if there were no such.
    half = neighbours.copy()
    half[:, :, 1] = 0
    other = neighbours.copy()
    other[:, :, 1] = neighbours[:, :, 0]
    np.testing.assert_allclose(
      self.logits(units, half), self.logits(units, other), atol=1e-5
    )

  def test_a_retro_begins_as_a_gpt(self):
    c = smoke.config("retro").model.to_dict()
    both = c | dict(depth=4, layers=(2, 3), database=None)
    system = build("retro", **both)
    gpt = build("retro", **both | dict(neighbours=0))
    own = filled.variables(gpt)
    params = system.adopt("params", own["params"])
    shapes = jax.eval_shape(lambda k: system.init(k, {}), KEY)["params"]
    self.assertEqual(
      jax.tree.map(jnp.shape, params), jax.tree.map(jnp.shape, shapes)
    )
    units, neighbours = batch()
    found = jax.jit(
      lambda p, q: (
        system.logits({"params": p}, {"neighbours": neighbours}, units),
        gpt.logits({"params": q}, {}, units),
      )
    )(params, own["params"])
    np.testing.assert_allclose(*found, atol=1e-6)

  def test_what_is_drawn_is_drawn_from_the_pass(self):
    """Cached = uncached over the borders of chunks, with what is looked up on
    the way: the same keys draw the same units from one pass over all; and a
    prompt stays."""
    system, variables, _ = small()
    keys = jax.random.split(KEY, 8)
    cond = {
      "prompt": jnp.tile(jnp.array([[1, 2, 3, 4, 4]]), (8, 1)),
      "known": jnp.array([0, 5] * 4),
    }

    @jax.jit
    def both(variables, keys):
      units = system.generate(variables, cond, keys)
      return units, system.logits(variables, {}, units)

    units, logits = jax.device_get(both(variables, keys))
    real = np.cumsum(units == 0, 1) - (units == 0) == 0
    self.assertGreater(real.sum(), 40)
    for s in range(L):
      drawn = pick.draw(pick.law(jnp.asarray(logits[:, s])), fold(keys, s))
      free = real[:, s] & (s >= cond["known"])
      np.testing.assert_array_equal(units[free, s], drawn[free])
    np.testing.assert_array_equal(units[1::2, :5], cond["prompt"][1::2])
    np.testing.assert_array_equal(units[~real], 0)

  def test_the_database_is_of_the_training_texts(self):
    system, variables, texts = small()
    rows = chunks(texts.train, M, "text", 1000)
    # 64 texts of 3 chunks, and room for 100.
    self.assertEqual(rows.shape, (192, 2 * M))
    np.testing.assert_array_equal(rows[3, :M], texts.train[1]["text"][:M])
    np.testing.assert_array_equal(
      rows[3, M:], texts.train[1]["text"][M : 2 * M]
    )
    np.testing.assert_array_equal(rows[5, M:], 0)
    held = variables["database"]["ids"]
    np.testing.assert_array_equal(held[0], rows[0])
    np.testing.assert_array_equal(held[-1], rows[-1])
    asked = jnp.array([[1, 2, 3, 1], [0, 0, 0, 0]])
    ids, there = system.search(variables, asked)
    np.testing.assert_array_equal(there, [[True, True], [False, False]])
    self.assertTrue(np.isin(ids[0, 0, :M], (1, 2, 3)).any())
    np.testing.assert_array_equal(ids[1], 0)
    windows = type("Texts", (), {})()
    windows.ids = np.arange(1, 8, dtype=np.int32)
    windows.offset = np.array([0, 5, 7])
    np.testing.assert_array_equal(
      chunks(windows, M, "text", 9),
      [[1, 2, 3, 4, 5, 0, 0, 0], [5] + [0] * 7, [6, 7] + [0] * 6],
    )

  def test_retro_plus_plus(self):
    """The passage stands before the prompt and is no part of the text; the
    encoder has the others."""
    system, variables, _ = small()
    keys = jax.random.split(KEY, 2)
    cond = {"prompt": jnp.array([[1, 2, 3]] * 2), "known": jnp.array([3, 3])}
    run = lambda **more: system.generate(variables, cond, keys, **more)
    units = jax.jit(lambda: run(plus=True, temperature=0.0))()
    self.assertEqual(units.shape, (2, L))
    np.testing.assert_array_equal(units[:, :3], [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(units[:, M:], 0)  # 2 M were the passage
    asked = jnp.array([[1, 2, 3, 0]])
    best, rest = system.search(variables, asked)[0], None
    rest = system.search(variables, asked, skip=1)[0]
    np.testing.assert_array_equal(best[0, 1], rest[0, 0])
    passage = jnp.concatenate([best[:, 0], cond["prompt"][:1]], 1)
    want = jax.jit(
      lambda: system.generate(
        variables, {"prompt": passage, "known": jnp.array([11])}, keys[:1],
        temperature=0.0, retrieve=False,
      )
    )()  # fmt: skip
    self.assertEqual(want.shape, (1, L))
    with self.assertRaisesRegex(UserError, "RETRO\\+\\+ looks up a prompt"):
      system.generate(variables, {}, keys, plus=True)

  def test_sizes(self):
    for preset, gpt, retro in (("small", 126, 148), ("medium", 357, 410)):
      c = config.get_config(preset)
      model = c.model.to_dict() | dict(database=None)
      for rows, more in ((retro, {}), (gpt, dict(neighbours=0))):
        system = build("retro", **model | more)
        shapes = jax.eval_shape(lambda k, s=system: s.init(k, {}), KEY)
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
        self.assertAlmostEqual(count / 1e6 / rows, 1, delta=0.03, msg=preset)

  def test_presets(self):
    for preset in ("default", "gpt", "paper"):
      c = config.get_config(preset)
      system = build(c.system, **c.model.to_dict())
      self.assertLen(system.plan, c.data.length)
      if system.neighbours:
        self.assertEqual(c.data.chunk, system.chunk)
        self.assertGreaterEqual(c.data.neighbours, system.neighbours)
      optim.make(c.optim.to_dict(), c.train.steps)

  def test_mistakes(self):
    text = dict(name="given", form="tokens", vocab=5, length=8)
    make = functools.partial(
      build, "retro", tokenizer=text, depth=2, width=16, heads=2, chunk=4
    )
    for options, message in (
      ({}, "at least one must look"),
      (dict(layers=(1, 3)), "there are 1 to 2"),
      (dict(layers=(2, 1)), "in order"),
      (dict(layers=(2,), places=4), "need 8 places"),
      (dict(layers=(2,), encoder_residual="no"), "encoder_residual='no'"),
    ):
      with self.assertRaisesRegex(UserError, message):
        make(**options)
    system, keys = make(layers=(2,)), jax.random.split(KEY, 2)
    variables = filled.variables(system)
    units = jnp.ones((2, 8), jnp.int32)
    with self.assertRaisesRegex(UserError, "nothing can be looked up"):
      jax.eval_shape(lambda: system.generate(variables, {}, keys))
    cond = {"neighbours": jnp.ones((2, 2, 1, 8), jnp.int32)}
    with self.assertRaisesRegex(UserError, "reads 2 of 1 chunks, 8 units each"):
      system.logits(variables, cond, units)


if __name__ == "__main__":
  absltest.main()
