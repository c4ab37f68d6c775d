"""ControlAR: "It works when", line by line; goldens are in `tests/convert`."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from ar_jax.core.system import UserError, build
from ar_jax.families.base import hidden_conditions
from ar_jax.families.token.controlled import Unbiased
from ar_jax.families.token.net import NextToken
from tests import filled, smoke

B, L = 4, 16


@functools.cache
def tiny(**more):
  """(system, variables without a zero in them) of the smoke preset's sizes."""
  model = smoke.config("controlar").model.to_dict() | more
  system = build("controlar", **model)
  return system, filled.variables(system)


def batch(height=8, width=8, n=B):
  rng = np.random.default_rng(0)
  edges = rng.integers(2, size=(n, height, width, 1)) * 255
  return {
    "label": jnp.arange(n, dtype=jnp.int32) % 3,
    "edges": jnp.asarray(edges, jnp.uint8),
    "units": jnp.asarray(rng.integers(16, size=(n, height * width // 4))),
  }


class Rows(nn.Module):
  """In place of a `Control`: the rows [B, K, L, D] are given."""

  def __call__(self, rows, hidden=None):
    return jnp.swapaxes(rows, 0, 1)


def without_control(params):
  return {"params": {k: v for k, v in params.items() if k != "control"}}


class ControlTest(absltest.TestCase):
  def test_zero_control_is_the_plain_model(self):
    """Rows of 0 and a strength of 0 alike; a black picture is neither."""
    system, variables = tiny()
    net, own = system.net, batch()
    bare = {
      f: getattr(net, f)
      for f in ("plan", "units", "width", "prefix", "backbone", "head")
    }
    plain, params = NextToken(**bare), variables["params"]

    @jax.jit
    def every(params, own):
      cond = {k: own[k] for k in ("label", "edges")}
      black = {**cond, "edges": jnp.zeros_like(cond["edges"])}
      hidden = jnp.ones(B, bool)
      of = lambda net, cond: net.apply(
        {"params": params}, cond, own["units"], method="logits"
      )
      rows = net.apply(
        {"params": params}, own["edges"], hidden,
        method=lambda net, *args: net.control(*args),
      )  # fmt: skip
      return {
        "plain": plain.apply(
          without_control(params), cond, own["units"], method="logits"
        ),
        "no strength": of(net.clone(strength=0.0), cond),
        "black": of(net, black),
        "with it": of(net, cond),
        "rows": rows,
      }

    found = every(params, own)
    np.testing.assert_array_equal(found["rows"], 0)
    np.testing.assert_allclose(found["no strength"], found["plain"], atol=1e-5)
    for other in ("black", "with it"):
      self.assertGreater(np.abs(found[other] - found["plain"]).max(), 1e-2)

  def test_row_j_reaches_unit_j_first(self):
    system, variables = tiny()
    net = system.net.clone(control=Rows())
    params = without_control(variables["params"])
    width, units = system.net.width, batch(n=1)["units"]
    rows = jax.random.normal(jax.random.key(1), (1, 3, L, width))
    # Example 0 as it is, example j + 1 with another row j.
    every = jnp.tile(rows, (L + 1, 1, 1, 1))
    j = jnp.arange(L)
    every = every.at[j + 1, :, j].add(1.0)
    cond = {"label": jnp.zeros(L + 1, jnp.int32), "edges": every}
    logits = jax.jit(functools.partial(net.apply, method="logits"))(
      params, cond, jnp.tile(units, (L + 1, 1))
    )
    moved = np.abs(logits[1:] - logits[:1]).max(-1) > 0
    first = np.where(moved.any(1), moved.argmax(1), -1)
    np.testing.assert_array_equal(first, np.arange(L))

  def test_one_draw_hides_class_and_control(self):
    keys = jax.random.split(jax.random.key(0), 10_000)
    hidden = hidden_conditions(keys, 0.1)
    self.assertAlmostEqual(float(hidden.mean()), 0.1, delta=0.01)
    system, variables = tiny()
    own, gone = batch(), np.array([True, False, True, False])
    x, rows = jax.jit(
      lambda params, cond, hidden: system.net.apply(
        params, cond, own["units"][:, :0], hidden, method="_embed"
      )
    )(
      {"params": variables["params"]},
      {k: own[k] for k in ("label", "edges")},
      jnp.asarray(gone),
    )
    null = variables["params"]["prefix"]["label"]["embedding"][-1]
    no_class = np.abs(np.asarray(x)[:, 0] - np.asarray(null)).max(-1) == 0
    no_control = np.abs(rows).max((0, 2, 3)) == 0
    np.testing.assert_array_equal(no_class, gone)
    np.testing.assert_array_equal(no_control, gone)

  def test_cached_is_uncached(self):
    """Ragged, guided, with a strength, and on a grid of another shape."""
    system, variables = tiny()
    own = batch(4, 12)
    cond = {k: own[k] for k in ("label", "edges")}
    units, known = own["units"], jnp.array([0, 3, 7, 11])
    system = system.on(cond)
    self.assertLen(system.plan, 12)
    program = system.program(guidance=2.0, strength=0.5, temperature=0.0)
    keys = jax.random.split(jax.random.key(0), B)

    @jax.jit
    def both(variables):
      params = system.net_variables(variables)
      drawn = program.complete(params, cond, units[:, :11], known, keys)
      logits = lambda hidden: program.net.apply(
        params, cond, drawn, hidden, method="logits"
      )
      with_it, without = logits(None), logits(jnp.ones(B, bool))
      return drawn, without + 2.0 * (with_it - without)

    drawn, logits = both(variables)
    best = np.asarray(logits).max(-1)
    got = np.take_along_axis(np.asarray(logits), drawn[..., None], -1)[..., 0]
    free = np.arange(12)[None] >= np.asarray(known)[:, None]
    np.testing.assert_allclose((best - got)[free], 0, atol=1e-4)
    kept = np.where(free, units, drawn)
    np.testing.assert_array_equal(kept, units)

  def test_shapes_of_training(self):
    system, variables = tiny(shapes=((4, 12), (8, 8), (12, 4)))
    found = {system.at(i).shape for i in range(20)}
    self.assertEqual(found, set(system.shapes))
    self.assertEqual(system.at(3), system.at(3))
    own = batch()
    image = jnp.zeros((B, 8, 8, 1), jnp.uint8)
    raw = {**own, "image": image}
    del raw["units"]
    wide = next(s for s in map(system.at, range(20)) if s.shape == (4, 12))
    key = jax.random.key(0)
    loss = jax.eval_shape(
      lambda v: wide.loss(v, raw, key, train=True), variables
    )
    self.assertEqual(loss.nll.shape, (B, 12))
    plain = jax.eval_shape(
      lambda v: wide.loss(v, raw, key, train=False), variables
    )
    self.assertEqual(plain.nll.shape, (B, 16))
    with self.assertRaisesRegex(UserError, "cache.views=0"):
      wide.loss(variables, own, key, train=True)


class PrefilledTest(absltest.TestCase):
  def test_the_same_rows_in_front(self):
    system, variables = tiny(fusion="prefilled")
    self.assertEqual(system.needs, ("label", "edges"))
    # Twice the rows: linear maps cost twice as much, scores four times.
    self.assertEqual((tiny()[0].net.rows, system.net.rows), (L, 2 * L))
    self.assertEqual(system.net.prefix.slots, (*range(L), -1))
    own = batch()
    cond = {k: own[k] for k in ("label", "edges")}
    keys = jax.random.split(jax.random.key(0), B)

    @jax.jit
    def both(variables):
      drawn = system.generate(
        variables, cond, keys, guidance=2.0, temperature=0.0
      )
      logits = lambda hidden: system.logits(variables, cond, drawn, hidden)
      with_it, without = logits(None), logits(jnp.ones(B, bool))
      return drawn, without + 2.0 * (with_it - without)

    drawn, logits = both(variables)
    best = np.asarray(logits).max(-1)
    got = np.take_along_axis(np.asarray(logits), drawn[..., None], -1)[..., 0]
    np.testing.assert_allclose(best - got, 0, atol=1e-4)

  def test_what_it_cannot(self):
    system, variables = tiny(fusion="prefilled")
    with self.assertRaisesRegex(UserError, "strength=0.5"):
      system.program(strength=0.5)
    wide = batch(4, 12)
    with self.assertRaisesRegex(UserError, "2x6 units: with fusion"):
      system.logits(variables, wide, wide["units"])


class BuildTest(absltest.TestCase):
  def test_wrong_use(self):
    for more, message in (
      (dict(depth=4), "depth=4: .* a multiple of 3"),
      (dict(fusion="x"), "fusion='x': choose one of added, prefilled"),
      (dict(fit="x"), "fit='x'"),
      (dict(control_init="x"), "control_init='x'"),
      (dict(shapes=((5, 8),)), "5x8: both sides must be multiples of 2"),
      (dict(fusion="prefilled", rope_side=4), "has no shapes"),
      (dict(num_classes=None), "either num_classes or text"),
    ):
      with self.assertRaisesRegex(UserError, message):
        model = smoke.config("controlar").model.to_dict() | more
        build("controlar", **model)
    system, variables = tiny()
    odd = batch() | {"edges": jnp.zeros((B, 7, 8, 1), jnp.uint8)}
    with self.assertRaisesRegex(UserError, "control picture of 7x8"):
      system.logits(variables, odd, odd["units"])
    far = system.on(batch(8, 12)).net.clone(rope_side=4)
    with self.assertRaisesRegex(UserError, "knows the places of 4x4"):
      far.rotations()

  def test_a_table_of_another_grid(self):
    """Published models take its rotations one after the other."""
    system, _ = tiny()
    narrow = system.on(batch(4, 12)).net
    square = system.net.rotations()
    flat = narrow.clone(rope_side=4).rotations()
    np.testing.assert_array_equal(flat, square[: len(flat)])
    self.assertFalse(np.array_equal(flat, narrow.rotations()))

  def test_starts(self):
    x = jnp.ones((1, 2, 6))
    for start, zero in (("zero_last", True), ("released", False)):
      system, _ = tiny(control_init=start)
      self.assertEqual(system.net.control.start, start)
      of = Unbiased(64, zero, None if zero else 0.02)
      params = of.init(jax.random.key(0), x)["params"]
      self.assertEqual(not np.any(params["fc2"]["kernel"]), zero)
      self.assertNotIn("bias", params["fc1"])
    spread = float(np.std(params["fc1"]["kernel"]))
    self.assertAlmostEqual(spread, 0.02, delta=3e-3)
    self.assertFalse(np.any(of.apply({"params": params}, 0 * x)))


if __name__ == "__main__":
  absltest.main()
